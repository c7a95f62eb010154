"""Planning, committing and resuming: every row exactly once, and only of what an item is now."""

import os
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from featurestore import writer as writer_module
from featurestore.errors import DamageError, DataError, ItemError, UnknownNameError
from featurestore.featureset import create_feature_set, find_feature_sets, list_feature_sets, open_feature_set
from featurestore.items import list_items
from featurestore.layout import FeatureLayout
from featurestore.reader import open_features
from featurestore.records import record_file
from featurestore.writer import ShardWriter, abandon, publish

from .sets import add_images, add_texts, files_below, fill, image_layout, text_layout, tokens_of, write_all

KEYS = [str(i) for i in range(10)]


def rows_of(feature_set):
    frame = feature_set.committed()
    return dict(zip(frame["item"], frame["row"], strict=True))


def test_what_changes_numbers_changes_the_name_and_what_does_not_does_not():
    name = image_layout().name
    assert image_layout(what={"weights_sha256": "01"}).name != name
    assert image_layout(about={"licence": "other"}, shard_rows=7).name == name
    assert FeatureLayout.from_metadata(image_layout().metadata()) == image_layout()


def test_an_interrupted_set_is_finished_in_the_same_rows(store, tmp_path):
    add_images(store, tmp_path, KEYS)
    whole = rows_of(write_all(store, image_layout(encoder="other")))
    feature_set = write_all(store, image_layout(), stop_after=1)
    assert len(rows_of(feature_set)) == 4
    allocated = feature_set.allocations()
    write_all(store, image_layout())
    assert rows_of(feature_set) == whole
    assert feature_set.allocations() == allocated
    assert feature_set.plan(list_items(store, modality="image")) == []


def test_shard_files_without_a_record_are_written_anew(store, tmp_path):
    add_images(store, tmp_path, KEYS)
    feature_set = write_all(store, image_layout())
    items = [f"d/{k}" for k in KEYS]
    before = open_features(store, feature_set.name).image_tokens(items)
    (feature_set.path / record_file(0, 1)).unlink()
    (feature_set.path / "tokens/v0/c.1.0.0").write_bytes(b"torn")
    assert open_features(store, feature_set.name).has(items).sum() == 6
    write_all(store, image_layout())
    assert (open_features(store, feature_set.name).image_tokens(items) == before).all()


def test_a_second_cohort_appends_in_shards_of_its_own(store, tmp_path):
    add_images(store, tmp_path, KEYS)
    write_all(store, image_layout())
    add_images(store, tmp_path, ["new1", "new2"])
    feature_set = write_all(store, image_layout())
    rows = rows_of(feature_set)
    assert [rows["d/new1"], rows["d/new2"]] == [12, 13]
    assert rows["d/9"] == 9


def test_a_corrected_report_is_missing_until_it_is_embedded_again(store):
    add_texts(store, {"1": "clear", "2": "effusion"})
    feature_set = write_all(store, text_layout())
    add_texts(store, {"2": "no effusion"})
    features = open_features(store, feature_set.name)
    assert features.has(["d/1", "d/2"]).tolist() == [True, False]
    write_all(store, text_layout())
    assert open_features(store, feature_set.name).has(["d/1", "d/2"]).all()
    assert rows_of(feature_set) == {"d/1": 0, "d/2": 4}


def test_an_image_with_other_bytes_is_missing_but_a_touched_or_absent_one_is_not(store, tmp_path):
    add_images(store, tmp_path, ["1", "2", "3"])
    feature_set = write_all(store, image_layout())
    os.utime(tmp_path / "1.bin", (1, 1))
    (tmp_path / "2.bin").write_bytes(b"another patient")
    (tmp_path / "3.bin").unlink()
    assert open_features(store, feature_set.name).has(["d/1", "d/2", "d/3"]).tolist() == [True, False, True]


