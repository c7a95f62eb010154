"""The catalog: a DuckDB file that mirrors the truth files, so that all of a store answers SQL.

It is a cache. `fold` brings it up to date from the truth files; deleting it loses nothing. Every row remembers which
file it came from, so a file that changed or went takes its rows with it. What tables there are is said by the
packages that own them (`schema.py` of each): nothing here knows what a cohort or a run is.

DuckDB lets no second process read while one has the file open for writing, and an idle reader blocks a writer. So
connections are short: open, one transaction or query, close, and wait a little where somebody else holds the file.
"""

import os
import random
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import duckdb
import polars as pl

from .errors import DamageError, DataError, StoreError
from .keys import content_key
from .store import Store

_BUSY_WORDS = ("Could not set lock", "Conflicting lock")
_STORAGE_VERSION = "v1.5.0"  # so that DuckDB 1.5 opens the file too


@dataclass(frozen=True)
class Column:
    """One column: its DuckDB type, and what it means with its unit (it goes to docs/schema.md)."""

    name: str
    type: str
    comment: str


@dataclass(frozen=True)
class Table:
    """One table and the truth files that it mirrors.

    Attributes:
        truth: glob below the store's root.
        load: one truth file as a frame with these columns; None where the file is such a Parquet file itself.
        unique_by: rows whose value another file brought already are skipped: for content-addressed rows, of which
            two processes may have written the same.
        newest_by: rows of a later file (in the order of names) replace those with the same values here.
    """

    name: str
    comment: str
    columns: tuple[Column, ...]
    truth: str
    load: Callable[[Path], pl.DataFrame] | None = None
    unique_by: str | None = None
    newest_by: tuple[str, ...] | None = None


@dataclass(frozen=True)
class View:
    """A documented question: a name for a SELECT."""

    name: str
    comment: str
    sql: str
    columns: tuple[Column, ...]


class Catalog:
    """The catalog of a store for these tables and views."""

    def __init__(self, store: Store, tables: Sequence[Table], views: Sequence[View]) -> None:
        self.store = store
        self.tables = tuple(tables)
        self.views = tuple(views)
        self._ddl = [*_table_ddl(self.tables), *[f"CREATE VIEW {v.name} AS {v.sql}" for v in self.views]]

    def fold(self, *, wait_s: float = 30.0) -> None:
        """Bring the catalog up to date with the truth files.

        Raises:
            StoreError: another process held the catalog for all of `wait_s`, or the file is no catalog.
        """
        if self._is_current(self._listing(), wait_s):
            return
        with self._open(wait_s, read_only=False) as connection:
            # Listed anew under the lock: by an older listing, what another process folded meanwhile would look gone.
            listing = self._listing()
            connection.execute("BEGIN")
            self._prepare(connection)
            for table in self.tables:
                _fold_table(connection, table, self.store.root, listing[table.name])
            connection.execute("COMMIT")

    def query(self, sql: str, params: Sequence[Any] = (), *, wait_s: float = 30.0) -> pl.DataFrame:
        """The rows of one SELECT. Cannot write, attach, read or write other files, or reach the network.

        Raises:
            DataError: the SQL is refused; says why.
            StoreError: another process held the catalog for all of `wait_s`.
        """
        with self._open(wait_s, read_only=True) as connection:
            try:
                if len(connection.extract_statements(sql)) != 1:
                    raise DataError("ask one question at a time: the SQL holds none, or several statements.")
                relation = connection.sql(sql, params=list(params) or None)
                if relation is None:
                    raise DataError(f"the statement returns no rows: {sql.strip()[:80]!r}. Ask with SELECT.")
                return relation.pl()
            except duckdb.Error as error:
                raise DataError(f"SQL refused: {str(error).strip()}") from error
            except pl.exceptions.PolarsError as error:
                raise DataError(
                    "the answer has a column of a type that cannot be shown, such as INTERVAL: cast it to a number or "
                    "a text, as in epoch(finished_at - started_at)."
                ) from error

    @property
    def _format(self) -> str:
        return content_key(self._ddl)

    def _listing(self) -> dict[str, dict[str, str]]:
        """Truth files of every table: stamp by path relative to the root, in the order of names."""
        listing: dict[str, dict[str, str]] = {}
        for table in self.tables:
            stats = [(p, p.stat()) for p in sorted(self.store.root.glob(table.truth))]
            listing[table.name] = {
                p.relative_to(self.store.root).as_posix(): f"{s.st_size}:{s.st_mtime_ns}" for p, s in stats
            }
        return listing

    def _is_current(self, listing: dict[str, dict[str, str]], wait_s: float) -> bool:
        if not self.store.catalog.exists():
            return False
        with self._open(wait_s, read_only=True) as connection:
            try:
                if connection.execute("SELECT format FROM truth.format").fetchall() != [(self._format,)]:
                    return False
                rows = connection.execute('SELECT "table", path, stamp FROM truth.files').fetchall()
            except duckdb.CatalogException:
                return False
        folded = {(t, p): s for t, p, s in rows}
        return folded == {(t, p): s for t, files in listing.items() for p, s in files.items()}

    def _prepare(self, connection: duckdb.DuckDBPyConnection) -> None:
        """Make the tables; where they were made by another version of the schema, make everything anew."""
        connection.execute("CREATE SCHEMA IF NOT EXISTS truth; CREATE TABLE IF NOT EXISTS truth.format (format TEXT)")
        if connection.execute("SELECT format FROM truth.format").fetchall() == [(self._format,)]:
            return
        for schema, name, kind in connection.execute(
            "SELECT table_schema, table_name, table_type FROM information_schema.tables"
        ).fetchall():
            connection.execute(f'DROP {"VIEW" if kind == "VIEW" else "TABLE"} IF EXISTS "{schema}"."{name}" CASCADE')
        for statement in self._ddl:
            connection.execute(statement)
        connection.execute("CREATE TABLE truth.format (format TEXT)")
        connection.execute("INSERT INTO truth.format VALUES (?)", [self._format])

    @contextmanager
    def _open(self, wait_s: float, *, read_only: bool) -> Iterator[duckdb.DuckDBPyConnection]:
        config: dict[str, str | bool | int | float | list[str]] = {"storage_compatibility_version": _STORAGE_VERSION}
        if read_only:
            config = {"enable_external_access": "false", "lock_configuration": "true"}
        deadline = time.monotonic() + wait_s
        while True:
            try:
                connection = duckdb.connect(str(self.store.catalog), read_only=read_only, config=config)
                break
            except duckdb.Error as error:
                if not os.access(self.store.root, os.W_OK):
                    raise StoreError(
                        f"the store {self.store.root} is read-only for you, and its catalog is missing or behind. Run "
                        "`radfs info` once as somebody who may write there."
                    ) from error
                if not any(word in str(error) for word in _BUSY_WORDS):
                    raise StoreError(
                        f"{self.store.catalog} cannot be opened ({str(error).splitlines()[0]}). It is a cache: "
                        "delete it, and the next command makes it anew from the truth files."
                    ) from error
                if time.monotonic() > deadline:
                    raise StoreError(
                        f"another process has held {self.store.catalog} for {wait_s:.0f} s. Try again, or close it "
                        "(a DuckDB shell on the file blocks radfs)."
                    ) from error
                time.sleep(random.uniform(0.01, 0.05))
        try:
            yield connection
        finally:
            connection.close()


