"""From labelled rows to a cohort in the store: the last stretch of road, which every builder shares.

A builder makes rows and a flow, drafts a cohort from them (`draft_cohort`, nothing is written) and commits it
(`commit`). Knows nothing of where the rows come from.
"""

import filecmp
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import polars as pl

from featurestore.errors import DamageError, DataError, StoreError
from featurestore.items import ITEM_SCHEMA, add_items, list_items, text_hash
from featurestore.remote import StorePath
from featurestore.store import Store

from .cohort import (
    ATTRIBUTES,
    SAMPLE_SCHEMA,
    Cohort,
    check_name,
    folder,
    list_cohorts,
    load_cohort,
    rows_key,
    save_cohort,
)
from .flow import Flow, FlowStep
from .multilabel import ABSENT, PRESENT
from .official import official_split
from .scheme import SplitScheme

ROW_SCHEMA = pl.Schema(
    {
        "id": pl.String,
        "subject": pl.String,
        "study": pl.String,
        "image_path": pl.String,
        "text": pl.String,
        "label": pl.Int32,
    }
)
"""What a builder hands over, one row a sample: a unique id, absolute image path (or null), report (or null)."""

OPTIONAL_ROW_SCHEMA = pl.Schema(
    {"admission": pl.String, "text_id": pl.String, "findings": pl.List(pl.Int8), **ATTRIBUTES}
)
"""What a builder may hand over as well. `admission`: the stay in hospital. `text_id`: id of the report, where several
samples share one (else the row's id). `findings` makes the cohort multi-label: 1, 0 or -1 (unknown) for each of its
classes; `label` is then null. The rest: see `ATTRIBUTES`."""

_SHOWN_IDS = 5
_SHOWN_CHARACTERS = 60


@dataclass(frozen=True)
class Draft:
    """A cohort that is worked out but not written, with the items that it names and the story of its rows."""

    cohort: Cohort
    items: pl.DataFrame
    flow: Flow
    notes: tuple[str, ...]


@dataclass(frozen=True)
class BuildReport:
    """What came of a build.

    Attributes:
        name: the cohort.
        key: its content key.
        created: False where the store held exactly this cohort already.
        n_samples: samples.
        n_subjects: subjects.
        class_counts: samples by class, in the order of classes; none of a multi-label cohort.
        finding_counts: of a multi-label cohort, samples in which each finding is present, absent and unknown.
        flow: the steps.
        excluded: ids that were left out, by step.
        notes: what else a reader of the numbers has to know.
        excluded_path: the Parquet file with all excluded rows and reasons.
    """

    name: str
    key: str
    created: bool
    n_samples: int
    n_subjects: int
    class_counts: Mapping[str, int]
    finding_counts: Mapping[str, tuple[int, int, int]]
    flow: tuple[FlowStep, ...]
    excluded: Mapping[str, tuple[str, ...]]
    notes: tuple[str, ...]
    excluded_path: StorePath

    def lines(self) -> list[str]:
        """The report for printing: counts, exclusions with the first ids of each step, notes."""
        state = "built" if self.created else "unchanged: the store holds these samples already"
        return [
            f"cohort {self.name} (key {self.key}), {state}",
            f"{self.n_samples:,} samples of {self.n_subjects:,} subjects from {self.flow[0].n_before:,} rows",
            *self._label_lines(),
            *(_exclusion(step, ids) for step, ids in self.excluded.items()),
            *([f"every row that was left out, with its reason: {self.excluded_path}"] if self.excluded else []),
            *self.notes,
        ]

    def _label_lines(self) -> list[str]:
        if self.finding_counts:
            each = (f"  {name}: {', '.join(map(str, counts))}" for name, counts in self.finding_counts.items())
            return [f"{len(self.finding_counts)} findings, samples present, absent, unknown:", *each]
        counts = ", ".join(f"{name} {n}" for name, n in self.class_counts.items())
        positive = f" (positive: {list(self.class_counts)[-1]})" if len(self.class_counts) == 2 else ""
        return [f"{len(self.class_counts)} classes: {counts}{positive}"]


