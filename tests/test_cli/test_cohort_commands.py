"""Audits, radiographs from CT and public data sets, as they are typed: what is said, what is written, the exit code."""

import json
import shutil
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from PIL import Image

from cohorts import load_cohort
from featurestore.errors import DataError, UnknownNameError
from featurestore.store import open_store

from .study import BUILD, write_study


def test_an_audit_exits_with_1_on_a_leak_alone_and_says_which(run, tmp_path):
    write_study(tmp_path)
    run(*BUILD)
    clean = run("cohort", "audit", "mine", "--seeds", "2").output
    assert "splits of seed 0 to 1: 0 leaks" in clean
    assert "subjects: each of the 24 subjects is in one part only" in clean
    assert "images: none of 48 images looks like one on the other side of a split" in clean

    run(*BUILD, "--split", "image", "--replace")
    leaky = run("cohort", "audit", "mine", "--no-images", code=1).output
    assert "LEAK\n  subjects: " in leaky
    assert "subjects are on both sides of a split: images fall one by one (--split image)" in leaky
    rows = json.loads(run("cohort", "audit", "mine", "--no-images", "--json", code=1).output)
    assert [row["check"] for row in rows if row["level"] == "leak"] == ["subjects"]
    assert run("cohort", "audit", "mine", "--no-images", "--csv", code=1).output.startswith("level,check,finding,n\n")


def test_an_audit_counts_the_images_of_a_list(run, tmp_path):
    write_study(tmp_path)
    run(*BUILD)
    ids = pl.DataFrame({"id": [f"{i:04d}.png" for i in range(48)]})
    ids.write_csv(tmp_path / "seen.csv")
    text = run("cohort", "audit", "mine", "--no-images", "--seen", "mrm=seen.csv").output
    assert "test samples are among the 48 images of seen.csv that mrm was trained on" in text
    assert "is not ENCODER=FILE" in run("cohort", "audit", "mine", "--seen", "mrm", code=2).output
    with pytest.raises(DataError, match="cannot be read as a table"):
        run("cohort", "audit", "mine", "--seen", "mrm=absent.csv")
    with pytest.raises(UnknownNameError, match="Did you mean 'mine'"):
        run("cohort", "audit", "mina")


def write_ct(path: Path) -> None:
    """A trunk in air with a dense heart, in Hounsfield units."""
    sitk = pytest.importorskip("SimpleITK")
    pytest.importorskip("cv2")
    hounsfield = np.full((16, 16, 20), -1000, np.int16)
    hounsfield[2:14, 3:13, 3:17] = 0
    hounsfield[5:9, 5:10, 10:14] = 400
    image = sitk.GetImageFromArray(hounsfield)
    image.SetSpacing((8.0, 8.0, 8.0))
    path.parent.mkdir(exist_ok=True)
    sitk.WriteImage(image, str(path))


GEOMETRIES = [
    "parallel",
    pytest.param("cone", marks=pytest.mark.skipif(not shutil.which("plastimatch"), reason="needs plastimatch")),
]


@pytest.mark.parametrize("geometry", GEOMETRIES)
def test_radiographs_are_made_once_and_a_damaged_volume_stops_none(run, tmp_path, geometry):
    write_ct(tmp_path / "ct" / "PE1.nii.gz")
    (tmp_path / "ct" / "PE2.nii.gz").write_bytes(b"no volume")
    command = ("cohort", "drr", "--ct", "ct", "--out", "out", "--geometry", geometry, "--image-px", "32")
    assert run(*command, "--dry-run").output == "2 volumes, 2 radiographs to make in out\n"
    assert not (tmp_path / "out").exists()
    text = run(*command, "--workers", "1").output
    assert "1 radiographs made, 0 were there, in out" in text
    assert "failed: PE2.nii.gz: " in text
    with Image.open(tmp_path / "out" / "PE1.jpg") as image:
        assert (image.size, image.mode) == ((32, 32), "L")
        assert np.asarray(image).std() > 20, "a picture, not one grey"
    assert "0 radiographs made, 1 were there" in run(*command).output
    with pytest.raises(DataError, match="made with image_px 32, not 64"):
        run(*command[:-1], "64")


def test_a_public_data_set_is_built_from_its_download(run, tmp_path):
    header = "Image Index,Finding Labels,Follow-up #,Patient ID,Patient Age,Patient Gender,View Position"
    rows = [f"{i:03d}.png,{'Effusion' if i // 2 % 2 else 'No Finding'},0,{i // 2},0{40 + i}Y,M,PA" for i in range(12)]
    folder = tmp_path / "nih" / "images"
    folder.mkdir(parents=True)
    for i in range(11):  # the last is not there
        Image.new("L", (8, 8), 20 * i).save(folder / f"{i:03d}.png")
    (tmp_path / "nih" / "Data_Entry_2017.csv").write_text("\n".join([header, *rows]) + "\n")
    command = ("cohort", "build", "nih-cxr14", "wet", "--root", "nih", "--label", "Effusion")
    text = run(*command, "--folds", "3").output
    assert "11 samples of 6 subjects from 12 rows" in text
    assert "2 classes: absent 6, present 5 (positive: present)" in text
    assert "left out, missing image file: 1 (011)" in text
    shown = run("cohort", "show", "wet").output
    assert "made by nih-cxr14" in shown
    assert "by subject, 3 folds" in shown
    assert "unchanged" in run(*command, "--folds", "3").output
    with pytest.raises(UnknownNameError, match="Did you mean 'Effusion'"):
        run(*command[:-1], "Effusions")
    with pytest.raises(DataError, match="nowhere"):
        run("cohort", "build", "nih-cxr14", "wet", "--root", "nowhere")


def test_a_cohort_takes_its_publishers_split_from_the_samples(run, tmp_path):
    """The miniature tree puts patients into test, validate and train by the last digit: 0, 1, and 2 to 9."""
    tree = run("cohort", "phantom-tree", "mimic", "--out", "practice", "--size", "40", "--image-px", "32").output
    (command,) = [line for line in tree.splitlines() if line.startswith("next: radfs ")]
    run(*command.removeprefix("next: radfs ").split(), "--bins", "18,50,120")
    sql = (
        "SELECT sample AS id, source_split AS part FROM samples JOIN cohorts USING (cohort, cohort_key) "
        "WHERE cohort = 'mimic-age'"
    )
    run("query", sql, "--parquet", "official.parquet")
    said = run("cohort", "import-splits", "mimic-age", "official.parquet").output
    assert "splits imported for every seed; before: by subject, test share 0.1" in said
    cohort = load_cohort(open_store(tmp_path / "radfs-store"), "mimic-age")
    digit = {sample: subject[-1] for sample, subject in cohort.samples.select("sample", "subject").iter_rows()}
    run(*command.removeprefix("next: radfs ").split(), "--bins", "18,50,120", "--split", "official", "--name", "own")
    own = load_cohort(open_store(tmp_path / "radfs-store"), "own")
    assert own.split(3).key == cohort.split(3).key, "in one step too"
    with pytest.raises(DataError, match="leave out --test-share"):
        run(*command.removeprefix("next: radfs ").split(), "--split", "official", "--test-share", "0.3")
    for seed in (0, 3):
        split = cohort.split(seed)
        assert {digit[sample] for sample in split.test} == {"0"}
        assert {digit[sample] for sample in split.held_out} == {"1"}
        assert {digit[sample] for sample in split.train} == set("23456789")
        assert sum(map(len, split.parts().values())) == cohort.samples.height
