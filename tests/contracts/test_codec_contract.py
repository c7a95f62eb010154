"""What every codec of the table must hold: its stated error, a plain twin, what it refuses, and plain Zarr on disk.

A new codec needs one line in PLAIN: a fast path that is compared with nothing is not a tested one.
"""

import json
import math
import subprocess
import sys
import warnings

import google_crc32c
import numpy as np
import pytest
import torch
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from featurestore.codecs import CODECS, GROUP, get_codec
from featurestore.errors import DamageError, ItemError, UnknownNameError

DIMS = (1, 63, 64, 65, 768)
COUNTS = (0, 1, 7)
NOT_IN_ZARR = "Numcodecs codecs are not in the Zarr version 3 specification"


def plain_bfloat16(values):
    return torch.from_numpy(values.astype(np.float32)).to(torch.bfloat16).to(torch.float32).numpy()


def plain_int8(values):
    out = np.empty(values.shape, np.float16)
    for place in np.ndindex(values.shape[:-1]):
        for start in range(0, values.shape[-1], GROUP):
            group = [np.float32(x) for x in values[place][start : start + GROUP]]
            largest = max(abs(x) for x in group)
            scale = np.float16(largest / np.float32(127))
            if largest > 127.25 * float(scale):
                scale = np.nextafter(scale, np.float16(np.inf))
            scale = min(float(scale), 515.5)
            steps = [round(float(x / np.float32(scale))) if scale else 0 for x in group]
            assert max(map(abs, steps)) <= 127
            out[place][start : start + GROUP] = [step * scale for step in steps]
    return out


PLAIN = {
    "float16": lambda values: values.astype(np.float16),
    "bfloat16": plain_bfloat16,
    "float32": lambda values: values.astype(np.float32),
    "int8": plain_int8,
    "archive": lambda values: values.astype(np.float16),
}


COMPRESSED = [name for name, codec in CODECS.items() if codec.compressed]


@pytest.fixture(params=sorted(CODECS))
def codec(request):
    return get_codec(request.param)


def activations(shape, dtype=np.float32, seed=0):
    """Numbers as of a network, with a few outlying channels, in groups from next to nothing to thousands."""
    rng = np.random.default_rng([seed, *shape])
    values = rng.standard_normal(shape) * 10.0 ** rng.uniform(-7, 3, (*shape[:-1], 1))
    values[..., ::50] *= 20
    return values.astype(dtype)


def every_float16():
    """All finite numbers of float16, those of one size together and then mixed: [n, 128]."""
    numbers = np.arange(2**16, dtype=np.uint16).view(np.float16)
    numbers = numbers[np.isfinite(numbers)]
    mixed = np.random.default_rng(0).permutation(numbers)
    return np.concatenate([numbers, mixed]).reshape(-1, 128)


def assert_within_error(codec, values, decoded):
    assert decoded.shape == values.shape
    assert decoded.dtype.name == codec.reads_as
    truth = values.astype(np.float64)
    largest = np.zeros_like(truth)
    for start in range(0, values.shape[-1], GROUP):
        group = np.s_[..., start : start + GROUP]
        largest[group] = np.abs(truth[group]).max(axis=-1, keepdims=True, initial=0)
    error = codec.error + (2**-24 if values.dtype == np.float64 else 0)
    over = np.abs(decoded.astype(np.float64) - truth) - (error * largest + codec.floor)
    assert over.max(initial=0) <= 0


def assert_no_fill_value(codec, stored):
    for part, array in zip(codec.parts, stored, strict=True):
        fill = np.array(part.fill_value).astype(part.dtype)
        assert not (np.isnan(array) if fill != fill else array == fill).any()


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
@pytest.mark.parametrize("n", COUNTS)
@pytest.mark.parametrize("dim", DIMS)
def test_a_round_trip_is_within_the_stated_error(codec, dim, n, dtype):
    for shape in ((n, dim), (n, 3, dim), (3, n, dim), (dim,)):
        values = activations(shape, dtype)
        stored = codec.encode(values)
        assert_within_error(codec, values, codec.decode(stored))
        for part, array in zip(codec.parts, stored, strict=True):
            assert array.shape == (*shape[:-1], part.width(dim))
            assert array.dtype.name == part.dtype
            assert array.flags.c_contiguous
        assert_no_fill_value(codec, stored)


