"""What the tasks on INSPECT share, which differ in one column of the labels.

Section 3.2 of the paper: censored studies are removed, then studies without
the event are drawn until there are as many as with it. The images are radiographs made from the CT volumes.
"""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TypedDict, Unpack

import polars as pl

from featurestore.errors import DataError
from featurestore.store import Store

from ..build import BuildReport
from ..flow import Flow
from ..sampling import places
from ..scheme import SplitScheme
from ..sections import clean
from ..sources import inspect_ct
from .common import Task, chosen_draw, drop_without_image, one_of, refuse_empty
from .inspect_known import without_known

Folder = str | os.PathLike[str]

_SUFFIXES = (".jpg", ".jpeg", ".png")


@dataclass(frozen=True)
class InspectTask:
    """What is a task's own: name, column of the labels, names of the classes, ICD codes of a disease known before."""

    builder: str
    column: str
    classes: tuple[str, str]
    known_codes: tuple[str, ...] = ()


class InspectOptions(TypedDict, total=False):
    """What the INSPECT builders take.

    Attributes:
        column: another column of the labels, such as "6_month_readmission" or "pe_acute".
        balance: "image": as many studies without the event as with it. "patient": as many patients. "none": all.
        draw: studies without the event are drawn "once" for all seeds, or "per-seed": anew for each.
        missing: studies without an image are left out "before" or "after" the balancing.
        no_text: studies without an impression: "drop" them, or "keep" them without a text.
        conditions: a table of diagnoses, to leave out studies of patients who were known to have the task's disease.
        preset: "paper" for one study more without the event (which gives the paper's odd numbers), split by image.
        splits, cohort_seed, dataset, replace: as for every builder of a task.
    """

    column: str | None
    balance: str
    draw: str
    missing: str
    no_text: str
    conditions: Folder | None
    preset: str | None
    splits: SplitScheme | None
    cohort_seed: int
    dataset: str
    replace: bool


DEFAULTS: InspectOptions = {
    "column": None,
    "balance": "image",
    "draw": "once",
    "missing": "before",
    "no_text": "drop",
    "conditions": None,
    "preset": None,
    "splits": None,
    "cohort_seed": 0,
    "dataset": "inspect",
    "replace": False,
}


def build_inspect(
    store: Store,
    of: InspectTask,
    name: str,
    *,
    inspect: Folder,
    radiographs: Folder,
    **options: Unpack[InspectOptions],
) -> BuildReport:
    """Build one of the three cohorts.

    Args:
        store: where it goes.
        of: the task.
        name: the cohort's name.
        inspect: folder of INSPECT's tables.
        radiographs: folder of radiographs made from the CT volumes, <image_id>.jpg (`radfs cohort drr`).
        options: see `InspectOptions`.

    Raises:
        DataError: a source or an option that cannot be used.
    """
    task = Task(store, of.builder, name, DEFAULTS | options, {"inspect": inspect, "radiographs": radiographs})
    settings = task.settings
    one_of("balance", settings["balance"], ("image", "patient", "none"))
    more = int(task.preset == "paper")
    task.redraw = chosen_draw(settings["draw"], balanced=settings["balance"] == "image", more=more)
    one_of("missing", settings["missing"], ("before", "after"))
    one_of("no_text", settings["no_text"], ("drop", "keep"))
    if settings["conditions"] is not None and not of.known_codes:
        raise DataError(f"{of.builder} takes no table of conditions: no disease is known before that would matter.")
    tables = inspect_ct.open_tables(inspect)
    if settings["conditions"] is not None and tables.old:
        raise DataError(f"{inspect_ct.OLD_RELEASE} names no patients, so nobody's earlier diagnoses can be looked up.")
    images = Path(radiographs).expanduser().absolute()
    hint = f"Make radiographs from the CT volumes: radfs cohort drr --ct DIR --out {images}"
    if not images.is_dir():
        raise DataError(f"radiographs {images} is not a folder. {hint}")
    _refuse_split_by_subject(task, tables)

    frame, flow = _studies(task, tables, settings["column"] or of.column)
    if settings["conditions"] is not None:
        frame = without_known(frame, flow, settings["conditions"], of.known_codes)
    frame = _with_texts(task, tables, frame, flow)
    frame = frame.with_columns(_image_paths(frame["image_id"], images))
    if settings["missing"] == "before":
        frame = drop_without_image(frame, flow, hint=hint)
    refuse_empty(frame, flow)
    task.options["natural_prevalence"] = [frame.filter(pl.col("label") == 1).height, frame.height]
    frame = _balanced(task, frame, flow)
    if settings["missing"] == "after":
        frame = drop_without_image(frame, flow, hint=hint)
    return task.finish(frame, flow, classes=of.classes, licence=inspect_ct.LICENCE)


def example_of(store: Store, of: InspectTask, name: str, folder: Path) -> BuildReport:
    """The smallest real use, for the contract suite: on a miniature tree."""
    from ..phantom_inspect import inspect_tree

    tree = inspect_tree(folder, studies=30, image_px=32)
    return build_inspect(store, of, name, inspect=tree.tables, radiographs=tree.radiographs)


def _refuse_split_by_subject(task: Task, tables: inspect_ct.Tables) -> None:
    if not tables.old:
        return
    if task.scheme.unit not in ("image", "official"):
        master = "" if tables.master is None else f" {tables.master.name} does not help: {inspect_ct.MASTER_LACKS}."
        raise DataError(
            f"{inspect_ct.OLD_RELEASE} in {tables.root} holds no patient ids, so it cannot be split by patient.{master}"
            " Use the release of June 2025, whose study_mapping_*.tsv holds them; or --split official; or --split "
            "image, which leaks where a patient has several scans."
        )
    task.notes.append(
        "WARNING: this release holds no patient ids: every study counts as a patient, and the test may leak"
    )


