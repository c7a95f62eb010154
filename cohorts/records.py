"""A user's table as text: CSV, TSV or Parquet, and its columns by what they are to a cohort.

Everything is read as text first, so that an id such as "007" survives. A cell that is blank or "nan" in any case (what
pandas writes) counts as missing. No message shows what stands in a row.
"""

import csv
from collections.abc import Sequence
from pathlib import Path

import polars as pl

from featurestore.errors import DataError, unknown_name

_SEPARATORS = {".csv": ",", ".tsv": "\t"}
ROW_NUMBER = pl.format("row-{}", pl.col("row").cast(pl.String).str.zfill(6))
"""Id of a row that has none of its own."""


def read_records(table: Path) -> pl.DataFrame:
    """The table with every column as text.

    Errors never quote the library's own message: it may show what stands in a row.
    """
    suffix = Path(table.name.removesuffix(".gz")).suffix.lower()
    if suffix != ".parquet" and suffix not in _SEPARATORS:
        raise DataError(f"records {table}: the name must end in .csv, .tsv (or .csv.gz, .tsv.gz) or .parquet.")
    if not table.is_file():
        raise DataError(f"records {table}: no such file.")
    try:
        frame = _read_parquet(table) if suffix == ".parquet" else _read_text(table, _SEPARATORS[suffix])
    except pl.exceptions.NoDataError:
        raise DataError(f"records {table} is empty: a header and rows are needed.") from None
    except (OSError, pl.exceptions.PolarsError) as error:
        raise DataError(f"records {table} cannot be read as {suffix[1:]} ({type(error).__name__}).") from None
    if frame.is_empty():
        raise DataError(f"records {table} has a header but no rows.")
    return frame


def _read_parquet(table: Path) -> pl.DataFrame:
    frame = pl.read_parquet(table)
    # pandas turns an integer column with gaps into floats: "231.0" would be another patient than "231".
    whole = [s.name for s in frame if s.dtype.is_float() and (s.drop_nans() == s.drop_nans().round()).all()]
    frame = frame.with_columns(pl.col(whole).fill_nan(None).cast(pl.Int64, strict=False))
    flat = [column for column, dtype in frame.schema.items() if not dtype.is_nested() and dtype != pl.Binary]
    return frame.select(pl.col(flat).cast(pl.String))


def _read_text(table: Path, separator: str) -> pl.DataFrame:
    try:
        frame = pl.read_csv(table, separator=separator, infer_schema=False)
    except pl.exceptions.ComputeError as error:
        if "utf-8" in str(error):
            raise _not_utf8(table) from None
        line = _first_long_line(table, separator)
        fault = f"a record with more fields than the header, the first at line {line}" if line else "misplaced quotes"
        raise DataError(
            f"records {table}: {fault}. A field that holds {separator!r}, a quote or a line break must stand in double "
            "quotes, with its own quotes doubled."
        ) from None
    if any("\ufffd" in column for column in frame.columns):
        raise _not_utf8(table)
    return frame


def _not_utf8(table: Path) -> DataError:
    return DataError(f"records {table} is not UTF-8 text: save it with that encoding.")


def _first_long_line(table: Path, separator: str) -> int | None:
    if table.name.endswith(".gz"):
        return None
    with table.open(newline="", encoding="utf-8-sig", errors="replace") as file:
        reader = csv.reader(file, delimiter=separator)
        try:
            width = len(next(reader))
            return next((reader.line_num for fields in reader if len(fields) > width), None)
        except (csv.Error, StopIteration):
            return None


def with_roles(source: pl.DataFrame, roles: dict[str, str | None], table: Path) -> pl.DataFrame:
    """Columns row (from 1) and one a role, as cleaned strings; a role without column is null."""
    named = [column for column in roles.values() if column is not None]
    if not set(named) & set(source.columns) and len(source.columns) > 1:
        # Without a header the first row would stand where names do, and a patient's report in the message.
        raise DataError(
            f"records {table} has {len(source.columns)} columns, and none is called {' or '.join(map(repr, named))}. "
            "Does it begin with a header row?"
        )
    for column in named:
        if column not in source.columns:
            raise _no_column(column, source.columns, table)
        if f"{column}_duplicated_0" in source.columns:
            raise DataError(f"records {table} has more than one column {column!r}: rename all but one.")
    frame = source.select(
        pl.int_range(1, pl.len() + 1, dtype=pl.Int64).alias("row"),
        *(_cleaned(column, role) for role, column in roles.items()),
    )
    if roles["id"] is None:
        # Only where an id column was named can an id be missing.
        frame = frame.with_columns(pl.coalesce("image", ROW_NUMBER).alias("id"))
    return frame


def _no_column(column: str, known: Sequence[str], table: Path) -> Exception:
    if len(known) == 1 and any(mark in known[0] for mark in ";\t|"):
        return DataError(
            f"records {table} has a single column: its fields seem to be separated by another mark than "
            f"{_SEPARATORS.get(table.suffix.lower(), ',')!r}. Save it with commas as .csv, or with tabs as .tsv."
        )
    return unknown_name(f"column of {table.name}", column, known)


def _cleaned(column: str | None, role: str) -> pl.Expr:
    if column is None:
        return pl.lit(None, pl.String).alias(role)
    bare = pl.col(column).str.strip_chars()
    missing = (bare == "") | (bare.str.to_lowercase() == "nan")
    # A report stays as it was written; ids and labels lose the blanks around them.
    return pl.when(~missing).then(pl.col(column) if role == "text" else bare).alias(role)
