"""A cohort: labelled samples under a name, as truth files in the store.

    cohorts/<name>/cohort.json              what the name stands for: written last, in one step; it is the commit
    cohorts/<name>/<key>/samples.parquet    the samples
    cohorts/<name>/<key>/flow.parquet       how many rows every step of the building left
    cohorts/<name>/<key>/excluded.parquet   which rows were left out, and why
    cohorts/<name>/<key>/imported.parquet   the splits, where they were imported

Knows nothing of where samples come from (the builders do) nor of models.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import polars as pl

from featurestore.errors import DamageError, DataError, StoreError, unknown_name
from featurestore.fsio import read_parquet, write_atomic, write_parquet
from featurestore.keys import content_key
from featurestore.remote import StorePath
from featurestore.sealed import open_json, seal_json
from featurestore.store import Store

from .flow import EXCLUDED_SCHEMA, FLOW_SCHEMA
from .imported import IMPORTED_SCHEMA, imported_split
from .multilabel import finding_counts, with_strata
from .scheme import SplitScheme
from .splits import Split, make_split

FORMAT = 7
"""Version of the files above."""

ATTRIBUTES = pl.Schema(
    {
        "sex": pl.String,
        "age": pl.Float64,
        "view": pl.String,
        "acquired": pl.Datetime("us"),
        "source_split": pl.String,
    }
)
"""What is known of a sample beside its label, for subgroups and audits: `sex` F or M, `age` in years, `view` as the
source names it (AP, PA), `acquired` when the image was taken (shifted, where the source shifts dates), `source_split`
the part that the data's publishers put it into (train, validate, ...), which tells what an encoder may have seen. Each
may be null. They change no training, so they are not in a cohort's key."""

SAMPLE_SCHEMA = pl.Schema(
    {
        "sample": pl.String,
        "subject": pl.String,
        "study": pl.String,
        "admission": pl.String,
        "image": pl.String,
        "text": pl.String,
        "text_sha256": pl.String,
        "label": pl.Int32,
        "label_name": pl.String,
        "findings": pl.List(pl.Int8),
        **ATTRIBUTES,
    }
)
"""One row a sample, in the order of ids. `image` and `text` are item ids (null where there is none; samples of one
study share its report), `text_sha256` is the hash of the report that the cohort was built with; `label` is the place
of `label_name` in the cohort's classes; `study` and `admission` (the stay in hospital) may be null. A sample of a
multi-label cohort has `findings` in place of both: of each finding, in the order of the cohort's classes, 1 present, 0
absent, -1 unknown. Then `ATTRIBUTES`."""

_POINTER = "cohort.json"
_POINTER_KEYS = ("key", "builder", "options", "task", "classes", "rows", "splits", "licence", "counts")
_NAME = re.compile(r"[a-z0-9][a-z0-9._-]*")


