"""Splits as files: the truth files of those that were trained on, and files that two laboratories exchange."""

import gzip
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from pathlib import Path

import polars as pl

from featurestore.errors import DataError, unknown_name
from featurestore.fsio import parquet_bytes, read_parquet, write_atomic, write_parquet
from featurestore.keys import content_key
from featurestore.store import Store

from .cohort import Cohort, load_cohort, load_excluded, load_flow, save_cohort
from .imported import IMPORTED_SCHEMA, PART_WORDS
from .scheme import SplitScheme
from .splits import PARTS, Split, local_id, units_of

SPLIT_SCHEMA = pl.Schema(
    {
        "split": pl.String,
        "cohort": pl.String,
        "seed": pl.Int64,
        "sample": pl.String,
        "part": pl.String,
        "rank": pl.Int32,
    }
)
"""One row a sample of a stored split: `rank` is its place in the part's seeded order."""


def save_split(store: Store, cohort: Cohort, split: Split, seed: int) -> None:
    """Write the truth file of a split, `cohorts/<name>/splits/<key>.parquet`, unless it is there."""
    path = store.cohorts / cohort.name / "splits" / f"{split.key}.parquet"
    if path.exists():
        return
    rows = [
        (split.key, cohort.name, seed, sample, part, rank)
        for part, ids in split.parts().items()
        for rank, sample in enumerate(ids)
    ]
    write_parquet(path, pl.DataFrame(rows, schema=SPLIT_SCHEMA, orient="row"))


def load_parts(store: Store, cohort_name: str, split_key: str) -> dict[str, tuple[str, ...]]:
    """The ids of every part of a stored split, each in its seeded order.

    Raises:
        DataError: no such split was stored.
    """
    path = store.cohorts / cohort_name / "splits" / f"{split_key}.parquet"
    try:
        rows = read_parquet(path).sort("rank")
    except FileNotFoundError:
        raise DataError(f"cohort {cohort_name} has no stored split {split_key}: was it replaced since?") from None
    return {part: tuple(rows.filter(pl.col("part") == part)["sample"]) for part in PARTS}


FILE_SCHEMA = pl.Schema(
    {
        "seed": pl.Int64,
        "part": pl.String,
        "rank": pl.Int32,
        "id": pl.String,
        "split": pl.String,
        "rows": pl.String,
    }
)
"""One row a sample of an exported split. `id` is the sample's without its data set; `split` is the key of its parts and
`rows` that of the cohort's rows, the same in every row of a seed, so that the file proves itself."""

_FORMS = (".csv", ".csv.gz", ".tsv", ".parquet")


@dataclass(frozen=True)
class ImportReport:
    """What came of an import.

    Attributes:
        name: the cohort.
        key: its content key now.
        changed: False where it had exactly these splits already.
        before: how it was split before, in words.
        splits: seed (None for all seeds) -> key of the split, or None where its order comes from the seed.
        notes: what else a reader has to know.
    """

    name: str
    key: str
    changed: bool
    before: str
    splits: Mapping[int | None, str | None]
    notes: tuple[str, ...]

    def lines(self) -> list[str]:
        """The report for printing."""
        one = "" if len(self.splits) == 1 else "s"
        seeds = "every seed" if None in self.splits else f"seed{one} {', '.join(map(str, self.splits))}"
        if not self.changed:
            return [f"cohort {self.name} (key {self.key}) has these splits already: {seeds}"]
        return [
            f"cohort {self.name} (key {self.key}): splits imported for {seeds}; before: {self.before}",
            "runs on the earlier splits keep their results under the earlier key; build the cohort with --replace to "
            "have those splits back",
            *self.notes,
        ]


