"""Leftovers are found and removed; what somebody is making, or what counts, stays."""

import os

import pytest

from featurestore import writer as writer_module
from featurestore.claims import Claims, list_claims
from featurestore.featureset import create_feature_set
from featurestore.fsio import partial_name
from featurestore.gc import collect
from featurestore.items import list_items
from featurestore.process import identity
from featurestore.reader import open_features
from featurestore.verify import verify

from .sets import add_images, add_texts, files_below, fill, image_layout, text_layout, tokens_of, write_all

KEYS = [str(i) for i in range(10)]
DEAD = identity().rpartition("_")[0] + "_1"  # this PID, started at another time


@pytest.fixture
def images(store, tmp_path):
    add_images(store, tmp_path, KEYS)
    return write_all(store, image_layout(), stop_after=2)


def why(report):
    return sorted({leftover.why for leftover in report.removed})


def staged(store, feature_set, monkeypatch):
    """Shard 2 as a process leaves it that is killed after it staged its files."""
    writer = fill(store, feature_set, feature_set.plan(list_items(store, modality="image"))[0])
    with monkeypatch.context() as patch:
        patch.setattr(writer_module, "write_new", lambda *_: 1 / 0)
        patch.setattr(writer_module, "discard", lambda *_: None)
        with pytest.raises(ZeroDivisionError):
            writer.commit()
    return writer


def test_a_sound_store_has_no_leftovers(store, images):
    before = files_below(store.root)
    assert collect(store, dry_run=False).removed == []
    assert files_below(store.root) == before


def test_a_dry_run_names_what_is_removed_and_removes_nothing(store, images, monkeypatch):
    staged(store, images, monkeypatch)
    before = files_below(store.root)
    dry = collect(store, dry_run=True, stale_s=-1)
    assert files_below(store.root) == before
    assert [x.path for x in collect(store, dry_run=False, stale_s=-1).removed] == [x.path for x in dry.removed]
    assert len(dry.removed) == 2
    assert not list((images.path / "staged").iterdir())


def test_temporary_files_go_when_their_process_is_gone(store, images):
    mine, dead = partial_name(images.path / "x"), images.path / f".{DEAD}.0123456789ab.partial"
    for path in (mine, dead):
        path.write_bytes(b"torn")
    assert [leftover.path for leftover in collect(store, dry_run=False).removed] == [dead]
    assert mine.exists()
    assert not dead.exists()


def test_what_a_live_worker_has_staged_stays_and_can_be_committed(store, images, monkeypatch):
    with Claims(images) as claims:
        assert claims.take(0, 2)
        writer = staged(store, images, monkeypatch)
        assert collect(store, dry_run=False, stale_s=-1).removed == []
        assert writer.commit()
    assert open_features(store, images.name).has(["d/9"]).all()


def test_what_a_dead_worker_has_staged_goes_and_it_can_never_commit(store, images, monkeypatch):
    writer = staged(store, images, monkeypatch)
    (images.path / "claims").mkdir(exist_ok=True)
    (images.path / "claims" / "v0-00000002.g0001").write_text(f"{DEAD}/0")
    assert why(collect(store, dry_run=False)) == [
        "claim of a process that is gone",
        "of an attempt that was not committed",
    ]
    assert not writer.commit()
    assert not list_claims(images)
    assert not list((images.path / "staged").iterdir())
    write_all(store, image_layout())
    features = open_features(store, images.name)
    assert all((features.image_tokens([f"d/{k}"])[0] == tokens_of(f"d/{k}", "image")).all() for k in KEYS)
    assert collect(store, dry_run=False).removed == []


def test_the_files_of_a_committed_shard_get_their_names(store, tmp_path, monkeypatch):
    add_images(store, tmp_path, KEYS)
    with monkeypatch.context() as patch:
        patch.setattr(writer_module, "publish", lambda *_: None)
        feature_set = write_all(store, image_layout())
    assert collect(store, dry_run=False, stale_s=-1).removed == []
    assert not list((feature_set.path / "staged").iterdir())
    assert verify(store, deep=True).clean
    assert (feature_set.path / "tokens/v0/c.2.0.0").exists()


def test_shards_none_of_whose_rows_counts_are_freed(store):
    add_texts(store, {k: f"report {k}" for k in KEYS})
    feature_set = write_all(store, text_layout())
    add_texts(store, {k: f"corrected {k}" for k in KEYS[:4]})
    assert collect(store, dry_run=False).removed == []  # the corrected ones are not embedded yet
    write_all(store, text_layout())
    removed = [leftover.path.name for leftover in collect(store, dry_run=False).removed]
    assert sorted(removed) == ["c.0.0", "c.0.0"]
    assert verify(store, deep=True).clean
    assert open_features(store, feature_set.name).has([f"d/{k}" for k in KEYS]).all()


def test_files_without_a_record_go(store, images):
    stray = images.path / "tokens/v0/c.7.0.0"
    stray.write_bytes(b"from a copy that was broken off")
    assert why(collect(store, dry_run=True)) == ["shard file without a commit record"]
    collect(store, dry_run=False)
    assert not stray.exists()
    write_all(store, image_layout())
    assert open_features(store, images.name).has([f"d/{k}" for k in KEYS]).all()


def test_results_and_sets_whose_making_was_broken_off_go_when_they_are_old(store):
    for folder in (store.results / "part", store.features / "img@0"):
        folder.mkdir(parents=True)
        (folder / "epochs.parquet").write_bytes(b"x")
    assert collect(store, dry_run=False).removed == []
    for folder in (store.results / "part", store.features / "img@0"):
        os.utime(folder / "epochs.parquet", (1, 1))
        os.utime(folder, (1, 1))
    assert len(collect(store, dry_run=False).removed) == 2
    assert not list(store.results.iterdir())


def test_an_empty_store_and_an_unfinished_set_are_no_trouble(store, tmp_path):
    assert collect(store, dry_run=False).removed == []
    add_images(store, tmp_path, KEYS)
    create_feature_set(store, image_layout()).plan(list_items(store, modality="image"))
    assert collect(store, dry_run=False).removed == []
