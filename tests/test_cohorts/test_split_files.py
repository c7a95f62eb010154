"""Splits that leave one laboratory and arrive in another: the same rows, or a word about what differs."""

from pathlib import Path

import polars as pl
import pytest

from cohorts import SplitScheme, build_table, export_splits, import_splits, load_cohort
from cohorts.splits import local_id
from featurestore.errors import DataError, UnknownNameError
from featurestore.store import Store, open_store


def build(store: Store, folder: Path, *, name: str = "words", text: str = "Clear", **options) -> None:
    folder.mkdir(exist_ok=True)
    rows = [f"{i:02d},{text} {i}.,{i % 2},p{i // 2}" for i in range(40)]
    (folder / "records.csv").write_text("\n".join(["id,report,label,patient", *rows]) + "\n")
    columns = {"text_col": "report", "label_col": "label", "subject_col": "patient", "id_col": "id"}
    build_table(store, name, records=folder / "records.csv", **columns, **options)


@pytest.fixture
def other(tmp_path: Path) -> Store:
    """The store of another laboratory."""
    return open_store(tmp_path / "other", create=True)


@pytest.mark.parametrize("suffix", ["csv", "csv.gz", "tsv", "parquet"])
@pytest.mark.parametrize(
    "scheme", [SplitScheme(), SplitScheme(folds=4), SplitScheme(test="fixed", held_out_share=0.2)], ids=str
)
def test_another_laboratory_trains_on_the_same_rows(store, other, tmp_path, suffix, scheme):
    build(store, tmp_path / "a", splits=scheme)
    build(other, tmp_path / "b", name="theirs", splits=SplitScheme(test_share=0.4))
    file = tmp_path / f"splits.{suffix}"
    keys = export_splits(store, "words", file, range(4))
    report = import_splits(other, "theirs", file)
    assert report.changed
    assert report.splits == keys
    assert report.notes == ()
    ours, theirs = load_cohort(store, "words"), load_cohort(other, "theirs")
    for seed in range(4):
        one, two = ours.split(seed), theirs.split(seed)
        assert one.key == two.key == keys[seed]
        for part in ("train", "test", "held_out"):
            assert list(map(local_id, getattr(one, part))) == list(map(local_id, getattr(two, part)))
        assert list(map(local_id, one.inner(0.5)[1])) == list(map(local_id, two.inner(0.5)[1]))
    assert theirs.key == report.key
    assert str(theirs.scheme).startswith("imported")
    again = import_splits(other, "theirs", file)
    assert (again.changed, again.key) == (False, report.key)
    back = tmp_path / f"back.{suffix}"
    export_splits(other, "theirs", back, range(4))
    assert back.read_bytes() == file.read_bytes()


def test_declared_numbers_stay_with_the_cohort_and_the_file_speaks_of_parts_alone(store, other, tmp_path):
    build(store, tmp_path / "a", splits=SplitScheme(n_train=((0.5, 15),)))
    build(other, tmp_path / "b")
    file = tmp_path / "splits.csv"
    keys = export_splits(store, "words", file, [0])
    assert import_splits(other, "words", file).splits == keys, "checked, though no n is declared there"
    import_splits(store, "words", file)
    ours, theirs = load_cohort(store, "words").split(0), load_cohort(other, "words").split(0)
    assert (len(ours.subset(0.5)), len(theirs.subset(0.5))) == (15, 16)
    assert ours.parts_key == theirs.key != ours.key


def test_a_seed_that_was_not_imported_is_an_error_that_names_the_seeds(store, tmp_path):
    build(store, tmp_path / "a")
    export_splits(store, "words", tmp_path / "splits.csv", [0, 3])
    import_splits(store, "words", tmp_path / "splits.csv")
    with pytest.raises(DataError, match="no split of seed 1 was imported: the seeds are 0, 3"):
        load_cohort(store, "words").split(1)


def test_building_again_with_replace_brings_the_own_splits_back(store, tmp_path):
    build(store, tmp_path / "a")
    before = load_cohort(store, "words")
    export_splits(store, "words", tmp_path / "splits.csv", [0])
    import_splits(store, "words", tmp_path / "splits.csv")
    with pytest.raises(DataError, match=r"splits imported .* -> by subject"):
        build(store, tmp_path / "a")
    build(store, tmp_path / "a", replace=True)
    assert load_cohort(store, "words").key == before.key


