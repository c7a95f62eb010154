"""A multi-label cohort from a table, all the way: rows, tokens, trained runs, and what SQL has of them."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from cohorts import build_table, load_cohort
from featurestore.store import Store, open_store
from heads.catalog import open_catalog
from heads.train import train_grid

from .stores import add_tokens, report_of, toy_grid

NAMES = ("edema", "mass", "device")
COLUMNS = {"label_cols": NAMES, "image_col": "file", "text_col": "report", "subject_col": "patient", "id_col": "id"}


@pytest.fixture
def toy(tmp_path) -> Store:
    """Cohort "toy", two samples a patient: tokens tell edema and mass; some edema is blank, device is never absent."""
    write_records(tmp_path)
    store = open_store(tmp_path / "store", create=True)
    build_table(store, "toy", records=tmp_path / "records.csv", **COLUMNS)
    tells = {f"toy/s{i:03d}": i // 2 % 4 for i in range(96)}
    add_tokens(store, "tiny", "image", tells)
    add_tokens(store, "tiny-text", "text", tells)
    return store


def write_records(folder: Path) -> None:
    Image.new("L", (4, 4)).save(folder / "one.png")
    lines = ["id,file,report,patient,edema,mass,device"]
    for i in range(96):
        edema, mass = i // 2 % 4 // 2, i // 2 % 4 % 2
        cells = f"{'' if i % 6 == 0 else edema},{mass},{1 if i % 2 else -1}"
        lines.append(f"s{i:03d},one.png,{report_of(f'toy/s{i:03d}')},p{i // 2},{cells}")
    (folder / "records.csv").write_text("\n".join(lines) + "\n")


def test_image_and_distill_learn_the_findings_of_a_table(toy):
    methods, heads = ["image", "distill"], ["mean", "attention"]
    report = train_grid(toy, toy_grid(method=methods, head=heads, fraction=1.0, seed=2, epochs=20, lr=0.03))
    assert (report.trained, report.failed) == (2 * 3 * 2, []), "a teacher for each student"
    catalog = open_catalog(toy)
    results = catalog.query("SELECT method, head, task, classes, auroc_macro FROM results WHERE method <> 'teacher'")
    assert len(results) == 8
    assert set(results["task"]) == {"multilabel"}
    assert {tuple(classes) for classes in results["classes"]} == {NAMES}
    assert results["auroc_macro"].min() > 0.8, results

    truth = dict(load_cohort(toy, "toy").samples.select("sample", "findings").rows())
    said = catalog.query("SELECT sample, label, findings, p_last FROM predictions")
    assert said["label"].null_count() == len(said)
    assert all(truth[sample] == findings for sample, findings in said.select("sample", "findings").rows())
    assert np.array(said["p_last"].to_list()).shape[1] == 3


def test_another_meaning_of_blanks_is_another_cohort_with_runs_of_its_own(toy, tmp_path):
    grid = toy_grid(method="image", head="mean", fraction=1.0, seed=1)
    assert train_grid(toy, grid).trained == 1
    assert train_grid(toy, grid).trained == 0
    build_table(toy, "toy", records=tmp_path / "records.csv", **COLUMNS, blank="absent", replace=True)
    assert train_grid(toy, grid).trained == 1
    keys = open_catalog(toy).query("SELECT DISTINCT cohort_key FROM results")
    assert load_cohort(toy, "toy").key in keys["cohort_key"].to_list()
