"""Many rows of a feature set into one array: run by run, in threads, each row checked.

Rows that are read for the first time are read by offset in the order of the files, and their checksums compared while
the copy is warm in the caches. What the memory does not hold is asked for at once, then read. When they are read again,
rows of a set on this machine that fits into memory are copied from maps of its files. Neighbours are one read.
"""

import os
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache, partial
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
_BLOCK_BYTES = (2**20, 2**27)
"""Least and most that a thread takes at a time: small, so that none waits long for another; large, to read ahead."""

_BLOCKS = 8
"""That a thread takes on average."""

_Task = TypeVar("_Task")


class Gatherer:
    """Reads rows of one view of a feature set. May be shared by threads.

    Args:
        feature_set: an open set.
        view: 0 is the clean one.
        done: the rows that may be read: columns item, row and tokens of `COMMIT_SCHEMA`.
        check: compare the checksum of each row when it is first read.
        threads: that share the work of a call.
    """

    def __init__(self, feature_set: FeatureSet, view: int, done: pl.DataFrame, *, check: bool, threads: int) -> None:
        self.feature_set, self.check = feature_set, check
        self._view, self._threads = view, threads
        self._done = done.select("item", "row", "tokens").sort("row")
        self._rows = self._done["row"].to_numpy()
        self._shard_rows = feature_set.layout.shard_rows
        self._shards = np.unique(self._rows // self._shard_rows)
        self._tables: dict[str, tuple[_Table, ...]] = {}
        self._guard = threading.Lock()
        layout, free = feature_set.layout, memory.available_bytes()
        width = sum(part.width(layout.dim) * np.dtype(part.dtype).itemsize for part in layout.codec.parts)
        fits = free is None or int(self._done["tokens"].sum() or 0) * width <= free // 2
        self._mapped = fits and not isinstance(feature_set.path, ObjectPath)  # an object cannot be mapped

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
            cells, tables = self._load(base, rows)
            if self._mapped and tables[0].is_plain and tables[0].seen[cells].all():
                plan = _Copies(tables[0], cells // self._shard_rows, cells, tokens, out)
            else:
                plan = _Reads(self, tables, rows, cells, tokens, out)
            threads = threads or self._threads
            least, most = _BLOCK_BYTES
            blocks = list(plan.blocks(min(max(plan.nbytes // (threads * _BLOCKS), least), most)))
            share(plan.do, blocks, min(threads, len(blocks)))
            for table in tables:
                table.seen[cells] = True

    def expect(self, base: str, rows: np.ndarray, tokens: np.ndarray) -> None:
        """Let the system fetch rows that are not known to be in memory, while we do something else."""
        cells, tables = self._load(base, rows)
        unknown = np.flatnonzero(~tables[0].seen[cells]) if self._mapped else np.arange(len(rows))
        if len(unknown):
            plan = _Reads(self, tables, rows[unknown], cells[unknown], tokens[unknown], None)
            for piece in plan.pieces:
                plan.expect(piece)

    def item(self, row: int) -> str:
        """The id of the item that has a row."""
        return self._done["item"][int(np.searchsorted(self._rows, row))]

    def _load(self, base: str, rows: np.ndarray) -> "tuple[np.ndarray, tuple[_Table, ...]]":
        """Where rows stand in the tables of an array, which are filled for their shards."""
        shards, positions = np.divmod(rows, self._shard_rows)
        places = np.searchsorted(self._shards, shards)
        tables = self._tables.get(base)
        if tables is None or not tables[-1].ready[places].all():
            with self._guard:
                tables = self._tables.setdefault(base, tables or self._empty(base))
                closed = np.unique(places[~tables[-1].ready[places]]).tolist()
                # Of a remote store several at a time: each is some answers of a server.
                open_each = at_once if isinstance(self.feature_set.path, ObjectPath) else map
                list(open_each(partial(self._open, tables), closed))
        return places * self._shard_rows + positions, tables

    def _empty(self, base: str) -> "tuple[_Table, ...]":
        layout = self.feature_set.layout
        arrays = [array for array in layout.arrays(self._view) if array.base == base]
        plain = len(arrays) == 1 and arrays[0].dtype == layout.codec.reads_as and not arrays[0].compressed
        return tuple(_Table.empty(array, len(self._shards), self._shard_rows, plain) for array in arrays)

    def _open(self, tables: "tuple[_Table, ...]", place: int) -> None:
        shard = Shard(self.feature_set, self._view, int(self._shards[place]))
        self._compare(shard)
        held = slice(place * self._shard_rows, place * self._shard_rows + len(shard.record.items))
        for table in tables:
            table.opened[place] = shard.array(table.array)
            table.begins[held] = shard.begins(table.array)
            table.checksums[held] = shard.checksums(table.array)
            table.ready[place] = True

    def _compare(self, shard: Shard) -> None:
        """Refuse a record that says something else of our rows than the index did: they would be another item's."""
        first, record = shard.number * self._shard_rows, shard.record
        begin, end = np.searchsorted(self._rows, [first, first + self._shard_rows]).tolist()
        ours = self._done[begin:end]
        theirs = dict(enumerate(zip(record.items, record.tokens, strict=True), first))
        for item, row, tokens in zip(*(ours[name].to_list() for name in ("item", "row", "tokens")), strict=True):
            if theirs.get(row) != (item, tokens):
                raise DamageError(
                    f"item {item}: the commit record of shard {shard.number} in feature set {self.feature_set.name} "
                    f"has another item in row {row}. {repair(self.feature_set)}"
                )


@dataclass
class _Table:
    """What is known of one array. Cells count the rows of the shards that hold rows of ours, shard after shard.

    Attributes:
        array: its layout.
        unit_bytes: stored bytes of a row, or of a token of a ragged array.
        is_ragged: whether rows are reports.
        is_plain: whether the stored bytes are what is read.
        begins: by cell, the unit at which the row begins in its file.
        checksums: by cell.
        seen: by cell, whether the row was read before.
        ready: by shard, whether all of this is known.
        opened: by shard.
    """

    array: ArrayLayout
    unit_bytes: int
    is_ragged: bool
    is_plain: bool
    begins: np.ndarray
    checksums: np.ndarray
    seen: np.ndarray
    ready: np.ndarray
    opened: list[ShardArray]

    @classmethod
    def empty(cls, array: ArrayLayout, shards: int, shard_rows: int, is_plain: bool) -> "_Table":
        cells = shards * shard_rows
        begins, checksums = np.full(cells, -1, np.int64), np.zeros(cells, np.uint32)
        seen, ready = np.zeros(cells, dtype=bool), np.zeros(shards, dtype=bool)
        opened: list[ShardArray] = [None] * shards  # type: ignore[list-item]
        return cls(array, array.unit_bytes, array.dims[0] == "slot", is_plain, begins, checksums, seen, ready, opened)


class _Copies:
    """Rows that were read before, from maps of their files, in the order in which they are wanted."""

    def __init__(
        self, table: _Table, shards: np.ndarray, cells: np.ndarray, tokens: np.ndarray, out: np.ndarray
    ) -> None:
        self._opened, self._out = table.opened, out.reshape(-1).view(np.uint8)
        sizes = tokens * table.unit_bytes if table.is_ragged else np.full(len(cells), table.unit_bytes)
        stops = sizes.cumsum()
        begins = table.begins[cells] * table.unit_bytes
        ends = begins + sizes
        apart = (shards[1:] != shards[:-1]) | (begins[1:] != ends[:-1])
        firsts, lasts = _runs(apart | _cuts(stops, _COPIED_BYTES))
        self.nbytes, self._stops = int(stops[-1]), stops[lasts]
        columns = (shards[firsts], begins[firsts], ends[lasts], stops[firsts] - sizes[firsts], self._stops)
        self._pieces = [column.tolist() for column in columns]

    def blocks(self, size: int) -> Iterator[slice]:
        """Shares of the work of about so many bytes."""
        return _blocks(self._stops, size)

    def do(self, block: slice) -> None:
        """Copy one share."""
        opened, out = self._opened, self._out
        for shard, begin, end, start, stop in zip(*(column[block] for column in self._pieces), strict=True):
            out[start:stop] = opened[shard].file.view(begin, end - begin)


class _Piece(NamedTuple):
    """Rows [first, last) of a plan, which are one read of each array; `follows`: where the piece before it ends."""

    first: int
    last: int
    shard: int
    follows: bool


class _Reads:
    """Rows by offset, in the order of the files, with their checksums."""

    def __init__(
        self,
        reader: Gatherer,
        tables: Sequence[_Table],
        rows: np.ndarray,
        cells: np.ndarray,
        tokens: np.ndarray,
        out: np.ndarray | None,
    ) -> None:
        self._reader, self._tables, self._out = reader, tables, out
        self._codec = reader.feature_set.layout.codec
        in_place = out is not None and len(tables) == 1 and tables[0].array.dtype == self._codec.reads_as
        self._bytes = out.reshape(-1).view(np.uint8).data if out is not None and in_place else None
        self._line_bytes = 0 if out is None else out.shape[1] * out.itemsize
        stops = tokens.cumsum()
        if (cells[1:] < cells[:-1]).any():
            order = cells.argsort(kind="stable")
            rows, cells, tokens, stops = rows[order], cells[order], tokens[order], stops[order]
        units = tokens if tables[0].is_ragged else np.ones_like(tokens)
        begins = np.stack([table.begins[cells] for table in tables])
        if begins.min() < 0:
            raise absent_row(reader.feature_set, reader.item(rows[(begins < 0).any(axis=0).argmax()]))
        shards = cells // reader.feature_set.layout.shard_rows
        follows = (shards[1:] == shards[:-1]) & (stops[1:] - tokens[1:] == stops[:-1])
        follows &= (begins[:, 1:] == begins[:, :-1] + units[:-1]).all(axis=0)
        nbytes = (units * sum(table.unit_bytes for table in tables)).cumsum()
        firsts, lasts = _runs(~follows | _cuts(nbytes, _CHECKED_BYTES))
        columns = (firsts, lasts + 1, shards[firsts], np.concatenate([[False], follows])[firsts])
        self.pieces = [_Piece(*row) for row in zip(*(column.tolist() for column in columns), strict=True)]
        self.nbytes, self._stops = int(nbytes[-1]), nbytes[lasts]
        self._rows = rows
        self._units, self._lines, self._ends = units.tolist(), (stops - tokens).tolist(), stops.tolist()
        self._begins = begins.tolist()
        self._unseen = [self._checksums(table, cells) if reader.check else None for table in tables]

    def _checksums(self, table: _Table, cells: np.ndarray) -> list[int]:
        """Of rows that were not read before; -1 for the others."""
        return np.where(table.seen[cells], -1, table.checksums[cells].astype(np.int64)).tolist()

    def blocks(self, size: int) -> Iterator[slice]:
        """Shares of the work of about so many bytes."""
        return _blocks(self._stops, size)

    def do(self, block: slice) -> None:
        """Read one share."""
        late = []
        for piece in self.pieces[block]:
            # Where a run goes on the system reads ahead by itself.
            if not self._read(piece, wait=piece.follows):
                self.expect(piece)
                late.append(piece)
        for piece in late:
            self._read(piece, wait=True)

    def expect(self, piece: _Piece) -> None:
        """Ask the system for the bytes of a piece."""
        for begins, table in zip(self._begins, self._tables, strict=True):
            array = table.opened[piece.shard]
            array.file.expect(*array.span(begins[piece.first], begins[piece.last - 1] + self._units[piece.last - 1]))

    def _read(self, piece: _Piece, *, wait: bool) -> bool:
        assert self._out is not None
        first, last, shard, _ = piece
        start, stop = self._lines[first], self._ends[last - 1]
        parts = []
        try:
            for table, begins, unseen in zip(self._tables, self._begins, self._unseen, strict=True):
                begin, end = begins[first], begins[last - 1] + self._units[last - 1]
                raw = self._place(table, end - begin, start, stop)
                if not table.opened[shard].read(begin, end, raw, wait=wait):
                    return False
                if unseen is not None:
                    self._check(table, piece, unseen, raw)
                parts.append(raw)
        except DamageError as error:
            item = self._reader.item(self._rows[first])
            raise error if str(error).startswith("item ") else DamageError(f"item {item}: {error}") from error
        if self._bytes is None:
            arrays = [table.array for table in self._tables]
            values = [
                np.frombuffer(raw, a.dtype).reshape(-1, a.shard_shape[-1]) for raw, a in zip(parts, arrays, strict=True)
            ]
            self._codec.decode(values, out=self._out[start:stop])
        return True

    def _place(self, table: _Table, units: int, start: int, stop: int) -> memoryview:
        """Where stored bytes are put: where they are wanted, if they are wanted as they are."""
        if self._bytes is None:
            return np.empty(units * table.unit_bytes, np.uint8).data
        return self._bytes[start * self._line_bytes : stop * self._line_bytes]

    def _check(self, table: _Table, piece: _Piece, unseen: list[int], raw: memoryview) -> None:
        """Compare the checksums of those rows that are not seen yet: `unseen` has them, -1 for the others."""
        end = 0
        for i in range(piece.first, piece.last):
            begin, end = end, end + self._units[i] * table.unit_bytes
            if unseen[i] >= 0 and (found := crc32(raw[begin:end])) != unseen[i]:
                expect_checksum(self._reader.feature_set, self._reader.item(self._rows[i]), found, unseen[i])


def share(work: Callable[[_Task], object], tasks: Sequence[_Task], threads: int) -> None:
    """Do every task, in this thread and in helpers. After an error nothing more is begun; it is raised at the end."""
    waiting = iter(tasks)  # a list's may be shared by threads

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


def _cuts(stops: np.ndarray, size: int) -> np.ndarray:
    """bool [b - 1]: between which neighbours a multiple of `size` bytes lies."""
    shares = stops // size
    return shares[1:] != shares[:-1]


def _runs(apart: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """First and last of each run of neighbours that are not `apart`."""
    breaks = apart.nonzero()[0]
    return np.concatenate([[0], breaks + 1]), np.concatenate([breaks, [len(apart)]])


def _blocks(stops: np.ndarray, size: int) -> Iterator[slice]:
    cuts = np.flatnonzero(_cuts(stops - 1, size)) + 1
    return (slice(a, b) for a, b in pairwise([0, *cuts.tolist(), len(stops)]))
