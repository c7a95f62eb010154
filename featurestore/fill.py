"""Filling an array with rows of shards: from maps of files that were read before, or by offset with checksums.

Rows that stand side by side, in their file and where they are wanted, are one read. Threads share the reads in blocks.
"""

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np

from .errors import DamageError
from .featureset import FeatureSet
from .layout import ArrayLayout
from .openshard import ShardArray, absent_row, expect_checksum
from .shards import crc32

_MOST_THREADS = 64

_CHECKED_BYTES = 2**20
"""Read before its checksums are computed: what stays in a core's cache."""

_COPIED_BYTES = 2**25
_BLOCK_BYTES = (2**20, 2**27)
"""Least and most that a thread takes at a time: small, so that none waits long for another; large, to read ahead."""

_BLOCKS = 8
"""That a thread takes on average."""


@dataclass
class Table:
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
    def empty(cls, array: ArrayLayout, shards: int, shard_rows: int, is_plain: bool) -> "Table":
        cells = shards * shard_rows
        begins, checksums = np.full(cells, -1, np.int64), np.zeros(cells, np.uint32)
        seen, ready = np.zeros(cells, dtype=bool), np.zeros(shards, dtype=bool)
        opened: list[ShardArray] = [None] * shards  # type: ignore[list-item]
        return cls(array, array.unit_bytes, array.dims[0] == "slot", is_plain, begins, checksums, seen, ready, opened)


class Copies:
    """Rows that were read before, from maps of their files, in the order in which they are wanted."""

    def __init__(
        self, table: Table, places: np.ndarray, cells: np.ndarray, tokens: np.ndarray, out: np.ndarray
    ) -> None:
        self._opened, self._out = table.opened, out.reshape(-1).view(np.uint8)
        sizes = tokens * table.unit_bytes if table.is_ragged else np.full(len(cells), table.unit_bytes)
        stops, begins = sizes.cumsum(), table.begins[cells] * table.unit_bytes
        ends = begins + sizes
        apart = (places[1:] != places[:-1]) | (begins[1:] != ends[:-1])
        if stops[-1] > _COPIED_BYTES:
            apart |= _cuts(stops, _COPIED_BYTES)
        firsts, lasts = _runs(apart)
        self._stops = stops[lasts]
        self._pieces = [column.tolist() for column in (places[firsts], begins[firsts], ends[lasts], self._stops)]

    def run(self, threads: int) -> None:
        """Copy all of them."""
        share(self._do, self._stops, threads)

    def _do(self, block: slice) -> None:
        places, begins, ends, stops = self._pieces
        pieces = zip(places[block], begins[block], ends[block], strict=True)
        views = [self._opened[place].file.view(begin, end - begin) for place, begin, end in pieces]
        # One call for all of them: one for each would cost half a microsecond a row more.
        np.concatenate(views, out=self._out[stops[block.start - 1] if block.start else 0 : stops[block.stop - 1]])


class _Piece(NamedTuple):
    """Rows [first, last) of those to read, which are one read of each array.

    Attributes:
        first, last: rows.
        place: of their shard in the tables.
        begins: by array, the unit at which they begin in its file.
        units: how many they are.
        start, stop: where they are wanted.
        follows: whether they begin in the file where the piece before them ends.
    """

    first: int
    last: int
    place: int
    begins: list[int]
    units: int
    start: int
    stop: int
    follows: bool