def export_splits(
    store: Store, name: str, out: str | os.PathLike[str], seeds: Sequence[int] | None = None
) -> dict[int, str]:
    """Write the splits of a cohort to a file that `import_splits` reads, here or in another laboratory.

    It holds ids, parts and ranks; nothing else of a patient.

    Args:
        store: the store.
        name: the cohort.
        out: a .csv, .csv.gz, .tsv or .parquet file.
        seeds: of the splits; None for those of `Cohort.usual_seeds`.

    Returns:
        The key of each seed's split.

    Raises:
        DataError: no seeds, a file name of another form, no folder, or a cohort that cannot be split.
        UnknownNameError: no such cohort.
    """
    path = _checked(Path(out).expanduser())
    if not path.absolute().parent.is_dir():
        raise DataError(f"cannot write {path}: there is no folder {path.absolute().parent}.")
    cohort = load_cohort(store, name)
    seeds = cohort.usual_seeds() if seeds is None else seeds
    splits = {seed: cohort.split(seed) for seed in seeds}
    rows = [
        (seed, part, rank, local_id(sample), split.parts_key, cohort.rows_key)
        for seed, split in splits.items()
        for part, ids in split.parts().items()
        for rank, sample in enumerate(ids)
    ]
    frame = pl.DataFrame(rows, schema=FILE_SCHEMA, orient="row")
    if path.suffix == ".parquet":
        data = parquet_bytes(frame)
    else:
        data = frame.write_csv(separator="\t" if path.suffix == ".tsv" else ",").encode()
    write_atomic(path, gzip.compress(data, mtime=0) if path.suffix == ".gz" else data)
    return {seed: split.parts_key for seed, split in splits.items()}


def import_splits(store: Store, name: str, file: str | os.PathLike[str], *, unit: str = "subject") -> ImportReport:
    """Let a cohort be split as a file says, in place of its own scheme. All of the file is checked first.

    The file needs columns `id` and `part` (train, test, or held out: also validate, valid, val, dev). With `seed` it
    holds a split for each seed, without one for all; with `rank` the order of samples, else it comes from the run's
    seed. `split` and `rows`, as `export_splits` writes them, are checked.

    Args:
        store: the store.
        name: the cohort.
        file: a .csv, .csv.gz, .tsv or .parquet file.
        unit: "subject" refuses a subject in two parts, "admission" a stay in hospital, "image" lets both pass.

    Raises:
        DataError: the file is of another form, or does not fit the cohort; names the seed and the id.
        UnknownNameError: no such cohort.
    """
    cohort = load_cohort(store, name)
    path = _checked(Path(file).expanduser())
    frame = _read(path)
    rows = _with_samples(frame, cohort, path)
    if unit == "official":
        raise DataError("split unit 'official' is a split that a cohort is built with; a file is split by subject.")
    kept = {"balance": cohort.scheme.balance, "n_train": cohort.scheme.n_train}
    scheme = SplitScheme(unit=unit, imported=content_key(rows.rows()), **kept)
    new = replace(cohort, scheme=scheme, imported=rows)
    splits = {seed: _check_split(new, rows, seed, path) for seed in sorted(set(rows["seed"]), key=lambda s: s or 0)}
    keys = {seed: None if rows["rank"].null_count() else split.parts_key for seed, split in splits.items()}
    _check_keys(frame, keys, path)
    if new.key != cohort.key:
        save_cohort(store, new, flow=load_flow(store, name), excluded=load_excluded(store, name))
    return ImportReport(
        name=name,
        key=new.key,
        changed=new.key != cohort.key,
        before=str(cohort.scheme),
        splits=keys,
        notes=_other_rows(frame, cohort),
    )


def _checked(path: Path) -> Path:
    if not path.name.lower().endswith(_FORMS):
        raise DataError(f"splits file {path}: the name must end in {', '.join(_FORMS)}.")
    return path


def _read(path: Path) -> pl.DataFrame:
    """The file with all columns of `FILE_SCHEMA`, null where it has none."""
    try:
        if path.suffix == ".parquet":
            frame = pl.read_parquet(path)
        else:
            frame = pl.read_csv(path, separator="\t" if path.suffix == ".tsv" else ",", infer_schema=False)
    except (OSError, pl.exceptions.PolarsError) as error:
        raise DataError(f"splits file {path} cannot be read ({type(error).__name__}).") from None
    for column in ("id", "part"):
        if column not in frame.columns:
            raise unknown_name(f"column of {path.name}", column, frame.columns)
    frame = frame.with_columns(pl.lit(None).alias(name) for name in FILE_SCHEMA if name not in frame.columns)
    try:
        frame = frame.select(FILE_SCHEMA.names()).cast(FILE_SCHEMA)
    except pl.exceptions.PolarsError:
        raise DataError(f"splits file {path}: seed and rank must be whole numbers.") from None
    for column in ("seed", "rank"):
        if 0 < frame[column].null_count() < frame.height:
            raise DataError(f"splits file {path}: {column} is blank in some rows: give it in all or in none.")
    part = pl.col("part").str.strip_chars().str.to_lowercase().replace(dict(PART_WORDS))
    frame = frame.with_columns(part, pl.col("id").str.strip_chars())
    odd = frame.filter(~pl.col("part").is_in(PARTS) | pl.col("part").is_null())
    if not odd.is_empty():
        raise DataError(f"splits file {path}: part {odd['part'][0]!r} of id {odd['id'][0]} is not {', '.join(PARTS)}.")
    return frame


