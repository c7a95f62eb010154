"""Replaced, moved and shared data: nobody's images or reports ever pass for another's, and results stay apart."""

import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from cohorts import build_table
from featurestore import extract_features, list_items, open_features
from featurestore.errors import DataError
from heads import Grid, make_plan, open_catalog, train_grid

N = 48


def write_images(folder: Path, *, seed: int = 0) -> None:
    folder.mkdir(parents=True)
    for i in range(N):
        pixels = np.random.default_rng(seed + i).integers(0, 200, (40, 40)).astype(np.uint8)
        Image.fromarray(pixels).save(folder / f"{i:04d}.png")


def write_records(path: Path, words: str = "clear lungs") -> Path:
    rows = [f"{i:04d}.png,{words} {i % 5},{'yes' if (i // 2) % 2 else 'no'},p{i // 2:02d}" for i in range(N)]
    path.write_text("\n".join(["file,report,finding,patient", *rows]) + "\n")
    return path


@pytest.fixture
def build(store, tmp_path):
    """`build("a")` makes cohort a from the first hospital's images and records; keywords change it."""
    write_images(tmp_path / "first")
    write_records(tmp_path / "records.csv")

    def build(name: str, **changes):
        columns = {"image_col": "file", "text_col": "report", "label_col": "finding", "subject_col": "patient"}
        options = {"records": tmp_path / "records.csv", "image_root": tmp_path / "first", **columns}
        return build_table(store, name, **(options | changes))

    return build


def extract(store) -> None:
    for encoder in ("tiny", "tiny-text"):
        extract_features(store, encoder)


def grid(*cohorts: str, **changes) -> Grid:
    base = {"cohort": list(cohorts), "backbone": "tiny", "text_encoder": "tiny-text", "method": ["image", "text"]}
    return Grid(**(base | {"fraction": 1.0, "seed": 2, "epochs": 1} | changes))


def test_another_hospitals_images_cannot_take_the_place_of_the_first_ones(store, build, tmp_path):
    build("a", dataset="d")
    write_images(tmp_path / "second", seed=100)
    before = list_items(store, modality="image")
    with pytest.raises(DataError, match=r"another image for item d/0000\.png \(and 47 more\).*--dataset"):
        build("b", dataset="d", image_root=tmp_path / "second")
    with pytest.raises(DataError, match="another image"):
        build("a", dataset="d", image_root=tmp_path / "second")
    assert list_items(store, modality="image").equals(before)


def test_a_moved_folder_is_the_same_images_and_is_hashed_once(store, build, tmp_path, monkeypatch):
    build("a")
    extract(store)
    shutil.move(tmp_path / "first", tmp_path / "moved")
    build("a", image_root=tmp_path / "moved")
    assert extract_features(store, "tiny").extracted == 0
    read = []
    monkeypatch.setattr(Path, "read_bytes", lambda self, original=Path.read_bytes: read.append(self) or original(self))
    assert extract_features(store, "tiny").already == N
    assert [path for path in read if path.suffix == ".png"] == []


def test_another_file_of_the_same_size_and_time_is_another_image(store, tmp_path):
    folder = tmp_path / "in"
    folder.mkdir()
    for i in range(16):
        for version, level in (("x", 50), ("y", 200)):
            Image.fromarray(np.full((32, 32), level + i, np.uint8)).save(folder / f"{version}{i}.bmp")
            os.utime(folder / f"{version}{i}.bmp", (1e9, 1e9))
    for version in "xy":
        rows = [f"i{i},{version}{i}.bmp,{'yes' if i % 2 else 'no'},p{i}" for i in range(16)]
        (folder / f"{version}.csv").write_text("\n".join(["id,file,finding,patient", *rows]) + "\n")
    columns = {"id_col": "id", "image_col": "file", "label_col": "finding", "subject_col": "patient"}
    build_table(store, "a", records=folder / "x.csv", **columns)
    first = extract_features(store, "tiny")
    tokens = open_features(store, first.feature_set).image_tokens(["a/i0"])
    again = build_table(store, "a", records=folder / "y.csv", replace=True, **columns)
    assert any("16 of its items were redefined" in line for line in again.lines())
    assert extract_features(store, "tiny").extracted == 16
    assert not np.array_equal(open_features(store, first.feature_set).image_tokens(["a/i0"]), tokens)


def test_a_cohort_whose_reports_another_cohort_replaced_is_refused(store, build, tmp_path):
    build("a", dataset="d")
    build("b", dataset="d")
    other = write_records(tmp_path / "other.csv", words="large effusion")
    with pytest.raises(DataError, match=r"another report for item d/0000\.png"):
        build("c", dataset="d", records=other)
    build("a", dataset="d", records=other, replace=True)
    extract(store)
    assert len(make_plan(store, grid("a")).todo) == 4
    with pytest.raises(DataError, match=r"cohort b: the report of item d/0000\.png .* was replaced since"):
        make_plan(store, grid("b"))


def test_results_of_replaced_images_are_not_averaged_with_the_old_ones(store, build, tmp_path):
    build("a")
    extract(store)
    train_grid(store, grid("a", method="image"))
    shutil.rmtree(tmp_path / "first")
    write_images(tmp_path / "first", seed=100)
    assert extract_features(store, "tiny").extracted == N
    assert train_grid(store, grid("a", method="image")).trained == 2
    summary = open_catalog(store).query("SELECT n_seeds, content FROM summary")
    assert summary["n_seeds"].to_list() == [2, 2]
    assert summary["content"].n_unique() == 2


def test_cohorts_with_the_same_rows_have_runs_and_splits_of_their_own(store, build):
    build("a", dataset="d")
    build("b", dataset="d")
    extract(store)
    assert train_grid(store, grid("a", "b")).trained == 8
    catalog = open_catalog(store)
    counts = "SELECT cohort, count(*) AS runs, count(DISTINCT run) AS ids FROM results GROUP BY cohort ORDER BY cohort"
    assert catalog.query(counts).rows() == [("a", 4, 4), ("b", 4, 4)]
    assert catalog.query("SELECT DISTINCT n_seeds FROM summary").rows() == [(2,)]
    trained = """
        SELECT DISTINCT n - r.n_train FROM runs r JOIN (
            SELECT cohort, split, count(*) AS n FROM splits WHERE part = 'train' GROUP BY ALL
        ) USING (cohort, split)"""
    assert catalog.query(trained).rows() == [(0,)]


def test_data_that_change_while_a_grid_runs_stop_it_before_wrong_numbers_are_kept(store, build, tmp_path):
    build("a")
    extract(store)
    other = write_records(tmp_path / "other.csv", words="large effusion")
    done = []

    def replace_reports(progress):
        if not done:
            done.append(progress)
            build("a", records=other, replace=True)
            extract_features(store, "tiny-text")

    with pytest.raises(DataError, match="texts were replaced while the grid was running"):
        train_grid(store, grid("a"), on_progress=replace_reports)
    assert open_catalog(store).query("SELECT DISTINCT method FROM runs").rows() == [("image",)]
    # The runs that were trained before the replacement are kept, but do not pass for results of today's cohort.
    assert open_catalog(store).query("SELECT * FROM results").is_empty()


def test_info_counts_the_cohort_of_today(store, build, tmp_path):
    from cli.info import QUESTIONS

    build("a")
    build("a", records=write_records(tmp_path / "other.csv", words="large effusion"), replace=True)
    extract(store)
    catalog = open_catalog(store)
    catalog.fold()
    assert catalog.query(QUESTIONS["coverage"])["samples"].to_list() == [N, N]