def test_every_number_of_float16_is_taken(codec):
    values = every_float16()
    stored = codec.encode(values)
    assert_within_error(codec, values, codec.decode(stored))
    assert_no_fill_value(codec, stored)


@pytest.mark.parametrize("dim", DIMS)
def test_agrees_with_its_plain_twin(codec, dim):
    values = np.clip(activations((7, dim)), -65_504, 65_504)
    np.testing.assert_array_equal(codec.decode(codec.encode(values)), PLAIN[codec.name](values))


def test_agrees_with_its_plain_twin_at_the_ends_of_float16(codec):
    values = every_float16().astype(np.float32)[::16]
    np.testing.assert_array_equal(codec.decode(codec.encode(values)), PLAIN[codec.name](values))


wild = st.floats(width=32)
moderate = st.floats(-65_536, 65_536, width=32)
next_to_zero = st.floats(-(2.0**-12), 2.0**-12, width=32)
float32_arrays = st.sampled_from([wild, moderate, next_to_zero]).flatmap(
    lambda elements: hnp.arrays(np.float32, st.tuples(st.integers(0, 2), st.integers(1, 70)), elements=elements)
)


@pytest.mark.parametrize("name", sorted(CODECS))
@given(float32_arrays)
@settings(max_examples=150, deadline=None)
def test_whatever_comes_is_refused_or_within_the_error(name, values):
    codec = get_codec(name)
    with np.errstate(over="ignore"):
        finite = np.isfinite(values.astype(np.float16)).all()
        fits = np.isfinite(PLAIN[name](values)).all() if finite or codec.reads_as != "float16" else False
    try:
        stored = codec.encode(values)
    except ItemError:
        assert not fits
        return
    assert fits
    assert_within_error(codec, values, codec.decode(stored))
    assert_no_fill_value(codec, stored)


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("place", [(0, 0), (3, 64), (6, 64)])
def test_what_is_not_finite_is_refused(codec, place, bad, dtype):
    values = np.ones((7, 65), dtype)
    values[place] = bad
    with pytest.raises(ItemError, match=f"not finite in {codec.name}"):
        codec.encode(values)


def test_every_nan_is_refused(codec):
    """Those with all bits set too, which a careless rounding turns into zero."""
    for bits in (0x7FFF_FFFF, 0xFFFF_FFFF, 0x7F80_0001, 0xFF80_0001):
        with pytest.raises(ItemError):
            codec.encode(np.array([[1, bits]], np.uint32).view(np.float32))


def test_what_is_too_large_is_refused_without_a_warning(codec):
    for sign in (1, -1):
        with pytest.raises(ItemError, match="not finite"):
            codec.encode(np.array([[1, sign * 1e39]]))


@pytest.mark.parametrize("sign", [1, -1])
@pytest.mark.parametrize("edge", [0x477F_E000, 0x477F_F000, 0x7F7F_8000, 0x7F7F_FFFE])
def test_just_what_would_become_infinite_is_refused(codec, edge, sign):
    """65504, 65520, from where float16 rounds to infinity, the same place of bfloat16, and the end of float32."""
    for x in np.arange(edge - 1, edge + 2, dtype=np.uint32).view(np.float32):
        values = np.array([[1, sign * x]], np.float32)
        with np.errstate(over="ignore"):
            fits = np.isfinite(values.astype(codec.reads_as)).all() and np.isfinite(PLAIN[codec.name](values)).all()
        if fits:
            assert_within_error(codec, values, codec.decode(codec.encode(values)))
        else:
            with pytest.raises(ItemError, match="not finite"):
                codec.encode(values)


@pytest.mark.parametrize("shape", [(2, 0, 64), (5,), (3, 70), (3, 2, 128)])
def test_zeros_stay_zeros(codec, shape):
    stored = codec.encode(np.zeros(shape, np.float32))
    assert not codec.decode(stored).any()
    assert_no_fill_value(codec, stored)


def test_a_group_of_zeros_stays_zero_beside_others(codec):
    values = np.ones((2, 3 * GROUP), np.float32)
    values[:, GROUP : 2 * GROUP] = 0
    decoded = codec.decode(codec.encode(values))
    assert not decoded[:, GROUP : 2 * GROUP].any()
    np.testing.assert_allclose(decoded[:, :GROUP], 1, atol=codec.error)