def _studies(task: Task, tables: inspect_ct.Tables, column: str) -> tuple[pl.DataFrame, Flow]:
    """The studies with a label, uncensored, with the id of their CT and patient."""
    labels = tables.labels(column)
    task.notes += labels.notes
    task.options["column"] = column
    number = pl.format("row-{}", pl.col("row").cast(pl.String).str.zfill(6))
    frame = labels.frame.with_columns(pl.coalesce("impression_id", number).alias("id")).rename({column: "label"})
    flow = Flow(frame.height, f"studies in {labels.path.name}")
    unreadable = pl.col("fault").is_not_null()
    reason = "a cell of the labels cannot be read"
    frame = flow.drop(frame, unreadable, step="unreadable row", reason=reason, detail="fault").drop("fault")
    frame = flow.drop(frame, pl.col("label").is_null(), step="no label", reason=f"{column} is blank")
    frame = flow.drop(
        frame,
        pl.col("label") == inspect_ct.CENSORED,
        step="censored",
        reason="the patient's record ends before the horizon, without the event",
    )
    images = tables.images()
    task.notes += images.notes
    known = images.by_key("impression_id").drop("row").rename({"fault": "image_fault"}).with_columns(mapped=True)
    frame = frame.join(known, on="impression_id", how="left", maintain_order="left")
    reason = f"{images.path.name} does not have the study"
    frame = flow.drop(frame, pl.col("mapped").is_null(), step="no CT named", reason=reason)
    frame = flow.drop(
        frame,
        pl.col("image_fault").is_not_null(),
        step="unreadable CT",
        reason="the row that names the CT cannot be read",
        detail="image_fault",
    )
    nothing = {"person_id": pl.String, "procedure_DATETIME": pl.Datetime("us")}
    absent = [pl.lit(None, dtype).alias(name) for name, dtype in nothing.items() if name not in frame.columns]
    frame = frame.with_columns(absent).with_columns(
        pl.coalesce("person_id", pl.format("study-{}", "id")).alias("subject"),
        pl.col("id").alias("study"),
        pl.col("label").cast(pl.Int32),
        pl.col("procedure_DATETIME").alias("acquired"),
    )
    return frame, flow


def _with_texts(task: Task, tables: inspect_ct.Tables, frame: pl.DataFrame, flow: Flow) -> pl.DataFrame:
    """Add `text`, and the publishers' part of the study as `source_split`."""
    rows = tables.impressions()
    task.notes += rows.notes
    texts = rows.sound().select("impression_id", "impressions")
    frame = frame.join(texts, on="impression_id", how="left", maintain_order="left")
    cleaned = [None if text is None else clean(text) for text in frame["impressions"]]
    frame = frame.with_columns(pl.Series("text", cleaned, pl.String)).drop("impressions")
    if task.settings["no_text"] == "drop":
        frame = flow.drop(frame, pl.col("text").is_null(), step="no text", reason="the study has no impression")
    splits = tables.splits()
    if splits is None:
        return frame.with_columns(pl.lit(None).alias("source_split"))
    parts = splits.sound().select("impression_id", source_split="split")
    return frame.join(parts, on="impression_id", how="left", maintain_order="left")


def _image_paths(ids: pl.Series, folder: Path) -> pl.Series:
    """Where the radiograph of each CT lies: the suffix that is there, else the first."""
    held = set(os.listdir(folder))  # noqa: PTH208  (names alone, of a folder with many files)
    names = [next((f"{i}{s}" for s in _SUFFIXES if f"{i}{s}" in held), f"{i}{_SUFFIXES[0]}") for i in ids]
    return pl.Series("image_path", [str(folder / name) for name in names], dtype=pl.String)


def _balanced(task: Task, frame: pl.DataFrame, flow: Flow) -> pl.DataFrame:
    """All studies with the event, and as many without (under the preset one more), drawn at random."""
    balance, more = task.settings["balance"], int(task.preset == "paper")
    if balance == "none" or task.redraw is not None:
        return frame
    positive = frame.filter(pl.col("label") == 1)
    if balance == "image":
        n = positive.height + more
        _warn_of_few(task, n, frame.height - positive.height, "studies")
        ranked = frame.with_columns(pl.when(pl.col("label") == 0).then("id").alias("_unit"))
    else:
        patients = positive["subject"].unique()
        n = len(patients) + more
        known = pl.col("subject").is_in(patients.implode())
        frame = flow.drop(
            frame,
            (pl.col("label") == 0) & known,
            step="patient with the event",
            reason="without the event, of a patient who has it in another study",
        )
        _warn_of_few(task, n, frame.filter(pl.col("label") == 0)["subject"].n_unique(), "patients")
        ranked = frame.with_columns(pl.when(pl.col("label") == 0).then("subject").alias("_unit"))
    ranked = ranked.with_columns(places(ranked["_unit"], seed=task.seed, stream="balance").alias("_place"))
    out = pl.col("_place").rank("dense") > n
    reason = f"without the event, and not among the {n:,} drawn at random (cohort seed {task.seed})"
    return flow.drop(ranked, out, step="balance", reason=reason).drop("_unit", "_place")


def _warn_of_few(task: Task, wanted: int, held: int, what: str) -> None:
    if held < wanted:
        task.notes.append(f"WARNING: {held:,} {what} without the event, fewer than the {wanted:,} wanted: all are kept")