def _table_ddl(tables: Sequence[Table]) -> list[str]:
    statements = [
        "CREATE SEQUENCE IF NOT EXISTS truth.file_numbers",
        "CREATE TABLE truth.files "
        "(number BIGINT DEFAULT nextval('truth.file_numbers'), \"table\" TEXT, path TEXT, stamp TEXT)",
    ]
    for table in tables:
        columns = ", ".join(f'"{c.name}" {c.type}' for c in table.columns)
        names = ", ".join(f'"{c.name}"' for c in table.columns)
        statements += [
            f'CREATE TABLE truth."{table.name}" ({columns}, file_number BIGINT)',
            f'CREATE VIEW "{table.name}" AS SELECT {names} FROM truth."{table.name}"',
        ]
    return statements


def _fold_table(connection: duckdb.DuckDBPyConnection, table: Table, root: Path, files: dict[str, str]) -> None:
    rows = connection.execute('SELECT path, stamp FROM truth.files WHERE "table" = ?', [table.name]).fetchall()
    folded = dict(rows)
    if any(files.get(path) != stamp for path, stamp in folded.items()) or _comes_late(table, files, folded):
        # Which rows others had yielded to it, or it would have to yield, cannot be told: the table is made anew.
        connection.execute(f'DELETE FROM truth."{table.name}"')
        connection.execute('DELETE FROM truth.files WHERE "table" = ?', [table.name])
        folded = {}
    for path, stamp in files.items():
        if path not in folded:
            _insert(connection, table, _load(table, root / path), path, stamp)


def _comes_late(table: Table, files: dict[str, str], folded: dict[str, str]) -> bool:
    """Whether a new file stands, in the order of names, before one of its folder whose rows would be newer."""
    if table.newest_by is None:
        return False
    last: dict[str, str] = {}
    for path in folded:
        folder = path.rpartition("/")[0]
        last[folder] = max(path, last.get(folder, ""))
    return any(path < last.get(path.rpartition("/")[0], "") for path in files if path not in folded)


def _load(table: Table, path: Path) -> pl.DataFrame:
    """One truth file as rows of its table."""
    try:
        frame = pl.read_parquet(path) if table.load is None else table.load(path)
        return frame.select([c.name for c in table.columns])
    except (OSError, pl.exceptions.PolarsError, KeyError, ValueError) as error:
        raise DamageError(
            f"{path.parent.name}/{path.name} cannot be read for the table {table.name} ({type(error).__name__}): "
            f"the file is damaged. Move {path} away, and make it anew with the command that made it."
        ) from error


def _insert(connection: duckdb.DuckDBPyConnection, table: Table, incoming: pl.DataFrame, path: str, stamp: str) -> None:
    number = connection.execute(
        'INSERT INTO truth.files ("table", path, stamp) VALUES (?, ?, ?) RETURNING number', [table.name, path, stamp]
    ).fetchall()[0][0]
    connection.register("incoming", incoming)
    target = f'truth."{table.name}"'
    skip = ""
    if table.unique_by is not None:
        skip = f'WHERE "{table.unique_by}" NOT IN (SELECT "{table.unique_by}" FROM {target})'
    if table.newest_by is not None:
        same = " AND ".join(f't."{c}" = incoming."{c}"' for c in table.newest_by)
        connection.execute(f"DELETE FROM {target} t USING incoming WHERE {same}")
    connection.execute(f"INSERT INTO {target} SELECT *, {number} FROM incoming {skip}")
    connection.unregister("incoming")
