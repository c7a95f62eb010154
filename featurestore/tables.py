"""Numbered Parquet files in a folder of a feature set: allocations, and logs to which anybody may add a part.

Every file is created if its name is free and never changed. What cannot be read is an error that names the file.
"""

import re

import polars as pl

from .copies import local_file
from .errors import DamageError
from .fsio import parquet_bytes, read_parquet, write_new
from .remote import StorePath, each

_NUMBER = re.compile(r"[0-9]{8}")


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
        return read_parquet(local_file(path), schema.names()).select(schema.names()).cast(schema)
    except (OSError, pl.exceptions.PolarsError) as error:
        raise DamageError(
            f"feature set {path.parents[1].name}: its table {path.parent.name}/{path.name} is damaged "
            f"({type(error).__name__}). Run `radfs verify {path.parents[1].name}`."
        ) from error