def draft_cohort(
    name: str,
    rows: pl.DataFrame,
    flow: Flow,
    *,
    builder: str,
    options: Mapping[str, Any],
    classes: tuple[str, ...],
    scheme: SplitScheme,
    licence: str,
    dataset: str | None = None,
    notes: tuple[str, ...] = (),
    recipe: Mapping[str, Any] | None = None,
) -> Draft:
    """Work out samples, items and key; writes nothing.

    Args:
        name: the cohort's name.
        rows: columns of `ROW_SCHEMA`, and any of `OPTIONAL_ROW_SCHEMA`.
        flow: the steps that led to these rows.
        builder: name in `COHORT_BUILDERS`.
        options: what the builder was given; kept with the cohort, not in its key.
        classes: names of the classes, or of the findings.
        scheme: how the cohort is to be split.
        licence: of the data.
        dataset: ids of samples and items are `<dataset>/<row id>`; None for the cohort's name.
        notes: lines for the report.
        recipe: see `rows_key`.

    Raises:
        DataError: a name that is not allowed, or a scheme that the rows do not go with.
    """
    check_name(name)
    dataset = name if dataset is None else dataset
    check_name(dataset, what="dataset")
    task = "multilabel" if "findings" in rows.columns else "binary" if len(classes) == 2 else "multiclass"
    rows = _with_optional(rows).sort("id")
    item, text_item = (pl.format("{}/{}", pl.lit(dataset), column) for column in ("id", "text_id"))
    samples = rows.select(
        item.alias("sample"),
        "subject",
        "study",
        "admission",
        pl.when(pl.col("image_path").is_not_null()).then(item).alias("image"),
        pl.when(pl.col("text").is_not_null()).then(text_item).alias("text"),
        pl.Series("text_sha256", [None if t is None else text_hash(t) for t in rows["text"]], dtype=pl.String),
        "label",
        pl.col("label").replace_strict(dict(enumerate(classes)), return_dtype=pl.String).alias("label_name"),
        "findings",
        *ATTRIBUTES.names(),
    ).cast(SAMPLE_SCHEMA)
    scheme, imported, split_notes = _settled(scheme, samples)
    cohort = Cohort(
        name=name,
        rows_key=rows_key(dataset, samples, classes=classes, recipe=recipe),
        task=task,
        classes=classes,
        scheme=scheme,
        licence=licence,
        samples=samples,
        builder=builder,
        options=options,
        imported=imported,
    )
    odd = _odd_findings(samples, classes) if task == "multilabel" else _odd_classes(samples, classes)
    notes = (*_missing(rows), *odd, *split_notes, *notes)
    items = _items(rows.with_columns(item.alias("item"), text_item.alias("text_item")))
    return Draft(cohort, items, flow, notes)


def commit(
    store: Store, draft: Draft, *, replace: bool, before_items: Callable[[], object] | None = None
) -> BuildReport:
    """Register the items and write the cohort; a second time with the same content changes nothing.

    Args:
        store: the store.
        draft: the cohort.
        replace: whether a cohort of this name with other content may be replaced.
        before_items: makes the image files; called only once it is sure that the cohort may be written.

    Raises:
        DataError: the name stands for other content, or an item for another report, and `replace` is off.
    """
    cohort = draft.cohort
    known = _known(store, cohort.name, replace=replace)
    if known is not None and known.key != cohort.key and not replace:
        raise DataError(
            f"cohort {cohort.name!r} exists with other content: {_changes(known, cohort)}. "
            "Replace it with --replace, or choose another name."
        )
    if not replace:
        _refuse_other_items(store, draft.items)
    if before_items is not None:
        before_items()
    written = add_items(store, draft.items)
    created = known is None or known.key != cohort.key
    notes = draft.notes
    if written and not created:
        notes = (*notes, f"{written:,} of its items were redefined (another file or report): extract them again")
    excluded = draft.flow.excluded()
    save_cohort(store, cohort, flow=draft.flow.table(), excluded=excluded)
    by_step: dict[str, list[str]] = {}
    for step, row_id in excluded.select("step", "id").iter_rows():
        by_step.setdefault(step, []).append(row_id)
    counts = cohort.counts()
    return BuildReport(
        name=cohort.name,
        key=cohort.key,
        created=created,
        n_samples=counts["samples"],
        n_subjects=counts["subjects"],
        class_counts=cohort.class_counts(),
        finding_counts=cohort.finding_counts(),
        flow=tuple(draft.flow.steps),
        excluded={step: tuple(ids) for step, ids in by_step.items()},
        notes=notes,
        excluded_path=folder(store, cohort.name, cohort.key) / "excluded.parquet",
    )


