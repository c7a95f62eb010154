"""Miniature trees of MIMIC-CXR-JPG, MIMIC-CXR and MIMIC-IV in their real layouts, of made-up patients.

For tests, for the demo, and for trying a pipeline before the credentialed data are at hand. The files have the names,
folders, columns and codings of the releases, and their untidy parts: blank and lateral views, several studies of one
patient, reports without an impression, with odd headings, with an addendum, with nothing; uncertain and absent labels;
deaths in hospital, images taken outside every stay, patients whom MIMIC-IV does not have, ages that are not told. Rows
that cannot be read are not among them unless `bad_rows` asks for some. Nothing in them is of anybody.
"""

import csv
import gzip
import hashlib
import io
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np

from featurestore.keys import stream_seed

from .phantom_draw import FINDINGS, Finding, draw_chest
from .phantom_folder import refuse_existing
from .phantom_text import write_sections
from .sources.mimic_cxr_jpg import FINDINGS as LABELS

METADATA = (
    *("dicom_id", "subject_id", "study_id", "PerformedProcedureStepDescription", "ViewPosition", "Rows", "Columns"),
    *("StudyDate", "StudyTime", "ProcedureCodeSequence_CodeMeaning", "ViewCodeSequence_CodeMeaning"),
    "PatientOrientationCodeSequence_CodeMeaning",
)
PATIENTS = ("subject_id", "gender", "anchor_age", "anchor_year", "anchor_year_group", "dod")
ADMISSIONS = (
    *("subject_id", "hadm_id", "admittime", "dischtime", "deathtime", "admission_type", "admit_provider_id"),
    *("admission_location", "discharge_location", "insurance", "language", "marital_status", "race", "edregtime"),
    *("edouttime", "hospital_expire_flag"),
)
_VIEW_NAMES = {"PA": "postero-anterior", "AP": "antero-posterior", "LATERAL": "lateral", "LL": "left lateral", "": ""}
_CHEXPERT = {"opacity": "Consolidation", "effusion": "Pleural Effusion", "cardiomegaly": "Cardiomegaly"}


@dataclass(frozen=True)
class MimicTree:
    """Where the three downloads lie."""

    jpg: Path
    reports: Path
    iv: Path


@dataclass(frozen=True)
class _Study:
    subject: str
    study: str
    taken: datetime
    findings: Mapping[str, Finding]
    labels: Mapping[str, float | None]
    report: str | None
    views: tuple[str, ...]


PARTS = ("mimic-cxr-jpg", "mimic-cxr", "mimic-iv")
"""The folders of a tree."""


def mimic_tree(folder: Path, **options: Any) -> MimicTree:
    """The tree in `folder`; written with these options (`write_mimic_tree`) unless it is there."""
    if (folder / PARTS[-1]).exists():
        return MimicTree(*(folder / part for part in PARTS))
    return write_mimic_tree(folder, **options)


def write_mimic_tree(
    folder: Path, *, subjects: int = 100, seed: int = 0, image_px: int = 64, bad_rows: bool = False
) -> MimicTree:
    """Write `folder`/mimic-cxr-jpg, mimic-cxr (reports in their zip) and mimic-iv.

    Args:
        folder: is made; `PARTS` must not be there yet.
        subjects: number of patients, each with one to four studies.
        seed: of everything.
        image_px: height and width of the images.
        bad_rows: also write rows that cannot be read: an impossible date, an age of 300, a label 7, a patient id that
            climbs out of the tree, times that are none.

    Raises:
        DataError: one of the folders is there: it may be somebody's real download.
    """
    refuse_existing(folder, PARTS)
    tree = MimicTree(*(folder / part for part in PARTS))
    for path in (tree.jpg / "files", tree.reports, tree.iv / "hosp"):
        path.mkdir(parents=True, exist_ok=True)
    studies, patients, stays = [], [], []
    for number in range(subjects):
        rng = np.random.Generator(np.random.PCG64(stream_seed(seed, f"phantom-mimic/{number}")))
        subject = str(10_000_000 + 97_213 * (number + 1) % 9_999_999)
        begin = datetime(2110 + int(rng.integers(80)), 1, 1) + timedelta(days=int(rng.integers(360)))
        own = _stays(rng, subject, begin, number)
        stays += own
        studies += _studies(rng, subject, begin, own, number)
        if number % 23 != 7:  # some patients of MIMIC-CXR are not in MIMIC-IV
            patients.append(_patient(rng, subject, begin.year, number))
    _write_jpg(tree.jpg, studies, image_px=image_px, seed=seed, bad_rows=bad_rows)
    _write_reports(tree.reports, studies)
    if bad_rows:
        patients[5] = {**patients[5], "anchor_age": 300}
        stays[20] = {**stays[20], "dischtime": "the next day"}
    _write_csv(tree.iv / "hosp" / "patients.csv.gz", PATIENTS, patients)
    _write_csv(tree.iv / "hosp" / "admissions.csv.gz", ADMISSIONS, stays)
    return tree


