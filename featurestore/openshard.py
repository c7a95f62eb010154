"""One committed shard, open for reading. Nothing is believed before it was checked.

A row's place comes from the shard's own index, so one random row costs one row.
"""

from functools import cached_property

import numpy as np

from .errors import DamageError
from .featureset import FeatureSet
from .layout import ArrayLayout
from .rangefile import RangeFile
from .records import Record
from .remote import ObjectPath
from .shardfile import ShardFile
from .shards import crc32, decode_index, index_size


class ShardArray:
    """One array of a shard. Its units are what stands along its first axis: rows, or slots of a ragged array."""

    def __init__(self, array: ArrayLayout, file: ShardFile) -> None:
        self.array = array
        self.file = file
        self._packed = array.codec if array.compressed else None
        self._chunk_units = array.chunk_shape[0]
        self._unit_bytes = array.unit_bytes
        tail = index_size(array.chunks_per_shard)
        if file.size < tail:
            raise file.damage(f"has {file.size} bytes: too few for a shard")
        raw = np.empty(tail, np.uint8)
        file.read(file.size - tail, raw.data)
        index = decode_index(
            raw.tobytes(),
            payload_bytes=file.size - tail,
            chunk_bytes=None if array.compressed else array.chunk_bytes,
            where=file.where,
        )
        self._offsets, self._sizes = index[:, 0], index[:, 1]
        if not array.compressed and (self._offsets[self._offsets > 0] % array.unit_bytes).any():
            raise file.damage("has an index that points into the middle of a row")

    @cached_property
    def places(self) -> np.ndarray:
        """int64 [rows]: the unit at which each row begins as `read` counts, -1 where it is absent."""
        if self.array.compressed:
            return np.where(self._offsets < 0, -1, np.arange(len(self._offsets)))
        return np.where(self._offsets < 0, -1, self._offsets // self.array.unit_bytes)

    @cached_property
    def slots(self) -> int:
        """Of a ragged array: how many slots it holds, from the first one on without a gap."""
        held = np.flatnonzero(self._offsets >= 0)
        whole = held == np.arange(len(held))
        if not self.array.compressed:
            whole &= self._offsets[held] == held * self.array.chunk_bytes
        return int(whole.sum() if whole.all() else whole.argmin()) * self._chunk_units

    def span(self, first: int, last: int) -> tuple[int, int]:
        """Where the stored bytes of units [first, last) begin in the file, and how many there are."""
        if self._packed is None:
            return first * self._unit_bytes, (last - first) * self._unit_bytes
        chunks = slice(first // self._chunk_units, -(-last // self._chunk_units))
        begin = int(self._offsets[chunks].min())
        return begin, int((self._offsets[chunks] + self._sizes[chunks]).max()) - begin

    def read(self, first: int, last: int, into: memoryview, *, wait: bool = True) -> bool:
        """The uncompressed bytes of units [first, last), all of them present, into `into`: units x unit_bytes.

        Without `wait` only if they are in memory: False where they are not.
        """
        if self._packed is None:
            return self.file.read(first * self._unit_bytes, into, wait=wait)
        begin, size = self.span(first, last)
        raw = np.empty(size, np.uint8)
        if not self.file.read(begin, raw.data, wait=wait):
            return False
        step, origin = self.array.chunk_bytes, first * self._unit_bytes
        for chunk in range(first // self._chunk_units, -(-last // self._chunk_units)):
            unpacked = self._unpack(chunk, raw, begin)
            start, stop = max(chunk * step, origin), min((chunk + 1) * step, last * self._unit_bytes)
            into[start - origin : stop - origin] = unpacked[start - chunk * step : stop - chunk * step].data
        return True

    def _unpack(self, chunk: int, raw: np.ndarray, begin: int) -> np.ndarray:
        assert self._packed is not None
        at = int(self._offsets[chunk]) - begin
        try:
            return self._packed.unpack(raw[at : at + int(self._sizes[chunk])], self.array.chunk_bytes)
        except DamageError as error:
            raise self.file.damage(f"is damaged in chunk {chunk}: {error}") from error


class Shard:
    """One committed shard of one view; its files are opened when something of them is first asked for."""

    def __init__(self, feature_set: FeatureSet, view: int, number: int, *, check: bool = True) -> None:
        self.feature_set = feature_set
        self.view = view
        self.number = number
        self.check = check
        self._arrays: dict[str, ShardArray] = {}
        self._checksums: dict[str, np.ndarray] = {}

    @cached_property
    def record(self) -> Record:
        """Its commit record."""
        return self.feature_set.record(self.view, self.number)

    @cached_property
    def bounds(self) -> np.ndarray:
        """Text: int64 [rows + 1], where in the shard's stretch of slots each report begins."""
        return np.concatenate([[0], np.cumsum([n or 0 for n in self.record.tokens])])

    def checksums(self, array: ArrayLayout) -> np.ndarray:
        """The committed checksums of an array's rows: uint32 [rows], 0 where a row failed."""
        if array.path not in self._checksums:
            self._checksums[array.path] = np.array([c or 0 for c in self.record.crc32[array.path]], np.uint32)
        return self._checksums[array.path]

    def array(self, array: ArrayLayout) -> ShardArray:
        """One of its arrays, opened and its index checked."""
        if array.path not in self._arrays:
            opened = ShardArray(array, self._file(array))
            if array.dims[0] == "slot" and opened.slots < self.bounds[-1]:
                raise opened.file.damage(f"holds {opened.slots} tokens of {self.bounds[-1]}")
            self._arrays[array.path] = opened
        return self._arrays[array.path]

    def begins(self, array: ArrayLayout) -> np.ndarray:
        """int64 [rows]: the unit at which each row begins, -1 where the file does not hold it."""
        return self.bounds[:-1] if array.dims[0] == "slot" else self.array(array).places[: len(self.record.items)]

    def row(self, array: ArrayLayout, position: int) -> np.ndarray:
        """The stored values of one row in one array: [1, ...], or of a report [tokens, width]. Checked unless told not.

        Raises:
            DamageError: its bytes are gone or differ from what was committed; names the item.
        """
        first = int(self.begins(array)[position])
        count = int(self.record.tokens[position] or 0) if array.dims[0] == "slot" else 1
        if first < 0:
            raise absent_row(self.feature_set, self.record.items[position])
        raw = np.empty(count * array.unit_bytes, np.uint8)
        self.array(array).read(first, first + count, raw.data)
        if self.check:
            expect_checksum(
                self.feature_set, self.record.items[position], crc32(raw), int(self.checksums(array)[position])
            )
        return raw.view(array.dtype).reshape(-1, *array.unit_shape)

    def _file(self, array: ArrayLayout) -> ShardFile:
        name = array.shard_file(self.number)
        where, promised = f"feature set {self.feature_set.name}, {name}", self.record.files[name]
        staged, own = self.feature_set.path / self.record.staged_file(name), self.feature_set.path / name
        if isinstance(staged, ObjectPath) and isinstance(own, ObjectPath):
            return RangeFile((staged, own), promised, where, repair(self.feature_set))
        paths = (self.feature_set.data_file(self.record, name), own)
        return ShardFile(paths, promised, where, repair(self.feature_set))


def expect_checksum(feature_set: FeatureSet, item: str, found: int, stored: int) -> None:
    """Compare a row's checksum with the one that was committed.

    Raises:
        DamageError: they differ; names the item.
    """
    if found != stored:
        raise DamageError(
            f"item {item}: its row in feature set {feature_set.name} fails its checksum (stored {stored:08x}, found "
            f"{found:08x}). {repair(feature_set)}"
        )


def absent_row(feature_set: FeatureSet, item: str) -> DamageError:
    """The error that a row is not in a file, though its record says that it is done."""
    return DamageError(
        f"item {item}: its row is not in the files of feature set {feature_set.name}. {repair(feature_set)}"
    )


def repair(feature_set: FeatureSet) -> str:
    """What to do about damage in a feature set."""
    more = " Where it finds nothing, delete the cache folder." if isinstance(feature_set.path, ObjectPath) else ""
    return f"Run `radfs verify {feature_set.name} --deep --repair`. {feature_set.how_to_fill()}{more}"
