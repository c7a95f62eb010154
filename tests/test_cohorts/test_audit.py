"""Audits: what is planted is found, at its level, and what is clean is called clean."""

from pathlib import Path

import numpy as np
import polars as pl
import pytest
from PIL import Image

from cohorts import SplitScheme, audit_cohort, build_table, import_splits, load_cohort
from cohorts.lookalikes import as_thumbnails, near_pairs, thumbnail
from cohorts.phantom_mimic import write_mimic_tree
from cohorts.tasks.mimic_5x1200 import build_mimic_5x1200
from cohorts.tasks.mimic_age import build_mimic_age
from cohorts.tasks.mimic_discharge_3d import build_mimic_discharge_3d
from featurestore.errors import DataError

from ..test_heads.stores import add_tokens

COLUMNS = {"text_col": "report", "label_col": "label", "subject_col": "patient", "id_col": "id"}
HEADER = "id,report,label,patient,sex,age,view"


def build(store, folder: Path, rows: list[str], *, name: str = "words", header: str = HEADER, **options):
    folder.mkdir(exist_ok=True)
    (folder / "records.csv").write_text("\n".join([header, *rows]) + "\n")
    described = {"sex_col": "sex", "age_col": "age", "view_col": "view"}
    return build_table(store, name, records=folder / "records.csv", **{**COLUMNS, **described, **options})


def clean(n: int = 120) -> list[str]:
    """Two samples a patient, words that mean nothing, sex, age and view that do not follow the label."""
    words = ("alpha", "bravo", "charlie", "delta", "echo")
    return [
        f"{i:02d},study {words[i % 5]} number {'x' * i},{i // 2 % 2},p{i // 2},{'FM'[i % 2]},{40 + i % 7},{view}"
        for i in range(n)
        for view in ("AP" if i % 3 else "PA",)
    ]


def found(report, check: str) -> list[tuple[str, str]]:
    return [(f.level, f.text) for f in report.findings if f.check == check]


def test_a_clean_cohort_has_notes_alone(store, tmp_path):
    build(store, tmp_path / "a", clean())
    report = audit_cohort(store, "words")
    assert not report.leaks
    assert {finding.level for finding in report.findings} == {"note"}
    assert found(report, "subjects") == [("note", "each of the 60 subjects is in one part only")]
    assert found(report, "class balance") == [("note", "0 50.0%, 1 50.0% of 120 samples")]
    assert "0 leaks, 0 warnings" in report.lines()[0]


def test_by_image_patients_on_both_sides_are_a_leak_and_counted(store, tmp_path):
    build(store, tmp_path / "a", clean(), splits=SplitScheme(unit="image"))
    cohort = load_cohort(store, "words")
    split = cohort.split(0)
    patient = dict(cohort.samples.select("sample", "subject").iter_rows())
    shared = {patient[s] for s in split.train} & {patient[s] for s in split.test}
    report = audit_cohort(store, "words", seeds=[0])
    assert report.leaks
    ((level, text),) = found(report, "subjects")
    assert level == "leak"
    assert text.startswith(f"{len(shared)} subjects are on both sides of a split: images fall one by one")


def test_imported_splits_are_audited_as_they_came(store, tmp_path):
    build(store, tmp_path / "a", clean())
    rows = [f"{i:02d},{'test' if i in (0, 5) else 'train'}" for i in range(120)]
    (tmp_path / "splits.csv").write_text("\n".join(["id,part", *rows]) + "\n")
    import_splits(store, "words", tmp_path / "splits.csv", unit="image")
    ((level, text),) = found(audit_cohort(store, "words"), "subjects")
    assert (level, text[:2]) == ("leak", "2 ")


def test_without_a_subject_column_nobody_can_know(store, tmp_path):
    build(store, tmp_path / "a", clean(), subject_col=None)
    ((level, text),) = found(audit_cohort(store, "words"), "subjects")
    assert level == "warning"
    assert "--subject-col" in text


def test_reports_of_the_same_words_on_both_sides_are_counted(store, tmp_path):
    rows = [row.replace(row.split(",")[1], "No finding.") if i < 20 else row for i, row in enumerate(clean())]
    build(store, tmp_path / "a", rows)
    ((level, text),) = found(audit_cohort(store, "words"), "reports")
    assert level == "warning"
    assert text.startswith("20 samples have a report that stands word for word on the other side")


