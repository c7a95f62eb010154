"""The fast reader gives zarr-python's bytes, and never bytes that nobody vouches for."""

import errno
import gc
import os
import time
import warnings
import weakref
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import zarr

from featurestore import fill, memory, shardfile
from featurestore.codecs import CODECS
from featurestore.errors import DamageError, DataError
from featurestore.featureset import create_feature_set
from featurestore.items import list_items
from featurestore.openshard import Shard
from featurestore.reader import open_features
from featurestore.records import record_file
from featurestore.shardfile import ShardFile
from featurestore.sources import source_stamp
from featurestore.writer import ShardWriter

from .sets import add_images, add_texts, image_layout, text_layout, tokens_of, write_all

KEYS = [str(i) for i in range(10)]
ITEMS = [f"d/{k}" for k in KEYS if k != "6"]
SOME = ["d/9", "d/0", "d/1", "d/9"]

# dim, tokens, rows a shard, items: one of each; several groups of an int8 scale; reports across chunks of 64 tokens.
ODD = ((1, 1, 1, 3), (6, 5, 4, 10), (65, 3, 3, 7), (130, 70, 4, 9), (768, 2, 5, 4))


@pytest.fixture
def images(store, tmp_path):
    add_images(store, tmp_path, KEYS)
    return write_all(store, image_layout(), fail=("d/6",))


@pytest.fixture
def texts(store):
    add_texts(store, {k: f"report {k}" for k in KEYS})
    return write_all(store, text_layout(), fail=("d/6",))


@pytest.fixture
def small_steps(monkeypatch):
    """Cut small sets as large ones are: into many reads, shared by threads."""
    for name, size in (("_CHECKED_BYTES", 500), ("_COPIED_BYTES", 700), ("_BLOCK_BYTES", (200, 900))):
        monkeypatch.setattr(fill, name, size)


def write_odd(store, folder, layout, count):
    """A set of so many items, every fifth of them failed: reports of all lengths, numbers of all sizes."""
    keys = [f"{i:02d}" for i in range(count)]
    if layout.modality == "image":
        add_images(store, folder, keys)
    else:
        add_texts(store, {key: f"report {key}" for key in keys})
    feature_set = create_feature_set(store, layout)
    items = list_items(store, modality=layout.modality)
    sources = items.rows_by_key("item", named=True, unique=True)
    rng = np.random.default_rng(5)
    for plan in feature_set.plan(items):
        writer = ShardWriter(feature_set, plan)
        for position, item in enumerate(plan.items):
            known = {"content": sources[item]["text_sha256"], "stamp": source_stamp(sources[item]["path"])}
            if int(item[2:]) % 5 == 4:
                writer.fail(position, "told to fail", **known)
                continue
            n = layout.tokens if layout.modality == "image" else int(rng.integers(1, layout.tokens + 1))
            values = rng.standard_normal((n, layout.dim), dtype=np.float32) * 10.0 ** rng.integers(-3, 3)
            writer.put(position, values, cls=values[0] * 2 if layout.has_cls else None, **known)
        writer.commit()
    return feature_set


