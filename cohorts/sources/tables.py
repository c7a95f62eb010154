"""Reading the tables of a published data set: found, checked, parsed, and every row that cannot be used named.

Where a file is missing, truncated, of another release or lacks a column, the error names it, what was expected and
where it is downloaded. A row that cannot be read is kept and marked in the column `fault`, so that whoever joins it
can leave out what depends on it, by id. No message shows what stands in a row.
"""

import gzip
import io
import os
import zlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import polars as pl

from featurestore.errors import DataError, unknown_name

from .cells import Cell

SHOWN = 5


@dataclass(frozen=True)
class SourceTable:
    """One table of a published data set.

    Attributes:
        file: path below the data set's folder, without ".gz". A `*` stands for a date of release.
        release: what the data set calls itself.
        page: where it is downloaded.
        key: the column of which no value comes twice; None where there is none such.
        cells: the columns that radfs reads.
        n_rows: rows of the whole published file, None where that is not known.
    """

    file: str
    release: str
    page: str
    key: str | None
    cells: tuple[Cell, ...]
    n_rows: int | None = None

    def lenient(self, *columns: str) -> "SourceTable":
        """The same table where a cell of these columns that cannot be read is null, not a fault of its row."""
        cells = (replace(cell, blank="ignore") if cell.column in columns else cell for cell in self.cells)
        return replace(self, cells=tuple(cells))


@dataclass(frozen=True)
class Rows:
    """A table that was read.

    Attributes:
        frame: `row` (from 1), the columns asked for, and `fault`: null, or why the row cannot be used.
        path: the file.
        notes: lines for the report: unreadable rows by id, and a size that is not the published one.
    """

    frame: pl.DataFrame
    path: Path
    notes: tuple[str, ...]

    def sound(self) -> pl.DataFrame:
        """The rows without a fault."""
        return self.frame.filter(pl.col("fault").is_null()).drop("fault")

    def by_key(self, key: str) -> pl.DataFrame:
        """One row for every value of the key, for a join that repeats nothing: of rows at fault the first will do."""
        return self.frame.filter(pl.col(key).is_not_null()).unique(key, keep="first", maintain_order=True)


def check_folder(folder: str | os.PathLike[str], what: str, page: str) -> Path:
    """The folder of a data set.

    Raises:
        DataError: it is none.
    """
    path = Path(folder).expanduser().absolute()
    if not path.is_dir():
        raise DataError(f"{what}: {path} is not a folder. Name the folder that {what} was downloaded to ({page}).")
    return path


def find_table(root: Path, table: SourceTable) -> Path:
    """The file of a table: as published (.gz), or unpacked.

    Raises:
        DataError: it is not there, or several files could be it.
    """
    names = (table.file, f"{table.file}.gz")
    found = sorted(path for name in names for path in root.glob(name) if path.is_file())
    if len(found) == 2 and found[1].name == f"{found[0].name}.gz":
        found = found[:1]  # unpacked beside the original
    if len(found) > 1:
        names = ", ".join(path.name for path in found)
        raise DataError(
            f"{table.release}: {root} holds several files for {table.file}: {names}. Keep one of them there."
        )
    if not found:
        raise DataError(
            f"{table.release}: {root / table.file} is missing (with or without .gz).{_others(root, table)} "
            f"It is downloaded from {table.page}"
        )
    return found[0]


def read_table(root: Path, table: SourceTable) -> Rows:
    """Read and check one table; see `Rows`.

    Raises:
        DataError: the file is missing, truncated, not a table, lacks a column, has no rows or none that can be read.
    """
    path = find_table(root, table)
    text = _read_text(path, table)
    frame = _parse(text, table.cells)
    frame = frame if table.key is None else _mark_repeated(frame, table.key)
    faults = frame.filter(pl.col("fault").is_not_null())
    if faults.height == frame.height:
        raise DataError(
            f"{path}: none of its {frame.height:,} rows can be read; the first: {faults['fault'][0]}. "
            f"Is it the file of {table.release}? It is downloaded from {table.page}"
        )
    notes = []
    if faults.height:
        notes.append(f"{path.name}: rows that cannot be read: {faults.height:,} ({_named(faults, table)})")
    if text.height > frame.height:
        notes.append(f"{path.name}: rows that repeat an earlier one and count once: {text.height - frame.height:,}")
    if table.n_rows is not None and text.height != table.n_rows:
        notes.append(
            f"{path.name}: {text.height:,} rows; {table.release} has {table.n_rows:,}: a part, or another release?"
        )
    return Rows(frame, path, tuple(notes))