def test_label_words_and_single_telling_words_are_named(store, tmp_path):
    label = ("cardiomegaly", "effusion")
    rows = [
        f"{i:02d},{'mild cardiomegaly' if i % 10 == 0 or i // 2 % 2 == 0 else 'fluid'} seen number {'x' * i},"
        f"{label[i // 2 % 2]},p{i // 2},,,"
        for i in range(80)
    ]
    build(store, tmp_path / "a", rows)
    texts = found(audit_cohort(store, "words"), "label words")
    own = next(text for level, text in texts if text.startswith("'cardiomegaly'") and level == "warning")
    assert own == "'cardiomegaly' of class 'cardiomegaly' stands in 100% of the reports of that class and 10% of others"
    telling = next(text for level, text in texts if text.startswith("the absence of the word"))
    assert "alone tells class 'effusion' (in 10% of its reports, 100% of others; balanced accuracy 95%)" in telling


def test_words_of_few_reports_or_of_few_patients_are_never_shown(store, tmp_path):
    rows = [
        f"{i:02d},{'Smith' if i // 2 % 2 else 'clear'} {'x' * i},{i // 2 % 2},p{min(i // 2, 2 + i // 2 % 2)},,,"
        for i in range(80)
    ]
    build(store, tmp_path / "a", rows)
    assert not [line for line in audit_cohort(store, "words").lines() if "smith" in line.lower()]


