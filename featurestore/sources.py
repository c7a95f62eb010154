"""Whether an item's source is still what a row was made from: stamps tell quickly, hashes tell surely."""

import hashlib
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
        stat = Path(path).stat()
    except OSError:
        return ABSENT_SOURCE
    return f"{stat.st_size}:{stat.st_mtime_ns}:{content_key(path, 8)}"


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
        sure[i] = _file_hash(frame["path"][i]) == frame["content"][i]
    return sure


def _file_hash(path: str) -> str | None:
    try:
        return hashlib.sha256(Path(path).read_bytes()).hexdigest()
    except OSError:
        return ""  # unlike None: a failure to read then is no proof of the same bytes now
