"""Many rows of a feature set into one array: in the order of the files, run by run, in threads, each row checked.

Rows that stand side by side in a file and in memory are one read. What is read for the first time is read by offset
and its checksum compared while the copy is warm in the caches; rows that the memory does not hold are asked for all at
once, then read. Of a set that fits into memory, later reads copy from a map. (docs/LOG.md has the figures.)
"""

import os
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache
from itertools import pairwise
from typing import NamedTuple, TypeVar

import numpy as np
import polars as pl

from . import memory
from .errors import DamageError
from .featureset import FeatureSet
from .layout import ArrayLayout
from .remote import ObjectPath, at_once
from .shardfile import Shard, ShardArray, absent_row, expect_checksum, repair
from .shards import crc32

DEFAULT_THREADS = min(4, len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1)

_MOST_THREADS = 64

_CHECKED_BYTES = 2**20
"""Read before its checksums are computed: what stays in a core's cache."""

_COPIED_BYTES = 2**25
_BLOCK_BYTES = 2**27
"""One thread's share at a time of a large read."""

_ALONE_BYTES = 2**21
"""Less is not worth a second thread."""

_Task = TypeVar("_Task")


@dataclass
class _Table:
    """What is known of one array. Cells count the rows of the shards that hold rows of ours, shard by shard."""

    array: ArrayLayout
    begins: np.ndarray
    checksums: np.ndarray
    seen: np.ndarray
    opened: list[ShardArray | None]


class _Piece(NamedTuple):
    """Rows [first, last) of a plan, that are one read of each array."""

    first: int
    last: int
    shard: int
    follows: bool
    mapped: bool