def test_a_label_that_follows_view_sex_or_age_is_a_warning(store, tmp_path):
    rows = [
        f"{i:02d},word {'x' * i},{k},p{i // 2},{'F' if k else 'M'},{60 + 10 * k + i % 9},{view}"
        for i in range(80)
        for k in (i // 2 % 2,)
        for view in ("AP" if k == (i % 10 > 0) else "PA",)
    ]
    build(store, tmp_path / "a", rows)
    report = audit_cohort(store, "words")
    ((level, text),) = found(report, "sex")
    assert level == "warning"
    assert text.startswith(
        "Cramér's V with the label 1.00: a head may learn it in place of the finding (0: F 0%, M 100%"
    )
    assert found(report, "view")[0][0] == "warning"
    assert found(report, "age")[0][0] == "warning"


def test_what_was_not_named_says_how_to_name_it(store, tmp_path):
    build(store, tmp_path / "a", clean(), sex_col=None, age_col=None)
    report = audit_cohort(store, "words")
    for check in ("sex", "age"):
        ((level, text),) = found(report, check)
        assert level == "note"
        assert text == f"not known: no column was named. Build the cohort with --{check}-col to have it looked at"
    assert "--view-col" not in found(report, "view")[0][1]


def test_cramers_v_by_hand(store, tmp_path):
    """40 F and 40 M, of whom 30 and 10 have label 1: chi squared 20, V = sqrt(20 / 80) = 0.5."""
    rows = [f"{i:02d},word {'x' * i},{int(i < 30 or 40 <= i < 50)},p{i},{'FM'[i // 40]},," for i in range(80)]
    build(store, tmp_path / "a", rows)
    assert found(audit_cohort(store, "words"), "sex")[0][1].startswith("Cramér's V with the label 0.50")


def test_a_class_with_few_test_samples_is_a_warning(store, tmp_path):
    rows = [f"{i:02d},word {'x' * i},{int(i < 10)},p{i},,," for i in range(80)]
    build(store, tmp_path / "a", rows)
    texts = found(audit_cohort(store, "words", seeds=[0]), "class balance")
    assert ("warning", "2 test samples of class '1' at seed 0: intervals will be wide") in texts


def picture(seed: int, px: int = 96) -> Image.Image:
    coarse = np.random.default_rng(seed).integers(0, 255, (7, 7), np.uint8)
    return Image.fromarray(coarse).resize((px, px), Image.Resampling.BICUBIC)


def test_a_copy_of_a_test_image_in_training_is_a_leak(store, tmp_path):
    folder = tmp_path / "a"
    folder.mkdir()
    for i in range(40):
        picture(i).save(folder / f"{i:02d}.png")
    header, rows = f"{HEADER},file", [f"{row},{i:02d}.png" for i, row in enumerate(clean(40))]
    options = {"header": header, "image_col": "file"}
    build(store, folder, rows, **options)
    assert found(audit_cohort(store, "words"), "images")[0][1].startswith("none of 40 images looks like one")

    split = load_cohort(store, "words").split(0)
    test, train = (ids[0].partition("/")[2] for ids in (split.test, split.train))
    with Image.open(folder / f"{test}.png") as image:
        copy = image.resize((70, 70)).point(lambda grey: grey * 0.9)
    (folder / "99.jpg").touch()
    copy.save(folder / "99.jpg", quality=60)
    rows = [row.replace(f"{train}.png", "99.jpg") for row in rows]
    build(store, folder, rows, **options, replace=True)
    report = audit_cohort(store, "words")
    ((level, text),) = found(report, "images")
    assert (level, report.leaks) == ("leak", True)
    assert f"words/{test}" in text
    assert f"words/{train}" in text
    assert ("note", "were not compared") in found(audit_cohort(store, "words", images=False), "images")


def test_an_image_that_cannot_be_read_is_named_and_stops_nothing(store, tmp_path):
    folder = tmp_path / "a"
    folder.mkdir()
    for i in range(10):
        picture(i).save(folder / f"{i:02d}.png")
    rows = [f"{row},{i:02d}.png" for i, row in enumerate(clean(10))]
    build(store, folder, rows, header=f"{HEADER},file", image_col="file")
    (folder / "03.png").write_bytes(b"junk")
    texts = found(audit_cohort(store, "words"), "images")
    assert ("warning", "1 images cannot be read: words/03") in texts


def test_no_two_patients_of_the_real_radiographs_pass_for_copies(real_data):
    records = pl.read_csv(real_data / "nih-cxr14-64px" / "records.csv", infer_schema=False).head(300)
    folder = real_data / "nih-cxr14-64px"
    pictures = [thumbnail(folder / file) for file in records["file"]]
    patients = records["patient_id"].to_list()
    assert not [(i, j) for i, j, _ in near_pairs(as_thumbnails(pictures)) if patients[i] != patients[j]]
    pairs = list(near_pairs(as_thumbnails([*pictures[:5], *pictures[:5]])))
    assert {(i, j) for i, j, c in pairs if c > 0.999} == {(i, i + 5) for i in range(5)}


def test_images_that_an_encoder_was_trained_on_are_counted(store, tmp_path):
    build(store, tmp_path / "a", clean())
    split = load_cohort(store, "words").split(0)
    names = [f"files/p10/{s.partition('/')[2]}.jpg" for s in (*split.test[:3], *split.train[:9])]
    (tmp_path / "seen.csv").write_text("\n".join(["dicom_id", *names]) + "\n")
    report = audit_cohort(store, "words", seeds=[0], seen={"rad-dino": tmp_path / "seen.csv"})
    ((level, text),) = found(report, "pre-training")
    assert level == "warning"
    assert text.startswith(f"3 of {len(split.test)} test samples are among the 12 images of seen.csv that rad-dino")
    with pytest.raises(DataError, match="cannot be read as a table"):
        audit_cohort(store, "words", seen={"rad-dino": tmp_path / "absent.csv"})


def test_of_a_mimic_tree_the_publishers_train_part_counts_as_seen(store, tmp_path):
    """The tree puts patients into test, validate and train by the last digit of their id: 0, 1, and 2 to 9."""
    tree = write_mimic_tree(tmp_path / "tree", subjects=40, image_px=32)
    folders = {"mimic_cxr_jpg": tree.jpg, "mimic_cxr": tree.reports, "mimic_iv": tree.iv}
    build_mimic_5x1200(store, "five", **folders, per_class=3)
    build_mimic_age(store, "age", **folders)
    build_mimic_discharge_3d(store, "home", **folders)
    for encoder in ("mrm", "medical-mae", "tiny"):
        add_tokens(store, encoder, "image", {})
    for name in ("five", "age", "home"):
        samples = load_cohort(store, name).samples
        part = pl.col("subject").str.slice(-1).replace_strict({"0": "test", "1": "validate"}, default="train")
        assert samples["source_split"].to_list() == samples.select(part).to_series().to_list(), name
        split = load_cohort(store, name).split(0)
        seen = samples.filter(pl.col("sample").is_in(list(split.test)) & (pl.col("source_split") == "train")).height
        assert seen
        said = f"was trained on MIMIC-CXR: {seen} of {len(split.test)} test samples are of its publishers' train part"
        texts = found(audit_cohort(store, name, seeds=[0], images=False), "pre-training")
        assert sorted(text.partition(" ")[0] for _, text in texts) == ["medical-mae", "mrm"]
        assert all(level == "warning" and said in text for level, text in texts)
    (tree.jpg / "mimic-cxr-2.0.0-split.csv.gz").unlink()
    build_mimic_age(store, "unknown", **folders)
    n = len(load_cohort(store, "unknown").split(0).test)
    texts = found(audit_cohort(store, "unknown", seeds=[0], images=False), "pre-training")
    assert f"{n} of {n} test samples" in texts[0][1], "an unknown part may have been trained on"


def test_an_audit_needs_a_split(store, tmp_path):
    build(store, tmp_path / "a", clean())
    with pytest.raises(DataError, match="at least one split"):
        audit_cohort(store, "words", seeds=[])
