"""What the MIMIC-CXR tasks share: frontal images, their reports, and what MIMIC-IV knows of the patients."""

import os
from pathlib import Path
from typing import TypedDict

import polars as pl

from ..build import BuildReport
from ..flow import Flow
from ..scheme import SplitScheme
from ..sections import CHOICES, NO_SECTION, NO_WORDS, report_text
from ..sources import mimic_cxr_jpg, mimic_iv
from ..sources.mimic_cxr import NO_FILE, Reports
from ..sources.tables import Rows, SourceTable, check_folder, find_table, read_table
from .common import Task, drop_without_image, one_of

VIEWS = {"frontal": ("AP", "PA"), "AP": ("AP",), "PA": ("PA",)}
NO_SECTION_CHOICES = ("drop", "last-paragraph", "keep")
DATASET = "mimic-cxr"

Folder = str | os.PathLike[str]


class MimicOptions(TypedDict, total=False):
    """What every MIMIC builder takes beside its own options.

    Attributes:
        view: "frontal" (AP or PA), "AP" or "PA". A blank view position is none of these.
        text: what a text is made of (`sections.CHOICES`).
        no_section: what becomes of an image whose report has no such text: "drop", "last-paragraph" (take that where
            there is neither impression nor findings), or "keep" it without a text.
        preset: "paper" for the paper's number of samples, units of splitting and training pool.
        splits: how the cohort is split; None for the task's own.
        cohort_seed: seed of every draw of rows.
        dataset: first part of the ids. Tasks of one dataset share images and reports, which are embedded once.
        replace: whether a cohort of this name with other content may be replaced.
    """

    view: str
    text: str
    no_section: str
    preset: str | None
    splits: SplitScheme | None
    cohort_seed: int
    dataset: str
    replace: bool


DEFAULTS: MimicOptions = {
    "view": "frontal",
    "text": CHOICES[0],
    "no_section": "drop",
    "preset": None,
    "splits": None,
    "cohort_seed": 0,
    "dataset": DATASET,
    "replace": False,
}


