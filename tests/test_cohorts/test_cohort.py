"""Cohorts on disk: what is committed, what counts as the same, what is refused."""

from datetime import datetime
from pathlib import Path

import polars as pl
import pytest

from cohorts import SplitScheme, build_table, list_cohorts, load_cohort, save_split
from cohorts.build import commit, draft_cohort
from cohorts.flow import Flow
from cohorts.schema import TABLES
from featurestore.catalog import Catalog
from featurestore.errors import DamageError, DataError, StoreError, UnknownNameError
from featurestore.fsio import read_parquet, write_parquet
from featurestore.items import list_items
from featurestore.sealed import open_json, seal_json
from featurestore.store import open_store


def write(folder: Path, *lines: str) -> Path:
    folder.mkdir(exist_ok=True)
    path = folder / "records.csv"
    path.write_text("\n".join(["id,report,label,patient", *lines]) + "\n", encoding="utf-8")
    return path


ROWS = ("1,Clear.,0,p1", "2,Opacity.,1,p2", "3,Clear again.,0,p3", "4,Opacity too.,1,p4")


def build(store, folder, *lines, name="words", **options):
    arguments = {"text_col": "report", "label_col": "label", "subject_col": "patient", "id_col": "id"} | options
    return build_table(store, name, records=write(folder, *(lines or ROWS)), **arguments)


def snapshot(root: Path) -> dict[str, tuple[int, bytes]]:
    return {str(p): (p.stat().st_mtime_ns, p.read_bytes()) for p in sorted(root.rglob("*")) if p.is_file()}


def test_building_the_same_again_changes_nothing_and_says_so(store, tmp_path):
    first = build(store, tmp_path / "a")
    before = snapshot(store.root)
    again = build(store, tmp_path / "a")
    assert (first.created, again.created) == (True, False)
    assert again.key == first.key
    assert "unchanged" in again.lines()[0]
    assert snapshot(store.root) == before


def test_the_key_knows_neither_paths_nor_names_nor_the_order_of_rows(store, tmp_path):
    first = build(store, tmp_path / "a")
    other = build(open_store(tmp_path / "other", create=True), tmp_path / "b", *reversed(ROWS), name="renamed")
    assert other.key == first.key


@pytest.mark.parametrize(
    ("change", "shown"),
    [
        ({"lines": ROWS[:3]}, "samples 4 -> 3"),
        ({"lines": (*ROWS[:3], "4,Opacity too.,1,p3")}, "subjects 4 -> 3"),
        ({"lines": (*ROWS[:3], "4,Opacity too.,0,p4")}, "class 1 2 -> 1"),
        ({"lines": (*ROWS[:3], "4,Another text.,1,p4")}, "the counts are the same"),
        ({"lines": (*ROWS[:3], "5,Opacity too.,1,p4")}, "the counts are the same"),
        ({"splits": SplitScheme(test_share=0.25)}, "splits by subject, test share 0.2, a test .* -> by"),
    ],
)
def test_other_content_under_a_known_name_is_refused_and_changes_nothing(store, tmp_path, change, shown):
    first = build(store, tmp_path / "a")
    before = snapshot(store.root)
    change = dict(change)
    lines = change.pop("lines", ROWS)
    with pytest.raises(DataError, match=shown) as caught:
        build(store, tmp_path / "b", *lines, **change)
    assert "--replace" in str(caught.value)
    assert "another name" in str(caught.value)
    assert snapshot(store.root) == before

    replaced = build(store, tmp_path / "b", *lines, replace=True, **change)
    assert replaced.created
    assert replaced.key != first.key
    assert load_cohort(store, "words").key == replaced.key


def test_moved_images_are_the_same_cohort_with_new_paths(store, tmp_path):
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        for i in range(1, 5):
            (tmp_path / folder / f"{i}.png").write_bytes(b"not looked into")
    options = {"image_col": "report", "text_col": None}
    rows = [f"{i},{i}.png,{i % 2},p{i}" for i in range(1, 5)]
    first = build(store, tmp_path / "a", *rows, **options)
    again = build(store, tmp_path / "b", *rows, **options)
    assert (again.key, again.created) == (first.key, False)
    assert set(list_items(store)["path"]) == {str(tmp_path / "b" / f"{i}.png") for i in range(1, 5)}


def test_reading_gives_back_what_was_built(store, tmp_path):
    build(store, tmp_path / "a", licence="CC0-1.0")
    cohort = load_cohort(store, "words")
    assert list_cohorts(store) == ["words"]
    assert (cohort.name, cohort.task, cohort.classes, cohort.scheme) == ("words", "binary", ("0", "1"), SplitScheme())
    assert (cohort.licence, cohort.builder, cohort.options["label_col"]) == ("CC0-1.0", "table", "label")
    assert cohort.samples["label"].dtype == pl.Int32


def test_an_unknown_cohort_names_the_known_ones(store, tmp_path):
    build(store, tmp_path / "a")
    with pytest.raises(UnknownNameError, match=r"cohort 'word'\. Did you mean 'words'"):
        load_cohort(store, "word")


