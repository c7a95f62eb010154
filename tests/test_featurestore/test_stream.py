"""A stream gives every item once, in an order that is known beforehand, in buffers that are used again."""

import threading
from itertools import product

import numpy as np
import pytest
import torch

from featurestore import memory
from featurestore.errors import DamageError, DataError
from featurestore.reader import Features, open_features
from featurestore.stream import epoch_order, stream_features

from .sets import add_images, add_texts, image_layout, text_layout, tokens_of, write_all

KEYS = [str(i) for i in range(10)]
ITEMS = [f"d/{k}" for k in KEYS if k != "6"]


@pytest.fixture
def images(store, tmp_path):
    add_images(store, tmp_path, KEYS)
    return open_features(store, write_all(store, image_layout(), fail=("d/6",)).name)


@pytest.fixture
def texts(store):
    add_texts(store, {k: f"report {k}" for k in KEYS})
    return open_features(store, write_all(store, text_layout(), fail=("d/6",)).name)


@pytest.fixture(autouse=True)
def _no_thread_is_left():
    yield
    assert not [t for t in threading.enumerate() if t.name == "feature stream"]


def rows_of(batch, items):
    """Items and tokens of a minibatch, one by one, copied."""
    ends = range(1, len(batch.tokens)) if batch.offsets is None else batch.offsets[1:-1]
    parts = [part.reshape(-1, 6) for part in np.split(batch.tokens.copy(), ends)]
    return list(zip([items[i] for i in batch.indices], parts, strict=True))


def test_the_order_of_a_seed_is_the_same_everywhere():
    assert epoch_order(12, 0).tolist() == [8, 11, 4, 1, 10, 6, 0, 7, 3, 5, 9, 2]
    assert epoch_order(12, 7).tolist() == [1, 5, 3, 6, 7, 2, 4, 8, 10, 11, 9, 0]
    assert epoch_order(0, 7).tolist() == []
    assert sorted(epoch_order(1000, 3).tolist()) == list(range(1000))