class Gatherer:
    """Reads rows of one view of a feature set. May be shared by threads.

    Args:
        feature_set: an open set.
        view: 0 is the clean one.
        done: the rows that may be read: columns item, row and tokens, of `COMMIT_SCHEMA`.
        check: compare the checksum of each row when it is first read.
        threads: that share the work of a call.
    """

    def __init__(self, feature_set: FeatureSet, view: int, done: pl.DataFrame, *, check: bool, threads: int) -> None:
        self._set, self._view = feature_set, view
        self._check, self._threads = check, threads
        self._done = done.select("item", "row", "tokens").sort("row")
        self._rows = self._done["row"].to_numpy()
        self._shard_rows = feature_set.layout.shard_rows
        self._shards = np.unique(self._rows // self._shard_rows)
        self._tables: dict[str, tuple[_Table, ...]] = {}
        self._guard = threading.Lock()
        free = memory.available_bytes()
        layout = feature_set.layout
        width = sum(part.width(layout.dim) * np.dtype(part.dtype).itemsize for part in layout.codec.parts)
        self._mapped = free is None or int(self._done["tokens"].sum() or 0) * width <= free // 2

    def gather(
        self, base: str, rows: np.ndarray, tokens: np.ndarray, out: np.ndarray, threads: int | None = None
    ) -> None:
        """Fill `out` with rows of an array, in their order.

        Args:
            base: tokens or cls.
            rows: numbers of rows, int64 [b].
            tokens: of each row, int64 [b]; ones for cls.
            out: C-contiguous [sum of tokens, dim], of the dtype that the set's codec reads as.
            threads: that share the work, where it should be others than the reader's.

        Raises:
            DamageError: bytes are gone or differ from what was committed; names the item.
        """
        if len(rows):
            _Plan(self, self._load(base, rows), rows, tokens, out).run(threads or self._threads)

    def expect(self, base: str, rows: np.ndarray, tokens: np.ndarray) -> None:
        """Let the system fetch rows that are not known to be in memory, while we do something else."""
        if not len(rows):
            return
        tables = self._load(base, rows)
        plan = _Plan(self, tables, rows, tokens, None)
        for piece in plan.pieces:
            if not piece.mapped:
                plan.expect(piece)

    def cells(self, rows: np.ndarray) -> np.ndarray:
        """Where rows stand in tables: int64 [b]. In the order of rows."""
        shards, positions = np.divmod(rows, self._shard_rows)
        return np.searchsorted(self._shards, shards) * self._shard_rows + positions

    def item(self, row: int) -> str:
        """The id of the item that has a row."""
        return self._done["item"][int(np.searchsorted(self._rows, row))]

    def fast(self, tables: tuple[_Table, ...], cells: np.ndarray) -> np.ndarray:
        """bool [b]: rows that were read before, of a set that fits into memory."""
        if not self._mapped or tables[0].array.compressed:
            return np.zeros(len(cells), dtype=bool)
        return np.logical_and.reduce([table.seen[cells] for table in tables])

    @property
    def feature_set(self) -> FeatureSet:
        """The set."""
        return self._set

    @property
    def check(self) -> bool:
        """Whether rows are compared with their checksums when they are first read."""
        return self._check

    def _load(self, base: str, rows: np.ndarray) -> tuple[_Table, ...]:
        """The tables of an array, filled for the shards of these rows."""
        with self._guard:
            if base not in self._tables:
                arrays = [a for a in self._set.layout.arrays(self._view) if a.base == base]
                self._tables[base] = tuple(self._empty(array) for array in arrays)
            tables = self._tables[base]
            needed = np.unique(np.searchsorted(self._shards, rows // self._shard_rows))
            closed = [place for place in needed.tolist() if any(table.opened[place] is None for table in tables)]
            # Of a remote store several at a time: each is some answers of a server.
            open_each = at_once if isinstance(self._set.path, ObjectPath) else map
            list(open_each(lambda place: self._open(place, tables), closed))
        return tables

    def _empty(self, array: ArrayLayout) -> _Table:
        cells = len(self._shards) * self._shard_rows
        unknown = np.full(cells, -1, np.int64)
        return _Table(array, unknown, np.zeros(cells, np.uint32), np.zeros(cells, bool), [None] * len(self._shards))

    def _open(self, place: int, tables: tuple[_Table, ...]) -> None:
        shard = Shard(self._set, self._view, int(self._shards[place]))
        self._compare(shard)
        held = slice(place * self._shard_rows, place * self._shard_rows + len(shard.record.items))
        for table in tables:
            opened = shard.array(table.array)
            table.begins[held] = shard.begins(table.array)
            table.checksums[held] = shard.checksums(table.array)
            table.opened[place] = opened

    def _compare(self, shard: Shard) -> None:
        """Refuse a record that says something else of our rows than the index did: they would be another item's."""
        first = shard.number * self._shard_rows
        ours = self._done.slice(*_slice(np.searchsorted(self._rows, [first, first + self._shard_rows])))
        record = shard.record
        theirs = {first + i: (item, n) for i, (item, n) in enumerate(zip(record.items, record.tokens, strict=True))}
        for item, row, tokens in ours.iter_rows():
            if theirs.get(row) != (item, tokens):
                raise DamageError(
                    f"item {item}: the commit record of shard {shard.number} in feature set {self._set.name} has "
                    f"another item in its row {row}. {repair(self._set)}"
                )


class _Plan:
    """Which reads fill `out`, and the reading."""

    def __init__(
        self, reader: Gatherer, tables: tuple[_Table, ...], rows: np.ndarray, tokens: np.ndarray, out: np.ndarray | None
    ) -> None:
        self._reader, self._tables, self._out = reader, tables, out
        self._codec = reader.feature_set.layout.codec
        self._plain = len(tables) == 1 and tables[0].array.dtype == self._codec.reads_as
        lines = np.cumsum(tokens)
        cells = reader.cells(rows)
        if (cells[1:] < cells[:-1]).any():
            order = np.argsort(cells, kind="stable")
            rows, cells, tokens, lines = rows[order], cells[order], tokens[order], lines[order]
        self._rows, self._cells = rows, cells
        ragged = tables[0].array.dims[0] == "slot"
        self._set_columns(tokens if ragged else np.ones_like(tokens), lines - tokens, lines)

    def _set_columns(self, units: np.ndarray, starts: np.ndarray, stops: np.ndarray) -> None:
        begins = np.stack([table.begins[self._cells] for table in self._tables])
        absent = (begins < 0).any(axis=0)
        if absent.any():
            raise absent_row(self._reader.feature_set, self._reader.item(self._rows[absent.argmax()]))
        fast = self._reader.fast(self._tables, self._cells)
        shards = self._cells // self._reader.feature_set.layout.shard_rows
        self._bytes = np.cumsum(units * sum(table.array.unit_bytes for table in self._tables))
        joined = (shards[1:] == shards[:-1]) & (starts[1:] == stops[:-1]) & (fast[1:] == fast[:-1])
        follows = joined & (begins[:, 1:] == begins[:, :-1] + units[:-1]).all(axis=0)
        share = self._bytes // np.where(fast, _COPIED_BYTES, _CHECKED_BYTES)
        breaks = np.flatnonzero(~(follows & (share[1:] == share[:-1]))) + 1
        firsts = np.concatenate([[0], breaks])
        lasts = np.concatenate([breaks, [len(units)]])
        follows = np.concatenate([[False], follows])[firsts]
        columns = (firsts, lasts, shards[firsts], follows, fast[firsts])
        self.pieces = [_Piece(*row) for row in zip(*(c.tolist() for c in columns), strict=True)]
        self._units, self._starts, self._stops = units.tolist(), starts.tolist(), stops.tolist()
        self._begins = begins.tolist()
        self._seen = [table.seen[self._cells].tolist() for table in self._tables]
        self._stored = [table.checksums[self._cells].tolist() for table in self._tables]

    def expect(self, piece: _Piece) -> None:
        """Ask the system for the bytes of a piece."""
        for begins, table in zip(self._begins, self._tables, strict=True):
            array = self._array(table, piece)
            array.file.expect(*array.span(begins[piece.first], begins[piece.last - 1] + self._units[piece.last - 1]))

    def run(self, threads: int) -> None:
        """Read all pieces; rows count as seen when all of them are good."""
        total = int(self._bytes[-1])
        threads = threads if total > _ALONE_BYTES else 1
        blocks = self._blocks(min(_BLOCK_BYTES, -(-total // threads)))
        share(self._read_block, blocks, threads)
        for table in self._tables:
            table.seen[self._cells] = True

    def _blocks(self, size: int) -> Iterator[list[_Piece]]:
        ends = self._bytes[[piece.last - 1 for piece in self.pieces]]
        cuts = np.flatnonzero(np.diff((ends - 1) // size)) + 1
        bounds = [0, *cuts.tolist(), len(self.pieces)]
        return (self.pieces[a:b] for a, b in pairwise(bounds))

    def _read_block(self, block: list[_Piece]) -> None:
        late = []
        for piece in block:
            # Where a run goes on the system reads ahead by itself.
            if not self._read(piece, wait=piece.follows):
                self.expect(piece)
                late.append(piece)
        for piece in late:
            self._read(piece, wait=True)

    def _read(self, piece: _Piece, *, wait: bool) -> bool:
        assert self._out is not None
        first, last = piece.first, piece.last
        target = self._out[self._starts[first] : self._stops[last - 1]]
        try:
            if self._plain:
                return self._read_array(0, piece, target, wait) is not None
            parts = []
            for number, table in enumerate(self._tables):
                raw = self._read_array(number, piece, None, wait)
                if raw is None:
                    return False
                parts.append(raw.view(table.array.dtype).reshape(-1, table.array.shard_shape[-1]))
        except DamageError as error:
            item = self._reader.item(self._rows[first])
            raise error if str(error).startswith("item ") else DamageError(f"item {item}: {error}") from error
        self._codec.decode(parts, out=target)
        return True

    def _read_array(self, number: int, piece: _Piece, target: np.ndarray | None, wait: bool) -> np.ndarray | None:
        """The stored bytes of a piece in one array, in `target` if there is one; None where we did not wait."""
        table, begins = self._tables[number], self._begins[number]
        array = self._array(table, piece)
        begin, end = begins[piece.first], begins[piece.last - 1] + self._units[piece.last - 1]
        if piece.mapped:
            stored = array.view(begin, end)
            if target is not None:
                np.copyto(target.reshape(-1).view(np.uint8), stored)
            return stored
        size = (end - begin) * table.array.unit_bytes
        into = np.empty(size, np.uint8) if target is None else target.reshape(-1).view(np.uint8)
        if not array.read(begin, end, into, wait=wait):
            return None
        if self._reader.check:
            self._check(number, piece, into.data)
        return into

    def _check(self, number: int, piece: _Piece, stored: memoryview) -> None:
        unit_bytes, seen, at = self._tables[number].array.unit_bytes, self._seen[number], 0
        for i in range(piece.first, piece.last):
            end = at + self._units[i] * unit_bytes
            if not seen[i]:
                found = crc32(stored[at:end])
                if found != self._stored[number][i]:
                    item = self._reader.item(self._rows[i])
                    expect_checksum(self._reader.feature_set, item, found, self._stored[number][i])
            at = end

    def _array(self, table: _Table, piece: _Piece) -> ShardArray:
        array = table.opened[piece.shard]
        assert array is not None
        return array


def share(work: Callable[[_Task], object], tasks: Iterable[_Task], threads: int) -> None:
    """Do every task, in this thread and in helpers. After an error nothing more is begun; it is raised at the end."""
    waiting = iter(list(tasks))  # a list's iterator may be shared by threads, a generator may not

    def take() -> None:
        try:
            for task in waiting:
                work(task)
        except BaseException:
            for _ in waiting:
                pass
            raise

    helpers = [_helpers().submit(take) for _ in range(threads - 1)]
    try:
        take()
    finally:
        errors = [helper.exception() for helper in helpers if not helper.cancel()]
    for error in errors:
        if error is not None:
            raise error


@cache
def _helpers() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(_MOST_THREADS, thread_name_prefix="gather")


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_helpers.cache_clear)  # a child has none of its parent's threads


def _slice(bounds: np.ndarray) -> tuple[int, int]:
    return int(bounds[0]), int(bounds[1] - bounds[0])
