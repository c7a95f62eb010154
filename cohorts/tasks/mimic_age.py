"""The task `mimic-age` (auxiliary): the patient's age in five bins (section 3.2), which reports rarely tell."""

from collections.abc import Sequence
from pathlib import Path
from typing import Unpack

import polars as pl

from featurestore.errors import DataError
from featurestore.store import Store

from ..build import BuildReport
from ..flow import Flow
from ..labels import Labels, as_intervals, number_text, quantile_edges
from ..sampling import down_to, first_of_each, places
from .common import Task, one_of, refuse_empty
from .mimic import DEFAULTS, Folder, Mimic, MimicOptions

N_BINS = 5
YOUNGEST, OLDEST = 18, 91
"""The range of MIMIC-IV's ages; 91 is everybody older than 89."""


def build_mimic_age(
    store: Store,
    name: str = "mimic-age",
    *,
    mimic_cxr_jpg: Folder,
    mimic_cxr: Folder,
    mimic_iv: Folder,
    bins: str | Sequence[float] = "quantile",
    over_89: str = "keep",
    one_per_subject: bool = False,
    target_n: int | None = None,
    **options: Unpack[MimicOptions],
) -> BuildReport:
    """Build the cohort: frontal images of patients whom MIMIC-IV has, by age at the study.

    Args:
        store: where it goes.
        name: the cohort's name.
        mimic_cxr_jpg: folder of MIMIC-CXR-JPG 2.1.0.
        mimic_cxr: folder of MIMIC-CXR 2.1.0 with its reports, or the zip of them.
        mimic_iv: folder of MIMIC-IV 3.1.
        bins: "quantile": 5 equal-frequency bins as `pandas.qcut` makes them, from the whole cohort, once. "width": 5
            equally wide bins from 18 to 91. Or edges, such as [18, 40, 55, 65, 75, 120]: bins closed on the left.
        over_89: patients older than 89, whose age MIMIC-IV does not tell: "keep" them (in the top bin), or "drop".
        one_per_subject: one image of every patient, drawn at random.
        target_n: draw so many samples at random; None for all (under preset "paper" 35,242).
        options: see `MimicOptions`.

    Raises:
        DataError: a source or an option that cannot be used, or fewer samples than `target_n`.
    """
    one_of("over_89", over_89, ("keep", "drop"))
    _check_bins(bins)
    sources = {"mimic_cxr_jpg": mimic_cxr_jpg, "mimic_cxr": mimic_cxr, "mimic_iv": mimic_iv}
    rule = {"bins": bins if isinstance(bins, str) else list(bins), "over_89": over_89}
    rule |= {"one_per_subject": one_per_subject, "target_n": target_n}
    task = Task(store, "mimic-age", name, DEFAULTS | options, sources | rule)
    source = Mimic(task, jpg=mimic_cxr_jpg, reports=mimic_cxr, iv=mimic_iv)

    frame, flow = source.images("StudyDate")
    frame = source.with_patients(frame, flow, needed=True)
    if over_89 == "drop":
        frame = flow.drop(frame, pl.col("top_coded"), step="over 89", reason="the patient's age is not told")
    if not isinstance(bins, str):
        outside = ~pl.col("age").is_between(bins[0], bins[-1])
        reason = f"the age is outside {number_text(bins[0])} to {number_text(bins[-1])}"
        frame = flow.drop(frame, outside, step="outside the bins", reason=reason)
    frame = source.with_files(source.with_texts(frame, flow), flow)
    if one_per_subject:
        frame = _one_each(frame, flow, task.seed)
    frame, notes = down_to(frame, flow, task.target(target_n), seed=task.seed, asked=target_n is not None)
    task.notes += notes
    refuse_empty(frame, flow)
    labels = _labels(frame["age"], bins)
    task.options["bin_edges"] = labels.edges
    return source.write(frame.with_columns(pl.Series("label", labels.codes, pl.Int32)), flow, classes=labels.classes)


def example(store: Store, name: str, folder: Path) -> BuildReport:
    """The smallest real use, for the contract suite: on a miniature tree."""
    from ..phantom_mimic import mimic_tree

    tree = mimic_tree(folder, subjects=12, image_px=32)
    return build_mimic_age(store, name, mimic_cxr_jpg=tree.jpg, mimic_cxr=tree.reports, mimic_iv=tree.iv)


def _check_bins(bins: str | Sequence[float]) -> None:
    if isinstance(bins, str):
        one_of("bins", bins, ("quantile", "width"))
    elif len(bins) < 3 or list(bins) != sorted(set(bins)):
        raise DataError(f"bins {list(bins)} are not allowed: three edges or more, each above the one before.")


def _one_each(frame: pl.DataFrame, flow: Flow, seed: int) -> pl.DataFrame:
    frame = frame.with_columns(places(frame["id"], seed=seed, stream="subject").alias("_place"))
    other = ~first_of_each(frame, "subject_id", ("_place",))
    reason = "another image of the patient was drawn"
    return flow.drop(frame, other, step="other image of the patient", reason=reason).drop("_place")


def _labels(age: pl.Series, bins: str | Sequence[float]) -> Labels:
    if bins == "quantile":
        return as_intervals(age, quantile_edges(age, N_BINS, column="the age"), closed="right")
    if bins == "width":
        width = (OLDEST - YOUNGEST) / N_BINS
        return as_intervals(age, [round(YOUNGEST + k * width, 1) for k in range(N_BINS + 1)], closed="right")
    return as_intervals(age, [float(x) for x in bins], closed="left")