def _settled(scheme: SplitScheme, samples: pl.DataFrame) -> tuple[SplitScheme, pl.DataFrame | None, tuple[str, ...]]:
    """The scheme as it is kept, the rows of an official split, notes; refuses one that the samples cannot follow."""
    if scheme.unit == "official":
        return official_split(samples, scheme)
    without = samples.filter(pl.col("admission").is_null())["sample"]
    if scheme.unit == "admission" and len(without):
        raise DataError(
            f"split unit 'admission': {len(without):,} of {samples.height:,} samples are of no stay in hospital that "
            f"is known, the first is {without[0]}. Of the builders mimic-discharge-3d alone knows stays; use subject."
        )
    return scheme, None, ()


def _refuse_other_items(store: Store, items: pl.DataFrame) -> None:
    """Refuse to give an item that the store knows another report or another image: cohorts of a dataset share items.

    An image may lie elsewhere than before, for a folder may move; as long as its old file is there, the bytes count.
    """
    known = list_items(store, only=items["item"].to_list())
    known = known.select("modality", "item", known_path="path", known_text="text_sha256")
    both = items.join(known, on=["modality", "item"])
    hashes = pl.Series("sha256", [None if t is None else text_hash(t) for t in both["text"]], dtype=pl.String)
    other = pl.col("sha256") != pl.col("known_text")
    texts = both.with_columns(hashes).filter((pl.col("modality") == "text") & other)
    moved = both.filter((pl.col("modality") == "image") & (pl.col("path") != pl.col("known_path")))
    images = [row["item"] for row in moved.iter_rows(named=True) if _other_bytes(row["known_path"], row["path"])]
    for kind, other in (("report", texts["item"].to_list()), ("image", images)):
        if other:
            raise DataError(
                f"the store holds another {kind} for item {other[0]} (and {len(other) - 1} more). Replace it with "
                f"--replace, which takes the tokens of the old {kind} out of use, or choose another --dataset."
            )


def _other_bytes(old: str, new: str) -> bool:
    """Whether two image files differ; False where the old one is gone and cannot tell."""
    try:
        return not filecmp.cmp(old, new, shallow=False)
    except OSError:
        return False


def _with_optional(rows: pl.DataFrame) -> pl.DataFrame:
    """The rows in full: what a builder does not know is null, and a report without an id of its own has the row's."""
    absent = [name for name in OPTIONAL_ROW_SCHEMA if name not in rows.columns]
    rows = rows.with_columns(pl.lit(None).alias(name) for name in absent)
    rows = rows.with_columns(pl.coalesce(pl.col("text_id").cast(pl.String), pl.col("id").cast(pl.String)))
    return rows.select(*ROW_SCHEMA, *OPTIONAL_ROW_SCHEMA).cast(pl.Schema({**ROW_SCHEMA, **OPTIONAL_ROW_SCHEMA}))