@dataclass(frozen=True)
class Cohort:
    """Samples with labels.

    Attributes:
        name: what the user calls it.
        rows_key: hash of the samples (`rows_key`): equal for two cohorts of the same rows, however they are split.
        task: "binary" (the positive class is the last one), "multiclass" or "multilabel" (findings, each present,
            absent or unknown).
        classes: names; label i is `classes[i]`. Of a multi-label cohort the names of the findings.
        scheme: how it is split.
        licence: of the data, as far as it was stated.
        samples: columns of `SAMPLE_SCHEMA`.
        builder: name in `COHORT_BUILDERS`.
        options: what the builder was given, and what it settled itself (bin edges).
        imported: the splits that were imported, columns of `IMPORTED_SCHEMA`; None where they follow from `scheme`.
    """

    name: str
    rows_key: str
    task: str
    classes: tuple[str, ...]
    scheme: SplitScheme
    licence: str
    samples: pl.DataFrame
    builder: str
    options: Mapping[str, Any]
    imported: pl.DataFrame | None = None

    @property
    def key(self) -> str:
        """Hash of all that changes numbers: the rows and how they are split. Neither name nor paths are in it."""
        return cohort_key(self.rows_key, self.scheme)

    def usual_seeds(self) -> tuple[int, ...]:
        """The seeds to look at where none are named: those imported, a repetition of all folds, or 0 to 4."""
        if self.imported is not None and self.imported["seed"].null_count() == 0:
            return tuple(sorted(set(self.imported["seed"])))
        return tuple(range(self.scheme.folds or 5))

    def split(self, seed: int, samples: pl.DataFrame | None = None) -> Split:
        """The split of one seed. Of a multi-label cohort balanced by how many findings are present (`with_strata`).

        Numbers of training samples that the scheme declares are those of the whole cohort: of a part of it, a fraction
        is the floor, as ever.

        Args:
            seed: of the split.
            samples: those of the cohort's samples that are to be split; None for all.

        Raises:
            DataError: too few subjects, or no imported split of this seed.
        """
        samples, strata = self.samples if samples is None else samples, len(self.classes)
        if self.task == "multilabel":
            samples, strata = with_strata(samples), strata + 1
        if self.imported is not None:
            split = imported_split(self.imported, samples, seed=seed, classes=strata, scheme=self.scheme)
        else:
            split = make_split(samples, seed=seed, classes=strata, scheme=self.scheme)
        return replace(split, n_train=dict(self.scheme.n_train)) if samples.height == self.samples.height else split

    def counts(self) -> dict[str, int]:
        """Samples, subjects, images, texts, and samples by class (`class <name>`).

        Of a multi-label cohort, samples by finding (`finding <name> present`, `... absent`, `... unknown`).
        """
        return {
            "samples": self.samples.height,
            "subjects": self.samples["subject"].n_unique(),
            "images": self.samples["image"].count(),
            "texts": self.samples["text"].count(),
            **{f"class {name}": n for name, n in self.class_counts().items()},
            **{
                f"finding {name} {what}": n
                for name, counts in self.finding_counts().items()
                for what, n in zip(("present", "absent", "unknown"), counts, strict=True)
            },
        }

    def class_counts(self) -> dict[str, int]:
        """Samples by class, in the order of classes; empty for a multi-label cohort."""
        if self.task == "multilabel":
            return {}
        by_class = dict(self.samples.group_by("label_name").len().iter_rows())
        return {name: by_class.get(name, 0) for name in self.classes}

    def finding_counts(self) -> dict[str, tuple[int, int, int]]:
        """Samples in which each finding is present, absent and unknown; empty unless the cohort is multi-label."""
        return finding_counts(self.samples, self.classes) if self.task == "multilabel" else {}


def check_name(name: str, *, what: str = "cohort") -> None:
    """Refuse a name that cannot be a folder, a part of an item id and a word in SQL alike."""
    if not _NAME.fullmatch(name):
        raise DataError(
            f"{what} name {name!r} is not allowed: use lower-case letters, digits, '.', '_' and '-', "
            "and begin with a letter or a digit."
        )


def cohort_key(rows: str, scheme: SplitScheme) -> str:
    """The content key of a cohort from that of its rows and how they are split."""
    return content_key({"rows": rows, "splits": scheme.what()})


def rows_key(
    dataset: str,
    samples: pl.DataFrame,
    *,
    classes: tuple[str, ...],
    recipe: Mapping[str, Any] | None = None,
) -> str:
    """The content key of a cohort's rows: samples, subjects, labels, texts and classes.

    The bytes of images are not in it (feature sets check those, item by item), nor is any name: ids count without
    the prefix `<dataset>/`.

    Args:
        dataset: the first part of the ids.
        samples: columns of `SAMPLE_SCHEMA`, in the order of ids.
        classes: names of the classes.
        recipe: for data that a generator makes, what else it is made from.
    """

    def local(item: str | None) -> str | None:
        return item.removeprefix(f"{dataset}/") if item is not None else None

    what = samples.select("sample", "subject", "study", "admission", "image", "text_sha256", "label", "findings")
    rows = [
        (local(sample), subject, study, admission, local(image), text, label if findings is None else findings)
        for sample, subject, study, admission, image, text, label, findings in what.iter_rows()
    ]
    return content_key({"samples": rows, "classes": classes, "recipe": recipe})


def list_cohorts(store: Store) -> list[str]:
    """The names of the cohorts in the store, sorted."""
    return sorted(p.parent.name for p in store.cohorts.glob(f"*/{_POINTER}"))


def load_cohort(store: Store, name: str) -> Cohort:
    """Read a cohort.

    Raises:
        UnknownNameError: no cohort of this name.
        StoreError: written by another version of radfs.
        DamageError: files are unreadable, or are not what was committed.
    """
    pointer = read_pointer(store, name)
    scheme = pointer["scheme"]
    cohort = Cohort(
        name=name,
        rows_key=pointer["rows"],
        task=pointer["task"],
        classes=tuple(pointer["classes"]),
        scheme=scheme,
        licence=pointer["licence"],
        samples=_read(store, name, pointer["key"], "samples", SAMPLE_SCHEMA),
        builder=pointer["builder"],
        options=pointer["options"],
        imported=_read(store, name, pointer["key"], "imported", IMPORTED_SCHEMA) if scheme.imported else None,
    )
    if cohort.counts() != pointer["counts"]:
        raise DamageError(
            f"cohort {name!r}: samples.parquet is not what was committed (counts differ). "
            "Build it again with --replace."
        )
    return cohort