def _patient(rng: np.random.Generator, subject: str, year: int, number: int) -> dict[str, object]:
    age = 91 if number % 17 == 5 else int(rng.integers(18, 90))
    anchor = year + int(rng.integers(-2, 3))
    return {"subject_id": subject, "gender": "FM"[number % 2], "anchor_age": age, "anchor_year": anchor,
            "anchor_year_group": "2011 - 2013"}  # fmt: skip


def _stays(rng: np.random.Generator, subject: str, begin: datetime, number: int) -> list[dict[str, object]]:
    """Up to two stays; every eighth patient dies in the last one, every eleventh was never admitted."""
    if number % 11 == 3:
        return []
    stays, at = [], begin
    for k in range(1 + int(rng.integers(2))):
        at += timedelta(hours=30 + int(rng.integers(3000)))
        end = at + timedelta(hours=12 + int(rng.exponential(110)))
        died = k == 1 and number % 4 == 1
        ed = at - timedelta(hours=int(rng.integers(2, 12))) if rng.random() < 0.6 else None
        goes_to = "DIED" if died else ("HOME", "SKILLED NURSING FACILITY", "HOSPICE", "HOME HEALTH CARE")[number % 4]
        stays.append(
            {"subject_id": subject, "hadm_id": 20_000_000 + 1_000 * number + k, "admittime": at, "dischtime": end,
             "deathtime": end if died else "", "admission_type": "EW EMER.", "admission_location": "EMERGENCY ROOM",
             "discharge_location": goes_to, "edregtime": ed or "", "edouttime": at if ed else "",
             "hospital_expire_flag": int(died)}
        )  # fmt: skip
        at = end
    return stays


def _studies(
    rng: np.random.Generator, subject: str, begin: datetime, stays: Sequence[Mapping[str, object]], number: int
) -> list[_Study]:
    """One to four studies: most during a stay, some in the emergency department before it or in no stay at all."""
    studies = []
    for k in range(1 + int(rng.integers(4))):
        taken = begin + timedelta(minutes=int(rng.integers(20 * 60)))
        if stays and rng.random() < 0.85:
            stay = stays[int(rng.integers(len(stays)))]
            start, end = stay["admittime"], stay["dischtime"]
            assert isinstance(start, datetime)
            assert isinstance(end, datetime)
            early = timedelta(hours=1) if rng.random() < 0.15 else timedelta()
            taken = start - early + timedelta(seconds=int(rng.random() * (end - start).total_seconds() * 0.95))
        study = str(50_000_000 + int(hashlib.sha256(f"{subject}/{k}".encode()).hexdigest(), 16) % 9_999_999)
        findings, labels = _findings(rng)
        views = (("PA",), ("AP",), ("PA", "LATERAL"), ("AP", "AP"), ("", "PA"), ("LL",))[int(rng.integers(6))]
        report = None if (number + k) % 29 == 11 else _report(rng, findings, (number + 3 * k) % 12)
        studies.append(_Study(subject, study, taken, findings, labels, report, views))
    return studies


def _findings(rng: np.random.Generator) -> tuple[dict[str, Finding], dict[str, float | None]]:
    """What the image shows, and labels of the study: most have one of the five, some several, unsure or none."""
    labels: dict[str, float | None] = dict.fromkeys((*LABELS, "No Finding"))
    five = (*_CHEXPERT.values(), "Atelectasis", "Edema")
    for place in rng.permutation(5)[: (1, 1, 1, 2, 0)[int(rng.integers(5))]]:
        labels[five[place]] = 1.0
    unsure, denied = five[int(rng.integers(5))], five[int(rng.integers(5))]
    if labels[denied] is None:
        labels[denied] = 0.0
    if labels[unsure] is None and rng.random() < 0.25:
        labels[unsure] = -1.0
    if 1.0 not in labels.values():
        labels["No Finding"] = 1.0
    findings = {}
    for finding in FINDINGS:
        severity = float(rng.random() * 2) if labels[_CHEXPERT[finding]] == 1.0 else 0.0
        findings[finding] = Finding(severity, -1 if rng.random() < 0.5 else 1)
    return findings, labels