@pytest.mark.parametrize("shape", [(65,), (7, 65), (2, 7, 65), (0, 65)])
def test_decodes_into_the_buffer_of_the_caller(codec, shape):
    stored = codec.encode(activations(shape))
    fresh = codec.decode(stored)
    out = np.full(shape, 7, codec.reads_as)
    assert codec.decode(stored, out) is out
    np.testing.assert_array_equal(out, fresh)

    padded = np.full((*shape[:-1], 70), 7, codec.reads_as)
    codec.decode(stored, padded[..., 2:67])
    np.testing.assert_array_equal(padded[..., 2:67], fresh)
    np.testing.assert_array_equal(padded[..., [0, 1, 67, 68, 69]], 7)


def test_decodes_mapped_memory(codec):
    stored = codec.encode(activations((7, 65)))
    expected = codec.decode(stored).copy()
    for array in stored:
        array.setflags(write=False)
    np.testing.assert_array_equal(codec.decode(stored), expected)
    np.testing.assert_array_equal(codec.decode(stored, np.empty((7, 65), codec.reads_as)), expected)


def test_buffers_and_parts_that_do_not_fit_are_refused(codec):
    stored = codec.encode(activations((7, 65)))
    other = {"float16": np.float32, "float32": np.float16}[codec.reads_as]
    for out in (np.empty((7, 65), other), np.empty((6, 65), codec.reads_as), np.empty((1, 7, 65), codec.reads_as)):
        with pytest.raises(ValueError, match="decodes into"):
            codec.decode(stored, out)
    for parts in ((), stored * 2, [array.astype(np.float64) for array in stored]):
        with pytest.raises(ValueError, match="is decoded from"):
            codec.decode(parts)
    if len(stored) > 1:
        with pytest.raises(ValueError, match="shape"):
            codec.decode([stored[0], *(array[:6] for array in stored[1:])])
    for values in (np.ones((2, 3), np.int64), np.float32(1)):
        with pytest.raises(ValueError, match="tokens are"):
            codec.encode(np.asarray(values))


def test_fill_values_are_taken_for_no_activation(codec):
    parts = [np.full((2, p.width(65)), p.fill_value).astype(p.dtype) for p in codec.parts]
    assert np.isnan(codec.decode(parts)).all()


def test_the_same_values_give_the_same_bytes_however_they_come(codec):
    values = activations((40, 49, 65))
    values.setflags(write=False)
    whole = codec.encode(values)
    for again in (
        codec.encode(values.copy()),
        [np.stack(part) for part in zip(*map(codec.encode, values), strict=True)],
        codec.encode(np.asfortranarray(values)),
        codec.encode(np.repeat(values, 2, axis=0)[::2]),
    ):
        for one, other in zip(whole, again, strict=True):
            assert one.tobytes() == other.tobytes()
            assert other.flags.c_contiguous
    np.testing.assert_array_equal(values, activations((40, 49, 65)))


def test_codecs_that_say_so_give_the_same_numbers(codec):
    values = activations((7, 65))
    same = CODECS[codec.numbers]
    assert same.reads_as == codec.reads_as
    np.testing.assert_array_equal(codec.decode(codec.encode(values)), same.decode(same.encode(values)))


@pytest.mark.parametrize("dim", DIMS)
def test_chunks_come_back_from_their_packing(codec, dim):
    for n in (1, 7):
        for array in codec.encode(activations((n, dim))):
            packed = codec.pack(array)
            assert packed == codec.pack(array) == codec.pack(memoryview(array.reshape(-1).view(np.uint8)))
            for data in (packed, memoryview(packed), np.frombuffer(packed, np.uint8)):
                unpacked = codec.unpack(data, array.nbytes)
                assert unpacked.dtype == np.uint8
                assert unpacked.tobytes() == array.tobytes()


