"""One committed shard, open for reading: files are mapped, nothing is believed before it was checked.

A row's place comes from the shard's own index, so one random row costs one row. A file's size is compared with the
record before it is mapped: touching a page beyond the end of a file kills the process.
"""

import mmap
import os
from functools import cached_property
from pathlib import Path

import numpy as np

from .errors import DamageError
from .featureset import FeatureSet
from .layout import ArrayLayout
from .records import Record
from .shards import crc32, decode_index, index_size


class ShardArray:
    """One array of a shard. Units are steps along its first axis: rows, or slots of a ragged array."""

    def __init__(self, array: ArrayLayout, data: np.ndarray, where: str) -> None:
        self.array = array
        tail = index_size(array.chunks_per_shard)
        if len(data) < tail:
            raise DamageError(f"{where}: {len(data)} bytes are too few for a shard.")
        self._payload = data[:-tail]
        index = decode_index(
            data[-tail:].tobytes(),
            payload_bytes=len(data) - tail,
            chunk_bytes=None if array.compressed else array.chunk_bytes,
            where=where,
        )
        self._offsets, self._sizes = index[:, 0], index[:, 1]
        self._where = where

    @cached_property
    def values(self) -> np.ndarray:
        """The stored values of an array without compression: [present units, ...], a view of the file."""
        whole = len(self._payload) // self.array.unit_bytes * self.array.unit_bytes
        return self._payload[:whole].view(self.array.dtype).reshape(-1, *self.array.unit_shape)

    @cached_property
    def places(self) -> np.ndarray:
        """int64 [rows]: where in `values` each row stands, -1 if it is absent."""
        return np.where(self._offsets < 0, -1, self._offsets // self.array.unit_bytes)

    def rows(self, first: int, last: int) -> np.ndarray:
        """Stored values of units [first, last), of an array of any kind; fewer where the shard does not hold them."""
        if not self.array.compressed:
            start = self.places[first] if self.array.dims[0] == "row" else first
            return self.values[start : start + last - first] if start >= 0 else self.values[:0]
        size = self.array.chunk_shape[0]
        chunks = [self._unpack(i) for i in range(first // size, -(-last // size))]
        if not chunks or any(chunk is None for chunk in chunks):
            return np.empty((0, *self.array.unit_shape), self.array.dtype)
        held = np.concatenate(chunks)  # type: ignore[arg-type]
        return held[first - first // size * size :][: last - first]

    def _unpack(self, chunk: int) -> np.ndarray | None:
        at, size = int(self._offsets[chunk]), int(self._sizes[chunk])
        if at < 0 or self.array.codec is None:
            return None
        try:
            raw = self.array.codec.unpack(self._payload[at : at + size], self.array.chunk_bytes)
        except DamageError as error:
            raise DamageError(f"{self._where}, chunk {chunk}: {error}") from error
        return raw.view(self.array.dtype).reshape(self.array.chunk_shape)


class Shard:
    """One committed shard of one view, opened when a row of it is first asked for."""

    def __init__(self, feature_set: FeatureSet, view: int, number: int, *, check: bool = True) -> None:
        self.feature_set = feature_set
        self.view = view
        self.number = number
        self.check = check
        self.layouts = feature_set.layout.arrays(view)

    @cached_property
    def record(self) -> Record:
        """Its commit record."""
        return self.feature_set.record(self.view, self.number)

    @cached_property
    def _verified(self) -> dict[str, np.ndarray]:
        return {a.path: np.zeros(len(self.record.items), dtype=bool) for a in self.layouts}

    @cached_property
    def _expected(self) -> dict[str, np.ndarray]:
        """By array, the checksums of rows; 0 where a row failed."""
        return {path: np.array([c or 0 for c in crcs], np.uint32) for path, crcs in self.record.crc32.items()}

    @cached_property
    def _bounds(self) -> np.ndarray:
        """Text: int64 [rows + 1], where in the shard's stretch of slots each report begins."""
        return np.concatenate([[0], np.cumsum([n or 0 for n in self.record.tokens])])

    @cached_property
    def arrays(self) -> dict[str, ShardArray]:
        """Its arrays by path."""
        return {a.path: self._open(a) for a in self.layouts}

    def _open(self, array: ArrayLayout) -> ShardArray:
        name = array.shard_file(self.number)
        where = f"feature set {self.feature_set.name}, {name}"
        if name not in self.record.files:
            raise DamageError(f"{where}: the commit record does not name this file. {self._repair}")
        expected = self.record.files[name]["bytes"]
        for path in (self.feature_set.data_file(self.record, name), self.feature_set.path / name):
            try:
                return ShardArray(array, _map(path, expected, where, self._repair), where)
            except FileNotFoundError:  # renamed between the two looks
                continue
        raise DamageError(f"{where}: the file is gone. {self._repair}")

    @property
    def _repair(self) -> str:
        return f"Run `radfs verify {self.feature_set.name} --repair`, then the same `radfs extract` again."

    def row(self, array: ArrayLayout, position: int) -> np.ndarray:
        """The stored values of one row in one array, checked when it is read for the first time.

        Raises:
            DamageError: its bytes are gone or differ from what was committed; names the item.
        """
        opened = self.arrays[array.path]
        if array.dims[0] == "slot":
            first, last = int(self._bounds[position]), int(self._bounds[position + 1])
        else:
            first, last = position, position + 1
        values = opened.rows(first, last)
        if len(values) != last - first or (self.check and not self._verified[array.path][position]):
            self.verify_row(array, position, values)
        return values

    def verify_row(self, array: ArrayLayout, position: int, values: np.ndarray) -> None:
        """Compare a row's values, or a copy of them, with the checksum that was committed."""
        found, stored = crc32(values), int(self._expected[array.path][position])
        if found != stored:
            raise DamageError(
                f"item {self.record.items[position]}: its row in feature set {self.feature_set.name} fails its "
                f"checksum (stored {stored:08x}, found {found:08x}). {self._repair}"
            )
        self._verified[array.path][position] = True

    def copy_row(self, array: ArrayLayout, position: int, out: np.ndarray) -> None:
        """Copy a row of a dense array without compression into `out`; the checksum is of the copy, while it is warm."""
        opened = self.arrays[array.path]
        place = opened.places[position]
        if place < 0:  # absent though the record calls it done: it must not read as somebody else's bytes
            self.verify_row(array, position, opened.values[:0])
        np.copyto(out, opened.values[place])
        if self.check and not self._verified[array.path][position]:
            self.verify_row(array, position, out)


def _map(path: Path, expected: int, where: str, repair: str) -> np.ndarray:
    """The file's bytes, mapped."""
    with path.open("rb") as file:
        found = os.fstat(file.fileno()).st_size
        if found == expected and expected > 0:
            return np.frombuffer(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ), dtype=np.uint8)
    raise DamageError(f"{where}: the commit record promises {expected} bytes, found {found}. {repair}")
