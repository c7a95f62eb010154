"""Whether an item's source is still what a row was made from: stamps tell quickly, hashes tell surely."""

import errno
import hashlib
import os
import stat
from io import BufferedReader
from pathlib import Path

import polars as pl

from .keys import content_key

ABSENT_SOURCE = "absent"


def source_stamp(path: str | None) -> str | None:
    """What tells quickly whether an image may have changed: its file's place, size and time of change.

    None for a report, which has no file.
    """
    if path is None:
        return None
    try:
        found = Path(path).stat()
    except (OSError, ValueError):  # gone, or no path at all
        return ABSENT_SOURCE
    return f"{found.st_size}:{found.st_mtime_ns}:{content_key(path, 8)}"


def same_sources(frame: pl.DataFrame) -> pl.Series:
    """Which committed rows still speak of what their items are now: bool [n].

    Args:
        frame: columns of `STORED_SCHEMA` and `COMMIT_SCHEMA` (null where an item has no row), and `stamp_now`, the
            `source_stamp` of today.
    """
    text = pl.col("modality") == "text"
    gone = (pl.col("stamp_now") == ABSENT_SOURCE) & (pl.col("state") == "done")
    sure = frame.select(
        pl.col("state").is_not_null()
        & pl.when(text)
        .then(pl.col("content") == pl.col("text_sha256"))
        .otherwise((pl.col("stamp") == pl.col("stamp_now")) | gone)
    ).to_series()
    sure = sure.fill_null(False)
    # Copied or touched: only the bytes can tell, and reading them costs less than encoding them again.
    doubtful = frame.select(~sure & ~text & pl.col("state").is_not_null() & (pl.col("stamp_now") != ABSENT_SOURCE))
    for i in doubtful.to_series().arg_true():
        # Unlike None: a failure to read then is no proof of the same bytes now.
        sure[i] = (file_hash(frame["path"][i]) or "") == frame["content"][i]
    return sure


def file_hash(path: str) -> str | None:
    """The sha256 of a file's bytes; None where it cannot be read."""
    try:
        with open_source(path) as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except (OSError, ValueError):
        return None


def open_source(path: str | Path) -> BufferedReader:
    """An item's file, for reading. It may be a link, for trees of images are often made of them.

    Raises:
        OSError: it cannot be read, or is a pipe or a device, which may never end.
        ValueError: no file can have such a path.
    """
    mode = os.stat(path).st_mode  # noqa: PTH116 (opening a device may already do something)
    if not stat.S_ISREG(mode):
        raise OSError(errno.EISDIR if stat.S_ISDIR(mode) else errno.EINVAL, "it is no plain file")
    return open(os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK), "rb")  # noqa: PTH123
