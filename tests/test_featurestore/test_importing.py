"""What is imported is what is read; nothing is written that does not fit; an interrupted import resumes."""

import hashlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from featurestore.errors import DataError, UnknownNameError
from featurestore.featureset import list_feature_sets, open_feature_set
from featurestore.items import add_items, list_items
from featurestore.reader import open_features
from featurestore.transfer import importing
from featurestore.transfer.foreign import Choice
from featurestore.transfer.importing import import_features

from . import strangers
from .sets import add_images, add_texts


@pytest.fixture
def small_shards(monkeypatch):
    """Shards of 4 rows, so that small sets have several."""
    monkeypatch.setattr(importing, "shard_rows_for", lambda **_: 4)


def bring(store, source: Path, **changes):
    options = {"encoder": "theirs", "modality": "image", "revision": "1", "dataset": "d"}
    return import_features(store, source, **(options | changes))


def tokens(store, name: str, item: str) -> np.ndarray:
    features = open_features(store, name)
    return features.image_tokens([item])[0] if features.modality == "image" else features.text_tokens([item])[0]


def snapshot(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def feature_files(store) -> dict[str, bytes]:
    return snapshot(store.features) if store.features.is_dir() else {}


@pytest.mark.parametrize("kind", ["pooled", "dense"])
@pytest.mark.parametrize("make", strangers.EQUAL.values(), ids=strangers.EQUAL)
def test_images_from_every_format(store, tmp_path, small_shards, make, kind):
    items = getattr(strangers, kind)(6)
    add_images(store, tmp_path, list(items))
    report = bring(store, make(tmp_path, items))
    assert (report.in_source, report.imported, report.already, report.failed) == (6, 6, 0, {})
    for key, values in items.items():
        assert np.array_equal(tokens(store, report.feature_set, f"d/{key}"), np.atleast_2d(values).astype(np.float16))


@pytest.mark.parametrize("make", strangers.EQUAL.values(), ids=strangers.EQUAL)
def test_reports_from_every_format(store, tmp_path, small_shards, make):
    items = strangers.ragged(6)
    add_texts(store, {key: f"report {key}" for key in items})
    report = bring(store, make(tmp_path, items), modality="text", preset="float32")
    assert report.imported == 6
    for key, values in items.items():
        assert np.array_equal(tokens(store, report.feature_set, f"d/{key}"), values)


def test_a_row_knows_the_source_that_it_stands_for(store, tmp_path):
    items = strangers.pooled(3)
    add_images(store, tmp_path, list(items))
    (tmp_path / "k2.bin").unlink()
    name = bring(store, strangers.npz(tmp_path, items)).feature_set
    features = open_features(store, name)
    assert features.items == ["d/k0", "d/k1", "d/k2"]
    assert features.content(["d/k0", "d/k2"]) == [hashlib.sha256(b"k0").hexdigest(), None]
    (tmp_path / "k0.bin").write_bytes(b"another image")
    assert open_features(store, name).items == ["d/k1", "d/k2"]


def test_a_second_import_adds_nothing_and_a_second_cohort_appends(store, tmp_path, small_shards):
    items = strangers.dense(11)
    add_images(store, tmp_path, list(items))
    first = {k: items[k] for k in list(items)[:6]}
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    name = bring(store, strangers.npz(tmp_path / "a", first)).feature_set
    before = feature_files(store)
    again = bring(store, strangers.parquet(tmp_path / "a", first))
    assert (again.feature_set, again.imported, again.already) == (name, 0, 6)
    assert feature_files(store) == before
    both = bring(store, strangers.hdf5(tmp_path / "b", items))
    assert (both.feature_set, both.imported, both.already) == (name, 5, 6)
    after = feature_files(store)
    assert all(after[path] == data for path, data in before.items() if "commits" in path or "/c." in path)
    assert open_features(store, name).items == sorted(f"d/{k}" for k in items)


def test_what_identifies_the_producer_makes_the_set(store, tmp_path):
    items = strangers.dense(3)
    add_images(store, tmp_path, list(items))
    source = strangers.npz(tmp_path, items)
    names = {
        bring(store, source).feature_set,
        bring(store, source, revision="2").feature_set,
        bring(store, source, encoder="other").feature_set,
        bring(store, source, preset="float32").feature_set,
        bring(store, strangers.npz(tmp_path, strangers.pooled(3))).feature_set,
    }
    assert len(names) == 5
    layout = open_feature_set(store, bring(store, strangers.npz(tmp_path, items)).feature_set).layout
    assert layout.what == {"imported": {"modality": "image", "dim": 6, "tokens": 4}, "revision": "1"}
    assert (layout.tokens, layout.has_cls, layout.about["licence"]) == (4, False, "not stated")


def test_other_values_of_an_item_are_an_error_that_names_it(store, tmp_path, small_shards):
    items = strangers.dense(6)
    add_images(store, tmp_path, list(items))
    bring(store, strangers.npz(tmp_path, {k: items[k] for k in list(items)[:4]}))
    before = feature_files(store)
    items["k2"] = items["k2"] + np.float32(0.01)
    with pytest.raises(DataError, match=r"item d/k2: theirs@.* holds other values"):
        bring(store, strangers.npz(tmp_path, items))
    assert feature_files(store) == before
    items["k2"][0, 0] = np.nan
    with pytest.raises(DataError, match="item d/k2"):
        bring(store, strangers.npz(tmp_path, items))


def test_values_that_are_not_finite_fail_alone(store, tmp_path, small_shards):
    items = strangers.dense(9)
    items["k3"][1, 2], items["k5"][0, 0], items["k6"][3, 5] = np.nan, np.inf, 1e6
    add_images(store, tmp_path, list(items))
    report = bring(store, strangers.npz(tmp_path, items))
    assert report.imported == 6
    assert sorted(report.failed) == ["d/k3", "d/k5", "d/k6"]
    assert "not finite in float16" in report.failed["d/k6"]
    assert sum(len(r.items) for r in open_feature_set(store, report.feature_set).records()) == 9, "tried once"
    before = feature_files(store)
    again = bring(store, strangers.npz(tmp_path, items))
    assert (again.imported, again.already, again.known_failures, again.failed) == (0, 6, 3, {})
    assert feature_files(store) == before
    items["k3"] = strangers.dense(9)["k3"]
    mended = bring(store, strangers.npz(tmp_path, items))
    assert (mended.imported, mended.already, mended.known_failures) == (1, 6, 2)
    assert np.array_equal(tokens(store, report.feature_set, "d/k3"), items["k3"].astype(np.float16))
    wide = bring(store, strangers.npz(tmp_path, items), preset="float32")
    assert sorted(wide.failed) == ["d/k5"]


def test_an_item_without_embedding_fails_alone(store, tmp_path):
    add_images(store, tmp_path, ["a", "b"])
    frame = pl.DataFrame({"item": ["a", "b"], "tokens": [[[1.0, 2.0]], None]})
    frame.write_parquet(tmp_path / "e.parquet")
    report = bring(store, tmp_path / "e.parquet")
    assert (report.imported, list(report.failed)) == (1, ["d/b"])


# ids


def test_unknown_ids_are_counted_and_named(store, tmp_path):
    items = strangers.pooled(6)
    add_images(store, tmp_path, ["k0", "k1"])
    source = strangers.npz(tmp_path, items)
    with pytest.raises(DataError, match=r"4 of 6 ids are no image items of this store: d/k2, d/k3, d/k4 and 1 more\."):
        bring(store, source)
    assert not list_feature_sets(store)
    report = bring(store, source, skip_unknown=True)
    assert (report.unknown, report.imported) == (4, 2)
    with pytest.raises(DataError, match=r"6 of 6 ids .*bare keys: give --dataset d"):
        bring(store, source, dataset=None, skip_unknown=True)
    with pytest.raises(DataError, match=r"6 of 6 ids are no text items"):
        bring(store, source, modality="text")


def test_whole_ids_and_bare_keys(store, tmp_path):
    add_images(store, tmp_path, ["k0", "k1"])
    np.save(tmp_path / "e.npy", np.zeros((2, 3)))
    (tmp_path / "e.ids.txt").write_text("d/k0\nk1\n")
    assert bring(store, tmp_path / "e.npy").imported == 2
    (tmp_path / "e.ids.txt").write_text("d/k0\nk0\n")
    with pytest.raises(DataError, match="d/k0 stands more than once"):
        bring(store, tmp_path / "e.npy")
    (tmp_path / "f.txt").write_text("d/k1\nd/k0\n")
    assert bring(store, tmp_path / "e.npy", choice=Choice(ids=tmp_path / "f.txt"), dataset=None).already == 2


# what does not fit


def test_what_cannot_be_a_set_is_refused_before_anything_is_written(store, tmp_path):
    add_images(store, tmp_path, ["k0", "k1"])
    add_texts(store, {"k0": "one", "k1": "two"})
    uneven = {"k0": np.zeros((2, 3), np.float32), "k1": np.zeros((3, 3), np.float32)}
    with pytest.raises(DataError, match="item d/k0 has 2 tokens and others 3"):
        bring(store, strangers.npz(tmp_path, uneven))
    with pytest.raises(DataError, match="most were padded"):
        bring(store, strangers.npz(tmp_path, strangers.dense(2)), modality="text")
    for encoder in ("../evil", "a/b", "", "a@b"):
        with pytest.raises(DataError, match="encoder = "):
            bring(store, strangers.npz(tmp_path, strangers.pooled(2)), encoder=encoder)
    with pytest.raises(UnknownNameError, match="preset"):
        bring(store, strangers.npz(tmp_path, strangers.pooled(2)), preset="float8")
    np.savez(tmp_path / "w.npz", embeddings=np.zeros((2, 70_000), np.float16), ids=np.array(["k0", "k1"]))
    with pytest.raises(DataError, match="dim = '70000' is not allowed"):
        bring(store, tmp_path / "w.npz")
    assert not list_feature_sets(store)
    assert not feature_files(store)


def test_longer_reports_than_the_set_holds_are_refused(store, tmp_path):
    add_texts(store, {"a": "one", "b": "two", "c": "three"})
    np.savez(tmp_path / "a.npz", a=np.zeros((3, 2), np.float32))
    np.savez(tmp_path / "b.npz", b=np.zeros((512, 2), np.float32))
    np.savez(tmp_path / "c.npz", c=np.zeros((513, 2), np.float32))
    name = bring(store, tmp_path / "a.npz", modality="text").feature_set
    assert bring(store, tmp_path / "b.npz", modality="text").feature_set == name
    before = feature_files(store)
    with pytest.raises(DataError, match=r"reports of up to 512 tokens, and one here is longer.*--revision"):
        bring(store, tmp_path / "c.npz", modality="text")
    assert feature_files(store) == before
    other = bring(store, tmp_path / "c.npz", modality="text", revision="long").feature_set
    assert open_feature_set(store, other).layout.tokens == 1024


def test_a_licence_cannot_be_lost_by_adding(store, tmp_path):
    items = strangers.pooled(2)
    add_images(store, tmp_path, list(items))
    source = strangers.npz(tmp_path, items)
    bring(store, source, licence="PhysioNet", credentialed=True)
    assert bring(store, source, licence="PhysioNet", credentialed=True).already == 2
    with pytest.raises(DataError, match="credentialed True and this import says False"):
        bring(store, source, licence="PhysioNet")
    with pytest.raises(DataError, match="licence 'PhysioNet' and this import says 'not stated'"):
        bring(store, source, credentialed=True)


# interruptions


def test_an_interrupted_import_resumes(store, tmp_path, small_shards, monkeypatch):
    items = strangers.dense(20)
    add_images(store, tmp_path, list(items))
    source = strangers.npz_compressed(tmp_path, items)
    count = 0
    real = importing.ShardWriter.commit

    def commit(self):
        nonlocal count
        count += 1
        if count == 3:
            raise KeyboardInterrupt
        return real(self)

    monkeypatch.setattr(importing.ShardWriter, "commit", commit)
    with pytest.raises(KeyboardInterrupt):
        bring(store, source)
    report = bring(store, source)
    assert (report.already, report.imported) == (8, 12)
    found = open_features(store, report.feature_set)
    assert found.items == sorted(f"d/{k}" for k in items)
    expected = np.stack([items[i.removeprefix("d/")] for i in found.items]).astype(np.float16)
    assert np.array_equal(found.image_tokens(found.items), expected)


def test_an_interrupted_import_of_another_source_is_no_obstacle(store, tmp_path, small_shards, monkeypatch):
    items = strangers.dense(6)
    add_images(store, tmp_path, list(items))
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    first = strangers.npz(tmp_path / "a", {k: items[k] for k in ("k0", "k1", "k2", "k3")})
    second = strangers.npz(tmp_path / "b", {k: items[k] for k in ("k3", "k4", "k5")})
    with monkeypatch.context() as patch:
        patch.setattr(importing.ShardWriter, "commit", lambda self: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            bring(store, first)
    report = bring(store, second)
    assert (report.imported, report.failed) == (3, {})
    assert open_features(store, report.feature_set).items == ["d/k3", "d/k4", "d/k5"]
    report = bring(store, first)
    assert (report.imported, report.already, report.known_failures) == (3, 1, 0)
    found = open_features(store, report.feature_set)
    assert found.items == sorted(f"d/{k}" for k in items)
    for key, values in items.items():
        assert np.array_equal(found.image_tokens([f"d/{key}"])[0], values.astype(np.float16))


KILLED = """
import sys, time
from pathlib import Path
from featurestore.transfer import importing
from featurestore.store import open_store
importing.shard_rows_for = lambda **_: 4
real = importing.ShardWriter.put
def slow(self, *arguments, **named):
    time.sleep(0.002)
    return real(self, *arguments, **named)
importing.ShardWriter.put = slow
print("ready", flush=True)
report = importing.import_features(
    open_store(sys.argv[1]), Path(sys.argv[2]), encoder="theirs", modality="image", revision="1", dataset="d"
)
print(report.imported, flush=True)
"""


def start(store, source: Path) -> subprocess.Popen:
    command = [sys.executable, "-c", KILLED, str(store.root), str(source)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def test_killed_at_random_moments_nothing_is_lost_or_doubled(store, tmp_path, small_shards):
    items = strangers.dense(60)
    add_images(store, tmp_path, list(items))
    source = strangers.parquet(tmp_path, items)
    rng = np.random.default_rng(0)
    for _ in range(4):
        process = start(store, source)
        assert process.stdout is not None
        process.stdout.readline()
        time.sleep(float(rng.uniform(0.02, 0.25)))
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        process.stdout.close()
    report = bring(store, source)
    found = open_features(store, report.feature_set)
    assert found.items == sorted(f"d/{k}" for k in items)
    expected = np.stack([items[i.removeprefix("d/")] for i in found.items]).astype(np.float16)
    assert np.array_equal(found.image_tokens(found.items), expected)
    committed = [i for r in found.feature_set.records() for i in r.items]
    assert sorted(committed) == sorted(set(committed)), "no item has two rows"


def test_two_processes_import_at_once(store, tmp_path, small_shards):
    items = strangers.dense(60)
    add_images(store, tmp_path, list(items))
    source = strangers.npz(tmp_path, items)
    both = [start(store, source) for _ in range(2)]
    made = [int(p.communicate()[0].split()[-1]) for p in both]
    assert sum(made) == 60
    assert len(open_features(store, list_feature_sets(store)[0].name).items) == 60


def test_progress_reaches_the_total(store, tmp_path, small_shards):
    items = strangers.dense(10)
    add_images(store, tmp_path, list(items))
    seen = []
    bring(store, strangers.npz(tmp_path, items), on_progress=lambda *told: seen.append(told))
    assert seen == [(4, 10, 0), (8, 10, 0), (10, 10, 0)]


def test_the_texts_may_be_gone(store, tmp_path):
    from featurestore.items import remove_texts

    items = strangers.ragged(3)
    add_texts(store, {key: f"report {key}" for key in items})
    remove_texts(store, "d")
    assert bring(store, strangers.npz(tmp_path, items), modality="text").imported == 3


def test_errors_hold_no_paths_of_images(store, tmp_path):
    """Only ids: an image's path may name a patient."""
    items = {"k0": np.full(3, np.nan, np.float32), "k1": np.zeros(3, np.float32)}
    frame = {
        "item": ["d/k0", "d/k1"],
        "modality": "image",
        "path": [str(tmp_path / "SMITH" / "x"), "/gone"],
        "text": None,
    }
    add_items(store, pl.DataFrame(frame, schema_overrides={"text": pl.String}))
    report = bring(store, strangers.npz(tmp_path, items))
    assert "SMITH" not in str(report)
    assert list_items(store)["item"].to_list() == ["d/k0", "d/k1"]
