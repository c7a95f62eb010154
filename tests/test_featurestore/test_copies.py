"""The read-through cache of remote stores: a few rows come alone, many make a copy, and a copy is whole or absent."""

import time

import numpy as np
import polars as pl
import pytest

from featurestore import copies, rangefile
from featurestore.copies import local_file
from featurestore.errors import DamageError, DataError, StoreError
from featurestore.featureset import create_feature_set
from featurestore.items import add_items, list_items
from featurestore.openshard import Shard
from featurestore.process import identity
from featurestore.reader import open_features
from featurestore.writer import ShardWriter

from .sets import add_texts, image_layout


@pytest.fixture
def large(remote, monkeypatch):
    """A set of one shard of 64 rows of 4 kB; its file is too large to be copied for one row."""
    monkeypatch.setattr(rangefile, "SMALL_BYTES", 2**12)
    layout = image_layout(dim=64, tokens=32, has_cls=False, shard_rows=64)
    add_texts(remote, {"0": "not an image"})
    frame = {"item": [f"d/{i:02d}" for i in range(64)], "modality": "image", "path": "/gone.png", "text": None}
    add_items(remote, pl.DataFrame(frame, schema_overrides={"text": pl.String}))
    feature_set = create_feature_set(remote, layout)
    (plan,) = feature_set.plan(list_items(remote, modality="image"))
    values = np.random.default_rng(0).standard_normal((64, 32, 64)).astype(np.float16)
    shard = ShardWriter(feature_set, plan)
    for i in range(64):
        shard.put(i, values[i], content="00", stamp="gone")
    assert shard.commit()
    return feature_set, values


TOKENS = "tokens/v0/c.0.0.0"


def copy_of(feature_set):
    return copies.copy_of(feature_set.path / TOKENS, feature_set.record(0, 0).files[TOKENS])


def test_a_few_rows_are_fetched_alone_and_many_make_a_copy(server, remote, large):
    feature_set, values = large
    size = feature_set.record(0, 0).files[TOKENS]["bytes"]
    features = open_features(remote, feature_set.name)
    server.forget()
    few = [40, 3, 17]
    assert np.array_equal(features.image_tokens([f"d/{i:02d}" for i in few]), values[few])
    ranges = [a.range.removeprefix("bytes=").split("-") for a in server.fetched(TOKENS)]
    assert 3 * 4096 < sum(int(last) - int(first) + 1 for first, last in ranges if first) < size / 8
    again = [3, 40]
    assert np.array_equal(features.image_tokens([f"d/{i:02d}" for i in again]), values[again])
    assert not copy_of(feature_set).exists()
    assert np.array_equal(features.image_tokens(features.items), values)
    assert copy_of(feature_set).stat().st_size == size
    server.forget()
    assert np.array_equal(features.image_tokens(features.items[::-1]), values[::-1])
    assert np.array_equal(open_features(remote, feature_set.name).image_tokens(features.items), values)
    assert server.fetched(TOKENS) == []
    assert copy_of(feature_set).parent.stat().st_mode & 0o077 == 0


def test_a_torn_copy_is_made_anew(server, remote, large):
    feature_set, values = large
    open_features(remote, feature_set.name).image_tokens([f"d/{i:02d}" for i in range(64)])
    copy = copy_of(feature_set)
    whole = copy.read_bytes()
    for torn in (b"", whole[:-1], whole + b"x"):
        copy.write_bytes(torn)
        features = open_features(remote, feature_set.name)
        assert np.array_equal(features.image_tokens(features.items), values)
        assert copy.read_bytes() == whole


def test_a_copy_that_was_broken_off_is_nobodys(remote, large):
    feature_set, values = large
    objects = copies.cache_folder("objects")
    dead = objects / f".{identity().rpartition('_')[0]}_1.0123456789ab.partial"
    dead.write_bytes(b"half")
    features = open_features(remote, feature_set.name)
    assert np.array_equal(features.image_tokens(features.items), values)
    assert not dead.exists()


@pytest.mark.parametrize("whole", [False, True])
def test_an_object_of_another_size_is_damage(server, remote, large, whole):
    feature_set, _ = large
    path = feature_set.path / TOKENS
    path.put([path.read_bytes()[:-5000]])
    features = open_features(remote, feature_set.name)
    items = features.items if whole else features.items[:1]
    with pytest.raises(DamageError, match=r"the commit record promises 263\d\d\d bytes, found 258\d\d\d.*radfs verify"):
        features.image_tokens(items)
    path.unlink()
    with pytest.raises(DamageError, match="is gone"):
        Shard(feature_set, 0, 0).row(feature_set.layout.arrays()[0], 0)


def test_a_row_that_came_wrong_is_found(remote, large):
    feature_set, values = large
    path = feature_set.path / TOKENS
    data = bytearray(path.read_bytes())
    data[5 * 4096 + 8] ^= 1
    path.put([data])
    features = open_features(remote, feature_set.name)
    for items in (["d/05"], features.items):
        with pytest.raises(DamageError, match=r"item d/05: .*delete the cache"):
            features.image_tokens(items)
    others = [i for i in range(64) if i != 5]
    assert np.array_equal(features.image_tokens([f"d/{i:02d}" for i in others]), values[others])


def test_the_least_recently_used_copies_make_room(folder, monkeypatch):
    paths = [folder / str(i) for i in range(4)]
    for path in paths:
        path.put([path.name.encode() * 1000])
    monkeypatch.setenv("RADFS_CACHE_BYTES", "2500")
    made = []
    for path in paths[:2]:
        made.append(local_file(path))
        time.sleep(0.01)
    copies._opened.clear()  # as if another process had made them
    assert local_file(paths[0]) == made[0]
    copies._opened.clear()
    made.append(local_file(paths[2]))
    assert [path.exists() for path in made] == [True, False, True]
    made.append(local_file(paths[3]))
    assert [path.exists() for path in made] == [False, False, True, True]
    assert local_file(paths[1]) == made[1]
    assert [path.exists() for path in made] == [False, True, True, True]  # this process reads all of them
    assert [path.read_bytes() for path in made[1:]] == [path.read_bytes() for path in paths[1:]]
    monkeypatch.setenv("RADFS_CACHE_BYTES", "much")
    with pytest.raises(DataError, match="RADFS_CACHE_BYTES is 'much': give a number of bytes"):
        local_file(folder / "0")


def test_another_object_of_the_same_name_is_another_copy(folder):
    path = folder / "a"
    path.put([b"one"])
    first = local_file(path)
    path.put([b"two"])
    assert local_file(path).read_bytes() == b"two"
    assert first.read_bytes() == b"one"


def test_a_full_disk_is_said(folder, monkeypatch):
    (folder / "a").put([b"one"])

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(copies.os, "pwrite", full)
    with pytest.raises(StoreError, match=r"cannot be copied into the cache .*: No space left on device\. Make room"):
        local_file(folder / "a")
    assert list(copies.cache_folder("objects").iterdir()) == []