def test_a_failure_is_not_tried_again_until_its_source_changes_or_one_asks(store, tmp_path):
    add_images(store, tmp_path, KEYS)
    feature_set = write_all(store, image_layout(), fail=("d/3",))
    items = list_items(store, modality="image")
    assert open_features(store, feature_set.name).failed(["d/3", "d/4"]).tolist() == [True, False]
    assert feature_set.plan(items) == []
    (tmp_path / "3.bin").write_bytes(b"repaired")
    write_all(store, image_layout())
    assert open_features(store, feature_set.name).has(["d/3"]).all()
    assert rows_of(feature_set)["d/3"] == 12


def test_retrying_plans_the_failures_alone(store, tmp_path):
    add_images(store, tmp_path, KEYS)
    feature_set = write_all(store, image_layout(), fail=("d/3", "d/7"))
    (plan,) = feature_set.plan(list_items(store, modality="image"), retry_failed=True)
    assert plan.items == ("d/3", "d/7")
    assert plan.first_row == 12


def test_a_request_for_some_items_leaves_the_others_unallocated(store, tmp_path):
    add_images(store, tmp_path, KEYS)
    feature_set = create_feature_set(store, image_layout())
    some = list_items(store, modality="image").filter(pl.col("item").is_in(["d/1", "d/8"]))
    (plan,) = feature_set.plan(some)
    assert plan.items == ("d/1", "d/8")


def test_of_two_plans_made_at_once_both_name_the_same_rows(store, tmp_path):
    add_images(store, tmp_path, KEYS)
    one, two = (create_feature_set(store, image_layout()) for _ in range(2))
    items = list_items(store, modality="image")
    assert one.plan(items[:6]) == two.plan(items[:6])
    assert [p.items for p in two.plan(items)] == [p.items for p in one.plan(items)]
    assert [(a.first, a.end) for a in one.allocations()] == [(0, 2), (2, 3)]


def test_an_allocation_that_another_process_was_first_with_is_planned_again(store, tmp_path, monkeypatch):
    add_images(store, tmp_path, KEYS)
    feature_set = create_feature_set(store, image_layout())
    items = list_items(store, modality="image")
    allocate = type(feature_set)._allocate

    def late(self, fresh, first_shard):
        monkeypatch.undo()
        feature_set.plan(items[3:5])  # somebody else, between the look and the write
        allocate(self, fresh, first_shard)

    monkeypatch.setattr(type(feature_set), "_allocate", late)
    plans = feature_set.plan(items)
    assert sorted(item for plan in plans for item in plan.items) == sorted(items["item"])
    assert plans[0].items == ("d/3", "d/4")


def test_a_late_writer_cannot_replace_a_committed_shard(store, tmp_path):
    add_images(store, tmp_path, KEYS)
    feature_set = create_feature_set(store, image_layout())
    plan = feature_set.plan(list_items(store, modality="image"))[0]
    stalled, other = fill(store, feature_set, plan), fill(store, feature_set, plan, fail=("d/2",))
    assert other.commit()
    before = files_below(feature_set.path)
    assert not stalled.commit()
    assert files_below(feature_set.path) == before
    assert open_features(store, feature_set.name).failed(["d/2"]).all()


def test_a_committed_shard_is_read_before_its_files_have_their_names(store, tmp_path, monkeypatch):
    add_images(store, tmp_path, KEYS)
    with monkeypatch.context() as patch:
        patch.setattr(writer_module, "publish", lambda *_: None)  # killed right after the commit
        feature_set = write_all(store, image_layout())
    # What a run before left under the shard's name is nobody's.
    (feature_set.path / "tokens/v0/c.0.0.0").write_bytes(b"torn")
    items = [f"d/{k}" for k in KEYS]
    staged = open_features(store, feature_set.name).image_tokens(items)
    assert (staged == np.stack([tokens_of(item, "image") for item in items])).all()
    for record in feature_set.records():
        publish(feature_set, record)
    assert not list((feature_set.path / "staged").iterdir())
    assert (open_features(store, feature_set.name).image_tokens(items) == staged).all()


def test_an_abandoned_shard_gives_its_items_other_rows(store, tmp_path):
    add_images(store, tmp_path, KEYS)
    feature_set = create_feature_set(store, image_layout())
    items = list_items(store, modality="image")
    late = fill(store, feature_set, feature_set.plan(items)[1])
    assert abandon(feature_set, 0, 1)
    assert not late.commit()
    assert [(p.shard, p.items) for p in feature_set.plan(items)] == [
        (0, ("d/0", "d/1", "d/2", "d/3")),
        (2, ("d/8", "d/9")),
        (3, ("d/4", "d/5", "d/6", "d/7")),
    ]


