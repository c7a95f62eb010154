"""The task `mimic-discharge-3d` (prognostic): will the patient go home within three days of the image (section 3.2)?

MIMIC-CXR names no stay in hospital: an image belongs to the stay of its patient that it was taken in, by date and time,
which are shifted alike in both data sets.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Unpack

import polars as pl

from featurestore.errors import DataError
from featurestore.store import Store

from ..build import BuildReport
from ..flow import Flow
from ..sampling import down_to, first_of_each, take
from ..sources import mimic_iv as iv_files
from .common import Task, chosen_draw, one_of, refuse_empty
from .mimic import DEFAULTS, Folder, Mimic, MimicOptions

CLASSES = ("stays longer", "discharged within 3 days")
_DAYS = 3


def build_mimic_discharge_3d(
    store: Store,
    name: str = "mimic-discharge-3d",
    *,
    mimic_cxr_jpg: Folder,
    mimic_cxr: Folder,
    mimic_iv: Folder,
    death: str = "exclude",
    window: str = "stay",
    horizon: str = "hours",
    exclude_location: Sequence[str] = (),
    per_admission: str = "all",
    balance: bool = False,
    draw: str = "once",
    target_n: int | None = None,
    **options: Unpack[MimicOptions],
) -> BuildReport:
    """Build the cohort: frontal images that were taken during a stay in hospital.

    Args:
        store: where it goes.
        name: the cohort's name.
        mimic_cxr_jpg: folder of MIMIC-CXR-JPG 2.1.0.
        mimic_cxr: folder of MIMIC-CXR 2.1.0 with its reports, or the zip of them.
        mimic_iv: folder of MIMIC-IV 3.1.
        death: stays that end in death: "exclude" them, "negative" (never discharged alive), or "discharge" (as if the
            end of the stay were a discharge).
        window: "stay": from admission to discharge. "ed": from the registration in the emergency department on.
        horizon: "hours": within 72 hours. "days": at most 3 calendar days later.
        exclude_location: places of discharge to leave out, such as HOSPICE; else they count as any discharge.
        per_admission: "all" images of a stay, the "first" or the "last".
        balance: draw as many images of the larger class as the smaller has.
        draw: with `balance`, "once" for all seeds, or "per-seed": a draw of its own for each.
        target_n: draw so many samples at random; None for all (under preset "paper" 18,490).
        options: see `MimicOptions`.

    Raises:
        DataError: a source or an option that cannot be used, or fewer samples than `target_n`.
    """
    one_of("death", death, ("exclude", "negative", "discharge"))
    one_of("window", window, ("stay", "ed"))
    one_of("horizon", horizon, ("hours", "days"))
    one_of("per_admission", per_admission, ("all", "first", "last"))
    sources = {"mimic_cxr_jpg": mimic_cxr_jpg, "mimic_cxr": mimic_cxr, "mimic_iv": mimic_iv}
    rule = {"death": death, "window": window, "horizon": horizon, "exclude_location": list(exclude_location)}
    rule |= {"per_admission": per_admission, "balance": balance, "draw": draw, "target_n": target_n}
    task = Task(store, "mimic-discharge-3d", name, DEFAULTS | options, sources | rule)
    task.redraw = chosen_draw(draw, balanced=balance)
    source = Mimic(task, jpg=mimic_cxr_jpg, reports=mimic_cxr, iv=mimic_iv)
    stays = _stays(source, window, exclude_location)

    frame, flow = source.images("StudyDate", "StudyTime")
    frame = _in_a_stay(frame, flow, stays)
    frame = _without_deaths(frame, flow, death)
    if exclude_location:
        there = pl.col("discharge_location").is_in(list(exclude_location))
        reason = f"discharged to {' or '.join(exclude_location)}"
        frame = flow.drop(frame, there, step="place of discharge", reason=reason)
    frame = source.with_files(source.with_texts(frame, flow), flow)
    frame = _of_each_stay(frame, flow, per_admission).with_columns(_label(death, horizon))
    frame = _balanced(frame, flow, task.seed) if balance and draw == "once" else frame
    frame, notes = down_to(frame, flow, task.target(target_n), seed=task.seed, asked=target_n is not None)
    task.notes += notes
    refuse_empty(frame, flow)
    return source.write(source.with_patients(frame, flow, needed=False), flow, classes=CLASSES)


def example(store: Store, name: str, folder: Path) -> BuildReport:
    """The smallest real use, for the contract suite: on a miniature tree."""
    from ..phantom_mimic import mimic_tree

    tree = mimic_tree(folder, subjects=16, image_px=32)
    return build_mimic_discharge_3d(store, name, mimic_cxr_jpg=tree.jpg, mimic_cxr=tree.reports, mimic_iv=tree.iv)


def _stays(source: Mimic, window: str, locations: Sequence[str]) -> pl.DataFrame:
    """The stays in hospital, with `begin` and `fault`; those that end before they begin are left out and counted."""
    assert source.iv is not None
    rows = source.read(source.iv, iv_files.ADMISSIONS)
    frame = rows.frame.drop("row")
    known = set(frame["discharge_location"].drop_nulls())
    unknown = [place for place in locations if place not in known]
    if unknown:
        raise DataError(
            f"exclude_location {unknown[0]!r} is no discharge_location of {rows.path.name}: {', '.join(sorted(known))}."
        )
    begin = pl.min_horizontal("admittime", "edregtime") if window == "ed" else pl.col("admittime")
    impossible = (pl.col("dischtime") <= pl.col("admittime")).fill_null(value=False)
    n_impossible = frame.filter(impossible).height
    if n_impossible:
        source.task.notes.append(f"{rows.path.name}: {n_impossible:,} stays end before they begin and are left out")
    return frame.filter(~impossible).with_columns(begin.alias("begin"))


def _in_a_stay(frame: pl.DataFrame, flow: Flow, stays: pl.DataFrame) -> pl.DataFrame:
    """Add the stay that the image was taken in, the latest admission where several hold it."""
    faults = stays.filter(pl.col("fault").is_not_null()).select("subject_id", stay_fault="fault")
    frame = frame.join(faults.unique("subject_id", keep="first", maintain_order=True), on="subject_id", how="left")
    # Which stay of such a patient the image belongs to cannot be known, so none of them is labelled.
    frame = flow.drop(
        frame,
        pl.col("stay_fault").is_not_null(),
        step="unreadable stay",
        reason="a stay of the patient in MIMIC-IV cannot be read",
        detail="stay_fault",
    ).drop("stay_fault")
    known = stays.select("subject_id").unique()
    has_stay = pl.col("subject_id").is_in(known["subject_id"].implode())
    frame = flow.drop(frame, ~has_stay, step="no stay", reason="MIMIC-IV has no stay in hospital of this patient")
    taken = pl.col("StudyDate").dt.combine(pl.col("StudyTime"))
    frame = frame.with_columns(taken.alias("taken"))
    during = (
        frame.lazy()
        .select("id", "subject_id", "taken")
        .join(stays.lazy().drop("fault"), on="subject_id")
        .filter(pl.col("taken").is_between(pl.col("begin"), pl.col("dischtime")))
        .sort("id", "admittime", "hadm_id")
        .unique("id", keep="last")
        .drop("subject_id", "taken")
        .collect()
    )
    frame = frame.join(during, on="id", how="left", maintain_order="left")
    outside = pl.col("hadm_id").is_null()
    return flow.drop(frame, outside, step="outside every stay", reason="taken in no stay of the patient")


def _without_deaths(frame: pl.DataFrame, flow: Flow, death: str) -> pl.DataFrame:
    died = (pl.col("hospital_expire_flag") == 1) | pl.col("deathtime").is_not_null()
    frame = frame.with_columns(died.alias("died"))
    if death != "exclude":
        return frame
    return flow.drop(frame, pl.col("died"), step="death in hospital", reason="the stay ends in death")


def _of_each_stay(frame: pl.DataFrame, flow: Flow, which: str) -> pl.DataFrame:
    if which == "all":
        return frame
    frame = frame.with_columns((pl.col("taken").dt.epoch("s") * (1 if which == "first" else -1)).alias("_order"))
    other = ~first_of_each(frame, "hadm_id", ("_order", "dicom_id"))
    return flow.drop(frame, other, step="other image of the stay", reason=f"not the {which} of the stay").drop("_order")


def _label(death: str, horizon: str) -> pl.Expr:
    if horizon == "hours":
        soon = pl.col("dischtime") - pl.col("taken") <= pl.duration(days=_DAYS)
    else:
        soon = pl.col("dischtime").dt.date() - pl.col("taken").dt.date() <= pl.duration(days=_DAYS)
    if death == "negative":
        soon &= ~pl.col("died")
    return soon.cast(pl.Int32).alias("label")


def _balanced(frame: pl.DataFrame, flow: Flow, seed: int) -> pl.DataFrame:
    least = min(frame.filter(pl.col("label") == k).height for k in range(len(CLASSES)))
    reason = f"not among the {least:,} images of its class drawn at random"
    return take(frame, flow, least, seed=seed, stream="balance", step="balance", reason=reason, group="label")