def _report(rng: np.random.Generator, findings: Mapping[str, Finding], form: int) -> str:
    """A report in one of twelve forms, as the zip has them: a blank before each line, 79 characters at most."""
    words = write_sections(rng, findings)
    parts = [("EXAMINATION", words.technique), ("INDICATION", f"___F with {words.indication.lower()}"),
             ("COMPARISON", "___"), ("FINDINGS", words.findings), ("IMPRESSION", words.impression)]  # fmt: skip
    if form == 1:
        parts = [p for p in parts if p[0] != "IMPRESSION"]
    elif form == 2:
        parts = [("FINIDNGS" if name == "FINDINGS" else name, text) for name, text in parts if name != "IMPRESSION"]
    elif form == 3:
        parts = [*parts[:3], ("IMPRESSON", words.impression)]
    elif form == 4:
        parts = [("CHEST, TWO VIEWS", ""), *parts[1:3], ("CONCLUSION", words.impression)]
    elif form == 5:
        parts = [*parts[:3], ("FINDINGS", words.findings), ("IMPRESSION", "")]
    elif form == 6:
        parts = [*parts[:2], ("COMPARISON", f"None.\n \n {words.findings}")]
    elif form == 7:
        return "                                 FINAL REPORT\n EXAMINATION:  Chest radiograph was not performed.\n"
    lines = [f"{' ' * 33}FINAL REPORT"]
    if form == 8:
        lines = ["                                 FINAL ADDENDUM", " ADDENDUM:  Discussed with Dr. ___ at ___.", "",
                 f" {'_' * 78}", *lines]  # fmt: skip
    for name, text in parts:
        lines += [*_wrapped(f"{name}:  {text}"), " "]
    return "\n".join(lines) + "\n"


def _wrapped(text: str) -> list[str]:
    lines = []
    for paragraph in text.split("\n"):
        line = ""
        for word in paragraph.split(" "):
            if line and len(line) + len(word) > 76:
                lines.append(f" {line.rstrip()}")
                line = ""
            line += f"{word} "
        lines.append(f" {line.rstrip()}")
    return lines


def _write_jpg(root: Path, studies: Sequence[_Study], *, image_px: int, seed: int, bad_rows: bool) -> None:
    from PIL import Image

    metadata, split = [], []
    for study in studies:
        group = root / "files" / f"p{study.subject[:2]}" / f"p{study.subject}" / f"s{study.study}"
        group.mkdir(parents=True, exist_ok=True)
        for k, view in enumerate(study.views):
            digest = hashlib.sha256(f"{study.study}/{k}".encode()).hexdigest()
            image = "-".join(digest[i : i + 8] for i in range(0, 40, 8))
            rng = np.random.Generator(np.random.PCG64(stream_seed(seed, f"phantom-mimic/{image}")))
            if (int(study.study) + k) % 41:  # a few images were not downloaded
                pixels = draw_chest(rng, study.findings, image_px)
                Image.fromarray(pixels).save(group / f"{image}.jpg", quality=95)
            at = study.taken
            clock = f"{int(at.strftime('%H%M%S'))}.{at.second % 10}75"  # without leading zeros, as published
            metadata.append(
                {"dicom_id": image, "subject_id": study.subject, "study_id": study.study, "ViewPosition": view,
                 "PerformedProcedureStepDescription": "CHEST (PA AND LAT)", "Rows": image_px, "Columns": image_px,
                 "StudyDate": at.strftime("%Y%m%d"), "StudyTime": clock,
                 "ViewCodeSequence_CodeMeaning": _VIEW_NAMES[view]}
            )  # fmt: skip
            part = ("test", "validate", *["train"] * 8)[int(study.subject) % 10]
            split.append({"dicom_id": image, "study_id": study.study, "subject_id": study.subject, "split": part})
    if bad_rows:
        metadata[0] = {**metadata[0], "StudyDate": "21801306"}
        metadata[1] = {**metadata[1], "subject_id": "../../etc"}
    _write_csv(root / "mimic-cxr-2.0.0-metadata.csv.gz", METADATA, metadata)
    _write_csv(root / "mimic-cxr-2.0.0-split.csv.gz", ("dicom_id", "study_id", "subject_id", "split"), split)
    labelled = [s for s in studies if int(s.study) % 37]  # a few studies were never labelled
    for labeler in ("chexpert", "negbio"):
        rows = []
        for study in labelled:
            labels = dict(study.labels)
            if labeler == "negbio" and int(study.study) % 5 == 0:  # the labelers do not always agree
                labels = dict.fromkeys(labels)
            rows.append({"subject_id": study.subject, "study_id": study.study, **labels})
        if bad_rows:
            rows[2] = {**rows[2], "Edema": 7}
        _write_csv(root / f"mimic-cxr-2.0.0-{labeler}.csv.gz", ("subject_id", "study_id", *studies[0].labels), rows)


def _write_reports(root: Path, studies: Sequence[_Study]) -> None:
    with zipfile.ZipFile(root / "mimic-cxr-reports.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        for study in studies:
            if study.report is not None:
                name = f"files/p{study.subject[:2]}/p{study.subject}/s{study.study}.txt"
                archive.writestr(zipfile.ZipInfo(name), study.report)


def _write_csv(path: Path, columns: Sequence[str], rows: Sequence[Mapping[str, object]]) -> None:
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, restval="", lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    path.write_bytes(gzip.compress(text.getvalue().encode(), mtime=0))
