"""Allocations and commit records that are gone or damaged: what is left tells of it, and everything is made anew."""

import numpy as np
import polars as pl
import pytest

from featurestore.errors import DamageError
from featurestore.featureset import STAMP_SCHEMA, FeatureSet
from featurestore.index import RowIndex
from featurestore.items import list_items
from featurestore.reader import open_features
from featurestore.records import record_file
from featurestore.tables import append_table
from featurestore.verify import verify
from featurestore.writer import abandon

from .sets import add_texts, text_layout, tokens_of, write_all

LAYOUT = text_layout()


def add(store, *numbers: int) -> FeatureSet:
    """Some more reports, in an allocation of their own: shards of four."""
    add_texts(store, {str(n): f"report {n}" for n in numbers})
    return write_all(store, LAYOUT)


@pytest.fixture
def texts(store) -> FeatureSet:
    """Allocations of shards 0 and 1, of shard 2, of shard 3."""
    add(store, *range(6))
    add(store, 6, 7)
    return add(store, 8)


def assert_whole(store) -> None:
    """Every item is there with its own tokens."""
    items = list_items(store)["item"].to_list()
    flat, offsets = open_features(store, LAYOUT.name).text_tokens(items)
    for item, found in zip(items, np.split(flat, offsets[1:-1]), strict=True):
        assert (found == tokens_of(item, "text")).all()


def flip(path):
    data = bytearray(path.read_bytes())
    data[len(data) // 3] ^= 1
    path.write_bytes(data)


def found(store):
    return [(f.kind, f.shard, f.items) for f in verify(store, deep=True).findings]


def test_a_record_that_was_deleted_is_missed(store, texts):
    (texts.path / record_file(0, 1)).unlink()
    assert found(store) == [("record", 1, ("d/4", "d/5"))]
    assert "commit record is missing" in verify(store).findings[0].message
    write_all(store, LAYOUT)
    assert verify(store, deep=True).clean
    assert_whole(store)


def test_a_deleted_record_is_repaired_by_giving_its_items_other_rows(store, texts):
    (texts.path / record_file(0, 1)).unlink()
    assert verify(store, repair=True).findings[0].repaired == "abandoned; 2 items queued"
    assert verify(store, deep=True).clean
    write_all(store, LAYOUT)
    assert_whole(store)


def test_all_records_of_a_view_were_deleted(store, texts):
    for path in (texts.path / "commits" / "v0").iterdir():
        path.unlink()
    (texts.path / "commits" / "v0").rmdir()
    assert [shard for _, shard, _ in found(store)] == [0, 1, 2, 3]
    write_all(store, LAYOUT)
    assert verify(store, deep=True).clean
    assert_whole(store)


def test_a_record_lost_with_its_files_is_known_to_the_index(store, monkeypatch):
    monkeypatch.setattr("featurestore.index.SIZES", (4, 2))
    texts = add(store, *range(16))
    assert RowIndex(texts.path, 0).compact() == 1
    (texts.path / record_file(0, 2)).unlink()
    for array in LAYOUT.arrays():
        (texts.path / array.shard_file(2)).unlink()
    assert found(store) == [("record", 2, tuple(texts.allocated_items(2)))]
    # Abandoning must not let the rows that the index still knows come back.
    assert abandon(texts, 0, 2)
    assert 2 not in RowIndex(texts.path, 0).lookup()["shard"].to_list()
    assert verify(store, deep=True).clean
    write_all(store, LAYOUT)
    assert_whole(store)


@pytest.mark.parametrize("first", [0, 2, 3])
@pytest.mark.parametrize("harm", [flip, lambda path: path.unlink()], ids=["flipped", "deleted"])
def test_an_allocation_that_is_damaged_or_deleted_is_written_anew_from_the_records(store, texts, first, harm):
    path = texts.path / "rows" / f"{first:08d}.parquet"
    before = texts.allocated(path)
    harm(path)
    assert [f[:2] for f in found(store)] == [("table", first)]
    assert verify(store, repair=True).findings[0].repaired == "written anew from the commit records"
    assert verify(store, deep=True).clean
    restored = texts.allocated(path)
    assert restored.drop_nulls().equals(before)
    add(store, 10, 11)
    assert verify(store, deep=True).clean
    assert_whole(store)


@pytest.mark.parametrize("first", [2, 3])
def test_without_a_deleted_allocation_nothing_is_overwritten(store, texts, first):
    (texts.path / "rows" / f"{first:08d}.parquet").unlink()
    add(store, 10, 11)
    assert_whole(store)
    assert [f[:2] for f in found(store)] == [("table", first)]
    verify(store, repair=True)
    assert verify(store, deep=True).clean
    assert_whole(store)


def test_a_damaged_allocation_of_which_nothing_was_made_is_removed(store, texts):
    add_texts(store, {"9": "report 9"})
    write_all(store, LAYOUT, stop_after=0)
    flip(texts.path / "rows" / "00000004.parquet")
    with pytest.raises(DamageError, match=r"rows/00000004\.parquet is damaged.*radfs verify"):
        write_all(store, LAYOUT)
    assert verify(store, repair=True).findings[0].repaired == "removed; nothing of it had been made"
    write_all(store, LAYOUT)
    assert verify(store, deep=True).clean
    assert_whole(store)


def test_damaged_stamps_are_removed_for_files_are_hashed_anew(store, texts):
    append_table(texts.path / "stamps", STAMP_SCHEMA.to_frame())
    flip(texts.path / "stamps" / "00000000.parquet")
    assert verify(store, repair=True).findings[0].repaired == "removed"
    assert verify(store).clean


def test_damaged_drops_stop_every_reader(store, texts):
    texts.drop(pl.DataFrame({"row": [0], "view": [0], "item": ["d/0"], "reason": ["taken out"]}))
    flip(texts.path / "dropped" / "00000000.parquet")
    assert [f[0] for f in found(store)] == ["set"]
    with pytest.raises(DamageError, match=r"dropped/00000000\.parquet is damaged"):
        open_features(store, LAYOUT.name)