class Reads:
    """Rows by offset, in the order of the files, with their checksums.

    Args:
        feature_set: that they are of.
        tables: of the arrays that are one with the codec.
        name: gives the id of the item that has a row.
        check: compare the checksums of rows that were not read before.
        rows, places, cells, tokens: of each row, int64 [b]: its number, where its shard and it stand in the tables.
        out: where the rows are wanted, one after the other: C-contiguous [sum of tokens, dim]; None only to expect.
    """

    def __init__(
        self,
        feature_set: FeatureSet,
        tables: Sequence[Table],
        name: Callable[[int], str],
        check: bool,
        rows: np.ndarray,
        places: np.ndarray,
        cells: np.ndarray,
        tokens: np.ndarray,
        out: np.ndarray | None,
    ) -> None:
        self._set, self._tables, self._name, self._out = feature_set, tables, name, out
        if out is not None:
            self._bytes, self._line_bytes = out.reshape(-1).view(np.uint8).data, out.shape[1] * out.itemsize
            self._in_place = len(tables) == 1 and tables[0].array.dtype == out.dtype.name
        stops = tokens.cumsum()
        if (cells[1:] < cells[:-1]).any():
            order = cells.argsort(kind="stable")
            rows, places, cells, tokens, stops = (x[order] for x in (rows, places, cells, tokens, stops))
        units = tokens if tables[0].is_ragged else np.ones_like(tokens)
        begins = [table.begins[cells] for table in tables]
        follows = places[1:] == places[:-1]
        for column in begins:
            if column.min() < 0:
                raise absent_row(feature_set, name(rows[column.argmin()]))
            follows &= column[1:] == column[:-1] + units[:-1]
        starts, nbytes = stops - tokens, (units * sum(table.unit_bytes for table in tables)).cumsum()
        firsts, lasts = _runs(~follows | (starts[1:] != stops[:-1]) | _cuts(nbytes, _CHECKED_BYTES))
        numbers = np.arange(len(rows))
        columns = (numbers[firsts], numbers[lasts] + 1, places[firsts], np.stack(begins, axis=1)[firsts])
        columns += ((begins[0] + units)[lasts] - begins[0][firsts], starts[firsts], stops[lasts])
        columns += (np.concatenate([[False], follows])[firsts],)
        self._pieces = list(map(_Piece, *(column.tolist() for column in columns)))
        self._stops = nbytes[lasts]
        self._rows, self._sizes = rows, [(units * table.unit_bytes).tolist() for table in tables]
        self._stored = [self._unseen(table, cells, check).tolist() for table in tables]

    def _unseen(self, table: Table, cells: np.ndarray, check: bool) -> np.ndarray:
        """The checksums of rows that are to be compared; -1 for the others."""
        return np.where(table.seen[cells] | (not check), -1, table.checksums[cells].astype(np.int64))

    def run(self, threads: int) -> None:
        """Read all of them."""
        share(self._do, self._stops, threads)

    def expect(self) -> None:
        """Let the system fetch all of them, while we do something else."""
        for piece in self._pieces:
            self._expect(piece)

    def _do(self, block: slice) -> None:
        read = self._read_in_place if self._in_place else self._read_and_decode
        late = []
        for piece in self._pieces[block]:
            # Where a run goes on the system reads ahead by itself.
            if not read(piece, piece.follows):
                self._expect(piece)
                late.append(piece)
        for piece in late:
            read(piece, True)

    def _expect(self, piece: _Piece) -> None:
        for table, begin in zip(self._tables, piece.begins, strict=True):
            array = table.opened[piece.place]
            array.file.expect(*array.span(begin, begin + piece.units))

    def _read_in_place(self, piece: _Piece, wait: bool) -> bool:
        """Read a piece to where it is wanted, and check it; False where it is not in memory and we shall not wait."""
        first, last, place, begins, units, start, stop, _ = piece
        raw = self._bytes[start * self._line_bytes : stop * self._line_bytes]
        try:
            if not self._tables[0].opened[place].read(begins[0], begins[0] + units, raw, wait=wait):
                return False
        except DamageError as error:
            raise self._named(piece, error) from error
        self._check(0, first, last, raw)
        return True

    def _read_and_decode(self, piece: _Piece, wait: bool) -> bool:
        """The same for what is stored in other numbers than are wanted."""
        parts = []
        for number, table in enumerate(self._tables):
            raw = np.empty(piece.units * table.unit_bytes, np.uint8)
            begin = piece.begins[number]
            try:
                if not table.opened[piece.place].read(begin, begin + piece.units, raw.data, wait=wait):
                    return False
            except DamageError as error:
                raise self._named(piece, error) from error
            self._check(number, piece.first, piece.last, raw.data)
            parts.append(raw.view(table.array.dtype).reshape(-1, table.array.shard_shape[-1]))
        assert self._out is not None
        self._set.layout.codec.decode(parts, out=self._out[piece.start : piece.stop])
        return True

    def _named(self, piece: _Piece, error: DamageError) -> DamageError:
        return DamageError(f"item {self._name(self._rows[piece.first])}: {error}")

    def _check(self, number: int, first: int, last: int, raw: memoryview) -> None:
        """Compare the checksums of rows of one array that were not read before."""
        stored, sizes, end = self._stored[number], self._sizes[number], 0
        for i in range(first, last):
            begin, end = end, end + sizes[i]
            if stored[i] >= 0 and (found := crc32(raw[begin:end])) != stored[i]:
                expect_checksum(self._set, self._name(self._rows[i]), found, stored[i])


def share(work: Callable[[slice], object], stops: np.ndarray, threads: int) -> None:
    """Do pieces of work, block by block, in this thread and in helpers.

    After an error nothing more is begun; it is raised when all threads have stopped.

    Args:
        work: does the pieces of a slice.
        stops: bytes of all pieces up to the end of each, int64 [pieces].
        threads: that share the work.
    """
    least, most = _BLOCK_BYTES
    size = min(max(int(stops[-1]) // (threads * _BLOCKS), least), most) if threads > 1 else most
    cuts = (_cuts(stops - 1, size).nonzero()[0] + 1).tolist() if stops[-1] > size else []
    waiting = iter([slice(a, b) for a, b in pairwise([0, *cuts, len(stops)])])  # a list's may be shared by threads

    def take() -> None:
        try:
            for block in waiting:
                work(block)
        except BaseException:
            for _ in waiting:
                pass
            raise

    helpers = [_helpers().submit(take) for _ in range(min(threads - 1, len(cuts)))]
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


def _runs(apart: np.ndarray) -> tuple[Any, Any]:
    """First and last of each run of neighbours that are not `apart`, as indices."""
    if apart.all():
        return slice(None), slice(None)
    breaks = apart.nonzero()[0]
    return np.concatenate([[0], breaks + 1]), np.concatenate([breaks, [len(apart)]])
