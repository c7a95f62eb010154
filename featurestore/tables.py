"""Numbered Parquet files in a folder of a feature set: allocations, and logs to which anybody may add a part.

Every file is created if its name is free and never changed. What cannot be read is an error that names the file.
"""

import re

import polars as pl

from .copies import local_file
from .errors import DamageError
from .fsio import parquet_bytes, plain, write_new
from .remote import StorePath, each

_NUMBER = re.compile(r"[0-9]{8}")
_MOST_ROWS_A_BYTE = 64
"""Measured: 1.5 bytes a row and more, for ids that count up."""


def append_table(folder: StorePath, frame: pl.DataFrame) -> None:
    """Add a part to a log of numbered Parquet files, whoever else adds one."""
    data = parquet_bytes(frame)
    while True:
        if write_new(folder / f"{max(numbered(folder, '.parquet'), default=-1) + 1:08d}.parquet", data):
            return


def read_log(folder: StorePath, schema: pl.Schema) -> pl.DataFrame:
    """All parts of a log, in the order in which they were added."""
    paths = [folder / f"{number:08d}.parquet" for number in numbered(folder, ".parquet")]
    return pl.concat([schema.to_frame(), *each(lambda path: read_table(path, schema), paths)])


def numbered(folder: StorePath, ending: str) -> list[int]:
    """The numbers of the files of eight digits and this ending, sorted."""
    names = (p.name.removesuffix(ending) for p in folder.glob(f"[0-9]*{ending}"))
    return sorted(int(name) for name in names if _NUMBER.fullmatch(name))


def read_table(path: StorePath, schema: pl.Schema) -> pl.DataFrame:
    """A table with these columns.

    Raises:
        DamageError: it cannot be read, or has others.
    """
    try:
        return pl.read_parquet(plain(local_file(path))).select(schema.names()).cast(schema)
    except (OSError, pl.exceptions.PolarsError) as error:
        raise _damaged(path, type(error).__name__) from error


def count_rows(allocation: StorePath) -> int:
    """Rows of an allocation, by its footer alone.

    Raises:
        DamageError: it cannot be read, or a stranger's footer claims more rows than its bytes can hold: reading them
            would fill the memory.
    """
    try:
        file = plain(local_file(allocation))
        rows = pl.scan_parquet(file).select(pl.len()).collect().item()
        size = file.stat().st_size
    except (OSError, pl.exceptions.PolarsError) as error:
        raise _damaged(allocation, type(error).__name__) from error
    if rows > size * _MOST_ROWS_A_BYTE:
        raise _damaged(allocation, f"{rows} rows in {size} bytes")
    return rows


def _damaged(path: StorePath, why: str) -> DamageError:
    return DamageError(
        f"feature set {path.parents[1].name}: its table {path.parent.name}/{path.name} is damaged ({why}). "
        "Restore it from a copy."
    )
