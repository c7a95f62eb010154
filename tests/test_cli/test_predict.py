"""Training with kept heads, and asking them about images and cohorts."""

import json

import polars as pl
import pytest

from featurestore.errors import DataError

GRID = """
[grid]
cohort = "mine"
backbone = "tiny"
text_encoder = "tiny-text"
method = ["image", "distill", "tram", "teacher"]
head = ["attention", "cls"]
fraction = 1.0
seed = 1
[train]
epochs = 3
lr = 0.02
"""


@pytest.fixture
def kept(study, tmp_path):
    """A study whose grid was trained with --keep-heads; runs by method and head."""
    (tmp_path / "grid.toml").write_text(GRID)
    output = study("train", "--grid", "grid.toml", "--keep-heads", "--device", "cpu", "--precision", "fp32").output
    assert "8 runs: 0 done before, 8 trained, 0 failed" in output
    rows = json.loads(study("query", "SELECT run, method, head FROM results", "--json").output)
    return study, {(row["method"], row["head"]): row["run"] for row in rows}


def test_a_head_says_of_files_what_it_said_of_the_test_samples(kept, tmp_path):
    study, runs = kept
    (tmp_path / "images" / "broken.png").write_bytes(b"no image")
    (tmp_path / "images" / "notes.txt").write_text("not for you")
    (tmp_path / "images" / "1.2.840").write_bytes(b"\0" * 200)
    for key in (("image", "attention"), ("distill", "cls"), ("tram", "attention")):
        result = study("predict", "--run", runs[key], "--images", "images", "--out", "said.csv")
        assert "48 predictions -> said.csv" in result.output
        assert "2 files are no images and are passed over: 1.2.840, notes.txt" in result.output
        assert "1 failed:\n  broken.png: " in result.output
        said = pl.read_csv(tmp_path / "said.csv")
        assert said.columns == ["image", "p_no", "p_yes", "failure"]
        (broken,) = said.filter(pl.col("image") == "broken.png").rows()
        assert broken[1:3] == (None, None)
        of_cohort = json.loads(study("predict", "--run", runs[key], "--cohort", "mine", "--json").stdout)
        sql = f"SELECT sample, p_last[2] AS p FROM predictions WHERE run = '{runs[key]}'"
        in_store = {row["sample"]: row["p"] for row in json.loads(study("query", sql, "--json").output)}
        by_sample = {row["sample"]: row["p_yes"] for row in of_cohort}
        parts = {row["sample"]: row["part"] for row in of_cohort}
        assert {sample for sample, part in parts.items() if part == "test"} == set(in_store)
        assert all(parts[sample] == "train" for sample in parts.keys() - in_store.keys())  # fraction 1
        by_place = dict(zip(sorted(by_sample), said.filter(pl.col("failure").is_null())["p_yes"], strict=True))
        assert len(by_sample) == 48
        for sample, p in in_store.items():
            assert by_sample[sample] == pytest.approx(p, abs=1e-5)
            assert by_place[sample] == pytest.approx(p, abs=1e-5)


def test_what_cannot_be_asked_says_why(kept, tmp_path):
    study, runs = kept
    with pytest.raises(DataError, match=r"method 'teacher', whose head reads image and text: only"):
        study("predict", "--run", runs["teacher", "attention"], "--images", "images")
    with pytest.raises(DataError, match=r"has no run '0123'. Heads are kept of: "):
        study("predict", "--run", "0123", "--images", "images")
    with pytest.raises(DataError, match=r"nowhere does not exist"):
        study("predict", "--run", runs["image", "cls"], "--images", "nowhere")
    with pytest.raises(DataError, match=r"either a folder with --images or a cohort"):
        study("predict", "--run", runs["image", "cls"])
    with pytest.raises(DataError, match=r"cannot write no/said.csv: there is no folder"):
        study("predict", "--run", runs["image", "cls"], "--images", "images", "--out", "no/said.csv")


def test_the_plan_says_what_it_takes(study, tmp_path):
    (tmp_path / "grid.toml").write_text(GRID)
    output = study("train", "--grid", "grid.toml", "--dry-run", "--device", "cpu").output
    lines = [line.split()[0] for line in output.splitlines()[-2:]]
    assert lines == ["arithmetic", "memory"]
    assert "for 8 runs, 912 samples in all epochs" in output
    timed = study("train", "--grid", "grid.toml", "--dry-run", "--measure", "--device", "cpu").output
    assert timed.splitlines()[-1].startswith("time ")


def test_a_gpu_that_is_not_there_is_refused(study, monkeypatch):
    from heads import hardware

    monkeypatch.setattr(hardware, "_compute_capability", lambda: None)
    with pytest.raises(DataError, match="nvidia-smi finds none here: use auto or cpu"):
        study("train", "--grid", "grid.toml", "--dry-run", "--device", "cuda")
    with pytest.raises(DataError, match="--precision = 'fp8': must be one of auto, fp32, bf16"):
        study("train", "--grid", "grid.toml", "--dry-run", "--precision", "fp8")
