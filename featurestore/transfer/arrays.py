"""Foreign embeddings as `.npy`, `.npz` and `.safetensors`: mapped or streamed, never read whole.

Headers are parsed here, not by the libraries: those allocate what a header claims before they look at the file's size
(numpy within an archive), know no bfloat16 (safetensors for numpy), or read nothing but whole files.
"""

import json
import math
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from ..errors import DataError
from .foreign import (
    ID_KEYS,
    TOKEN_KEYS,
    Choice,
    Foreign,
    check_floats,
    check_size,
    from_array,
    from_items,
    parse_tags,
    pick,
    widen_bfloat16,
)
from .ids import ids_beside, ids_of
from .npy import load_npy, map_npy, npy_header

_ZIP_RATIO = 1_100
"""Deflate shrinks by 1,032 at most: an entry that claims more is no archive's."""

_SAFETENSORS_HEADER = 100_000_000
_SAFETENSORS = {"F16": "<f2", "F32": "<f4", "F64": "<f8", "BF16": "<u2", "I64": "<i8"}


def open_npy(source: Path, choice: Choice, stack: ExitStack) -> Foreign:
    """One array, mapped. Ids stand beside it; for reports, `<stem>.offsets.npy` too."""
    array = map_npy(source)
    beside = source.with_name(f"{source.stem}.offsets.npy")
    tags = source.with_suffix(".json")
    return from_array(
        source.name,
        ids_beside(source, choice),
        array.shape,
        array.dtype,
        lambda start, stop: array[start:stop],
        offsets=load_npy(beside) if beside.is_file() else None,
        tags=parse_tags(tags.read_bytes()) if tags.is_file() else None,
    )


def open_npz(source: Path, choice: Choice, stack: ExitStack) -> Foreign:
    """Arrays `embeddings`, `ids` and perhaps `offsets`, or one array an item, named by its id."""
    with _damage_named(source.name):
        archive = stack.enter_context(zipfile.ZipFile(source))
    members = {info.filename.removesuffix(".npy"): info for info in archive.infolist()}
    name = pick(source.name, list(members), choice.tokens_key, TOKEN_KEYS, "--tokens-key")
    if name is None:
        return _npz_items(source, archive, members, stack)
    member = _Member(source.name, archive, members[name])
    stack.callback(member.close)
    ids_key = pick(source.name, list(members), choice.ids_key, ID_KEYS, "--ids-key")
    if choice.ids is not None or ids_key is None:
        ids = ids_beside(source, choice)
    else:
        ids = ids_of(source.name, _Member(source.name, archive, members[ids_key]).whole())
    offsets = _Member(source.name, archive, members["offsets"]).whole() if "offsets" in members else None
    return from_array(source.name, ids, member.shape, member.dtype, member.take, offsets=offsets)


def _npz_items(
    source: Path, archive: zipfile.ZipFile, members: dict[str, zipfile.ZipInfo], stack: ExitStack
) -> Foreign:
    ids = list(members)
    opened = [_Member(source.name, archive, info) for info in members.values()]
    for member in opened:
        check_floats(source.name, member.dtype)
        check_size(source.name, member.shape, member.dtype)
    return from_items(source.name, ids, [m.shape for m in opened], lambda i: opened[i].whole())