def test_dropped_rows_and_lost_files_are_missing_again(store, tmp_path):
    add_images(store, tmp_path, KEYS)
    feature_set = write_all(store, image_layout())
    feature_set.drop(pl.DataFrame({"row": [1], "view": [0], "item": ["d/1"], "reason": ["damaged"]}))
    (feature_set.path / "cls/v0/c.2.0").unlink()
    state = dict(feature_set.status(list_items(store, modality="image")).select("item", "state").iter_rows())
    assert [item for item, s in state.items() if s == "missing"] == ["d/1", "d/8", "d/9"]
    write_all(store, image_layout())
    assert (open_features(store, feature_set.name).image_tokens(["d/1"])[0] == tokens_of("d/1", "image")).all()
    assert rows_of(feature_set)["d/1"] == 12


def test_views_share_rows_and_can_be_added_later(store, tmp_path):
    add_images(store, tmp_path, KEYS)
    feature_set = write_all(store, image_layout())
    items = list_items(store, modality="image")
    assert feature_set.status(items, 1)["state"].unique().to_list() == ["missing"]
    write_all(store, image_layout(), view=1)
    assert feature_set.committed(1)["row"].equals(feature_set.committed(0)["row"])
    assert len(feature_set.allocations()) == 1
    assert (open_features(store, feature_set.name, view=1).image_tokens(["d/3"])[0] == tokens_of("d/3", "image")).all()
    with pytest.raises(DataError, match="has no tokens of d/3 in view 2"):
        open_features(store, feature_set.name, view=2).image_tokens(["d/3"])


def test_a_position_without_tokens_is_no_commit(store, tmp_path):
    add_images(store, tmp_path, KEYS)
    feature_set = create_feature_set(store, image_layout())
    plan = feature_set.plan(list_items(store, modality="image"))[0]
    with pytest.raises(ValueError, match="no tokens for d/0"):
        ShardWriter(feature_set, plan).commit()
    assert feature_set.committed().is_empty()


def test_tokens_that_overflow_half_precision_are_an_items_failure(store, tmp_path):
    add_images(store, tmp_path, KEYS)
    feature_set = create_feature_set(store, image_layout())
    writer = ShardWriter(feature_set, feature_set.plan(list_items(store, modality="image"))[0])
    tokens = tokens_of("d/0", "image").astype("f4")
    with pytest.raises(ItemError, match="not finite in float16"):
        writer.put(0, tokens + 1e6, content="", cls=tokens[0])
    with pytest.raises(ValueError, match="do not fit"):
        writer.put(0, tokens[:2], content="", cls=tokens[0])


def test_sets_are_found_by_encoder_and_by_name(store):
    one = create_feature_set(store, image_layout())
    two = create_feature_set(store, image_layout(what={"weights_sha256": "01"}))
    assert {s.name for s in find_feature_sets(store, "img")} == {one.name, two.name}
    assert [s.name for s in find_feature_sets(store, two.name)] == [two.name]
    assert len(list_feature_sets(store)) == 2
    with pytest.raises(UnknownNameError, match=r"unknown feature set 'img@[0-9a-f]+'\. Did you mean 'img@"):
        open_feature_set(store, two.name[:-1])


def test_a_foreign_group_and_a_torn_record_are_named(store, tmp_path):
    add_images(store, tmp_path, KEYS)
    feature_set = write_all(store, image_layout())
    (feature_set.path / record_file(0, 0)).write_text("{")
    with pytest.raises(DamageError, match=r"commit record v0/00000000\.json is damaged.*radfs verify img@.* --repair"):
        feature_set.committed()
    Path(feature_set.path / "zarr.json").write_text('{"zarr_format": 3, "attributes": {}}')
    with pytest.raises(DamageError, match="not one that this radfs wrote"):
        open_feature_set(store, feature_set.name)
