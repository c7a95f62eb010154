"""One segment of the row index: the rows of a range of decided shards in one file, sorted by a hash of the item id.

    page 0   magic | length and CRC-32 of a JSON header | the header: what the segment covers, how long its columns are
    page 1   hashes u64 [rows] | places [rows] (`_PLACE`: numbers of a row, and where its texts end) | all item ids one
             after the other, then all contents, stamps and reasons, UTF-8; each of the six from a multiple of 8
    then     CRC-32 of every page from page 1 on; the CRC-32 of these stands in the header

The file is mapped, and a lookup touches the pages of its rows alone. Every page is checked against its CRC-32 before
anything on it is believed: a flipped bit would give one item's tokens for another's, and nothing else would notice.
Where columns lie follows from their lengths, the lengths from the header, and their sum must be the size of the file:
a torn or a stranger's segment gives an error, never a read outside the map. Where texts lie is checked as well, which
readers of Arrow files leave to the caller; that is why these are none.
"""

import hashlib
import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import polars as pl

from .errors import DamageError
from .fsio import map_file
from .shards import crc32

_MAGIC = b"RADFSIX1"
_PAGE = 4096
_TEXTS = ("item", "content", "stamp", "reason")
_HASH = np.dtype("<u8")
_PLACE = np.dtype([("row", "<i8"), ("shard", "<i4"), ("tokens", "<i4"), ("ends", "<i4", 4), ("flags", "<u8")])
_FLAGS = {"failed": 1, "truncated": 2, "content": 4, "stamp": 8, "reason": 16, "tokens": 32}
"""Bits of `flags`; those named as a column say that its value is null."""

_LARGEST_TEXT = 2**31 - 1
_LARGEST_FILE = 2**36


@dataclass(frozen=True)
class Cover:
    """What a segment holds: every row of the shards from `first` to `last`, both included."""

    feature_set: str
    view: int
    first: int
    last: int


@dataclass(frozen=True)
class RawRows:
    """Rows as they lie in segments: numbers of `_PLACE`, and the texts of every column."""

    numbers: np.ndarray
    texts: dict[str, list[str]]


def item_hashes(items: Iterable[str]) -> np.ndarray:
    """A 64-bit hash of every id: uint64 [n]. The same on every machine and in every version."""
    digests = b"".join([hashlib.blake2b(item.encode(), digest_size=8).digest() for item in items])
    return np.frombuffer(digests, dtype=_HASH)


def encode_segment(cover: Cover, rows: pl.DataFrame) -> list[bytes] | None:
    """The file of a segment, in pieces; None where the texts of a column are too long for it (2 GiB).

    Args:
        cover: what it holds.
        rows: columns of `COMMIT_SCHEMA`.
    """
    hashes = item_hashes(rows["item"])
    order = np.argsort(hashes, kind="stable")
    rows = rows[order]
    places = np.zeros(len(rows), dtype=_PLACE)
    for name in ("row", "shard", "tokens"):
        places[name] = rows[name].fill_null(0).to_numpy()
    places["flags"] = _flags(rows)
    texts = []
    for i, name in enumerate(_TEXTS):
        text = rows[name].fill_null("")
        ends = np.cumsum(text.str.len_bytes().to_numpy(), dtype=np.int64)
        if len(ends) and ends[-1] > _LARGEST_TEXT:
            return None
        places["ends"][:, i] = ends
        texts.append("".join(text).encode())
    body = b"".join(raw + bytes(-len(raw) % 8) for raw in (hashes[order].tobytes(), places.tobytes(), *texts))
    body += bytes(-len(body) % _PAGE)
    checks = np.array([crc32(body[at : at + _PAGE]) for at in range(0, len(body), _PAGE)], dtype="<u4").tobytes()
    lengths = {name: len(text) for name, text in zip(_TEXTS, texts, strict=True)}
    header = {**asdict(cover), "rows": len(rows), "texts": lengths, "checks": crc32(checks)}
    return [_encode_header(header), body, checks]