def load_flow(store: Store, name: str) -> pl.DataFrame:
    """How many rows every step of the building left: columns of `FLOW_SCHEMA`, in the order of steps."""
    return _read(store, name, read_pointer(store, name)["key"], "flow", FLOW_SCHEMA).sort("position")


def load_excluded(store: Store, name: str) -> pl.DataFrame:
    """Which rows were left out, and why: columns of `EXCLUDED_SCHEMA`."""
    return _read(store, name, read_pointer(store, name)["key"], "excluded", EXCLUDED_SCHEMA)


def folder(store: Store, name: str, key: str) -> StorePath:
    """Where the Parquet files of one version of a cohort lie."""
    return store.cohorts / name / key


def save_cohort(store: Store, cohort: Cohort, *, flow: pl.DataFrame, excluded: pl.DataFrame) -> None:
    """Write a cohort's truth files, the pointer last. What is there already in the same form is left alone.

    A replaced version keeps its folder, so that results that were made from it can still be traced.
    """
    target = folder(store, cohort.name, cohort.key)
    frames = {"samples": cohort.samples, "flow": flow, "excluded": excluded}
    if cohort.imported is not None:
        frames["imported"] = cohort.imported
    for name, frame in frames.items():
        path = target / f"{name}.parquet"
        stamped = frame.select(
            pl.lit(cohort.name).alias("cohort"), pl.lit(cohort.key).alias("cohort_key"), pl.col(frame.columns)
        )
        if not _holds(path, stamped):
            write_parquet(path, stamped)
    pointer = {
        "format": FORMAT,
        "name": cohort.name,
        "key": cohort.key,
        "builder": cohort.builder,
        "options": dict(cohort.options),
        "task": cohort.task,
        "classes": cohort.classes,
        "rows": cohort.rows_key,
        "splits": cohort.scheme.what(),
        "licence": cohort.licence,
        "counts": cohort.counts(),
    }
    data = seal_json(pointer)
    path = store.cohorts / cohort.name / _POINTER
    if not path.exists() or path.read_bytes() != data:
        write_atomic(path, data)


def read_pointer(store: Store, name: str) -> dict[str, Any]:
    """The contents of `cohort.json`; errors as in `load_cohort`."""
    path = store.cohorts / name / _POINTER
    if not path.is_file():
        raise unknown_name("cohort", name, list_cohorts(store))
    return parse_pointer(path)


def parse_pointer(path: StorePath) -> dict[str, Any]:
    """Read and check one `cohort.json`; under "scheme" its `SplitScheme`."""
    try:
        pointer = open_json(path.read_bytes())
        version = pointer["format"]
        if version == FORMAT:
            _ = [pointer[key] for key in _POINTER_KEYS]
            pointer["scheme"] = SplitScheme.of(pointer["splits"])
            if pointer["key"] != cohort_key(pointer["rows"], pointer["scheme"]):
                raise ValueError("the key is not that of the rows and splits")
    except (OSError, ValueError, KeyError, TypeError, DataError) as error:
        raise DamageError(f"{path} cannot be read ({type(error).__name__}). Build it again with --replace.") from error
    if version != FORMAT:
        raise StoreError(
            f"{path} has format {version!r}; this radfs reads format {FORMAT}. Use the radfs that wrote it, or build "
            "the cohort again with --replace."
        )
    return pointer


def _read(store: Store, name: str, key: str, what: str, schema: pl.Schema) -> pl.DataFrame:
    path = folder(store, name, key) / f"{what}.parquet"
    try:
        return read_parquet(path).select(schema.names()).cast(schema)
    except (OSError, pl.exceptions.PolarsError) as error:
        raise DamageError(
            f"{path} cannot be read ({type(error).__name__}). Build cohort {name!r} again with --replace."
        ) from error


def _holds(path: StorePath, frame: pl.DataFrame) -> bool:
    try:
        return path.is_file() and read_parquet(path).equals(frame)
    except (OSError, pl.exceptions.PolarsError):
        return False
