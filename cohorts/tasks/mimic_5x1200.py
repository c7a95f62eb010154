"""The task `mimic-5x1200` (diagnostic): which one of five findings the report's labels state.

Section 3.2 of the paper: "a subset of the MIMIC-CXR-JPG subjects that have had exactly one of five labels assigned to
them", 1,200 images a label, after CheXpert 5x200 of GLoRIA (Huang et al., 2021).
"""

from pathlib import Path
from typing import Unpack

import polars as pl

from featurestore.errors import DataError
from featurestore.store import Store

from ..build import BuildReport
from ..flow import Flow
from ..sampling import first_of_each, places, take
from ..sources import mimic_cxr_jpg as jpg_files
from .common import Task, one_of
from .mimic import DEFAULTS, Folder, Mimic, MimicOptions

FIVE = ("Atelectasis", "Cardiomegaly", "Consolidation", "Edema", "Pleural Effusion")
LABELERS = {"chexpert": ("chexpert",), "negbio": ("negbio",), "agree": ("chexpert", "negbio")}
OFFICIAL = ("ignore", "train", "validate", "test")
_REASONS = {
    "none": "none of the five labels is positive",
    "several": "several of the five labels are positive",
    "other": "another label is positive",
    "uncertain": "another label is uncertain",
    "disagree": "the two labelers do not agree on one label",
}


def build_mimic_5x1200(
    store: Store,
    name: str = "mimic-5x1200",
    *,
    mimic_cxr_jpg: Folder,
    mimic_cxr: Folder,
    mimic_iv: Folder | None = None,
    labeler: str = "chexpert",
    exclusive: str = "five",
    uncertain: str = "exclude",
    unit: str = "study",
    official: str = "ignore",
    per_class: int = 1200,
    **options: Unpack[MimicOptions],
) -> BuildReport:
    """Build the cohort: one image of each study that has exactly one of the five labels, `per_class` of each.

    Args:
        store: where it goes.
        name: the cohort's name.
        mimic_cxr_jpg: folder of MIMIC-CXR-JPG 2.1.0.
        mimic_cxr: folder of MIMIC-CXR 2.1.0 with its reports, or the zip of them.
        mimic_iv: folder of MIMIC-IV 3.1, for sex and age; the task does not need it.
        labeler: "chexpert", "negbio", or "agree": both, where they come to the same label.
        exclusive: "five": no other of the five labels. "all13": none of all but "No Finding" (GLoRIA's rule).
        uncertain: what an uncertain (-1) label among those does: "exclude" the study, or count as "negative".
        unit: "study", or "subject": the labels of all studies of a patient are taken together.
        official: "ignore" the data set's own split, or take studies of its part "train", "validate" or "test" alone.
        per_class: images of each label, drawn once with the cohort seed.
        options: see `MimicOptions`.

    Raises:
        DataError: a source that cannot be used, or a label with too few studies.
    """
    for option, value, allowed in (
        ("labeler", labeler, tuple(LABELERS)),
        ("exclusive", exclusive, ("five", "all13")),
        ("uncertain", uncertain, ("exclude", "negative")),
        ("unit", unit, ("study", "subject")),
        ("official", official, OFFICIAL),
    ):
        one_of(option, value, allowed)
    if per_class < 1:
        raise DataError(f"per_class {per_class} is not allowed: one image of each label is the least.")
    sources = {"mimic_cxr_jpg": mimic_cxr_jpg, "mimic_cxr": mimic_cxr, "mimic_iv": mimic_iv}
    rule = {"labeler": labeler, "exclusive": exclusive, "uncertain": uncertain, "unit": unit}
    rule |= {"official": official, "per_class": per_class}
    task = Task(store, "mimic-5x1200", name, DEFAULTS | options, sources | rule)
    source = Mimic(task, jpg=mimic_cxr_jpg, reports=mimic_cxr, iv=mimic_iv)
    labels = _labels(source, labeler, exclusive=exclusive, uncertain=uncertain, unit=unit)

    frame, flow = source.images()
    frame = _official_part(source, frame, flow, official)
    frame = _with_labels(frame, flow, labels)
    frame = source.with_files(source.with_texts(frame, flow), flow)
    frame = frame.with_columns((pl.col("ViewPosition") != "PA").alias("_not_pa"))
    frame = flow.drop(
        frame,
        ~first_of_each(frame, "study_id", ("_not_pa", "dicom_id")),
        step="other image of the study",
        reason="the study has an image that comes first: PA before AP, then by id",
    )
    frame = _one_study_a_subject(task, frame, flow, per_class)
    frame = _draw(task, frame, flow, per_class)
    return source.write(source.with_patients(frame, flow, needed=False), flow, classes=FIVE)


