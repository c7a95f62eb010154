"""Building the paper's cohorts from synthetic downloads of the real size: seconds and memory of each.

    python benchmarks/build_cohorts.py [--share 1.0] [--folder DIR]

Writes tables of MIMIC-CXR-JPG (377,110 images, 227,835 labelled studies), MIMIC-CXR (as many reports in a zip),
MIMIC-IV (364,627 patients, 546,028 stays) and INSPECT (23,248 studies), with empty files for images, and removes them
afterwards. `--folder` keeps them, for another run. Each build runs in a process of its own, with a fresh store; the
baseline is polars reading the same MIMIC tables whole, without any check.
"""

import argparse
import gzip
import io
import multiprocessing
import resource
import shutil
import tempfile
import time
import zipfile
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from cohorts import COHORT_BUILDERS
from cohorts.phantom_mimic import ADMISSIONS, METADATA, PATIENTS
from cohorts.sources.mimic_cxr_jpg import FINDINGS
from featurestore.store import open_store

SUBJECTS, STUDIES, IMAGES, PATIENT_ROWS, STAYS, SCANS = 65_379, 227_835, 377_110, 364_627, 546_028, 23_248
WORDS = [
    "no",
    "focal",
    "pleural",
    "effusion",
    "or",
    "pneumothorax",
    "the",
    "cardiomediastinal",
    "silhouette",
    "is",
    "normal",
    "since",
    "___",
    "mild",
    "edema",
]


def hexadecimal(rng: np.random.Generator, n: int) -> list[str]:
    """Image ids: 5 groups of 8 digits."""
    return ["-".join(d[i : i + 8] for i in range(0, 40, 8)) for d in (rng.bytes(20).hex() for _ in range(n))]


def pick(rng: np.random.Generator, values: list[Any], n: int, p: list[float] | None = None) -> np.ndarray:
    """n values at random."""
    return np.array(values, dtype=object)[rng.choice(len(values), n, p=p)]


def write_csv(frame: pl.DataFrame, path: Path, columns: tuple[str, ...]) -> None:
    """The columns of the published file, gzipped; those that the frame lacks are blank."""
    path.parent.mkdir(parents=True, exist_ok=True)
    blank = [pl.lit("").alias(name) for name in columns if name not in frame.columns]
    text = io.BytesIO()
    frame.with_columns(blank).select(columns).write_csv(text)
    path.write_bytes(gzip.compress(text.getvalue(), 1))


