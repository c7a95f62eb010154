"""Commit records: what one shard of one view holds. The record is the commit.

A record is created if its name is free and never changed afterwards, so whoever writes it decides what the shard is:
which attempt's files count (`committed`), or that there will never be any (`abandoned`).
"""

import errno
import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from types import NoneType
from typing import Any

import polars as pl

from .errors import DamageError, StoreError
from .fsio import read_whole
from .remote import StorePath
from .sealed import open_json, seal_json
from .store import FORMAT

COMMIT_SCHEMA = pl.Schema(
    {
        "item": pl.String,
        "row": pl.Int64,
        "shard": pl.Int64,
        "state": pl.String,
        "content": pl.String,
        "stamp": pl.String,
        "tokens": pl.Int32,
        "truncated": pl.Boolean,
        "reason": pl.String,
    }
)
"""Rows of committed shards; state is done or failed."""

_ATTEMPT = re.compile(r"[0-9a-f]{12}")
_FILE = re.compile(r"[a-z_]+/v[0-9]{1,4}/c(\.[0-9]{1,12})+")
"""A file of a shard: no name leads out of the feature set's folder."""

_LARGEST = 2**28
_LARGEST_NUMBER = 2**48
_LARGEST_TOKENS = 2**31 - 1
_NO_FILE = (errno.ENOENT, errno.EISDIR, errno.ENOTDIR, errno.ELOOP, errno.EINVAL, errno.ENXIO)
"""What `open` says where no record can be: nothing, a folder, a link, a pipe."""

_TYPES = {"feature_set": str, "view": int, "shard": int, "first_row": int, "attempt": str, "state": str}
_COLUMNS: dict[str, set[type]] = {
    "items": {str},
    "stamps": {str, NoneType},
    "content": {str, NoneType},
    "tokens": {int, NoneType},
    "truncated": {int},
}


@dataclass(frozen=True)
class Record:
    """One decided shard of one view.

    Attributes:
        feature_set, view, shard, first_row: which.
        attempt: 12 hexadecimal digits that the names of its staged files carry.
        state: committed, or abandoned: then the lists are empty and its rows are dead.
        items: ids, row `first_row + i` for item i.
        stamps: of the source when it was read (`sources.source_stamp`).
        content: sha256 of the source's bytes.
        tokens: tokens a row; None where failed.
        failed: reasons by position.
        truncated: positions of reports longer than the context length.
        crc32: by array, of each row's stored bytes before any compression; None where failed.
        files: by name below the feature set's folder: {"bytes": size, "crc32": of the whole file}.
    """

    feature_set: str
    view: int
    shard: int
    first_row: int
    attempt: str
    state: str = "committed"
    items: Sequence[str] = ()
    stamps: Sequence[str | None] = ()
    content: Sequence[str | None] = ()
    tokens: Sequence[int | None] = ()
    failed: dict[int, str] = field(default_factory=dict)
    truncated: Sequence[int] = ()
    crc32: dict[str, Sequence[int | None]] = field(default_factory=dict)
    files: dict[str, dict[str, int]] = field(default_factory=dict)

    def encode(self) -> bytes:
        """The record as a file."""
        return seal_json({"format": FORMAT, **asdict(self)})

    def staged_file(self, name: str) -> str:
        """Where a file of this shard lies until it has its own name; relative to the feature set's folder."""
        return staged_file(self.view, self.shard, self.attempt, name)

    def frame(self) -> pl.DataFrame:
        """The rows of the shard: columns of `COMMIT_SCHEMA`."""
        n = len(self.items)
        truncated = set(self.truncated)
        return pl.DataFrame(
            {
                "item": self.items,
                "row": range(self.first_row, self.first_row + n),
                "shard": [self.shard] * n,
                "state": ["failed" if i in self.failed else "done" for i in range(n)],
                "content": self.content,
                "stamp": self.stamps,
                "tokens": self.tokens,
                "truncated": [i in truncated for i in range(n)],
                "reason": [self.failed.get(i) for i in range(n)],
            },
            schema=COMMIT_SCHEMA,
        )