def read_by_zarr(feature_set, item, base="tokens"):
    """What zarr-python reads of an item, decoded: the slow twin."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Numcodecs codecs are not in the Zarr version 3 specification")
        group = zarr.open_group(feature_set.path, mode="r")
        rows = dict(zip(feature_set.committed()["item"], feature_set.committed()["row"], strict=True))
        place = rows[item]
        if feature_set.modality == "text":
            place = slice(*group["offsets/v0"][place])
        parts = [group[a.path][place] for a in feature_set.layout.arrays() if a.base == base]
    return np.array(feature_set.layout.codec.decode(parts))


@pytest.mark.parametrize("codec", CODECS)
@pytest.mark.parametrize(("dim", "tokens", "shard_rows", "count"), ODD)
def test_images_equal_what_zarr_reads(store, tmp_path, small_steps, codec, dim, tokens, shard_rows, count):
    layout = image_layout(dim=dim, tokens=tokens, shard_rows=shard_rows, dtype=codec)
    feature_set = write_odd(store, tmp_path, layout, count)
    features = open_features(store, feature_set.name, threads=3)
    expected = np.stack([read_by_zarr(feature_set, item) for item in features.items])
    classes = np.stack([read_by_zarr(feature_set, item, "cls") for item in features.items])
    rng = np.random.default_rng(0)
    for _ in range(3):  # for the first time by offset, then from maps
        chosen = rng.integers(0, len(expected), 2 * len(expected))
        items = [features.items[i] for i in chosen]
        assert features.image_tokens(items).tobytes() == expected[chosen].tobytes()
        assert features.image_tokens(features.items).tobytes() == expected.tobytes()
        assert features.cls_tokens(items, out=np.empty((len(items), dim), features.dtype)).dtype == features.dtype
        assert features.cls_tokens(items).tobytes() == classes[chosen].tobytes()


@pytest.mark.parametrize("codec", CODECS)
@pytest.mark.parametrize(("dim", "tokens", "shard_rows", "count"), ODD)
def test_reports_equal_what_zarr_reads(store, tmp_path, small_steps, codec, dim, tokens, shard_rows, count):
    layout = text_layout(dim=dim, tokens=tokens, shard_rows=shard_rows, dtype=codec)
    feature_set = write_odd(store, tmp_path, layout, count)
    features = open_features(store, feature_set.name, threads=3)
    expected = [read_by_zarr(feature_set, item) for item in features.items]
    rng = np.random.default_rng(0)
    for _ in range(3):
        for chosen in (rng.integers(0, len(expected), 2 * len(expected)), np.arange(len(expected))):
            flat, offsets = features.text_tokens([features.items[i] for i in chosen])
            assert flat.tobytes() == b"".join(expected[i].tobytes() for i in chosen)
            assert np.diff(offsets).tolist() == [len(expected[i]) for i in chosen]


def test_images_come_in_the_order_asked_for(store, images):
    features = open_features(store, images.name)
    tokens = features.image_tokens(SOME)
    assert (tokens == np.stack([tokens_of(i, "image") for i in SOME])).all()
    assert (features.cls_tokens(SOME) == tokens[:, 0] + np.float16(1)).all()
    assert features.image_tokens([]).shape == (0, 5, 6)


def test_reports_are_ragged(store, texts):
    flat, offsets = open_features(store, texts.name).text_tokens(ITEMS)
    assert flat.dtype == np.float16
    for i, item in enumerate(ITEMS):
        assert (flat[offsets[i] : offsets[i + 1]] == tokens_of(item, "text")).all()
    flat, offsets = open_features(store, texts.name).text_tokens([])
    assert flat.shape == (0, 6)
    assert offsets.tolist() == [0]


def test_only_real_tokens_are_stored(texts):
    stored = sum(p.stat().st_size for p in (texts.path / "tokens/v0").glob("c.*"))
    tokens = texts.committed()["tokens"].sum()
    shards = 3
    padding_and_index = shards * (63 * 12 + 16 + 4)
    assert tokens * 12 <= stored <= tokens * 12 + padding_and_index


def test_rows_go_into_a_buffer_that_the_caller_gives(store, images, texts):
    features = open_features(store, images.name)
    buffer = np.empty((2, 5, 6), dtype=np.float16)
    assert features.image_tokens(["d/2", "d/3"], out=buffer) is buffer
    assert (buffer[1] == tokens_of("d/3", "image")).all()
    strided = np.zeros((4, 5, 6), dtype=np.float16)[::2]
    assert features.image_tokens(["d/2", "d/3"], out=strided) is strided
    assert (strided == buffer).all()
    with pytest.raises(DataError, match=r"must be float16 \(1, 5, 6\)"):
        features.image_tokens(["d/2"], out=buffer)
    buffer.flags.writeable = False
    with pytest.raises(DataError, match="out is read-only float16"):
        features.image_tokens(["d/2", "d/3"], out=buffer)
    longer = np.empty((20, 6), dtype=np.float16)
    flat, offsets = open_features(store, texts.name).text_tokens(["d/2", "d/3"], out=longer)
    assert np.shares_memory(flat, longer)
    assert len(flat) == offsets[-1]


def test_what_is_not_there_is_named(store, images, texts):
    features = open_features(store, images.name)
    assert not features.has(["d/6"])[0]
    with pytest.raises(DataError, match=r"has no tokens of d/6, nope/1\. Run `radfs extract --backbone img`"):
        features.image_tokens(["d/0", "d/6", "nope/1"])
    with pytest.raises(DataError, match="holds image tokens, not text tokens"):
        features.text_tokens(["d/0"])
    with pytest.raises(DataError, match="has no class token"):
        open_features(store, texts.name).cls_tokens(["d/0"])


def test_an_array_that_does_not_fit_into_memory_is_refused(store, images, monkeypatch):
    features = open_features(store, images.name)
    monkeypatch.setattr(memory, "require", lambda nbytes, what, instead: memory_is_full(f"{what}: {nbytes}. {instead}"))
    with pytest.raises(DataError, match=r"reading 2 rows of feature set img@\w+ into memory: 120\. .*stream_features"):
        features.image_tokens(["d/0", "d/1"])


def memory_is_full(message):
    raise DataError(message)


def flip(path, at):
    data = bytearray(path.read_bytes())
    data[at] ^= 1
    path.write_bytes(data)


def test_a_flipped_bit_is_found_in_its_row_alone(store, images):
    flip(images.path / "tokens/v0/c.0.0.0", 2 * 60 + 3)
    features = open_features(store, images.name)
    assert (features.image_tokens(["d/1", "d/3"])[0] == tokens_of("d/1", "image")).all()
    for _ in range(2):  # a row counts as read when it was good
        with pytest.raises(DamageError, match=r"item d/2: its row .* fails its checksum"):
            features.image_tokens(["d/1", "d/2", "d/3"])
    assert open_features(store, images.name, check=False).image_tokens(["d/2"]).shape == (1, 5, 6)


def test_a_flipped_bit_in_text_cls_or_index_is_found(store, images, texts):
    flip(texts.path / "tokens/v0/c.0.0", 0)
    with pytest.raises(DamageError, match="item d/0"):
        open_features(store, texts.name).text_tokens(["d/0"])
    flip(images.path / "cls/v0/c.0.0", 0)
    with pytest.raises(DamageError, match="item d/0"):
        open_features(store, images.name).cls_tokens(["d/0"])
    file = images.path / "tokens/v0/c.1.0.0"
    flip(file, file.stat().st_size - 20)
    with pytest.raises(DamageError, match="shard index fails its checksum"):
        open_features(store, images.name).image_tokens(["d/4"])


@pytest.mark.parametrize("codec", ["int8", "archive"])
def test_a_flipped_bit_is_found_whatever_the_codec(store, tmp_path, codec):
    add_images(store, tmp_path, KEYS)
    feature_set = write_all(store, image_layout(dtype=codec))
    for array in feature_set.layout.arrays():
        file = feature_set.path / array.shard_file(0)
        flip(file, 0)
        features = open_features(store, feature_set.name)
        read = features.cls_tokens if array.base == "cls" else features.image_tokens
        with pytest.raises(DamageError, match="item d/0"):
            read(["d/0"])
        flip(file, 0)


def test_where_reports_begin_is_taken_from_the_record(store, texts):
    file = texts.path / "offsets/v0/c.0.0"
    data = bytearray(file.read_bytes())
    data[0:16], data[16:32] = data[16:32], data[0:16]
    file.write_bytes(data)
    flat, _ = open_features(store, texts.name).text_tokens(["d/0"])
    assert (flat == tokens_of("d/0", "text")).all()


@pytest.mark.parametrize("size", [0, 100])
def test_a_truncated_or_missing_shard_is_an_error_and_not_zeros(store, images, size):
    features = open_features(store, images.name)
    file = images.path / "tokens/v0/c.0.0.0"
    file.write_bytes(file.read_bytes()[:size])
    with pytest.raises(DamageError, match=rf"the commit record promises \d+ bytes, found {size}"):
        features.image_tokens(["d/0"])
    file.unlink()
    with pytest.raises(DamageError, match="found 0"):
        features.image_tokens(["d/0"])


def test_a_file_that_shrinks_after_it_was_opened_is_an_error_and_kills_nobody(store, images):
    features = open_features(store, images.name)
    features.image_tokens(["d/0"])
    os.truncate(images.path / "tokens/v0/c.0.0.0", 100)
    with pytest.raises(DamageError, match=r"item d/3: .*tokens/v0/c\.0\.0\.0: the file ends after 180 of \d+ bytes"):
        features.image_tokens(["d/3"])


def test_a_disk_that_fails_is_an_error_that_names_the_item(store, images, monkeypatch):
    features = open_features(store, images.name)
    features.image_tokens(["d/0"])

    def fail(*_):
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(os, "preadv", fail)
    with pytest.raises(DamageError, match=r"item d/1: .*cannot be read \(Input/output error\)"):
        features.image_tokens(["d/1"])


def test_a_record_of_other_items_than_the_index_knows_is_refused(store, images):
    features = open_features(store, images.name)
    path = images.path / record_file(0, 0)
    record = images.record(0, 0)
    path.write_bytes(replace(record, items=[record.items[1], record.items[0], *record.items[2:]]).encode())
    with pytest.raises(DamageError, match=r"item d/0: the commit record of shard 0 .* another item in row 0"):
        features.image_tokens(["d/2"])


def test_a_done_row_that_its_file_does_not_hold_is_an_error(store, images):
    record = images.record(0, 1)
    tokens, failed = list(record.tokens), dict(record.failed)
    position = record.items.index("d/6")
    tokens[position] = 5
    del failed[position]
    changed = replace(record, tokens=tokens, failed=failed)
    (images.path / record_file(0, 1)).write_bytes(changed.encode())
    with pytest.raises(DamageError, match="item d/6: its row is not in the files"):
        open_features(store, images.name).image_tokens(["d/5", "d/6"])
    with pytest.raises(DamageError, match="item d/6: its row is not in the files"):
        Shard(images, 0, 1).row(images.layout.arrays()[0], position)


def test_what_is_not_in_memory_is_asked_for_at_once_and_then_read(store, images, monkeypatch):
    calls = []
    read, expect = ShardFile.read, ShardFile.expect

    def read_cold(self, at, into, *, wait=True):
        if len(into) != 60:  # the index
            return read(self, at, into)
        calls.append("read" if wait else "try")
        return wait and read(self, at, into)

    def count(self, at, size):
        calls.append("expect")
        expect(self, at, size)

    monkeypatch.setattr(ShardFile, "read", read_cold)
    monkeypatch.setattr(ShardFile, "expect", count)
    features = open_features(store, images.name, threads=1)
    assert (features.image_tokens(["d/7", "d/0", "d/2"])[1] == tokens_of("d/0", "image")).all()
    assert calls == ["try", "expect"] * 3 + ["read"] * 3
    calls.clear()
    features.will_need(["d/0", "d/9"])  # d/0 was read before
    assert calls == ["expect"]


def test_a_set_beyond_memory_is_never_mapped(store, images, monkeypatch):
    monkeypatch.setattr(memory, "available_bytes", lambda: 100)
    features = open_features(store, images.name)
    monkeypatch.setattr(memory, "available_bytes", lambda: None)
    monkeypatch.setattr(ShardFile, "view", lambda *_: pytest.fail("mapped"))
    for _ in range(3):
        assert (features.image_tokens(["d/7", "d/0"])[1] == tokens_of("d/0", "image")).all()


def test_nothing_keeps_the_array_that_was_filled(store, images):
    features = open_features(store, images.name)
    gc.disable()  # what refers to itself would stay until it ran
    try:
        for _ in range(2):
            filled = weakref.ref(features.image_tokens(ITEMS))
            assert filled() is None
    finally:
        gc.enable()


def test_threads_may_share_a_reader(store, images, small_steps):
    features = open_features(store, images.name, threads=2)
    expected = np.stack([tokens_of(i, "image") for i in ITEMS])

    def read(seed):
        order = np.random.default_rng(seed).permutation(len(ITEMS))
        return (features.image_tokens([ITEMS[i] for i in order]) == expected[order]).all()

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(read, range(200)))


def test_few_files_are_kept_open(store, tmp_path, monkeypatch):
    monkeypatch.setattr(memory, "available_bytes", lambda: None)
    monkeypatch.setattr(memory.require, "__kwdefaults__", {"available": lambda: None})
    monkeypatch.setattr(shardfile.resource, "getrlimit", lambda _: (8, 8))
    monkeypatch.setattr(shardfile, "_FEWEST_OPEN", 3)
    monkeypatch.setattr(ShardFile, "_opened", type(ShardFile._opened)())
    keys = [f"{i:02d}" for i in range(40)]
    add_images(store, tmp_path, keys)
    feature_set = write_all(store, image_layout(shard_rows=1))
    features = open_features(store, feature_set.name)
    items = [f"d/{k}" for k in keys]
    expected = np.stack([tokens_of(i, "image") for i in items])
    for _ in range(3):
        assert (features.image_tokens(items) == expected).all()
        assert sum(str(feature_set.path) in file for file in open_files()) <= 2 * 3  # and a second one for a map


def open_files():
    for fd in Path("/proc/self/fd").iterdir():
        with suppress(FileNotFoundError):  # the one of this look itself
            yield str(fd.readlink())


def test_an_error_in_a_helper_thread_is_raised_when_all_have_stopped(small_steps):
    done = []
    stops = np.arange(1, 1001) * 300

    def work(block):
        if block.start == 3:
            raise ValueError("told to fail")
        time.sleep(0.001)
        done.append(block)

    with pytest.raises(ValueError, match="told to fail"):
        fill.share(work, stops, 4)
    at_the_end = list(done)
    assert at_the_end == done
    assert len(done) < 300  # of 334
    done.clear()
    fill.share(done.append, stops, 4)
    assert sorted(block.start for block in done) == [0, *(block.stop for block in sorted(done)[:-1])]