def _with_samples(frame: pl.DataFrame, cohort: Cohort, path: Path) -> pl.DataFrame:
    """The rows in terms of the cohort's samples: columns of `IMPORTED_SCHEMA`, in a fixed order."""
    names = cohort.samples.select("sample", pl.col("sample").map_elements(local_id, pl.String).alias("id"))
    full = names.select("sample", pl.col("sample").alias("id"))
    names = pl.concat([names, full]).unique()
    rows = frame.join(names, on="id", how="left")
    unknown = rows.filter(pl.col("sample").is_null())["id"].unique(maintain_order=True)
    if len(unknown):
        raise DataError(
            f"splits file {path}: {len(unknown):,} of its ids are not in cohort {cohort.name!r}, the first is "
            f"{unknown[0]}. Both must come from the same rows."
        )
    if rows.select("seed", "sample").is_duplicated().any():
        twice = rows.filter(rows.select("seed", "sample").is_duplicated())
        raise DataError(f"splits file {path}: id {twice['id'][0]} stands twice for seed {twice['seed'][0]}.")
    return rows.select(IMPORTED_SCHEMA.names()).cast(IMPORTED_SCHEMA).sort("seed", "part", "rank", "sample")


def _check_split(cohort: Cohort, rows: pl.DataFrame, seed: int | None, path: Path) -> Split:
    """The split of one seed, once it is known to hold every sample of the cohort in parts that share no unit."""
    split = cohort.split(0 if seed is None else seed)
    where = f"splits file {path}, " + ("its only split" if seed is None else f"seed {seed}")
    parts = split.parts()
    absent = set(cohort.samples["sample"]) - {sample for ids in parts.values() for sample in ids}
    if absent and cohort.scheme.balance is None:  # else those that the seed did not draw
        raise DataError(
            f"{where}: {len(absent):,} samples of cohort {cohort.name!r} are missing, the first is "
            f"{local_id(min(absent))}. Both must come from the same rows."
        )
    for part in ("train", "test"):
        if not parts[part]:
            raise DataError(f"{where}: the {part} part is empty.")
    if cohort.scheme.unit != "image":
        unit_of = units_of(cohort.samples, cohort.scheme.unit)
        of_part = {part: {unit_of[sample] for sample in ids} for part, ids in parts.items()}
        for one, other in combinations(PARTS, 2):
            shared = of_part[one] & of_part[other]
            if shared:
                sample = next(sample for sample in parts[one] if unit_of[sample] in shared)
                raise DataError(
                    f"{where}: {len(shared):,} {cohort.scheme.unit}s are in both {one} and {other}, such as that of id "
                    f"{local_id(sample)}: results would look better than they are. If that is meant: --split image."
                )
    return split


def _check_keys(frame: pl.DataFrame, keys: Mapping[int | None, str | None], path: Path) -> None:
    for seed, key in keys.items():
        of_seed = frame.filter(pl.col("seed").eq_missing(pl.lit(seed, pl.Int64)))
        stated = of_seed["split"].drop_nulls().unique().to_list()
        if key is not None and stated not in ([], [key]):
            raise DataError(
                f"splits file {path}, seed {seed}: its rows give split {key}, but it states {stated[0]}: rows were "
                "changed or lost since the export. Have it exported again."
            )


def _other_rows(frame: pl.DataFrame, cohort: Cohort) -> tuple[str, ...]:
    stated = frame["rows"].drop_nulls().unique().to_list()
    if stated in ([], [cohort.rows_key]):
        return ()
    return (
        f"WARNING: the splits were made for rows {stated[0]}, this cohort has rows {cohort.rows_key}: the ids agree, "
        "but subjects, labels, texts or images differ",
    )