def write_mimic(root: Path, share: float) -> None:
    """The three downloads."""
    rng = np.random.default_rng(0)
    n_subjects, n_studies, n_images, n_rows, n_stays = (
        int(share * n) for n in (SUBJECTS, STUDIES, IMAGES, PATIENT_ROWS, STAYS)
    )
    subjects = 10_000_000 + rng.choice(9_999_999, n_rows, replace=False)
    of_study = subjects[np.concatenate([np.arange(n_subjects), rng.integers(0, n_subjects, n_studies - n_subjects)])]
    studies = 50_000_000 + rng.choice(9_999_999, n_studies, replace=False)
    place = np.concatenate([np.arange(n_studies), rng.integers(0, n_studies, n_images - n_studies)])
    days = rng.integers(0, 3_000, n_studies)
    date = (np.datetime64("2150-01-01") + days).astype(str)
    clock = np.array([f"{t // 3600}{t // 60 % 60:02d}{t % 60:02d}.875" for t in rng.integers(0, 86_400, n_studies)])
    views = pick(rng, ["AP", "PA", "LATERAL", "LL", ""], n_images, [0.39, 0.26, 0.22, 0.09, 0.04]).astype(str)
    metadata = pl.DataFrame(
        {
            "dicom_id": hexadecimal(rng, n_images),
            "subject_id": of_study[place],
            "study_id": studies[place],
            "PerformedProcedureStepDescription": "CHEST (PA AND LAT)",
            "ViewPosition": views,
            "Rows": 3056,
            "Columns": 2544,
            "StudyDate": np.array([d.replace("-", "") for d in date])[place],
            "StudyTime": clock[place],
        }
    )
    jpg = root / "mimic-cxr-jpg"
    write_csv(metadata, jpg / "mimic-cxr-2.0.0-metadata.csv.gz", METADATA)
    part = pl.Series("split", pick(rng, ["train", "validate", "test"], n_images, [0.97, 0.01, 0.02]).astype(str))
    split = ("dicom_id", "study_id", "subject_id", "split")
    write_csv(metadata.with_columns(part), jpg / "mimic-cxr-2.0.0-split.csv.gz", split)
    labels = {"subject_id": of_study, "study_id": studies}
    for finding in (*FINDINGS, "No Finding"):
        labels[finding] = pick(rng, ["1.0", "0.0", "-1.0", ""], n_studies, [0.12, 0.1, 0.05, 0.73]).astype(str)
    for labeler in ("chexpert", "negbio"):
        write_csv(pl.DataFrame(labels), jpg / f"mimic-cxr-2.0.0-{labeler}.csv.gz", tuple(labels))
    for subject, study, image, view in metadata.select(
        "subject_id", "study_id", "dicom_id", "ViewPosition"
    ).iter_rows():
        if view in ("AP", "PA"):
            folder = jpg / "files" / f"p{subject // 1_000_000}" / f"p{subject}" / f"s{study}"
            folder.mkdir(parents=True, exist_ok=True)
            (folder / f"{image}.jpg").touch()
    write_reports(root / "mimic-cxr", of_study, studies, rng)
    patients = {"subject_id": subjects, "gender": pick(rng, ["F", "M"], n_rows).astype(str), "anchor_year": 2155}
    patients |= {"anchor_age": rng.integers(18, 90, n_rows), "anchor_year_group": "2011 - 2013"}
    write_csv(pl.DataFrame(patients), root / "mimic-iv/hosp/patients.csv.gz", PATIENTS)
    begin = np.datetime64("2150-01-01T00:00") + rng.integers(0, 3_000 * 24 * 60, n_stays)
    end = begin + rng.integers(600, 30 * 24 * 60, n_stays)
    died = rng.random(n_stays) < 0.02
    form = "%Y-%m-%d %H:%M:%S"
    stays = pl.DataFrame(
        {
            "subject_id": subjects[rng.integers(0, n_rows // 2, n_stays)],
            "hadm_id": 20_000_000 + np.arange(n_stays),
            "admittime": begin.astype("datetime64[us]"),
            "dischtime": end.astype("datetime64[us]"),
            "discharge_location": np.where(died, "DIED", "HOME"),
            "hospital_expire_flag": died.astype(int),
        }
    ).with_columns(pl.col("admittime", "dischtime").dt.to_string(form))
    write_csv(stays, root / "mimic-iv/hosp/admissions.csv.gz", ADMISSIONS)


def write_reports(folder: Path, subjects: np.ndarray, studies: np.ndarray, rng: np.random.Generator) -> None:
    """Reports of real length, in the zip."""
    folder.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(folder / "mimic-cxr-reports.zip", "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        for subject, study in zip(subjects, studies, strict=True):
            words = " ".join(WORDS[i] for i in rng.integers(0, len(WORDS), 70))
            head = f"{' ' * 33}FINAL REPORT\n EXAMINATION:  CHEST\n \n"
            text = f"{head} FINDINGS:  {words}.\n \n IMPRESSION:  {words[:120]}.\n"
            archive.writestr(f"files/p{subject // 1_000_000}/p{subject}/s{study}.txt", text)


def write_inspect(root: Path, share: float) -> None:
    """INSPECT's tables, and empty radiographs."""
    rng, n = np.random.default_rng(1), int(share * SCANS)
    study, image = np.arange(n) + 1, [f"PE{k:x}" for k in range(n)]
    outcome = [["TRUE", "FALSE", "Censored"], [0.12, 0.70, 0.18]]
    tables = {
        "labels": {
            "impression_id": study,
            "pe_positive_nlp": pick(rng, ["TRUE", "FALSE"], n, [0.2, 0.8]).astype(str),
            "12_month_readmission": pick(rng, outcome[0], n, outcome[1]).astype(str),
            "12_month_PH": pick(rng, outcome[0], n, outcome[1]).astype(str),
        },
        "study_mapping": {
            "impression_id": study,
            "image_id": image,
            "person_id": rng.integers(1, 19_402, n),
            "procedure_DATETIME": "2015-03-01 12:30:00",
        },
        "splits": {"impression_id": study, "split": pick(rng, ["train", "valid", "test"], n).astype(str)},
        "impressions": {"impression_id": study, "impressions": "No evidence of pulmonary embolism. " * 8},
    }
    (root / "inspect").mkdir(parents=True)
    (root / "radiographs").mkdir()
    for name, columns in tables.items():
        pl.DataFrame(columns).write_csv(root / "inspect" / f"{name}_20250611.tsv", separator="\t")
    for name in image:
        (root / "radiographs" / f"{name}.jpg").touch()


def build(task: str, root: Path, options: dict[str, Any]) -> tuple[float, int, int, float]:
    """Seconds, rows read, samples, and the largest memory in MB of a build in this process."""
    folders: dict[str, Any] = {"inspect": root / "inspect", "radiographs": root / "radiographs"}
    if task.startswith("mimic"):
        names = {"mimic_cxr_jpg": "mimic-cxr-jpg", "mimic_cxr": "mimic-cxr", "mimic_iv": "mimic-iv"}
        folders = {key: root / name for key, name in names.items()}
    module, function = COHORT_BUILDERS[task].split(":")
    store_root = Path(tempfile.mkdtemp())
    try:
        store = open_store(store_root / "store", create=True)
        start = time.perf_counter()
        report = getattr(import_module(module), function)(store, **folders, **options)
        seconds = time.perf_counter() - start
    finally:
        shutil.rmtree(store_root)
    return seconds, report.flow[0].n_before, report.n_samples, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def baseline(root: Path) -> float:
    """Seconds of reading the MIMIC tables whole."""
    start = time.perf_counter()
    for path in sorted(root.glob("mimic-*/**/*.csv.gz")):
        pl.read_csv(path, infer_schema=False)
    return time.perf_counter() - start


def alone(function: Callable[..., Any], *arguments: Any) -> Any:
    """What a function gives in a process of its own."""
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        return pool.submit(function, *arguments).result()


def main() -> None:
    """Write, measure, remove."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--share", type=float, default=1.0)
    parser.add_argument("--folder", type=Path)
    arguments = parser.parse_args()
    root = arguments.folder or Path(tempfile.mkdtemp())
    try:
        if not (root / "inspect").exists():
            start = time.perf_counter()
            write_mimic(root, arguments.share)
            write_inspect(root, arguments.share)
            print(f"downloads written in {time.perf_counter() - start:.0f} s", flush=True)
        print(f"baseline, MIMIC's tables read by polars without checks: {alone(baseline, root):.1f} s", flush=True)
        print(f"{'cohort':<26}{'rows':>10}{'samples':>10}{'seconds':>9}{'memory MB':>11}")
        small = {"per_class": max(1, int(1200 * arguments.share / 2))} if arguments.share < 1 else {}
        for task in [name for name in COHORT_BUILDERS if name.startswith(("mimic", "inspect"))]:
            options = small if task == "mimic-5x1200" else {}
            seconds, rows, samples, memory = alone(build, task, root, options)
            print(f"{task:<26}{rows:>10,}{samples:>10,}{seconds:>9.1f}{memory:>11,.0f}", flush=True)
    finally:
        if arguments.folder is None:
            shutil.rmtree(root)


if __name__ == "__main__":
    main()
