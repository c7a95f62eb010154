"""Writing one shard: fill it in memory, stage its files, then the record, then the files' own names.

The order is the guarantee. Staged files are durable under names that no other attempt uses; the record is created if
its name is free, and is the commit; only then are the files renamed to where Zarr looks for them. A kill at any
moment leaves the shard decided or not: if it is, anybody may finish the renaming (`publish`), and readers find the
staged files meanwhile; if it is not, the next run makes it anew. A late writer finds the record taken and drops its
own files: nothing that is committed is ever replaced.
"""

import uuid
from collections.abc import Sequence
from functools import reduce

import numpy as np

from .errors import StoreError
from .featureset import FeatureSet, ShardPlan
from .fsio import fsync_folder, make_folder, move, remove, write_new, write_synced
from .index import RowIndex
from .layout import SLOT_CHUNK, ArrayLayout
from .records import Record, record_file, staged_file
from .remote import StorePath
from .shards import crc32, encode_index


class ShardWriter:
    """The rows of one planned shard. Put or fail every position once, then `commit`. Positions count from 0."""

    def __init__(self, feature_set: FeatureSet, plan: ShardPlan) -> None:
        self.feature_set = feature_set
        self.plan = plan
        self._arrays = feature_set.layout.arrays(plan.view)
        n = len(plan.items)
        self._rows: dict[str, list[np.ndarray | None]] = {a.path: [None] * n for a in self._arrays}
        self._tokens: list[int | None] = [None] * n
        self._content: list[str | None] = [None] * n
        self._stamps: list[str | None] = [None] * n
        self._failed: dict[int, str] = {}
        self._truncated: list[int] = []

    def put(
        self,
        position: int,
        tokens: np.ndarray,
        *,
        content: str | None,
        stamp: str | None = None,
        cls: np.ndarray | None = None,
        truncated: bool = False,
    ) -> None:
        """Keep the tokens of one item, encoded by the set's codec.

        Args:
            position: of the item in the plan.
            tokens: [n, d]; an image's n is the set's, a report's is its own length.
            content: sha256 of the item's bytes.
            stamp: of an image's file when it was read (`sources.source_stamp`).
            cls: [d], where the encoder has a class token.
            truncated: a report was longer than the context length.

        Raises:
            ItemError: a value is not finite in the stored precision.
        """
        layout = self.feature_set.layout
        allowed = range(1, layout.tokens + 1) if layout.modality == "text" else (layout.tokens,)
        if tokens.shape[0] not in allowed or tokens.shape[1] != layout.dim or (cls is not None) != layout.has_cls:
            raise ValueError(f"{self.feature_set.name}: tokens of shape {tokens.shape} do not fit the set.")
        parts = [*layout.codec.encode(tokens), *(layout.codec.encode(cls) if cls is not None else ())]
        for array, part in zip(self._arrays, parts, strict=False):  # a text set's offsets follow when all are there
            self._rows[array.path][position] = part
        self._tokens[position] = len(tokens)
        self._content[position], self._stamps[position] = content, stamp
        if truncated:
            self._truncated.append(position)

    def fail(self, position: int, reason: str, *, content: str | None = None, stamp: str | None = None) -> None:
        """Record that an item has no tokens, and why. Its row is never read."""
        self._failed[position] = reason
        self._content[position], self._stamps[position] = content, stamp

    @property
    def failed(self) -> dict[str, str]:
        """Reasons by item."""
        return {self.plan.items[position]: reason for position, reason in sorted(self._failed.items())}

    @property
    def truncated(self) -> int:
        """Reports that were longer than the context length."""
        return len(self._truncated)

    def commit(self) -> bool:
        """Make the shard durable. False, and nothing kept, where another process has decided it already."""
        missing = [i for i, n in enumerate(self._tokens) if n is None and i not in self._failed]
        if missing:
            raise ValueError(f"{self.feature_set.name}: no tokens for {self.plan.items[missing[0]]}.")
        if self.feature_set.modality == "text":
            self._rows[self._arrays[-1].path] = self._offsets()
        record = self._record({})
        folder = make_folder(self.feature_set.path / "staged")
        try:
            self._stage(record)
            fsync_folder(folder)
            if not _decide(self.feature_set, record):
                discard(self.feature_set, record)
                return False
        except StoreError:
            # A server that did not answer may take the record in yet. What is left behind otherwise, gc removes.
            raise
        except BaseException:
            # A full disk, an interrupt: what is staged is of no use. Unless the record stands: then it is the data.
            if not self.feature_set.is_decided(self.plan.view, self.plan.shard):
                discard(self.feature_set, record)
            raise
        publish(self.feature_set, record)
        return True

    def _offsets(self) -> list[np.ndarray | None]:
        lengths = np.array([n or 0 for n in self._tokens], dtype=np.int64)
        ends = self.plan.shard * self.feature_set.layout.shard_slots + np.cumsum(lengths)
        return list(np.stack([ends - lengths, ends], axis=1))

    def _stage(self, record: Record) -> None:
        """Write the files, and note in the record what they are."""
        staged: dict[StorePath, Sequence[memoryview]] = {}
        for array in self._arrays:
            name = array.shard_file(self.plan.shard)
            chunks = self._chunks(array)
            staged[self.feature_set.path / record.staged_file(name)] = chunks
            record.files[name] = {"bytes": sum(map(len, chunks)), "crc32": reduce(lambda c, b: crc32(b, c), chunks, 0)}
        write_synced(staged)

    def _chunks(self, array: ArrayLayout) -> list[memoryview]:
        """The bytes of a shard file, in pieces."""
        rows = [row for row in self._rows[array.path] if row is not None]
        if array.dims[0] == "slot":
            chunks, sizes = _slot_chunks(array, rows)
        else:
            chunks = [_bytes(row) if array.codec is None else _packed(array, row) for row in rows]
            stored = iter(len(chunk) for chunk in chunks)
            sizes = [-1 if row is None else next(stored) for row in self._rows[array.path]]
            sizes += [-1] * (array.chunks_per_shard - len(sizes))
        return [*chunks, memoryview(encode_index(sizes))]

    def _record(self, files: dict[str, dict[str, int]]) -> Record:
        return Record(
            feature_set=self.feature_set.name,
            view=self.plan.view,
            shard=self.plan.shard,
            first_row=self.plan.first_row,
            attempt=uuid.uuid4().hex[:12],
            items=list(self.plan.items),
            stamps=self._stamps,
            content=self._content,
            tokens=self._tokens,
            failed=self._failed,
            truncated=self._truncated,
            crc32={path: [None if r is None else crc32(r) for r in rows] for path, rows in self._rows.items()},
            files=files,
        )


