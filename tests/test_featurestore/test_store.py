"""Opening stores, and the items in them."""

import polars as pl
import pytest

from featurestore.errors import DataError, StoreError
from featurestore.items import ITEM_SCHEMA, add_items, list_items, load_for_catalog
from featurestore.store import open_store

from .sets import add_texts


def test_a_store_is_private_and_opens_again(tmp_path):
    made = open_store(tmp_path / "s", create=True)
    assert made.root.stat().st_mode & 0o777 == 0o700
    assert open_store(tmp_path / "s") == made


def test_no_store_says_how_to_get_one(tmp_path):
    with pytest.raises(StoreError, match=r"no radfs store at .*missing.*cohort build"):
        open_store(tmp_path / "missing")
    assert not (tmp_path / "missing").exists()


def test_a_folder_with_other_things_is_left_alone(tmp_path):
    (tmp_path / "thesis.tex").write_text("years of work")
    with pytest.raises(StoreError, match="is not a radfs store"):
        open_store(tmp_path, create=True)
    assert [p.name for p in tmp_path.iterdir()] == ["thesis.tex"]


def test_another_format_is_refused(tmp_path):
    root = open_store(tmp_path / "s", create=True).root
    (root / "radfs.json").write_text('{"format": 99}')
    with pytest.raises(StoreError, match="has format 99; this radfs reads format 3"):
        open_store(root)
    (root / "radfs.json").write_text("{")
    with pytest.raises(StoreError, match="damaged"):
        open_store(root)


def test_a_later_definition_wins_and_an_equal_one_writes_nothing(store):
    add_texts(store, {"1": "clear lungs", "2": "effusion"})
    add_texts(store, {"1": "clear lungs", "2": "effusion"})
    assert len(list((store.items / "d").iterdir())) == 1
    add_texts(store, {"2": "small effusion"})
    assert list_items(store, modality="text")["text"].to_list() == ["clear lungs", "small effusion"]
    assert list_items(store, modality="image").is_empty()


def test_the_catalog_never_gets_a_report(store):
    add_texts(store, {"1": "clear lungs"})
    (part,) = (store.items / "d").iterdir()
    row = load_for_catalog(part).to_dicts()
    assert row == [{"item": "d/1", "modality": "text", "dataset": "d", "path": None, "characters": 11}]


@pytest.mark.parametrize(
    ("row", "message"),
    [
        (("d", "text", None, "x"), r"item id 'd' is not of the form dataset/key"),
        (("../d/1", "text", None, "x"), r"not of the form dataset/key"),
        (("d/1\n", "text", None, "x"), r"not of the form dataset/key"),
        (("d/1", "video", None, "x"), r"item d/1 has modality 'video'; known: image, text"),
        (("d/1", "text", "p", " "), r"item d/1: an image needs a path and a report a text"),
        (("d/1", "image", None, "x"), r"item d/1: an image needs a path"),
    ],
)
def test_a_bad_item_is_named(store, row, message):
    with pytest.raises(DataError, match=message):
        add_items(store, pl.DataFrame([row], schema=ITEM_SCHEMA, orient="row"))
    assert list_items(store).is_empty()


def test_an_item_twice_in_one_call_is_named(store):
    rows = [("d/1", "text", None, "x"), ("d/1", "text", None, "y")]
    with pytest.raises(DataError, match="item d/1 stands more than once"):
        add_items(store, pl.DataFrame(rows, schema=ITEM_SCHEMA, orient="row"))
