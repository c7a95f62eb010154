"""Miniature trees of made-up patients: the real layout, with the untidy parts, and the same rows everywhere."""

import gzip
import re
import zipfile

import polars as pl
import pytest

from cohorts import load_cohort, load_flow
from cohorts.phantom_inspect import write_inspect_tree
from cohorts.phantom_mimic import write_mimic_tree
from cohorts.sections import report_text
from cohorts.tasks.inspect_pe import build_inspect_pe
from cohorts.tasks.inspect_ph_12m import build_inspect_ph_12m
from cohorts.tasks.inspect_readmission_12m import build_inspect_readmission_12m
from cohorts.tasks.mimic_5x1200 import build_mimic_5x1200
from cohorts.tasks.mimic_age import build_mimic_age
from cohorts.tasks.mimic_discharge_3d import build_mimic_discharge_3d

from .trees import ADMISSIONS, METADATA


@pytest.fixture(scope="module")
def mimic(tmp_path_factory):
    return write_mimic_tree(tmp_path_factory.mktemp("mimic"), subjects=60, image_px=32, bad_rows=True)


@pytest.fixture(scope="module")
def inspect(tmp_path_factory):
    return write_inspect_tree(tmp_path_factory.mktemp("inspect"), studies=60, image_px=32)


def table(path):
    return pl.read_csv(gzip.decompress(path.read_bytes()), infer_schema=False)


def test_the_mimic_tree_has_the_published_layout_and_the_untidy_parts(mimic):
    metadata = table(mimic.jpg / "mimic-cxr-2.0.0-metadata.csv.gz")
    assert ",".join(metadata.columns) == METADATA
    assert set(metadata["ViewPosition"].fill_null("")) == {"PA", "AP", "LATERAL", "LL", ""}
    assert metadata.group_by("study_id").len()["len"].max() == 2
    assert metadata.group_by("subject_id").agg(pl.col("study_id").n_unique())["study_id"].max() > 2
    assert metadata["StudyTime"].str.len_chars().n_unique() > 1  # leading zeros are lost
    image = next(mimic.jpg.rglob("*.jpg")).relative_to(mimic.jpg).as_posix()
    assert re.fullmatch(r"files/p1\d/p1\d{7}/s5\d{7}/[0-9a-f]{8}(-[0-9a-f]{8}){4}\.jpg", image)
    labels = table(mimic.jpg / "mimic-cxr-2.0.0-chexpert.csv.gz")
    values = set(labels.select(pl.exclude("subject_id", "study_id")).unpivot()["value"])
    assert {"1.0", "0.0", "-1.0", None, "7"} <= values
    assert labels.height < metadata["study_id"].n_unique()
    assert not labels.equals(table(mimic.jpg / "mimic-cxr-2.0.0-negbio.csv.gz"))
    stays = table(mimic.iv / "hosp" / "admissions.csv.gz")
    assert ",".join(stays.columns) == ADMISSIONS
    assert {"DIED", "HOSPICE", "HOME"} <= set(stays["discharge_location"])
    assert stays["deathtime"].count() == stays["hospital_expire_flag"].cast(int).sum() > 0
    patients = table(mimic.iv / "hosp" / "patients.csv.gz")
    assert patients.height < metadata["subject_id"].n_unique()
    assert {"91", "300"} <= set(patients["anchor_age"])


def test_its_reports_are_in_every_state(mimic):
    with zipfile.ZipFile(mimic.reports / "mimic-cxr-reports.zip") as archive:
        names = archive.namelist()
        texts = [archive.read(name).decode() for name in names]
    assert all(re.fullmatch(r"files/p1\d/p1\d{7}/s5\d{7}\.txt", name) for name in names)
    assert max(len(line) for text in texts for line in text.split("\n")) <= 79
    found = [
        (report_text(t, "impression").text is not None, report_text(t, "findings").text is not None) for t in texts
    ]
    assert {(True, True), (True, False), (False, True), (False, False)} == set(found)
    assert sum("ADDENDUM" in text for text in texts) > 3


STEPS = {
    "mimic-5x1200": {"unreadable row", "no view", "other view", "no labels", "labels: several", "labels: uncertain",
                     "no report", "no text", "other image of the study", "draw"},
    "mimic-age": {"unreadable row", "not in MIMIC-IV", "unreadable patient", "no report", "no text", "no image file"},
    "mimic-discharge-3d": {"unreadable stay", "no stay", "outside every stay", "death in hospital", "no text"},
    "inspect-readmission-12m": {"censored", "no text", "no image file", "balance"},
    "inspect-ph-12m": {"no label", "censored", "balance"},
    "inspect-pe": {"no label", "balance"},
}  # fmt: skip
KEYS = {
    "mimic-5x1200": "d1726266aa6b2efb",
    "mimic-age": "3a03dfed31428a34",
    "mimic-discharge-3d": "0dedc5fb317de5b4",
    "inspect-readmission-12m": "74295010f657c563",
    "inspect-ph-12m": "e054658650d9123c",
    "inspect-pe": "b1f6b8664d317589",
}
"""Hashes of rows, subjects, labels and texts: the same on every platform and with every version of polars."""


def test_every_task_is_built_from_them_with_the_same_rows_everywhere(store, mimic, inspect):
    folders = {"mimic_cxr_jpg": mimic.jpg, "mimic_cxr": mimic.reports, "mimic_iv": mimic.iv}
    build_mimic_5x1200(store, **folders, per_class=3)
    build_mimic_age(store, **folders)
    build_mimic_discharge_3d(store, **folders)
    for build in (build_inspect_readmission_12m, build_inspect_ph_12m, build_inspect_pe):
        build(store, inspect=inspect.tables, radiographs=inspect.radiographs)
    for name, wanted in STEPS.items():
        flow = load_flow(store, name)
        assert wanted <= set(flow.filter(pl.col("n_after") < pl.col("n_before"))["step"]), name
    assert {name: load_cohort(store, name).rows_key for name in KEYS} == KEYS