def record_file(view: int, shard: int) -> str:
    """The record of a shard of a view, relative to the feature set's folder."""
    return f"commits/v{view}/{shard:08d}.json"


def staged_file(view: int, shard: int, attempt: str, name: str) -> str:
    """Where one attempt at a shard puts a file; the name says which shard and attempt it is of (`staged_owner`)."""
    return f"staged/v{view}-{shard:08d}-{attempt}-{name.partition('/')[0]}"


def staged_owner(name: str) -> tuple[int, int, str] | None:
    """View, shard and attempt of a staged file's name; None if it is no such name."""
    match = re.fullmatch(r"v([0-9]{1,4})-([0-9]{8})-([0-9a-f]{12})-[a-z_]+", name)
    return (int(match[1]), int(match[2]), match[3]) if match else None


def read_record(path: StorePath) -> Record:
    """A commit record, checked.

    Raises:
        DamageError: it is gone, or is not a record of the shard that its name says.
        StoreError: it cannot be read just now; that is no proof of damage.
    """
    try:
        return _parse(open_json(read_whole(path, _LARGEST)), path)
    except OSError as error:
        if error.errno not in _NO_FILE:
            raise StoreError(f"{path} cannot be read: {error.strerror}.") from error
        raise _damaged(path, error) from error
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise _damaged(path, error) from error


def _damaged(path: StorePath, error: Exception) -> DamageError:
    folder = path.parents[2].name
    return DamageError(
        f"feature set {folder}: its commit record {path.parent.name}/{path.name} is damaged "
        f"({type(error).__name__}: {str(error)[:120]}). Run `radfs verify {folder} --repair`: it queues the items "
        "of this shard again."
    )


def _parse(document: dict[str, Any], path: StorePath) -> Record:
    if document.pop("format") != FORMAT:
        raise ValueError("another format version")
    _check_types(document)
    document["failed"] = {int(k): v for k, v in document["failed"].items()}
    record = Record(**document)
    if (
        record_file(record.view, record.shard) != "/".join(path.parts[-3:])
        or path.parents[2].name != record.feature_set
    ):
        raise ValueError(f"it says that it is of {record.feature_set}, view {record.view}, shard {record.shard}")
    n = len(record.items)
    columns = [record.stamps, record.content, record.tokens, *record.crc32.values()]
    if any(len(column) != n for column in columns) or not all(0 <= i < n for i in (*record.failed, *record.truncated)):
        raise ValueError("its columns differ in length")
    if record.state not in ("committed", "abandoned") or not _ATTEMPT.fullmatch(record.attempt):
        raise ValueError(f"state {record.state!r}, attempt {record.attempt!r}")
    if record.state == "abandoned" and (n or record.files):
        raise ValueError("it is abandoned and holds rows")
    for i, tokens in enumerate(record.tokens):
        if (tokens is None) != (i in record.failed) or not (tokens is None or 0 < tokens <= _LARGEST_TOKENS):
            raise ValueError(f"row {i} has {tokens!r} tokens")
    return record


def _check_types(document: dict[str, Any]) -> None:
    """Refuse what `Record.encode` cannot have written: other types, numbers of absurd size, names that are paths."""
    for key, kind in _TYPES.items():
        if type(document[key]) is not kind or (kind is int and not 0 <= document[key] < _LARGEST_NUMBER):
            raise ValueError(f"{key} is {str(document[key])[:40]!r}")
    for key, kinds in _COLUMNS.items():
        if type(document[key]) is not list or not kinds.issuperset(map(type, document[key])):
            raise ValueError(f"{key} is not a list of what belongs there")
    for reason in document["failed"].values():
        if type(reason) is not str:
            raise ValueError("a reason is not a text")
    for path, column in document["crc32"].items():
        if not all(c is None or (type(c) is int and 0 <= c < 2**32) for c in column):
            raise ValueError(f"the checksums of {path[:40]!r} are none")
    for name, file in document["files"].items():
        sizes = (file["bytes"], file["crc32"])
        if not _FILE.fullmatch(name) or any(type(n) is not int or not 0 <= n < _LARGEST_NUMBER for n in sizes):
            raise ValueError(f"{name[:40]!r} is no file of a shard")