class _Member:
    """One array of an archive, read as a stream of rows. A step back opens the stream again."""

    def __init__(self, source: str, archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> None:
        self._source = f"{source}, {info.filename}"
        self._archive = archive
        self._info = info
        self._stream: BinaryIO | None = None
        self._row = 0
        with self._open() as file, _damage_named(self._source):
            self.shape, fortran, self.dtype, self._start = npy_header(self._source, file)
        size = check_size(self._source, self.shape, self.dtype, most=info.file_size - self._start)
        if info.file_size > _ZIP_RATIO * max(1, info.compress_size):
            raise DataError(f"{self._source} claims to unpack to {info.file_size:,} bytes, which it cannot hold.")
        if fortran and len(self.shape) > 1:
            raise DataError(f"{self._source} stores columns first: save it through np.ascontiguousarray.")
        self._row_bytes = size // self.shape[0] if self.shape and self.shape[0] else 0

    def take(self, start: int, stop: int) -> np.ndarray:
        """The rows from `start` to before `stop`."""
        if self._stream is None or start < self._row:
            self.close()
            self._stream, self._row = self._open(), 0
            self._skip(self._start)
        self._skip((start - self._row) * self._row_bytes)
        data = self._read((stop - start) * self._row_bytes)
        self._row = stop
        return np.frombuffer(data, self.dtype).reshape(stop - start, *self.shape[1:])

    def whole(self) -> np.ndarray:
        """The array."""
        check_size(self._source, self.shape, self.dtype)
        with self._open() as file:
            _unpack(file, self._start, self._source)
            data = _unpack(file, math.prod(self.shape) * self.dtype.itemsize, self._source)
        return np.frombuffer(data, self.dtype).reshape(self.shape)

    def close(self) -> None:
        """Close the stream; `take` opens it again."""
        if self._stream is not None:
            self._stream.close()
        self._stream = None

    def _open(self) -> BinaryIO:
        with _damage_named(self._source):
            return self._archive.open(self._info)  # type: ignore[return-value]

    def _skip(self, count: int) -> None:
        while count:
            count -= len(self._read(min(count, 2**20)))

    def _read(self, count: int) -> bytes:
        assert self._stream is not None
        return _unpack(self._stream, count, self._source)


def _unpack(stream: BinaryIO, count: int, source: str) -> bytes:
    with _damage_named(source):
        data = stream.read(count)
    if len(data) != count:
        raise DataError(f"{source} ends too early: it was not written or copied whole.")
    return data


@contextmanager
def _damage_named(source: str) -> Iterator[None]:
    try:
        yield
    except (zipfile.BadZipFile, zlib.error, EOFError, OSError, ValueError, RuntimeError) as error:
        raise DataError(f"{source} is damaged: it cannot be unpacked ({type(error).__name__}).") from error


def open_safetensors(source: Path, choice: Choice, stack: ExitStack) -> Foreign:
    """A tensor `embeddings`, with `ids` as a JSON list in the metadata or in a file beside, or one tensor an item."""
    tensors, metadata = _safetensors(source)
    tags = parse_tags(metadata.get("radfs"))
    name = pick(source.name, list(tensors), choice.tokens_key, TOKEN_KEYS, "--tokens-key")
    if name is None:
        ids, arrays = list(tensors), list(tensors.values())
        for array in arrays:
            check_floats(source.name, _float_type(array))
            check_size(source.name, array.shape, array.dtype)
        shapes = [array.shape for array in arrays]
        return from_items(source.name, ids, shapes, lambda i: _floats(arrays[i]), tags=tags)
    array = tensors[name]
    offsets = np.array(tensors["offsets"]) if "offsets" in tensors else None
    return from_array(
        source.name,
        _safetensors_ids(source, choice, metadata),
        array.shape,
        _float_type(array),
        lambda start, stop: _floats(array[start:stop]),
        offsets=offsets,
        tags=tags,
    )


def _safetensors(source: Path) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    """The tensors, mapped, and the metadata. bfloat16 comes as its bits, uint16."""
    size = source.stat().st_size
    with source.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if size < 8 or length > min(size - 8, _SAFETENSORS_HEADER):
            raise DataError(f"{source.name} is no safetensors file, or was not copied whole.")
        text = file.read(length)
    try:
        header = dict(json.loads(text))
        metadata = {str(k): str(v) for k, v in dict(header.pop("__metadata__", {})).items()}
        data = np.memmap(source, np.uint8, "r", 8 + length) if size > 8 + length else np.empty(0, np.uint8)
        return {name: _tensor(f"{source.name}, {name}", data, entry) for name, entry in header.items()}, metadata
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise DataError(f"{source.name}: the header cannot be read ({type(error).__name__}).") from error


def _tensor(source: str, data: np.ndarray, entry: dict[str, Any]) -> np.ndarray:
    if entry["dtype"] not in _SAFETENSORS:
        raise DataError(f"{source} is {entry['dtype']}; known: {', '.join(_SAFETENSORS)}.")
    dtype = np.dtype(_SAFETENSORS[entry["dtype"]])
    shape = [int(length) for length in entry["shape"]]
    start, stop = (int(bound) for bound in entry["data_offsets"])
    if not 0 <= start <= stop <= len(data) or check_size(source, shape, dtype, most=stop - start) != stop - start:
        raise DataError(f"{source}: its bytes {start:,} to {stop:,} are not {shape} of {entry['dtype']}.")
    return data[start:stop].view(dtype).reshape(shape)


def _float_type(array: np.ndarray) -> np.dtype:
    return np.dtype(np.float32) if array.dtype == np.uint16 else array.dtype


def _floats(array: np.ndarray) -> np.ndarray:
    return widen_bfloat16(array) if array.dtype == np.uint16 else array


def _safetensors_ids(source: Path, choice: Choice, metadata: dict[str, str]) -> list[str]:
    if choice.ids is not None or (choice.ids_key or "ids") not in metadata:
        return ids_beside(source, choice)
    try:
        found = json.loads(metadata[choice.ids_key or "ids"])
    except ValueError:
        found = None
    if not isinstance(found, list) or not all(isinstance(item, str) for item in found):
        raise DataError(f"{source.name}: the ids in its metadata are no JSON list of texts.")
    return found