def _items(rows: pl.DataFrame) -> pl.DataFrame:
    images = rows.filter(pl.col("image_path").is_not_null()).select(
        "item", pl.lit("image").alias("modality"), pl.col("image_path").alias("path"), pl.lit(None).alias("text")
    )
    texts = rows.filter(pl.col("text").is_not_null()).select(
        pl.col("text_item").alias("item"), pl.lit("text").alias("modality"), pl.lit(None).alias("path"), "text"
    )
    texts = texts.unique(maintain_order=True)  # one report under two texts stays twice, which `add_items` refuses
    return pl.concat([part.cast(ITEM_SCHEMA) for part in (images, texts)])


def _odd_classes(samples: pl.DataFrame, classes: tuple[str, ...]) -> list[str]:
    """Warnings of classes that no split can hold on both sides, or that are hardly meant as classes."""
    subjects = dict(samples.group_by("label_name").agg(pl.col("subject").n_unique()).iter_rows())
    lines = [
        f"WARNING: class {name!r} has one subject only: no split has it on both sides, so no run is possible"
        for name in classes
        if subjects[name] == 1
    ]
    lines += [
        f"WARNING: class {name!r} looks like a missing value: if it is one, leave those cells blank"
        for name in classes
        if name.lower() in ("na", "n/a", "#n/a", "none", "null", "missing")
    ]
    alike = [name for name in classes if sum(name.lower() == other.lower() for other in classes) > 1]
    if alike:
        lines.append(f"WARNING: classes {', '.join(map(repr, alike))} differ in case alone")
    return lines


def _odd_findings(samples: pl.DataFrame, names: tuple[str, ...]) -> list[str]:
    """Warnings of findings that no split has on both sides."""
    lines = []
    for i, name in enumerate(names):
        of = samples.group_by(pl.col("findings").list.get(i).alias("code")).agg(pl.col("subject").n_unique())
        subjects = dict(of.iter_rows())
        lines += [
            f"WARNING: finding {name!r} is {what} in {'one subject only' if code in subjects else 'no subject'}: "
            "no split can both learn and measure it"
            for what, code in (("present", PRESENT), ("absent", ABSENT))
            if subjects.get(code, 0) < 2
        ]
    return lines


def _missing(rows: pl.DataFrame) -> list[str]:
    return [
        f"without {what}: {n:,} of {rows.height:,} samples; they keep their {other}"
        for column, what, other in (("text", "text", "image"), ("image_path", "image", "text"))
        if 0 < (n := rows[column].null_count()) < rows.height
    ]


def _known(store: Store, name: str, *, replace: bool) -> Cohort | None:
    if name not in list_cohorts(store):
        return None
    try:
        return load_cohort(store, name)
    except (DamageError, StoreError):  # unreadable, or of another format: replacing it is the way out
        if replace:
            return None
        raise


def _changes(known: Cohort, new: Cohort) -> str:
    """How two versions differ, in counts: `samples 748 -> 740, class 0 400 -> 392`."""
    before, after = known.counts(), new.counts()
    names = [*before, *(name for name in after if name not in before)]
    changes = [
        f"{name} {before.get(name, 0)} -> {after.get(name, 0)}"
        for name in names
        if before.get(name, 0) != after.get(name, 0)
    ]
    if known.scheme != new.scheme:
        changes.append(f"splits {known.scheme} -> {new.scheme}")
    return ", ".join(changes) or "the counts are the same, but ids, subjects, labels, texts or images differ"


def _exclusion(step: str, ids: tuple[str, ...]) -> str:
    each = list(dict.fromkeys(ids))  # several rows may have one id
    shown = each[:1]
    for i in each[1:_SHOWN_IDS]:
        if sum(map(len, shown)) + len(i) <= _SHOWN_CHARACTERS:
            shown.append(i)
    more = f" and {len(each) - len(shown):,} more" if len(each) > len(shown) else ""
    return f"left out, {step}: {len(ids):,} ({', '.join(shown)}{more})"
