"""The fast reader gives zarr-python's bytes, and never bytes that nobody vouches for."""

import numpy as np
import pytest
import zarr

from featurestore.errors import DamageError, DataError
from featurestore.reader import open_features

from .sets import add_images, add_texts, image_layout, text_layout, tokens_of, write_all

KEYS = [str(i) for i in range(10)]
ITEMS = [f"d/{k}" for k in KEYS if k != "6"]
SOME = ["d/9", "d/0", "d/1", "d/9"]


@pytest.fixture
def images(store, tmp_path):
    add_images(store, tmp_path, KEYS)
    return write_all(store, image_layout(), fail=("d/6",))


@pytest.fixture
def texts(store):
    add_texts(store, {k: f"report {k}" for k in KEYS})
    return write_all(store, text_layout(), fail=("d/6",))


def test_images_come_in_the_order_asked_for(store, images):
    features = open_features(store, images.name)
    tokens = features.image_tokens(SOME)
    assert (tokens == np.stack([tokens_of(i, "image") for i in SOME])).all()
    assert (features.cls_tokens(SOME) == tokens[:, 0] + np.float16(1)).all()


def test_images_equal_what_zarr_reads(store, images):
    group = zarr.open_group(images.path, mode="r")
    rows = dict(zip(images.committed()["item"], images.committed()["row"], strict=True))
    features = open_features(store, images.name)
    for item in ITEMS:
        assert (group["tokens/v0"][rows[item]] == features.image_tokens([item])[0]).all()
        assert (group["cls/v0"][rows[item]] == features.cls_tokens([item])[0]).all()
    assert group.attrs["radfs"]["what"] == {"weights_sha256": "00"}
    assert group["tokens/v0"].metadata.dimension_names == ("row", "token", "dim")


def test_reports_are_ragged_and_equal_what_zarr_reads(store, texts):
    group = zarr.open_group(texts.path, mode="r")
    rows = dict(zip(texts.committed()["item"], texts.committed()["row"], strict=True))
    flat, offsets = open_features(store, texts.name).text_tokens(ITEMS)
    assert flat.dtype == np.float16
    for i, item in enumerate(ITEMS):
        mine = flat[offsets[i] : offsets[i + 1]]
        first, last = group["offsets"][rows[item]]
        assert (mine == tokens_of(item, "text")).all()
        assert (group["tokens"][first:last] == mine).all()


def test_only_real_tokens_are_stored(texts):
    stored = sum(p.stat().st_size for p in (texts.path / "tokens" / "c").rglob("*") if p.is_file())
    tokens = texts.committed()["tokens"].sum()
    shards = 3
    padding_and_index = shards * (63 * 12 + 16 + 4)
    assert tokens * 12 <= stored <= tokens * 12 + padding_and_index


def test_rows_go_into_a_buffer_that_the_caller_gives(store, images):
    features = open_features(store, images.name)
    buffer = np.empty((2, 5, 6), dtype=np.float16)
    assert features.image_tokens(["d/2", "d/3"], out=buffer) is buffer
    assert (buffer[1] == tokens_of("d/3", "image")).all()
    with pytest.raises(DataError, match="must be float16"):
        features.image_tokens(["d/2"], out=buffer)


def test_what_is_not_there_is_named(store, images, texts):
    features = open_features(store, images.name)
    assert not features.has(["d/6"])[0]
    with pytest.raises(DataError, match=r"has no tokens of d/6, nope/1\. Run `radfs extract --backbone img`"):
        features.image_tokens(["d/0", "d/6", "nope/1"])
    with pytest.raises(DataError, match="holds image tokens, not text tokens"):
        features.text_tokens(["d/0"])
    with pytest.raises(DataError, match="has no class token"):
        open_features(store, texts.name).cls_tokens(["d/0"])


def flip(path, at):
    data = bytearray(path.read_bytes())
    data[at] ^= 1
    path.write_bytes(data)


def test_a_flipped_bit_is_found_in_its_row_alone(store, images):
    flip(images.path / "tokens/v0/c/0/0/0", 2 * 60 + 3)
    features = open_features(store, images.name)
    assert (features.image_tokens(["d/1"])[0] == tokens_of("d/1", "image")).all()
    with pytest.raises(DamageError, match=r"item d/2: its row .* fails its checksum"):
        features.image_tokens(["d/2"])


def test_a_flipped_bit_in_text_cls_or_index_is_found(store, images, texts):
    flip(texts.path / "tokens/c/0/0", 0)
    with pytest.raises(DamageError, match="item d/0"):
        open_features(store, texts.name).text_tokens(["d/0"])
    flip(images.path / "cls/v0/c/0/0", 0)
    with pytest.raises(DamageError, match="item d/0"):
        open_features(store, images.name).image_tokens(["d/0"])
    file = images.path / "tokens/v0/c/1/0/0"
    flip(file, file.stat().st_size - 20)
    with pytest.raises(DamageError, match="shard index fails its checksum"):
        open_features(store, images.name).image_tokens(["d/4"])


def test_a_wrong_report_boundary_is_found(store, texts):
    file = texts.path / "offsets/c/0/0"
    data = bytearray(file.read_bytes())
    data[0:16], data[16:32] = data[16:32], data[0:16]
    file.write_bytes(data)
    with pytest.raises(DamageError, match="item d/0"):
        open_features(store, texts.name).text_tokens(["d/0"])


@pytest.mark.parametrize("size", [0, 100])
def test_a_truncated_or_missing_shard_is_an_error_and_not_zeros(store, images, size):
    file = images.path / "tokens/v0/c/0/0/0"
    file.write_bytes(file.read_bytes()[:size])
    with pytest.raises(DamageError, match=rf"the commit record promises \d+ bytes, found {size}"):
        open_features(store, images.name).image_tokens(["d/0"])
    file.unlink()
    with pytest.raises(DamageError, match="found 0"):
        open_features(store, images.name).image_tokens(["d/0"])
