"""Which rows do these items have? Answered from the commit records, at a cost that hardly grows with the set.

    index/v0/00000000-00001023.rows    a segment: the rows of shards 0 to 1023, as their records say

Segments are a cache. One is made when every shard of its range is decided, which never changes again; the rest (at the
end of a set that is written in order, at most 31 shards) is read from the records themselves. A segment counts only
while every record of its range is there. What fails a check is left aside, and its range is read from the records:
slower, never wrong. Nothing here decides which row of an item counts; the feature set does.
"""

import re
from collections.abc import Iterator, Sequence
from contextlib import suppress

import numpy as np
import polars as pl

from .copies import local_file
from .errors import DamageError, StoreError
from .fsio import names, remove, write_atomic
from .records import COMMIT_SCHEMA, read_record, record_file
from .remote import StorePath, each
from .segment import Cover, Segment, encode_segment, item_hashes, join_rows

SIZES = (1024, 32)
"""Shards of a segment, the larger size first; each begins at a multiple of its size. Measured at 39,063 shards of 256
rows: few enough to open and search all in milliseconds, small enough to be written while an extraction runs."""

_SEGMENT = re.compile(r"([0-9]{8})-([0-9]{8})\.rows")
_RECORDS = re.compile(r"(?<![^/])([0-9]{8})\.json(?![^/])")
_AT_ONCE = 4096
_FEW = 1 / 16
"""Share of the rows above which a lookup reads all of them: dearer a row, cheaper in sum."""