def publish(feature_set: FeatureSet, record: Record) -> None:
    """Rename the staged files of a committed shard to where Zarr looks for them; what is there already is left.

    The names need not be durable: after a power loss a file has its old or its new one, and both are looked at.
    A staged file of another size than was committed came with a copy that was made while it was written: it goes.
    """
    for name in record.files:
        make_folder((feature_set.path / name).parent)
        staged = feature_set.path / record.staged_file(name)
        try:
            if staged.stat().st_size != record.files[name]["bytes"]:
                remove(staged)
                continue
            move(staged, feature_set.path / name)
        except FileNotFoundError:  # done before, or by another process
            continue


def discard(feature_set: FeatureSet, record: Record) -> None:
    """Remove the staged files of an attempt that did not become the shard."""
    for array in feature_set.layout.arrays(record.view):
        remove(feature_set.path / staged_file(record.view, record.shard, record.attempt, array.path))


def abandon(feature_set: FeatureSet, view: int, shard: int) -> bool:
    """Decide that a shard will never be: its items are missing and get other rows. False if it is decided already."""
    RowIndex(feature_set.path, view).clear()  # it may know rows of this shard, from before its record was lost
    return _decide(feature_set, abandoned(feature_set, view, shard))


def abandoned(feature_set: FeatureSet, view: int, shard: int) -> Record:
    """The record of a shard that will never be."""
    return Record(feature_set.name, view, shard, shard * feature_set.layout.shard_rows, "0" * 12, "abandoned")


def _decide(feature_set: FeatureSet, record: Record) -> bool:
    """Create the record of a shard. False if another one is there.

    Raises:
        StoreError: the set was removed meanwhile: a record must not bring a part of it back.
    """
    if not (feature_set.path / "zarr.json").exists():
        raise StoreError(f"feature set {feature_set.name} was removed while shard {record.shard} of it was being made.")
    return write_new(feature_set.path / record_file(record.view, record.shard), record.encode())


def _slot_chunks(array: ArrayLayout, rows: Sequence[np.ndarray]) -> tuple[list[memoryview], list[int]]:
    """The inner chunks of a ragged array and their sizes. The last one is filled up; no report reaches into that."""
    filler = -sum(map(len, rows)) % SLOT_CHUNK
    fill = np.full((filler, *array.unit_shape), array.fill_value, dtype=array.dtype)
    count = (sum(map(len, rows)) + filler) // SLOT_CHUNK
    if not array.compressed:
        chunks, sizes = [_bytes(row) for row in (*rows, fill)], [array.chunk_bytes] * count
    else:
        flat = np.concatenate([*rows, fill])
        chunks = [_packed(array, flat[i * SLOT_CHUNK : (i + 1) * SLOT_CHUNK]) for i in range(count)]
        sizes = [len(chunk) for chunk in chunks]
    return chunks, sizes + [-1] * (array.chunks_per_shard - count)


def _packed(array: ArrayLayout, chunk: np.ndarray) -> memoryview:
    if array.codec is None or not array.codec.compressed:
        return _bytes(chunk)
    return memoryview(array.codec.pack(np.ascontiguousarray(chunk)))


def _bytes(row: np.ndarray) -> memoryview:
    return np.ascontiguousarray(row).reshape(-1).view(np.uint8).data