def _others(root: Path, table: SourceTable) -> str:
    """What lies there instead, for a release with other names or a folder too high or too deep."""
    folder = (root / table.file).parent
    if not folder.is_dir():
        return f" {folder} is not a folder."
    names = sorted(path.name for path in folder.iterdir() if not path.name.startswith("."))
    shown = ", ".join(names[:8]) + (f" and {len(names) - 8} more" if len(names) > 8 else "")
    return f" The folder holds: {shown}." if names else " The folder is empty."


def _read_text(path: Path, table: SourceTable) -> pl.DataFrame:
    """The wanted columns as text, stripped, blank as null, with the number of the row."""
    separator = "\t" if table.file.endswith(".tsv") else ","
    again = f"Download it again from {table.page}"
    try:
        data = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    except (EOFError, zlib.error, gzip.BadGzipFile):
        raise DataError(f"{path} is truncated or damaged: it does not unpack. {again}") from None
    except OSError as error:
        raise DataError(f"{path} cannot be read ({type(error).__name__}).") from None
    try:
        lazy = pl.scan_csv(io.BytesIO(data), separator=separator, infer_schema=False)
        columns = lazy.collect_schema().names()
        _check_columns(columns, path, table)
        wanted = [_stripped(cell.column) for cell in table.cells]
        frame = lazy.with_row_index("row", 1).select(pl.col("row").cast(pl.Int64), *wanted).collect()
    except pl.exceptions.NoDataError:
        raise DataError(f"{path} is empty. {again}") from None
    except pl.exceptions.PolarsError as error:
        raise DataError(
            f"{path} cannot be read as a table of {table.release} ({type(error).__name__}): it is damaged, or was "
            f"changed since. {again}"
        ) from None
    if frame.is_empty():
        raise DataError(f"{path} has a header but no rows. {again}")
    return frame


def _check_columns(columns: Sequence[str], path: Path, table: SourceTable) -> None:
    for cell in table.cells:
        if cell.column not in columns:
            known = unknown_name(f"column of {path.name}", cell.column, columns)
            raise DataError(
                f"{path} lacks the column {cell.column} that {table.release} has. {known} "
                f"It is downloaded from {table.page}"
            )


def _stripped(column: str) -> pl.Expr:
    bare = pl.col(column).str.strip_chars()
    return pl.when(bare != "").then(bare).alias(column)


def _parse(frame: pl.DataFrame, cells: Sequence[Cell]) -> pl.DataFrame:
    """The values, and in `fault` what is wrong with the first column that cannot be read."""
    values = [cell.parse(pl.col(cell.column)).alias(cell.column) for cell in cells]
    parsed = frame.select("row", *values)
    faults = []
    for cell in cells:
        unread = parsed[cell.column].is_null() & (frame[cell.column].is_not_null() | (cell.blank == "fault"))
        unread &= cell.blank != "ignore"
        message = f"{cell.column} is not {cell.expected}"
        faults.append(pl.select(pl.when(unread).then(pl.lit(message)).alias(cell.column)).to_series())
    return parsed.with_columns(pl.select(pl.coalesce(faults)).to_series().alias("fault"))


def _mark_repeated(frame: pl.DataFrame, key: str) -> pl.DataFrame:
    """One of rows that say the same; rows that contradict one another under one key are all at fault."""
    frame = frame.unique(pl.exclude("row"), keep="first", maintain_order=True)
    several = pl.col(key).is_not_null() & (pl.len().over(key) > 1)
    reason = pl.when(several).then(pl.lit(f"several rows of this {key} contradict one another"))
    return frame.with_columns(pl.coalesce("fault", reason))


def _named(faults: pl.DataFrame, table: SourceTable) -> str:
    number = pl.format("row {}", "row")
    name = number
    if table.key is not None:
        name = pl.coalesce(pl.format("{} {}", pl.lit(table.key), pl.col(table.key)), number)
    shown = faults.head(SHOWN).select(pl.format("{}: {}", name, "fault")).to_series()
    more = f"; and {faults.height - SHOWN:,} more" if faults.height > SHOWN else ""
    return "; ".join(shown) + more