@pytest.mark.parametrize("seed", [None, 5])
@pytest.mark.parametrize("kind", ["images", "texts"])
def test_every_item_comes_once_in_the_order_of_the_seed(request, kind, seed):
    features = request.getfixturevalue(kind)
    order = np.arange(9) if seed is None else epoch_order(9, 5)
    for size, prefetch in product((1, 2, 4, 9, 20), (0, 1, 3)):
        stream = stream_features(features, ITEMS, batch_size=size, shuffle_seed=seed, prefetch=prefetch, threads=2)
        assert len(stream) == -(-9 // size)
        rows = [row for batch in stream for row in rows_of(batch, ITEMS)]
        assert [item for item, _ in rows] == [ITEMS[i] for i in order]
        assert all((tokens == tokens_of(item, features.modality)).all() for item, tokens in rows)


def test_a_short_last_minibatch_can_be_left_away(images):
    sizes = [len(b.indices) for b in stream_features(images, ITEMS, batch_size=4, shuffle_seed=1)]
    assert sizes == [4, 4, 1]
    stream = stream_features(images, ITEMS, batch_size=4, shuffle_seed=1, drop_last=True)
    assert len(stream) == 2
    assert [b.indices.tolist() for b in stream] == [epoch_order(9, 1)[:4].tolist(), epoch_order(9, 1)[4:8].tolist()]
    assert list(stream_features(images, ITEMS, batch_size=10, shuffle_seed=1, drop_last=True)) == []
    assert list(stream_features(images, [], batch_size=10, shuffle_seed=1)) == []


def test_minibatches_lie_in_the_buffers_of_the_caller(images, texts):
    tensors = [torch.empty(4, 5, 6, dtype=torch.float16) for _ in range(3)]
    buffers = [tensor.numpy() for tensor in tensors]
    starts = [tensor.data_ptr() for tensor in tensors]
    used = []
    for batch in stream_features(images, ITEMS, batch_size=3, shuffle_seed=0, buffers=buffers):
        used.append(starts.index(batch.tokens.ctypes.data))
        assert (tensors[used[-1]][0].numpy() == tokens_of(ITEMS[batch.indices[0]], "image")).all()
    assert used == [0, 1, 2]
    flat = [np.empty((40, 6), np.float16) for _ in range(2)]
    for batch in stream_features(texts, ITEMS, batch_size=3, shuffle_seed=0, buffers=flat, prefetch=1):
        assert any(np.shares_memory(batch.tokens, buffer) for buffer in flat)
        assert len(batch.tokens) == batch.offsets[-1]


def test_a_minibatch_stands_until_the_next_is_asked_for(images):
    stream = stream_features(images, ITEMS * 20, batch_size=1, shuffle_seed=None, prefetch=2)
    for number, batch in enumerate(stream):
        if number % 30 == 5:
            threading.Event().wait(0.05)  # the thread has filled all that it may by now
        assert (batch.tokens[0] == tokens_of(ITEMS[number % 9], "image")).all()


def test_its_own_buffers_are_no_more_than_it_needs(images):
    stream = stream_features(images, ITEMS * 20, batch_size=2, shuffle_seed=0, prefetch=2)
    assert len({batch.tokens.ctypes.data for batch in stream}) == 3


def test_buffers_that_do_not_fit_are_refused(images, texts):
    def stream(features, *buffers, **changes):
        options = {"batch_size": 2, "shuffle_seed": 0, "prefetch": 1} | changes
        return stream_features(features, ITEMS, buffers=list(buffers), **options)

    fits, other = np.empty((2, 5, 6), np.float16), np.empty((2, 5, 6), np.float16)
    list(stream(images, fits, other))
    with pytest.raises(DataError, match="2 buffers are too few: prefetch 2 takes 3"):
        stream(images, fits, other, prefetch=2)
    for wrong in (fits[:1], fits[:, :4], fits.astype(np.float32), fits.reshape(2, 30), fits.T.copy().T):
        with pytest.raises(DataError, match=r"buffer 1 is .*; it must be float16 \(2, 5, 6\) or longer"):
            stream(images, other, wrong)
    with pytest.raises(DataError, match="buffer 1 shares its memory"):
        stream(images, fits, fits)
    with pytest.raises(DataError, match=r"it must be float16 \(\d+, 6\) or longer"):
        stream(texts, np.empty((3, 6), np.float16), np.empty((3, 6), np.float16))
    with pytest.raises(DataError, match="batch_size is 0"):
        stream(images, fits, other, batch_size=0)


def test_buffers_that_do_not_fit_into_memory_are_refused(images, monkeypatch):
    monkeypatch.setattr(memory.require, "__kwdefaults__", {"available": lambda: 300})
    stream_features(images, ITEMS, batch_size=2, shuffle_seed=0, prefetch=0).close()
    with pytest.raises(DataError, match=r"in minibatches of 2, 3 at a time, takes .* Take smaller minibatches"):
        stream_features(images, ITEMS, batch_size=2, shuffle_seed=0, prefetch=2)


def test_missing_items_are_an_error_or_are_named(images):
    items = ["d/6", *ITEMS, "nope/1"]
    with pytest.raises(DataError, match=r"has no tokens of (d/6, nope/1|nope/1, d/6)"):
        stream_features(images, items, batch_size=2, shuffle_seed=0)
    stream = stream_features(images, items, batch_size=4, shuffle_seed=3, missing="skip")
    assert stream.skipped == ["d/6", "nope/1"]
    indices = np.concatenate([batch.indices for batch in stream])
    order = epoch_order(11, 3)
    assert indices.tolist() == order[(order != 0) & (order != 10)].tolist()
    with pytest.raises(DataError, match="missing 'ignore'"):
        stream_features(images, items, batch_size=4, shuffle_seed=3, missing="ignore")
    assert stream_features(images, ITEMS, batch_size=4, shuffle_seed=3).skipped == []


def test_damage_is_raised_where_its_minibatch_would_have_come(store, images):
    path = images.feature_set.path / "tokens/v0/c.1.0.0"
    data = bytearray(path.read_bytes())
    data[60] ^= 1  # the second row of the second shard
    path.write_bytes(data)
    stream = stream_features(open_features(store, images.name), ITEMS, batch_size=1, shuffle_seed=None)
    for number in range(5):
        assert next(stream).indices.tolist() == [number]
    with pytest.raises(DamageError, match=r"item d/5: its row .* fails its checksum"):
        next(stream)
    with pytest.raises(StopIteration):
        next(stream)


def test_leaving_early_ends_the_thread(images):
    before = threading.active_count()
    stream = stream_features(images, ITEMS * 100, batch_size=1, shuffle_seed=0)
    assert threading.active_count() == before  # nothing is read before it is wanted
    next(stream)
    stream.close()
    stream.close()
    assert not [t for t in threading.enumerate() if t.name == "feature stream"]
    with pytest.raises(StopIteration):
        next(stream)
    with stream_features(images, ITEMS, batch_size=1, shuffle_seed=0) as stream:
        next(stream)
    assert not [t for t in threading.enumerate() if t.name == "feature stream"]
    next(iter(stream_features(images, ITEMS, batch_size=1, shuffle_seed=0)))  # and forgotten


def test_the_next_minibatch_is_asked_for_while_one_is_read(images, monkeypatch):
    calls = []
    monkeypatch.setattr(Features, "will_need", lambda self, places: calls.append(("fetch", places.rows.tolist())))
    read = Features.image_tokens

    def count(self, places, *rest, **options):
        calls.append(("read", places.rows.tolist()))
        return read(self, places, *rest, **options)

    monkeypatch.setattr(Features, "image_tokens", count)
    list(stream_features(images, ITEMS[:6], batch_size=2, shuffle_seed=None))
    first, second, third = [0, 1], [2, 3], [4, 5]
    assert calls == [("fetch", second), ("read", first), ("fetch", third), ("read", second), ("read", third)]


def test_streams_of_one_reader_may_run_at_once(images):
    streams = [stream_features(images, ITEMS, batch_size=2, shuffle_seed=seed) for seed in range(6)]
    for batches in zip(*streams, strict=True):
        for batch in batches:
            for item, tokens in rows_of(batch, ITEMS):
                assert (tokens == tokens_of(item, "image")).all()