class RowIndex:
    """The committed rows of one view of a feature set, by item. It sees the folder as it was at the last `refresh`.

    Args:
        folder: the feature set's.
        view: 0 is the clean one.
    """

    def __init__(self, folder: StorePath, view: int) -> None:
        self._folder = folder
        self._view = view
        self._segments: dict[tuple[int, int], Segment] = {}
        self.refresh()

    def refresh(self) -> None:
        """Look at the folder anew: shards that were decided since, segments that came."""
        found = "/".join(names(self._folder / "commits" / f"v{self._view}"))  # one search for 40,000 of them
        self._shards = np.sort(np.array([int(number) for number in _RECORDS.findall(found)], dtype=np.int64))
        held, self._segments = self._segments, {}
        for first, last in self._ranges():
            if self._is_whole(first, last) and not self._is_inside(first, last):
                segment = held.get((first, last)) or self._open(first, last)
                if segment is not None:
                    self._segments[first, last] = segment

    def lookup(self, items: Sequence[str] | pl.Series | None = None) -> pl.DataFrame:
        """Every committed row of these items, of all items with None: columns of `COMMIT_SCHEMA`, in the order of rows.

        An item that was made again has several; one without any is not there.

        Raises:
            DamageError: a record that had to be read is damaged.
        """
        wanted = None if items is None else pl.Series("item", items, dtype=pl.String).unique()
        parts = self._from_segments(wanted)
        parts += [_of(rows, wanted) for rows in self._from_records(self._uncovered())]
        return pl.concat(parts).sort("row")

    def compact(self) -> int:
        """Write the segments that can be made by now, remove those that no longer hold; how many were written.

        Any process may do so at any time; two at once write the same. What lies around a damaged record is left out.
        To be called before shards are decided too (or `clear`): a segment over an undecided shard (it came with a copy
        that was made while the store was written) must go before that shard gets another record than it was made from.
        """
        self.refresh()
        self.clear()
        written, due = 0, self._due()
        while due:
            first, last = due.pop()
            try:
                pieces = encode_segment(Cover(self._folder.name, self._view, first, last), self._rows(first, last))
            except DamageError:
                due += [part for part in _parts(first, last) if part not in self._segments]
                continue
            if pieces is not None:
                write_atomic(_path(self._folder, self._view, first, last), *pieces)
                written += 1
        if written:
            self.refresh()
            self.clear()
        return written

    def holes(self) -> list[int]:
        """Shards that segments hold rows of, and that are not decided (any more)."""
        covered = [np.arange(first, last + 1) for first, last in self._ranges()]
        return np.setdiff1d(np.concatenate([np.empty(0, np.int64), *covered]), self._shards).tolist()

    def _from_segments(self, wanted: pl.Series | None) -> list[pl.DataFrame]:
        """The rows that segments hold of these items."""
        rows = sum(segment.rows for segment in self._segments.values())
        few = None if wanted is None or len(wanted) > rows * _FEW else np.unique(item_hashes(wanted))
        whole, taken = [COMMIT_SCHEMA.to_frame()], []
        for range_, segment in list(self._segments.items()):
            try:
                if few is None:
                    whole.append(segment.whole())
                else:
                    taken.append(segment.take(segment.find(few)))
            except DamageError:
                self._give_up(*range_)
        return [_of(pl.concat(whole), wanted), _of(join_rows(taken), wanted)]  # two ids may share a hash

    def _from_records(self, shards: np.ndarray) -> Iterator[pl.DataFrame]:
        """The rows of these shards, some thousand records at a time."""
        for at in range(0, len(shards), _AT_ONCE):
            paths = [self._folder / record_file(self._view, s) for s in shards[at : at + _AT_ONCE].tolist()]
            yield pl.concat([record.frame() for record in each(read_record, paths)])

    def _rows(self, first: int, last: int) -> pl.DataFrame:
        """The rows of a range, from the segments inside it and the records of the rest."""
        frames = [COMMIT_SCHEMA.to_frame()]
        for (a, b), segment in list(self._segments.items()):
            if first <= a and b <= last:
                try:
                    frames.append(segment.whole())
                except DamageError:
                    self._give_up(a, b)
        rest = self._uncovered()
        return pl.concat([*frames, *self._from_records(rest[(rest >= first) & (rest <= last)])])

    def _give_up(self, first: int, last: int) -> None:
        """Leave a segment that fails a check aside for its records, and remove it, so that it is made anew."""
        del self._segments[first, last]
        with suppress(OSError, StoreError):  # a store that is read-only
            remove(_path(self._folder, self._view, first, last))

    def _uncovered(self) -> np.ndarray:
        """Decided shards that no segment holds."""
        covered = np.zeros(len(self._shards), dtype=bool)
        for first, last in self._segments:
            covered |= (self._shards >= first) & (self._shards <= last)
        return self._shards[~covered]

    def _due(self) -> list[tuple[int, int]]:
        """Ranges of which every shard is decided, and that have no segment nor lie in such a range of a larger size."""
        due, rest = [], self._shards
        for size in SIZES:
            blocks, counts = np.unique(rest // size, return_counts=True)
            whole = blocks[counts == size]
            due += [(first, first + size - 1) for first in (whole * size).tolist()]
            rest = rest[~np.isin(rest // size, whole)]
        return [range_ for range_ in due if range_ not in self._segments]

    def clear(self) -> None:
        """Remove segments over a hole, since whatever comes to lie there will differ, and those inside a larger one."""
        for first, last in self._ranges():
            if self._is_inside(first, last) or not self._is_whole(first, last):
                remove(_path(self._folder, self._view, first, last))

    def _ranges(self) -> list[tuple[int, int]]:
        """What segment files there are, the larger ones first."""
        matches = map(_SEGMENT.fullmatch, names(_folder(self._folder, self._view)))
        ranges = [(int(match[1]), int(match[2])) for match in matches if match]
        return sorted((r for r in ranges if r in _ranges_of(r[0])), key=lambda r: (r[0] - r[1], r))

    def _is_inside(self, first: int, last: int) -> bool:
        return any((a, b) != (first, last) and a <= first and last <= b for a, b in self._segments)

    def _is_whole(self, first: int, last: int) -> bool:
        """Whether every shard of a range is decided."""
        low, high = np.searchsorted(self._shards, [first, last + 1])
        return bool(high - low == last + 1 - first)

    def _open(self, first: int, last: int) -> Segment | None:
        try:
            cover = Cover(self._folder.name, self._view, first, last)
            return Segment(local_file(_path(self._folder, self._view, first, last)), cover)
        except (DamageError, OSError):
            return None


def _ranges_of(shard: int) -> list[tuple[int, int]]:
    """The ranges that a shard can be in."""
    return [(shard // size * size, shard // size * size + size - 1) for size in SIZES]


def _parts(first: int, last: int) -> list[tuple[int, int]]:
    """The ranges of the next smaller size that a range is made of."""
    size = max((size for size in SIZES if size < last + 1 - first), default=0)
    return [(part, part + size - 1) for part in range(first, last + 1, size)] if size else []


def _folder(folder: StorePath, view: int) -> StorePath:
    return folder / "index" / f"v{view}"


def _path(folder: StorePath, view: int, first: int, last: int) -> StorePath:
    return _folder(folder, view) / f"{first:08d}-{last:08d}.rows"


def _of(rows: pl.DataFrame, wanted: pl.Series | None) -> pl.DataFrame:
    return rows if wanted is None else rows.join(wanted.to_frame(), on="item", how="semi")