class Segment:
    """A segment, open for lookups. It holds its file mapped, so that may be replaced or removed meanwhile.

    Raises:
        DamageError: it is torn, is no segment, or covers something else.
        FileNotFoundError: it is gone.
    """

    def __init__(self, path: Path, cover: Cover) -> None:
        self.cover = cover
        self._name = path.name
        self._data = map_file(path).data
        self.rows, lengths, check = self._header()
        sizes = {"hash": self.rows * _HASH.itemsize, "place": self.rows * _PLACE.itemsize, **lengths}
        self._starts, at = {}, _PAGE
        for column, size in sizes.items():
            self._starts[column], at = at, at + -(-size // 8) * 8
        pages = -(-(at - _PAGE) // _PAGE)
        if len(self._data) != _PAGE * (1 + pages) + 4 * pages:
            raise self._damage(f"it has {len(self._data)} bytes, and its header says otherwise")
        self._checks = np.frombuffer(self._data, "<u4", pages, _PAGE * (1 + pages))
        if crc32(self._checks) != check:
            raise self._damage("the checksums of its pages fail their own")
        self._checked = np.zeros(pages, dtype=bool)
        self._hashes = np.frombuffer(self._data, _HASH, self.rows, self._starts["hash"])
        self._places = np.frombuffer(self._data, _PLACE, self.rows, self._starts["place"])
        self._texts = {name: np.frombuffer(self._data, "u1", lengths[name], self._starts[name]) for name in _TEXTS}

    def find(self, hashes: np.ndarray) -> np.ndarray:
        """Where the rows of items with these hashes stand: int64 [n].

        Args:
            hashes: uint64, sorted, each once.

        Raises:
            DamageError: a page fails its checksum, or the hashes are not in order.
        """
        if not self.rows:
            return np.empty(0, dtype=np.int64)
        stored = self._hashes
        left = np.searchsorted(stored, hashes, "left")
        right, hit = left.copy(), stored[np.minimum(left, self.rows - 1)] == hashes
        right[hit] = np.searchsorted(stored, hashes[hit], "right")
        # Only checked neighbours prove that a hash is absent: a page that is not may have misled the search.
        before, after = np.maximum(left - 1, 0), np.minimum(right, self.rows - 1)
        self._check("hash", before * _HASH.itemsize, (after + 1) * _HASH.itemsize)
        astray = (
            (left > right) | (left > 0) & (stored[before] >= hashes) | (right < self.rows) & (stored[after] <= hashes)
        )
        if astray.any():
            raise self._damage("its hashes are not in order")
        found = _spread(left, right)
        if (stored[found] != np.repeat(hashes, right - left)).any():
            raise self._damage("its hashes are not in order")
        return found

    def take(self, found: np.ndarray) -> RawRows:
        """The rows that stand there (`find`), in this order.

        Raises:
            DamageError: a page fails its checksum, or a text does not lie where it is said to.
        """
        before = np.maximum(found - 1, 0)
        self._check("place", before * _PLACE.itemsize, (found + 1) * _PLACE.itemsize)
        numbers = self._places[found]
        starts = np.where(found[:, None] > 0, self._places["ends"][before], 0).astype(np.int64)
        ends = numbers["ends"].astype(np.int64)
        texts = {}
        for i, name in enumerate(_TEXTS):
            self._check_texts(name, starts[:, i], ends[:, i])
            self._check(name, starts[:, i], ends[:, i])
            data = self._texts[name].data
            try:
                texts[name] = [
                    str(data[a:b], "utf-8") for a, b in zip(starts[:, i].tolist(), ends[:, i].tolist(), strict=True)
                ]
            except UnicodeDecodeError:
                raise self._damage(f"its {name} texts are no UTF-8") from None
        return RawRows(numbers, texts)

    def whole(self) -> pl.DataFrame:
        """All rows, sorted by row: columns of `COMMIT_SCHEMA`.

        Raises:
            DamageError: as `take`.
        """
        import pyarrow as pa  # only where thousands of texts are wanted at once

        self._check_pages(np.arange(len(self._checks)))
        texts = {}
        for i, name in enumerate(_TEXTS):
            bounds = np.concatenate([np.zeros(1, "<i4"), self._places["ends"][:, i]])
            self._check_texts(name, bounds[:-1], bounds[1:])
            array = pa.StringArray.from_buffers(self.rows, pa.py_buffer(bounds), pa.py_buffer(self._texts[name]))
            try:
                array.validate(full=True)
            except pa.ArrowInvalid:
                raise self._damage(f"its {name} texts are no UTF-8") from None
            texts[name] = pl.Series(name, array, dtype=pl.String)
        return _frame(self._places, texts).sort("row")

    def _header(self) -> tuple[int, dict[str, int], int]:
        """Rows, bytes of the texts of every column, and the CRC-32 of the pages' checksums."""
        try:
            length, check = (int.from_bytes(self._data[at : at + 4], "little") for at in (8, 12))
            raw = self._data[16 : 16 + length]
            if self._data[:8] != _MAGIC or length > _PAGE - 16 or crc32(raw) != check:
                raise ValueError("its checksum fails")
            header = json.loads(bytes(raw))
            cover = Cover(**{name: header[name] for name in asdict(self.cover)})
            lengths = {name: header["texts"][name] for name in _TEXTS}
            if any(type(n) is not int or not 0 <= n < _LARGEST_FILE for n in (header["rows"], *lengths.values())):
                raise ValueError("its lengths are no lengths")
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            raise self._damage(f"its header cannot be read ({error})") from None
        if cover != self.cover:
            raise self._damage(f"it covers {cover}")
        return header["rows"], lengths, header["checks"]

    def _check(self, column: str, starts: np.ndarray, ends: np.ndarray) -> None:
        """Check the pages of these ranges of bytes of a column."""
        at, some = self._starts[column] - _PAGE, ends > starts
        self._check_pages(np.unique(_spread((at + starts[some]) // _PAGE, (at + ends[some] - 1) // _PAGE + 1)))

    def _check_pages(self, pages: np.ndarray) -> None:
        for page in pages[~self._checked[pages]].tolist():
            if crc32(self._data[_PAGE * (1 + page) : _PAGE * (2 + page)]) != self._checks[page]:
                raise self._damage(f"its page {page} fails the checksum")
            self._checked[page] = True

    def _check_texts(self, column: str, starts: np.ndarray, ends: np.ndarray) -> None:
        if (starts < 0).any() or (ends < starts).any() or (ends > len(self._texts[column])).any():
            raise self._damage(f"{column} texts lie outside their column")

    def _damage(self, what: str) -> DamageError:
        return DamageError(f"segment {self._name} of a row index: {what}. It is a cache, and is made anew.")


def join_rows(parts: Sequence[RawRows]) -> pl.DataFrame:
    """Rows of several segments as one frame: columns of `COMMIT_SCHEMA`."""
    numbers = np.concatenate([np.empty(0, _PLACE), *(part.numbers for part in parts)])
    texts = {
        name: pl.Series(name, [text for part in parts for text in part.texts[name]], dtype=pl.String) for name in _TEXTS
    }
    return _frame(numbers, texts)


def _frame(numbers: np.ndarray, texts: dict[str, pl.Series]) -> pl.DataFrame:
    columns = {name: pl.Series(np.ascontiguousarray(numbers[name])) for name in ("row", "shard", "tokens", "flags")}
    bits = {name: (pl.col("flags") & flag) != 0 for name, flag in _FLAGS.items()}
    return pl.DataFrame({**columns, **texts}).select(
        "item",
        "row",
        pl.col("shard").cast(pl.Int64),
        state=pl.when(bits["failed"]).then(pl.lit("failed")).otherwise(pl.lit("done")),
        content=pl.when(~bits["content"]).then("content"),
        stamp=pl.when(~bits["stamp"]).then("stamp"),
        tokens=pl.when(~bits["tokens"]).then("tokens"),
        truncated=bits["truncated"],
        reason=pl.when(~bits["reason"]).then("reason"),
    )


def _flags(rows: pl.DataFrame) -> np.ndarray:
    bits = {"failed": rows["state"] == "failed", "truncated": rows["truncated"]}
    bits |= {name: rows[name].is_null() for name in _FLAGS if name not in bits}
    flags = np.zeros(len(rows), dtype=np.uint64)
    for name, series in bits.items():
        flags |= np.where(series.to_numpy(), np.uint64(_FLAGS[name]), np.uint64(0))
    return flags


def _spread(starts: np.ndarray, ends: np.ndarray) -> np.ndarray:
    """The numbers from every start up to, not including, its end, one range after the other: int64."""
    counts = ends - starts
    return np.repeat(starts - (np.cumsum(counts) - counts), counts) + np.arange(counts.sum())


def _encode_header(header: dict[str, object]) -> bytes:
    raw = json.dumps(header).encode()
    page = _MAGIC + len(raw).to_bytes(4, "little") + crc32(raw).to_bytes(4, "little") + raw
    return page + bytes(_PAGE - len(page))