def official(folder: Path, *, change: dict[int, str] | None = None, header: str = "id,part") -> Path:
    """The split of a publisher: no seed, no order; subjects 0 to 3 validate, 4 to 7 test."""
    parts = ["validate" if i // 2 < 4 else "test" if i // 2 < 8 else "train" for i in range(40)]
    rows = [f"{i:02d},{part}" for i, part in enumerate(parts)]
    for i, row in (change or {}).items():
        rows[i] = row
    path = folder / "official.csv"
    path.write_text("\n".join([header, *(row for row in rows if row)]) + "\n")
    return path


def test_an_official_split_serves_every_seed_and_each_seed_has_its_own_order(store, tmp_path):
    build(store, tmp_path / "a")
    report = import_splits(store, "words", official(tmp_path))
    assert report.splits == {None: None}
    one, two = (load_cohort(store, "words").split(seed) for seed in (0, 7))
    assert (len(one.train), len(one.test), len(one.held_out)) == (24, 8, 8)
    assert (set(one.test), set(one.held_out)) == (set(two.test), set(two.held_out))
    assert set(one.train) == set(two.train)
    assert one.subset(0.5) != two.subset(0.5)
    labels = dict(load_cohort(store, "words").samples.select("sample", "label").iter_rows())
    assert sum(labels[s] for s in one.subset(0.5)) == 6, "balanced by label, as ever"


def test_splits_for_a_part_of_the_samples_keep_to_it(store, tmp_path):
    """A grid has fewer rows than the cohort where a report is missing: those that are left keep their places."""
    build(store, tmp_path / "a")
    export_splits(store, "words", tmp_path / "splits.csv", [0])
    import_splits(store, "words", tmp_path / "splits.csv")
    cohort = load_cohort(store, "words")
    few = cohort.samples.gather_every(3)
    split, whole = cohort.split(0, few), cohort.split(0)
    assert split.train == tuple(s for s in whole.train if s in set(few["sample"]))
    assert len(split.train) + len(split.test) == few.height


@pytest.mark.parametrize(
    ("change", "header", "message"),
    [
        ({3: "03,test"}, "id,part", "1 subjects are in both test and held out, such as that of id 03"),
        ({3: "77,train"}, "id,part", "1 of its ids are not in cohort 'words', the first is 77"),
        ({3: ""}, "id,part", "1 samples of cohort 'words' are missing, the first is 03"),
        ({3: "02,validate"}, "id,part", "id 02 stands twice"),
        ({3: "03,trainn"}, "id,part", "part 'trainn' of id 03 is not train, test, held out"),
        ({}, "id,side", r"unknown column of official.csv 'part'\. .*Known: id, side"),
    ],
)
def test_a_file_that_does_not_fit_changes_nothing(store, tmp_path, change, header, message):
    build(store, tmp_path / "a")
    key = load_cohort(store, "words").key
    with pytest.raises((DataError, UnknownNameError), match=message):
        import_splits(store, "words", official(tmp_path, change=change, header=header))
    assert load_cohort(store, "words").key == key


def test_by_image_a_subject_may_be_in_two_parts_if_that_is_meant(store, tmp_path):
    build(store, tmp_path / "a", splits=SplitScheme(unit="image"))
    export_splits(store, "words", tmp_path / "splits.csv", [0])
    with pytest.raises(DataError, match="If that is meant: --split image"):
        import_splits(store, "words", tmp_path / "splits.csv")
    import_splits(store, "words", tmp_path / "splits.csv", unit="image")
    assert load_cohort(store, "words").scheme.unit == "image"


def test_rows_that_were_changed_after_the_export_are_seen(store, tmp_path):
    build(store, tmp_path / "a")
    path = tmp_path / "splits.csv"
    export_splits(store, "words", path, [0])
    frame = pl.read_csv(path, infer_schema=False)
    swapped = frame.with_columns(rank=pl.when(pl.col("rank") == "0").then(pl.lit("99")).otherwise("rank"))
    swapped.write_csv(path)
    with pytest.raises(DataError, match="rows were changed or lost since the export"):
        import_splits(store, "words", path)


def test_other_texts_under_the_same_ids_are_imported_with_a_warning(store, other, tmp_path):
    build(store, tmp_path / "a")
    build(other, tmp_path / "b", text="Impression")
    export_splits(store, "words", tmp_path / "splits.csv", [0])
    report = import_splits(other, "words", tmp_path / "splits.csv")
    assert report.changed
    assert "the ids agree, but subjects, labels, texts or images differ" in report.notes[0]


def test_a_file_of_another_form_is_refused(store, tmp_path):
    build(store, tmp_path / "a")
    with pytest.raises(DataError, match=r"must end in \.csv"):
        export_splits(store, "words", tmp_path / "splits.json", [0])
    with pytest.raises(DataError, match="there is no folder"):
        export_splits(store, "words", tmp_path / "nowhere" / "splits.csv", [0])
    with pytest.raises(DataError, match="cannot be read"):
        import_splits(store, "words", tmp_path / "absent.csv")
    (tmp_path / "seeds.csv").write_text("id,part,seed\n00,train,one\n")
    with pytest.raises(DataError, match="seed and rank must be whole numbers"):
        import_splits(store, "words", tmp_path / "seeds.csv")
