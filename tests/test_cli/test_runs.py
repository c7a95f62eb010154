"""`radfs show` and `radfs rerun`, as a reviewer types them."""

import json
import re

import polars as pl
import pytest

from featurestore.errors import DataError, UnknownNameError
from featurestore.fsio import read_parquet, write_parquet

GRID = """
[grid]
cohort = "mine"
backbone = "tiny"
text_encoder = "tiny-text"
method = ["image", "distill"]
fraction = 1.0
seed = 1
[train]
epochs = 2
precision = "fp32"
"""


@pytest.fixture
def trained(study, tmp_path):
    (tmp_path / "grid.toml").write_text(GRID)
    assert "3 runs: 0 done before, 3 trained" in study("train", "--grid", "grid.toml").output
    rows = json.loads(study("query", "SELECT run, method FROM results", "--json").output)
    return study, {row["method"]: row["run"] for row in rows}


def test_a_run_is_shown_by_its_first_digits(trained):
    study, runs = trained
    text = study("show", runs["distill"][:10]).output
    for expected in (runs["distill"], runs["teacher"], "cohort_key", "tiny-text@", "n_train", "torch", "threads"):
        assert expected in text
    assert '"method":"distill"' in text.replace(" ", "").replace("\n", "")
    found = json.loads(study("show", runs["teacher"], "--json").output)
    assert found["config"]["method"] == "teacher"
    assert [student["run"] for student in found["students"]] == [runs["distill"]]
    with pytest.raises(UnknownNameError, match="no run's id begins with 'nothing'"):
        study("show", "nothing")


def test_a_run_gives_its_numbers_again_and_the_exit_code_says_whether(trained, tmp_path):
    study, runs = trained
    text = study("rerun", runs["distill"]).output
    assert f"teacher {runs['teacher']}" in text
    assert "stored" in text
    assert text.count("equal: probabilities") + text.count("within the tolerance") == 2
    found = json.loads(study("rerun", runs["image"], "--json").output)
    assert found["equal"]
    assert found["metrics"]["auroc"]["stored"] == pytest.approx(found["metrics"]["auroc"]["again"])
    assert "samples, split and tokens are those" in study("rerun", runs["image"], "--check").output
    for path in (tmp_path / "radfs-store" / "results").glob("*/predictions.parquet"):
        write_parquet(path, read_parquet(path).with_columns(p_last=pl.lit([0.1, 0.9], pl.List(pl.Float32))))
        (path.parent / "runs.parquet").touch()
    assert "NOT EQUAL: beyond the tolerance of 0.0001" in study("rerun", runs["image"], code=1).output
    assert not json.loads(study("rerun", runs["image"], "--json", code=1).output)["equal"]
    study("rerun", runs["image"], "--tolerance", "1")


def test_a_report_is_one_file(trained, tmp_path):
    study, _ = trained
    result = study("report", "--out", "mine.html", "--title", "Mine", "--where", "cohort = 'mine'", "--audit-images")
    assert re.search(r"\d+ sections, \d+ figures, 1\.\d MB -> mine.html", result.output)
    page = (tmp_path / "mine.html").read_text()
    assert "<title>Mine</title>" in page
    assert "none of 48 images looks like one on the other side of a split" in page
    assert "images/0001.png" not in page
    with pytest.raises(DataError, match="there are no results to report"):
        study("report", "--where", "cohort = 'another'")