def example(store: Store, name: str, folder: Path) -> BuildReport:
    """The smallest real use, for the contract suite: on a miniature tree."""
    from ..phantom_mimic import mimic_tree

    tree = mimic_tree(folder, subjects=24, image_px=32)
    return build_mimic_5x1200(store, name, mimic_cxr_jpg=tree.jpg, mimic_cxr=tree.reports, per_class=2)


def _labels(source: Mimic, labeler: str, *, exclusive: str, uncertain: str, unit: str) -> pl.DataFrame:
    """Columns `study_id`, `label` (null where the study has none) and `why` it has none."""
    found = []
    for one in LABELERS[labeler]:
        rows = source.read(source.root, jpg_files.labels_table(one))
        labels = _single_label(rows.by_key("study_id"), exclusive=exclusive, uncertain=uncertain, unit=unit)
        found.append(labels)
    if len(found) == 1:
        return found[0]
    both = found[0].join(found[1], on="study_id", how="full", coalesce=True, maintain_order="left")
    agree = (pl.col("label") == pl.col("label_right")).fill_null(value=False)
    whys = [pl.col("why"), pl.col("why_right")]
    faults = [pl.when(~why.is_in(list(_REASONS.values()))).then(why) for why in whys]
    same = pl.when(whys[0] == whys[1]).then(whys[0])
    why = pl.coalesce(*faults, same, pl.lit(_REASONS["disagree"]))
    return both.select("study_id", pl.when(agree).then("label").alias("label"), pl.when(~agree).then(why).alias("why"))


def _single_label(rows: pl.DataFrame, *, exclusive: str, uncertain: str, unit: str) -> pl.DataFrame:
    """One labeler's label of every study, by the rule."""
    findings = list(jpg_files.FINDINGS)
    value = rows.with_columns(pl.col(findings).fill_null(0))
    if uncertain == "negative":
        value = value.with_columns(pl.col(findings).replace(-1, 0))
    own = value.select("study_id", *(pl.col(f).alias(f"own {f}") for f in FIVE))
    if unit == "subject":
        # Where one study's labels cannot be read, the patient's are not known.
        fault = pl.col("fault").sort(nulls_last=True).first().over("subject_id")
        value = value.with_columns(*(_of_all_studies(finding) for finding in findings), fault)
    value = value.join(own, on="study_id", how="left", maintain_order="left")
    counted = FIVE if exclusive == "five" else findings
    others = [f for f in counted if f not in FIVE]
    n_five = pl.sum_horizontal(pl.col(f) == 1 for f in FIVE)
    label = pl.coalesce(pl.when(pl.col(f"own {f}") == 1).then(i) for i, f in enumerate(FIVE))
    n_uncertain = pl.sum_horizontal(pl.col(f) == -1 for f in counted)
    n_others = pl.sum_horizontal(pl.lit(0), *(pl.col(f) == 1 for f in others))
    why = (
        pl.when(pl.col("fault").is_not_null())
        .then("fault")
        .when(n_five == 0)
        .then(pl.lit(_REASONS["none"]))
        .when(n_five > 1)
        .then(pl.lit(_REASONS["several"]))
        .when(n_others > 0)
        .then(pl.lit(_REASONS["other"]))
        .when(n_uncertain > 0)
        .then(pl.lit(_REASONS["uncertain"]))
        .when(label.is_null())
        .then(pl.lit(_REASONS["none"]))
    )
    judged = value.select("study_id", label.cast(pl.Int32).alias("label"), why.alias("why"))
    return judged.with_columns(pl.when(pl.col("why").is_null()).then("label").alias("label"))