class Mimic:
    """The sources of one build, checked when it is made: every table that will be read is there."""

    def __init__(self, task: Task, *, jpg: Folder, reports: Folder, iv: Folder | None = None) -> None:
        """Check folders and options, and read what is small.

        Raises:
            DataError: a source or an option that cannot be used.
        """
        options = task.settings
        one_of("view", options["view"], tuple(VIEWS))
        one_of("text", options["text"], CHOICES)
        one_of("no_section", options["no_section"], NO_SECTION_CHOICES)
        self.task, self.options = task, options
        self.root = mimic_cxr_jpg.check_images(jpg)
        find_table(self.root, mimic_cxr_jpg.METADATA)
        self.iv = None if iv is None else check_folder(iv, mimic_iv.RELEASE, mimic_iv.PAGE)
        self.reports = Reports(reports)
        # All but the metadata is small: read now, so that a damaged file is known before the reports are read.
        self.patients = None if self.iv is None else self.read(self.iv, mimic_iv.PATIENTS)
        split = mimic_cxr_jpg.SPLIT
        held = any((self.root / name).is_file() for name in (split.file, f"{split.file}.gz"))
        self.split = self.read(self.root, split) if held else None
        if not held:
            task.notes.append(f"{split.file} is not there: which part of MIMIC-CXR an image is of goes unknown")

    def read(self, root: Path, table: SourceTable) -> Rows:
        """One table; what is odd about it goes into the notes."""
        rows = read_table(root, table)
        self.task.notes += rows.notes
        return rows

    def images(self, *needed: str) -> tuple[pl.DataFrame, Flow]:
        """The frontal images: `id`, `row`, the columns of the metadata, `image_path`.

        Args:
            needed: columns of which an unreadable cell makes the row unusable; elsewhere it only goes unknown.
        """
        lenient = {"StudyDate", "StudyTime"} - set(needed)
        rows = self.read(self.root, mimic_cxr_jpg.METADATA.lenient(*lenient))
        number = pl.format("row-{}", pl.col("row").cast(pl.String).str.zfill(6))
        frame = rows.frame.with_columns(pl.coalesce("dicom_id", number).alias("id"))
        flow = Flow(frame.height, f"images in {rows.path.name}")
        frame = flow.drop(
            frame,
            pl.col("fault").is_not_null(),
            step="unreadable row",
            reason="a cell of the metadata cannot be read",
            detail="fault",
        ).drop("fault")
        frame = flow.drop(frame, pl.col("ViewPosition").is_null(), step="no view", reason="the view position is blank")
        wanted = VIEWS[self.options["view"]]
        frame = flow.drop(
            frame,
            ~pl.col("ViewPosition").is_in(wanted),
            step="other view",
            reason=f"the view position is not {' or '.join(wanted)}",
        )
        return frame.with_columns(mimic_cxr_jpg.image_path(self.root).alias("image_path")), flow

    def with_patients(self, frame: pl.DataFrame, flow: Flow, *, needed: bool) -> pl.DataFrame:
        """Add `sex`, `age` and `top_coded` (older than 89) from MIMIC-IV; null where it was not named.

        The age is anchor_age plus the years from anchor_year to the study's: whole years, off by one at most.

        Args:
            frame: with `subject_id` and `StudyDate`.
            flow: where exclusions go.
            needed: leave out images of patients whose age is not known.
        """
        if self.patients is None:
            nothing = {"sex": pl.String, "age": pl.Float64, "top_coded": pl.Boolean}
            return frame.with_columns(pl.lit(None, dtype).alias(name) for name, dtype in nothing.items())
        patients = self.patients.by_key("subject_id").drop("row")
        patients = patients.rename({"fault": "patient_fault"}).with_columns(known=True)
        frame = frame.join(patients, on="subject_id", how="left", maintain_order="left")
        age = pl.col("anchor_age") + pl.col("StudyDate").dt.year() - pl.col("anchor_year")
        frame = frame.with_columns(
            pl.when(age.is_between(0, 120)).then(age).cast(pl.Float64).alias("age"),
            pl.col("gender").alias("sex"),
            (pl.col("anchor_age") == mimic_iv.OVER_89).alias("top_coded"),
        )
        if needed:
            frame = flow.drop(
                frame, pl.col("known").is_null(), step="not in MIMIC-IV", reason="MIMIC-IV does not have this patient"
            )
            frame = flow.drop(
                frame,
                pl.col("patient_fault").is_not_null(),
                step="unreadable patient",
                reason="the patient's row in MIMIC-IV cannot be read",
                detail="patient_fault",
            )
            frame = flow.drop(
                frame, pl.col("age").is_null(), step="impossible age", reason="the age is outside 0 to 120 years"
            )
        return frame.drop("gender", "anchor_age", "anchor_year", "known", "patient_fault")

    def with_texts(self, frame: pl.DataFrame, flow: Flow) -> pl.DataFrame:
        """Add `text` and `text_id`; leave out, state by state, images whose report gives no text."""
        choice, rule = self.options["text"], self.options["no_section"]
        studies = frame.select("subject_id", "study_id").unique(maintain_order=True)
        found = []
        for study, (report, problem) in zip(studies["study_id"], self.reports.read(studies.rows()), strict=True):
            if report is None:
                found.append((study, None, problem))
                continue
            text = report_text(report, choice, study=study, last_paragraph=rule == "last-paragraph")
            found.append((study, text.text, text.state))
        schema = {"study_id": pl.String, "text": pl.String, "state": pl.String}
        texts = pl.DataFrame(found, schema=schema, orient="row")
        suffix = "" if choice == CHOICES[0] else f"/{choice}"
        frame = frame.join(texts, on="study_id", how="left", maintain_order="left")
        frame = frame.with_columns(pl.format("s{}{}", "study_id", pl.lit(suffix)).alias("text_id"))
        if rule == "keep":
            return frame.drop("state")
        frame = flow.drop(frame, pl.col("state") == NO_FILE, step="no report", reason="there is no report file")
        frame = flow.drop(
            frame,
            pl.col("state").is_not_null() & ~pl.col("state").is_in([NO_SECTION, NO_WORDS]),
            step="unreadable report",
            reason="the report cannot be read",
            detail="state",
        )
        wanted = {"full": "words"}.get(choice, choice.replace("+", " or "))
        frame = flow.drop(
            frame, pl.col("state").is_not_null(), step="no text", reason=f"the report has no {wanted}", detail="state"
        )
        return frame.drop("state")

    def with_files(self, frame: pl.DataFrame, flow: Flow) -> pl.DataFrame:
        """Leave out images that were not downloaded."""
        return drop_without_image(frame, flow, hint=f"Images are downloaded from {mimic_cxr_jpg.PAGE}")

    def rows(self, frame: pl.DataFrame) -> pl.DataFrame:
        """The columns of samples, from a frame that went through the steps above and has a `label`."""
        taken = pl.col("StudyDate").dt.combine(pl.col("StudyTime").fill_null(pl.time(0)))
        frame = frame.with_columns(
            pl.col("subject_id").alias("subject"),
            pl.format("s{}", "study_id").alias("study"),
            *([pl.col("hadm_id").alias("admission")] if "hadm_id" in frame.columns else []),
            pl.col("ViewPosition").alias("view"),
            taken.alias("acquired"),
        )
        if self.split is None:
            return frame.with_columns(pl.lit(None).alias("source_split"))
        parts = self.split.sound().select("dicom_id", pl.col("split").alias("source_split"))
        return frame.join(parts, on="dicom_id", how="left", maintain_order="left")

    def write(self, frame: pl.DataFrame, flow: Flow, *, classes: tuple[str, ...]) -> BuildReport:
        """Write the cohort."""
        return self.task.finish(self.rows(frame), flow, classes=classes, licence=mimic_cxr_jpg.LICENCE)
