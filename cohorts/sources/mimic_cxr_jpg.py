"""MIMIC-CXR-JPG 2.1.0 (Johnson et al., 2019): chest radiographs as JPEG, with labels read off their reports.

The files keep "2.0.0" in their names in release 2.1.0. Dates are shifted by patient, times of day are true.
"""

import os
from pathlib import Path

import polars as pl

from featurestore.errors import DataError

from . import cells
from .tables import SourceTable, check_folder

RELEASE = "MIMIC-CXR-JPG 2.1.0"
PAGE = "https://physionet.org/content/mimic-cxr-jpg/2.1.0/"
LICENCE = "PhysioNet Credentialed Health Data License 1.5.0"

FINDINGS = (
    *("Atelectasis", "Cardiomegaly", "Consolidation", "Edema", "Enlarged Cardiomediastinum", "Fracture", "Lung Lesion"),
    *("Lung Opacity", "Pleural Effusion", "Pneumonia", "Pneumothorax", "Pleural Other", "Support Devices"),
)
"""The labels of CheXpert and NegBio beside "No Finding"."""

_VALUES = {"1.0": 1, "0.0": 0, "-1.0": -1, "1": 1, "0": 0, "-1": -1}
_SUBJECT = cells.pattern("subject_id", r"1\d{7}", "a patient of 8 digits that begin with 1")
_STUDY = cells.pattern("study_id", r"5\d{7}", "a study of 8 digits that begin with 5")
_IMAGE = cells.pattern("dicom_id", r"[0-9a-f]{8}(?:-[0-9a-f]{8}){4}", "an image id of 5 times 8 hexadecimal digits")

METADATA = SourceTable(
    "mimic-cxr-2.0.0-metadata.csv",
    RELEASE,
    PAGE,
    "dicom_id",
    (_IMAGE, _SUBJECT, _STUDY, cells.text("ViewPosition"), cells.day("StudyDate"), cells.clock("StudyTime")),
    377_110,
)
SPLIT = SourceTable(
    "mimic-cxr-2.0.0-split.csv",
    RELEASE,
    PAGE,
    "dicom_id",
    (_IMAGE, cells.pattern("split", "train|validate|test", "train, validate or test")),
    377_110,
)


def labels_table(labeler: str) -> SourceTable:
    """The labels of one labeler, "chexpert" or "negbio": 1 stated, 0 denied, -1 uncertain, null not mentioned."""
    findings = [cells.word(name, _VALUES, pl.Int8(), blank="null") for name in FINDINGS]
    return SourceTable(
        f"mimic-cxr-2.0.0-{labeler}.csv", RELEASE, PAGE, "study_id", (_SUBJECT, _STUDY, *findings), 227_827
    )


def check_images(folder: str | os.PathLike[str]) -> Path:
    """The root of MIMIC-CXR-JPG.

    Raises:
        DataError: no folder, or no images below it.
    """
    root = check_folder(folder, RELEASE, PAGE)
    files = root / "files"
    if not any(files.glob("p1[0-9]")):
        raise DataError(
            f"{RELEASE}: {files} holds no images: folders p10 to p19 were expected, with "
            f"p10/p10000032/s50414267/<dicom_id>.jpg and so on below them. They are downloaded from {PAGE}"
        )
    return root


def image_path(root: Path) -> pl.Expr:
    """Where an image lies, from `subject_id`, `study_id` and `dicom_id`: ids of a strict form, so never outside."""
    group = pl.col("subject_id").str.slice(0, 2)
    form = f"{root}/files/p{{}}/p{{}}/s{{}}/{{}}.jpg"
    return pl.format(form, group, "subject_id", "study_id", "dicom_id")