def _of_all_studies(finding: str) -> pl.Expr:
    """Positive if it is in any study of the patient, else uncertain if it is in any."""
    positive, unsure = ((pl.col(finding) == value).any().over("subject_id") for value in (1, -1))
    return pl.when(positive).then(1).when(unsure).then(-1).otherwise(0).alias(finding)


def _official_part(source: Mimic, frame: pl.DataFrame, flow: Flow, official: str) -> pl.DataFrame:
    if official == "ignore":
        return frame
    split = source.split or source.read(source.root, jpg_files.SPLIT)
    parts = split.sound().select("dicom_id", "split")
    frame = frame.join(parts, on="dicom_id", how="left", maintain_order="left")
    other = (pl.col("split") != official) | pl.col("split").is_null()
    reason = f"MIMIC-CXR's own split does not have the image in {official}"
    return flow.drop(frame, other, step="other official part", reason=reason).drop("split")


def _with_labels(frame: pl.DataFrame, flow: Flow, labels: pl.DataFrame) -> pl.DataFrame:
    frame = frame.join(labels.with_columns(labelled=True), on="study_id", how="left", maintain_order="left")
    frame = flow.drop(frame, pl.col("labelled").is_null(), step="no labels", reason="the study is not in the labels")
    known = pl.col("why").is_in(list(_REASONS.values()))
    frame = flow.drop(
        frame,
        pl.col("why").is_not_null() & ~known,
        step="unreadable labels",
        reason="the study's row of labels cannot be read",
        detail="why",
    )
    for step in _REASONS:
        reason = _REASONS[step]
        frame = flow.drop(frame, pl.col("why") == reason, step=f"labels: {step}", reason=reason)
    return frame.drop("labelled", "why")


def _one_study_a_subject(task: Task, frame: pl.DataFrame, flow: Flow, per_class: int) -> pl.DataFrame:
    """One study of every patient, drawn at random, if that leaves enough of every label."""
    frame = frame.with_columns(places(frame["study_id"], seed=task.seed, stream="study").alias("_place"))
    first = first_of_each(frame, "subject_id", ("_place",))
    counts = dict(frame.filter(first).group_by("label").len().iter_rows())
    short = [FIVE[k] for k in range(len(FIVE)) if counts.get(k, 0) < per_class]
    task.options["one_study_a_subject"] = not short
    if short:
        task.notes.append(
            f"several studies of one patient are kept: one each leaves fewer than {per_class:,} of {', '.join(short)}"
        )
        return frame
    return flow.drop(frame, ~first, step="other study of the patient", reason="another study of the patient was drawn")


def _draw(task: Task, frame: pl.DataFrame, flow: Flow, per_class: int) -> pl.DataFrame:
    counts = dict(frame.group_by("label").len().iter_rows())
    for k, finding in enumerate(FIVE):
        if counts.get(k, 0) < per_class:
            looser = {"exclusive": "five", "uncertain": "negative", "labeler": "chexpert", "official": "ignore"}
            advice = [f"--{option} {value}" for option, value in looser.items() if task.options[option] != value]
            most = min(counts.get(j, 0) for j in range(len(FIVE)))
            raise DataError(
                f"{finding}: {counts.get(k, 0):,} studies have this label alone, and {per_class:,} are wanted. Lower "
                f"per_class (--per-class {most:,} is the most that every label has)"
                f"{', or loosen the rule: ' if advice else ''}{', '.join(advice)}."
            )
    reason = f"not among the {per_class:,} of its label drawn at random"
    return take(frame, flow, per_class, seed=task.seed, stream="draw", step="draw", reason=reason, group="label")
