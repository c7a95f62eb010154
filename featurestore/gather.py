"""Which rows lie where in the shards of a feature set, and how they are read (`fill`).

Rows that are read for the first time are read by offset in the order of the files, and their checksums compared while
the copy is warm in the caches. What the memory does not hold is asked for at once, then read. When they are read again,
rows of a set on this machine that fits into memory are copied from maps of its files.
"""

import os
import threading
from functools import partial
from typing import Any

import numpy as np
import polars as pl

from . import memory
from .errors import DamageError
from .featureset import FeatureSet
from .fill import Copies, Reads, Table
from .openshard import Shard, repair
from .remote import ObjectPath, at_once

DEFAULT_THREADS = min(4, len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1)


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
        self.feature_set, self._view = feature_set, view
        self._check, self._threads = check, threads
        self._done = done.select("item", "row", "tokens").sort("row")
        self._rows = self._done["row"].to_numpy()
        self._shard_rows = feature_set.layout.shard_rows
        self._shards = np.unique(self._rows // self._shard_rows)
        self._tables: dict[str, tuple[Table, ...]] = {}
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
            places, cells, tables = self._load(base, rows)
            threads = threads or self._threads
            if self._mapped and tables[0].is_plain and tables[0].seen[cells].all():
                Copies(tables[0], places, cells, tokens, out).run(threads)
            else:
                self._reads(tables, rows, places, cells, tokens, out).run(threads)
                for table in tables:
                    table.seen[cells] = True

    def expect(self, base: str, rows: np.ndarray, tokens: np.ndarray) -> None:
        """Let the system fetch rows that are not known to be in memory, while we do something else."""
        places, cells, tables = self._load(base, rows)
        unknown = ~tables[0].seen[cells] if self._mapped else np.ones(len(rows), dtype=bool)
        if unknown.any():
            columns = (column[unknown] for column in (rows, places, cells, tokens))
            self._reads(tables, *columns, None).expect()

    def _reads(self, tables: tuple[Table, ...], *columns: Any) -> Reads:
        return Reads(self.feature_set, tables, self._item, self._check, *columns)

    def _item(self, row: int) -> str:
        """The id of the item that has a row."""
        return self._done["item"][int(np.searchsorted(self._rows, row))]

    def _load(self, base: str, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray, tuple[Table, ...]]:
        """Where the shards of rows and the rows stand in the tables of an array, which are filled for these shards."""
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
        return places, places * self._shard_rows + positions, tables

    def _empty(self, base: str) -> tuple[Table, ...]:
        layout = self.feature_set.layout
        arrays = [array for array in layout.arrays(self._view) if array.base == base]
        plain = len(arrays) == 1 and arrays[0].dtype == layout.codec.reads_as and not arrays[0].compressed
        return tuple(Table.empty(array, len(self._shards), self._shard_rows, plain) for array in arrays)

    def _open(self, tables: tuple[Table, ...], place: int) -> None:
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
