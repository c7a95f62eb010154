"""Folding: bringing the catalog's tables up to date with the truth files, many files at a time.

Every row of every truth file is kept, with the file's number. Of rows that stand for the same thing one counts (the
newest, or the first file's), and says so in its column `counts`; the public views show those alone. So a file that
comes, changes or goes costs its own rows and those that share a key with them: nothing else is made anew, however much
there is. Rows with the same key are found by a hash of it, eight bytes a row to look through.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import duckdb
import numpy as np
import polars as pl

from .errors import DamageError
from .fsio import read_parquet
from .listing import Listing
from .remote import StorePath, each

_ROW_GROUP = 122_880
"""Rows that DuckDB stores together. Rows that come otherwise than in such groups take twice the room, and the first
small fold after them rewrites them all (measured: 16 s at 10 million rows)."""

_ROWS_A_ROUND = 2_000_000
"""What a transaction has brought in stays in memory until the catalog is closed, 200 bytes a row."""

_FEW = 200_000
"""Touched keys up to which all of their rows are looked at; of more, those with several rows are found first."""

_READ_AT_ONCE = 256

_UNREADABLE = (OSError, pl.exceptions.PolarsError, LookupError, ValueError, TypeError, AttributeError, RecursionError)

_POLARS: Mapping[str, pl.DataType] = {
    "TEXT": pl.String(),
    "TEXT[]": pl.List(pl.String()),
    "JSON": pl.String(),
    "BOOLEAN": pl.Boolean(),
    "INTEGER": pl.Int32(),
    "BIGINT": pl.Int64(),
    "DOUBLE": pl.Float64(),
    "TINYINT[]": pl.List(pl.Int8()),
    "FLOAT[]": pl.List(pl.Float32()),
    "TIMESTAMP": pl.Datetime("us"),
}


@dataclass(frozen=True)
class Column:
    """One column: its DuckDB type, and what it means with its unit (it goes to docs/schema.md)."""

    name: str
    type: str
    comment: str


@dataclass(frozen=True)
class Unless:
    """Rows do not count where a row `d` of `table` fits a row `t` of this one; `table` comes before it in the catalog.

    Attributes:
        table: name of the other table.
        on: SQL condition on `t` and `d`; an equality should be part of it.
    """

    table: str
    on: str


@dataclass(frozen=True)
class Table:
    """One table and the truth files that it mirrors.

    Attributes:
        truth: glob below the store's root.
        load: one truth file as a frame with these columns; None where the file is such a Parquet file itself.
        unique_by: of files with the same value here, the rows of the first one (in the order of names) count: for
            content-addressed rows, of which two processes may have written the same.
        newest_by: of rows with the same values here, the newest one counts.
        newest: column whose greatest value is the newest; None: the last file in the order of names.
        unless: which of the newest rows do not count.
        read: what `load` is given, made from the path; None: the path itself. Tables of the same `truth` and `read`
            share the reading.
    """

    name: str
    comment: str
    columns: tuple[Column, ...]
    truth: str
    load: Callable[[Any], pl.DataFrame] | None = None
    unique_by: str | None = None
    newest_by: tuple[str, ...] | None = None
    newest: str | None = None
    unless: Unless | None = None
    read: Callable[[Any], Any] | None = None

    @property
    def key(self) -> tuple[str, ...]:
        """The columns that say which rows stand for the same thing; none where every row counts."""
        return self.newest_by or ((self.unique_by,) if self.unique_by else ())

    @property
    def rule(self) -> str:
        """All that decides what the table holds, as a text: another rule needs another catalog."""
        return repr((self.truth, self.unique_by, self.newest_by, self.newest, self.unless))

    def statements(self) -> list[str]:
        """SQL that makes the table, and its public view."""
        columns = ", ".join(f'"{c.name}" {c.type}' for c in self.columns)
        more, where = (", key_hash UBIGINT, counts BOOLEAN", " WHERE counts") if self.key else ("", "")
        return [
            f'CREATE TABLE truth."{self.name}" ({columns}, file_number BIGINT{more})',
            f'CREATE VIEW "{self.name}" AS SELECT {_names(self)} FROM truth."{self.name}"{where}',
        ]


FILES = "CREATE TABLE truth.files (number BIGINT, truth TEXT, path TEXT, stamp TEXT)"


def folded(connection: duckdb.DuckDBPyConnection) -> Listing:
    """What the catalog was made from."""
    listing: Listing = {}
    for truth, path, stamp in connection.execute("SELECT truth, path, stamp FROM truth.files").fetchall():
        listing.setdefault(truth, {})[path] = stamp
    return listing


class Fold:
    """One fold, within a transaction of a connection that may write.

    Args:
        connection: to the catalog.
        tables: all of the catalog's.
        root: the store's.
    """

    def __init__(self, connection: duckdb.DuckDBPyConnection, tables: Sequence[Table], root: StorePath) -> None:
        self._connection = connection
        self._tables = tables
        self._root = root
        self._room = _ROWS_A_ROUND
        self._is_done = True
        self._touched: set[str] = set()
        """Tables with keys whose rows must be looked at again, in the temporary table `touched_<name>`."""

    def run(self, before: Listing, listing: Listing) -> bool:
        """Let the tables hold what these truth files hold, or come nearer to it by a round's worth of rows.

        Args:
            before: what the catalog was made from (`folded`).
            listing: the truth files.

        Returns:
            whether all is folded; otherwise commit, and go on with another fold.

        Raises:
            DamageError: a truth file cannot be read; names it.
        """
        for truth, files in listing.items():
            old = before.get(truth, {})
            self._remove(truth, [path for path, stamp in old.items() if files.get(path) != stamp])
            self._add(truth, {path: stamp for path, stamp in files.items() if old.get(path) != stamp})
        for table in self._tables:
            if table.name in self._touched:
                self._recount(table)
        return self._is_done

    def _of(self, truth: str) -> list[Table]:
        return [table for table in self._tables if table.truth == truth]

    def _remove(self, truth: str, paths: Sequence[str]) -> None:
        """Take away the rows of these files."""
        if not paths:
            return
        self._take_in("gone", pl.DataFrame({"path": paths}))
        self._sql(f"""
            CREATE OR REPLACE TEMP TABLE file_numbers AS
            SELECT number AS file_number FROM truth.files SEMI JOIN gone USING (path) WHERE truth = '{truth}'""")
        for table in self._of(truth):
            self._touch(table, "SEMI JOIN file_numbers USING (file_number)")
            self._touch_dependent(table)
            self._sql(f'DELETE FROM truth."{table.name}" WHERE file_number IN (FROM file_numbers)')
        self._sql("DELETE FROM truth.files WHERE number IN (FROM file_numbers)")

    def _add(self, truth: str, files: dict[str, str]) -> None:
        """Bring in the rows of these files, or of the first of them that fill the round."""
        tables = self._of(truth)
        buffers = [_Buffer() for _ in tables]
        first = number = self._number("SELECT coalesce(max(number), -1) + 1 FROM truth.files")
        paths = []
        for path, frames in _loaded(tables, self._root, list(files)):
            if self._room <= 0:
                self._is_done = False
                break
            paths.append(path)
            for table, buffer, frame in zip(tables, buffers, frames, strict=True):
                buffer.put(frame, number)
                self._insert(table, buffer.take(whole_groups=True))
            self._room -= max(map(len, frames))
            number += 1
        if not paths:
            return
        fresh = {"number": range(first, number), "truth": truth, "path": paths, "stamp": [files[p] for p in paths]}
        self._take_in("fresh", pl.DataFrame(fresh))
        self._sql("INSERT INTO truth.files SELECT number, truth, path, stamp FROM fresh")
        self._sql("CREATE OR REPLACE TEMP TABLE file_numbers AS SELECT number AS file_number FROM fresh")
        for table, buffer in zip(tables, buffers, strict=True):
            self._insert(table, buffer.take(whole_groups=False))
            self._touch(table, "SEMI JOIN file_numbers USING (file_number)")
            self._touch_dependent(table)

    def _insert(self, table: Table, frame: pl.DataFrame | None) -> None:
        if frame is None:
            return
        self._connection.register("incoming", frame)
        more = f", {_key_hash(table)}, true" if table.key else ""
        try:
            self._sql(f'INSERT INTO truth."{table.name}" SELECT {_names(table)}, file_number{more} FROM incoming')
        except duckdb.ConversionException as error:
            raise DamageError(
                f"a file of {table.truth} holds what the table {table.name} cannot hold: "
                f"{str(error).splitlines()[0][:200]}. Make it anew with the command that made it."
            ) from error
        finally:
            self._connection.unregister("incoming")

    def _touch(self, table: Table, which: str) -> None:
        """Note the keys of these rows, whatever becomes of the rows themselves."""
        if not table.key:
            return
        if table.name not in self._touched:
            self._sql(f'CREATE OR REPLACE TEMP TABLE "touched_{table.name}" (key_hash UBIGINT)')
            self._touched.add(table.name)
        self._sql(f'INSERT INTO "touched_{table.name}" SELECT DISTINCT key_hash FROM truth."{table.name}" t {which}')

    def _touch_dependent(self, table: Table) -> None:
        """Touch the rows of other tables that rows of these files (`file_numbers`) of this table speak of."""
        for other in self._tables:
            if other.unless and other.unless.table == table.name:
                rows = f'(FROM truth."{table.name}" SEMI JOIN file_numbers USING (file_number))'
                self._touch(other, f"SEMI JOIN {rows} d ON {other.unless.on}")

    def _recount(self, table: Table) -> None:
        """Settle which of the rows with a touched key count."""
        name, other = f'truth."{table.name}"', table.unless
        contested = f'"touched_{table.name}"'
        if self._number(f"SELECT count(*) FROM {contested}") > _FEW:
            contested = self._contested(table)
        same = ", ".join(f't."{column}"' for column in table.key)
        newest = f't."{table.newest}"' if table.newest else "f.path"
        verdict = f"rank() OVER (PARTITION BY {same} ORDER BY f.path) = 1"
        if table.newest_by:
            verdict = f"row_number() OVER (PARTITION BY {same} ORDER BY {newest} DESC, id DESC) = 1"
        if other:
            verdict += f' AND NOT EXISTS (FROM truth."{other.table}" d WHERE {other.on})'
        # First by the hash alone: a scan of one column, where the others would cost several times as much.
        ids = f"SELECT rowid AS id FROM {name} SEMI JOIN {contested} USING (key_hash)"
        self._sql(f"CREATE OR REPLACE TEMP TABLE ids AS {ids}")
        self._sql(f"""
            CREATE OR REPLACE TEMP TABLE verdicts AS
            WITH t AS (SELECT t.*, id FROM {name} t JOIN ids ON t.rowid = id)
            SELECT id, verdict FROM (
                SELECT id, counts, {verdict} AS verdict FROM t JOIN truth.files f ON f.number = t.file_number
            ) WHERE verdict <> counts""")
        self._sql(f"UPDATE {name} t SET counts = v.verdict FROM verdicts v WHERE t.rowid = v.id")

    def _contested(self, table: Table) -> str:
        """The touched keys but for those of one row that counts, and is to: mostly few, however much came in."""
        name, other = f'truth."{table.name}"', table.unless
        touched = f'SEMI JOIN "touched_{table.name}" USING (key_hash)'
        several = "count(*) > 1" if table.newest_by else "min(file_number) <> max(file_number)"
        sql = f"SELECT key_hash FROM {name} {touched} GROUP BY key_hash HAVING {several} OR NOT bool_and(counts)"
        if other:
            sql += f' UNION SELECT key_hash FROM {name} t {touched} SEMI JOIN truth."{other.table}" d ON {other.on}'
        self._sql(f"CREATE OR REPLACE TEMP TABLE contested AS {sql}")
        return "contested"

    def _take_in(self, name: str, frame: pl.DataFrame) -> None:
        self._connection.register("incoming", frame)
        self._sql(f"CREATE OR REPLACE TEMP TABLE {name} AS FROM incoming")
        self._connection.unregister("incoming")

    def _number(self, sql: str) -> int:
        return self._connection.execute(sql).fetchall()[0][0]

    def _sql(self, sql: str) -> None:
        self._connection.execute(sql).fetchall()


class _Buffer:
    """Rows of one table on their way in, each with the number of its file."""

    def __init__(self) -> None:
        self._frames: list[pl.DataFrame] = []
        self._numbers: list[np.ndarray] = []
        self._rows = 0

    def put(self, frame: pl.DataFrame, number: int) -> None:
        """Add the rows of a file."""
        self._frames.append(frame)
        self._numbers.append(np.full(len(frame), number))
        self._rows += len(frame)

    def take(self, *, whole_groups: bool) -> pl.DataFrame | None:
        """The rows in it, or so many as make whole groups; the rest stays. None if that is none."""
        count = self._rows // _ROW_GROUP * _ROW_GROUP if whole_groups else self._rows
        if not count:
            return None
        rows, numbers = pl.concat(self._frames), np.concatenate(self._numbers)
        self._frames, self._numbers = [rows[count:]], [numbers[count:]]
        self._rows -= count
        return rows[:count].with_columns(file_number=numbers[:count])


def _loaded(tables: Sequence[Table], root: StorePath, paths: Sequence[str]) -> Iterator[tuple[str, list[pl.DataFrame]]]:
    """What files hold for every table, some read at once where that helps; those gone since they were listed do not."""

    def load(path: StorePath) -> list[pl.DataFrame] | None:
        try:
            return list(_load(tables, path))
        except DamageError:
            if path.exists():
                raise
            return None

    for at in range(0, len(paths), _READ_AT_ONCE):
        some = paths[at : at + _READ_AT_ONCE]
        for path, loaded in zip(some, each(load, [root / path for path in some]), strict=True):
            if loaded is not None:
                yield path, loaded


def _load(tables: Sequence[Table], path: StorePath) -> Iterator[pl.DataFrame]:
    """One truth file as rows of every table that is made from it."""
    given: dict[Callable[[Any], Any] | None, Any] = {None: path}
    for table in tables:
        try:
            if table.read is not None and table.read not in given:
                given[table.read] = table.read(path)
            frame = read_parquet(path) if table.load is None else table.load(given[table.read])
            schema = pl.Schema({column.name: _POLARS[column.type] for column in table.columns})
            frame = frame.select(schema.names())
            yield frame if frame.schema == schema else frame.cast(schema)
        except _UNREADABLE as error:
            raise DamageError(
                f"{path.parent.name}/{path.name} cannot be read for the table {table.name} ({type(error).__name__}): "
                f"the file is damaged. Move {path} away, and make it anew with the command that made it."
            ) from error


def _names(table: Table) -> str:
    return ", ".join(f'"{column.name}"' for column in table.columns)


def _key_hash(table: Table) -> str:
    """SQL for the hash of a row's key. MD5, so that every version of DuckDB finds what another one wrote."""
    key = ", ".join(f'"{column}"' for column in table.key)
    return f"md5_number_lower(concat_ws(chr(31), {key}))"
