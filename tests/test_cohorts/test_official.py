"""The split that a data set's publishers made, as the split of a cohort: by a hand-made table of parts."""

import polars as pl
import pytest

from cohorts import SplitScheme, export_splits, import_splits, load_cohort
from cohorts.official import official_split
from cohorts.public.chexpert import build_chexpert
from cohorts.public.chexpert import example as chexpert_example
from cohorts.public.nih_cxr14 import build_nih_cxr14
from cohorts.public.nih_cxr14 import example as nih_example
from cohorts.tasks.mimic_age import build_mimic_age
from featurestore.errors import DataError

from .test_mimic_tasks import image_id
from .trees import MimicDownload

OFFICIAL = SplitScheme(unit="official")


def parts_of(samples: str, *, subjects: str | None = None) -> pl.DataFrame:
    """Samples a, b, ... of the parts whose first letters are given: t(rain), v(alidate), T(est), - (none), x (odd)."""
    words = {"t": "train", "v": "Validate", "T": " test", "-": None, "x": "elsewhere"}
    names = "abcdefgh"[: len(samples)]
    return pl.DataFrame(
        {
            "sample": [f"c/{name}" for name in names],
            "subject": list(subjects or names),
            "source_split": [words[letter] for letter in samples],
        }
    )


def test_parts_are_taken_as_they_are_and_what_is_validated_on_is_held_out():
    scheme, rows, notes = official_split(parts_of("tvTtt"), OFFICIAL)
    assert dict(rows.select("sample", "part").iter_rows()) == {
        "c/a": "train", "c/b": "held out", "c/c": "test", "c/d": "train", "c/e": "train",
    }  # fmt: skip
    assert rows["seed"].null_count() == rows["rank"].null_count() == 5
    assert scheme.unit == "official"
    assert str(scheme).startswith(f"official split of the publishers ({scheme.imported})")
    assert notes == ("official split: 3 train, 1 test, 1 held out",)


def test_without_a_test_part_the_validation_part_is_the_test():
    _, rows, notes = official_split(parts_of("ttvv"), OFFICIAL)
    assert rows.filter(part="test")["sample"].to_list() == ["c/c", "c/d"]
    assert "no test part here" in notes[0]


@pytest.mark.parametrize(
    ("samples", "subjects", "message"),
    [
        ("tT-", None, "1 of 3 samples are in none of its parts .* the first is c/c, which is in no part of it"),
        ("tTx", None, "the first is c/c, which is in 'elsewhere'"),
        ("tTT", "aab", "1 subjects in two parts, such as that of c/a"),
        ("ttt", None, "3 samples to train and 0 to test on"),
        ("TTv", None, "0 samples to train and 2 to test on"),
    ],
)
def test_what_is_no_split_of_all_samples_by_patient_is_refused(samples, subjects, message):
    with pytest.raises(DataError, match=message):
        official_split(parts_of(samples, subjects=subjects), OFFICIAL)


@pytest.fixture
def aged(tmp_path):
    tree = MimicDownload(tmp_path / "data")
    for n in range(1, 13):
        tree.image(n, n, n, date="21820101", part=("train", "validate", "test")[max(0, n - 10)])
        tree.report(n, n, f"IMPRESSION:  Patient {n}.")
        tree.patient(n, 20 + 5 * n)
    return tree.write()


def test_mimic_by_its_own_split(store, aged):
    report = build_mimic_age(store, **aged.folders, bins=[18, 50, 120], splits=OFFICIAL)
    assert any("official split: 10 train, 1 test, 1 held out" in line for line in report.lines())
    cohort = load_cohort(store, "mimic-age")
    first, second = cohort.split(0), cohort.split(1)
    assert set(first.train) == set(second.train) == {f"mimic-cxr/{image_id(n)}" for n in range(1, 11)}
    assert (first.held_out, first.test) == ((f"mimic-cxr/{image_id(11)}",), (f"mimic-cxr/{image_id(12)}",))
    assert first.train != second.train, "the order of training follows the seed"
    assert first.key != second.key
    by_subject = build_mimic_age(store, "own", **aged.folders, bins=[18, 50, 120])
    assert by_subject.key != report.key
    again = build_mimic_age(store, **aged.folders, bins=[18, 50, 120], splits=OFFICIAL)
    assert (again.created, again.key) == (False, report.key)


def test_another_official_split_is_another_cohort_key(store, aged):
    before = build_mimic_age(store, **aged.folders, bins=[18, 50, 120], splits=OFFICIAL)
    aged.split[0] = aged.split[0].replace("train", "test")
    after = build_mimic_age(store, "other", **aged.write().folders, bins=[18, 50, 120], splits=OFFICIAL)
    assert after.key != before.key
    assert load_cohort(store, "other").rows_key == load_cohort(store, "mimic-age").rows_key


def test_it_is_exported_and_comes_in_elsewhere(store, aged, tmp_path):
    build_mimic_age(store, **aged.folders, bins=[18, 50, 120], splits=OFFICIAL)
    build_mimic_age(store, "theirs", **aged.folders, bins=[18, 50, 120])
    keys = export_splits(store, "mimic-age", tmp_path / "s.csv", range(2))
    assert import_splits(store, "theirs", tmp_path / "s.csv").splits == keys
    with pytest.raises(DataError, match="'official' is a split that a cohort is built with"):
        import_splits(store, "theirs", tmp_path / "s.csv", unit="official")


def test_without_the_table_of_parts_it_is_refused(store, aged):
    (aged.jpg / "mimic-cxr-2.0.0-split.csv.gz").unlink()
    with pytest.raises(DataError, match="12 of 12 samples are in none of its parts"):
        build_mimic_age(store, **aged.folders, bins=[18, 50, 120], splits=OFFICIAL)


def test_nih_by_its_lists(store, tmp_path):
    nih_example(store, "any", tmp_path)
    names = [f"{i:08d}_000.png" for i in range(12)]
    (tmp_path / "train_val_list.txt").write_text("\n".join(names[:8]))
    (tmp_path / "test_list.txt").write_text("\n".join(names[8:]))
    build_nih_cxr14(store, "nih", root=tmp_path, splits=OFFICIAL)
    split = load_cohort(store, "nih").split(3)
    assert (len(split.train), len(split.test), len(split.held_out)) == (8, 4, 0)
    assert set(split.test) == {f"nih-cxr14/{name[:-4]}" for name in names[8:]}


def test_chexpert_tests_on_the_radiologists_studies(store, tmp_path):
    chexpert_example(store, "any", tmp_path)
    head = (tmp_path / "train.csv").read_text().splitlines()[0]
    rows = []
    for i in range(4):
        path = tmp_path / "valid" / f"patient{64_000 + i}" / "study1" / "view1_frontal.jpg"
        path.parent.mkdir(parents=True)
        path.write_bytes((tmp_path / "train" / "patient00000" / "study1" / "view1_frontal.jpg").read_bytes())
        values = ["", "", "", "", "", "", "", "", "", "", str(i % 2), "", "", ""]
        name = f"CheXpert-v1.0-small/valid/patient{64_000 + i}/study1/view1_frontal.jpg"
        rows.append(",".join([name, "Male", "70", "Frontal", "AP", *values]))
    (tmp_path / "valid.csv").write_text("\n".join([head, *rows]) + "\n")
    report = build_chexpert(store, "chexpert", root=tmp_path, splits=OFFICIAL)
    assert any("no test part here" in line for line in report.lines())
    split = load_cohort(store, "chexpert").split(0)
    assert set(split.test) == {f"chexpert/valid/patient{64_000 + i}/study1/view1_frontal" for i in range(4)}
    assert len(split.train) == 12