def test_damaged_chunks_are_refused(codec):
    chunk = codec.encode(activations((49, 320)))[0]
    packed = codec.pack(chunk)
    damaged = [b"", packed[:3], packed[:7], packed[:-1], packed[: len(packed) // 2], packed + b"\0", packed * 2]
    for data in damaged:
        with pytest.raises(DamageError, match="chunk"):
            codec.unpack(data, chunk.nbytes)
    for nbytes in (0, chunk.nbytes - 2, chunk.nbytes + 2, 10**15):
        with pytest.raises(DamageError, match="chunk"):
            codec.unpack(packed, nbytes)


@pytest.mark.parametrize("name", COMPRESSED)
def test_a_flipped_bit_of_a_compressed_chunk_is_noticed(name):
    """Without compression any bits are numbers: there the checksums of the rows notice."""
    codec = get_codec(name)
    chunk = codec.encode(activations((4, 65)))[0]
    packed = codec.pack(chunk)
    noticed = 0
    for place in range(len(packed)):
        data = bytearray(packed)
        data[place] ^= 1 << place % 8
        try:
            assert codec.unpack(data, chunk.nbytes).tobytes() == chunk.tobytes()
        except DamageError:
            noticed += 1
    assert noticed >= len(packed) - 4  # some bits of a header mean nothing


@pytest.mark.parametrize("name", COMPRESSED)
def test_a_chunk_that_holds_too_much_is_not_unpacked(name):
    codec = get_codec(name)
    huge = codec.pack(np.zeros((1000, 10_000), codec.parts[0].dtype))
    with pytest.raises(DamageError, match=r"holds 20000000 bytes where 2048 belong"):
        codec.unpack(huge, 2048)


def write_zarr_array(folder, codec, part, chunks, *, shard_rows):
    """A sharded Zarr array as the store lays it out, an inner chunk a row; `chunks` has None for a row without one."""
    width = next(chunk for chunk in chunks if chunk is not None).shape[-1]
    little = {"name": "bytes", "configuration": {"endian": "little"}}
    sharding = {
        "chunk_shape": [1, 3, width],
        "codecs": codec.chunk_codecs(part.dtype),
        "index_codecs": [little, {"name": "crc32c"}],
        "index_location": "end",
    }
    document = {
        "zarr_format": 3,
        "node_type": "array",
        "shape": [2 * shard_rows, 3, width],
        "data_type": part.dtype,
        "chunk_grid": {"name": "regular", "configuration": {"chunk_shape": [shard_rows, 3, width]}},
        "chunk_key_encoding": {"name": "default", "configuration": {"separator": "/"}},
        "fill_value": part.fill_value,
        "codecs": [{"name": "sharding_indexed", "configuration": sharding}],
        "dimension_names": ["row", "token", "dim"],
        "attributes": part.attributes,
    }
    shard = folder / "c" / "0" / "0" / "0"
    shard.parent.mkdir(parents=True)
    (folder / "zarr.json").write_text(json.dumps(document))
    index, payload = np.full((shard_rows, 2), 2**64 - 1, "<u8"), b""
    for row, chunk in enumerate(chunks):
        if chunk is not None:
            packed = codec.pack(chunk)
            index[row] = len(payload), len(packed)
            payload += packed
    raw = index.tobytes()
    shard.write_bytes(payload + raw + google_crc32c.value(raw).to_bytes(4, "little"))


def test_zarr_reads_what_is_packed(codec, tmp_path):
    """The last row of the first shard and all of the second were never written, the second row is all zeros."""
    values = activations((4, 3, 65))
    values[1] = 0
    for i, (part, array) in enumerate(zip(codec.parts, codec.encode(values), strict=True)):
        folder = tmp_path / str(i)
        write_zarr_array(folder, codec, part, [*array[:3], None], shard_rows=4)
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            read = zarr.open_array(folder, mode="r")
            stored = read[:]
        assert {str(w.message)[: len(NOT_IN_ZARR)] for w in caught} == ({NOT_IN_ZARR} if codec.compressed else set())
        assert stored[:3].tobytes() == array[:3].tobytes()
        fill = np.array(part.fill_value).astype(part.dtype)
        np.testing.assert_array_equal(stored[3:], np.broadcast_to(fill, stored[3:].shape))
        assert read.attrs.asdict() == part.attributes


def test_the_table_is_sound(codec):
    assert CODECS[codec.name] is codec
    assert codec.numbers in CODECS
    assert codec.parts[0].suffix == ""
    assert len({part.suffix for part in codec.parts}) == len(codec.parts)
    assert hash(codec) == hash(CODECS[codec.name])
    assert [p.width(65) for p in codec.parts] == [math.ceil(65 / p.group) for p in codec.parts]
    for part in codec.parts:
        json.dumps([part.fill_value, part.attributes, codec.chunk_codecs(part.dtype)])


def test_an_unknown_codec_is_named():
    with pytest.raises(UnknownNameError, match=r"unknown preset 'float61'\. Did you mean 'float16'"):
        get_codec("float61")


def test_nothing_heavy_is_loaded():
    code = "import sys, featurestore.codecs; print([m for m in ('numcodecs', 'zarr', 'torch') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