def test_without_its_pointer_a_cohort_is_not_there(store, tmp_path):
    build(store, tmp_path / "a")
    (store.cohorts / "words" / "cohort.json").unlink()
    assert list_cohorts(store) == []
    assert build(store, tmp_path / "a").created


def test_another_format_version_is_refused(store, tmp_path):
    build(store, tmp_path / "a")
    path = store.cohorts / "words" / "cohort.json"
    path.write_bytes(seal_json(open_json(path.read_bytes()) | {"format": 99}))
    with pytest.raises(StoreError, match="format 99; this radfs reads format 7"):
        load_cohort(store, "words")


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-20])


def shorten(path: Path) -> None:
    write_parquet(path, read_parquet(path).head(3))


def flip(path: Path) -> None:
    """One bit, somewhere in the middle: a label, an id, a length."""
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 4
    path.write_bytes(data)


@pytest.mark.parametrize(
    ("file", "harm"),
    [
        ("cohort.json", cut),
        ("cohort.json", flip),
        ("*/samples.parquet", flip),
        ("*/samples.parquet", cut),
        ("*/samples.parquet", shorten),
        ("*/samples.parquet", Path.unlink),
    ],
)
def test_damage_is_seen_and_a_rebuild_mends_it(store, tmp_path, file, harm):
    built = build(store, tmp_path / "a")
    harm(next((store.cohorts / "words").glob(file)))
    with pytest.raises(DamageError, match="again with --replace"):
        load_cohort(store, "words")
    with pytest.raises(DamageError):
        build(store, tmp_path / "a")
    assert build(store, tmp_path / "a", replace=True).key == built.key
    assert load_cohort(store, "words").samples.height == 4


def test_all_tables_answer_sql(store, tmp_path):
    build(store, tmp_path / "a", *ROWS, "5,,1,p5", "6,Text.,,p6")
    cohort = load_cohort(store, "words")
    split = cohort.split(3)
    save_split(store, cohort, split, 3)
    catalog = Catalog(store, TABLES, ())
    catalog.fold()
    ask = catalog.query
    assert ask("SELECT cohort_key, classes, n_samples, n_texts, n_images FROM cohorts").rows() == [
        (cohort.key, ["0", "1"], 4, 4, 0)
    ]
    assert ask("SELECT options->>'label_col' FROM cohorts").item() == "label"
    assert ask("SELECT count(*), sum(label) FROM samples JOIN cohorts USING (cohort, cohort_key)").row(0) == (4, 2)
    assert ask("SELECT step, count(*) FROM excluded GROUP BY step ORDER BY step").rows() == [
        ("missing label", 1),
        ("neither image nor text", 1),
    ]
    assert ask("SELECT n_after FROM flow ORDER BY position DESC LIMIT 1").item() == 4
    trained = ask("SELECT sample FROM splits WHERE part = 'train' AND seed = 3 ORDER BY rank")["sample"].to_list()
    assert tuple(trained) == split.train
    for table in TABLES:
        assert ask(f"SELECT * FROM {table.name}").columns == [column.name for column in table.columns]
        assert all(column.comment for column in table.columns)


def test_a_split_is_written_once(store, tmp_path):
    build(store, tmp_path / "a")
    cohort = load_cohort(store, "words")
    split = cohort.split(0)
    save_split(store, cohort, split, 0)
    before = snapshot(store.cohorts)
    save_split(store, cohort, split, 0)
    assert snapshot(store.cohorts) == before
    assert len(list((store.cohorts / "words" / "splits").iterdir())) == 1


def test_samples_of_one_study_share_its_report_and_keep_what_is_known_of_them(store):
    taken = datetime(2180, 5, 6, 21, 30)
    rows = pl.DataFrame(
        {
            "id": ["i1", "i2", "i3"],
            "subject": ["p1", "p1", "p2"],
            "study": ["s1", "s1", "s2"],
            "image_path": ["/a", "/b", "/c"],
            "text": ["Clear.", "Clear.", None],
            "text_id": ["s1", "s1", "s2"],
            "label": [0, 0, 1],
            "age": [61, 61, None],
            "acquired": [taken, taken, None],
        }
    )
    options = {
        "builder": "table",
        "options": {},
        "classes": ("no", "yes"),
        "scheme": SplitScheme(test_share=0.5),
        "licence": "none",
    }
    commit(store, draft_cohort("shared", rows, Flow(3, "rows"), dataset="d", **options), replace=False)
    samples = load_cohort(store, "shared").samples
    assert samples["text"].to_list() == ["d/s1", "d/s1", None]
    assert samples.select("sex", "age", "view", "acquired").rows()[1:] == [
        (None, 61.0, None, taken),
        (None, None, None, None),
    ]
    assert list_items(store, modality="text").select("item", "text").rows() == [("d/s1", "Clear.")]
    older = rows.with_columns(age=pl.lit(62))
    assert draft_cohort("other", older, Flow(3, "rows"), **options).cohort.key == load_cohort(store, "shared").key
