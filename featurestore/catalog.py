"""The catalog: a DuckDB file that mirrors the truth files, so that all of a store answers SQL.

It is a cache. `fold` brings it up to date from the truth files (`folding` says how); deleting it loses nothing. What
tables there are is said by the packages that own them (`schema.py` of each): nothing here knows what a cohort or a run
is.

DuckDB lets no second process read while one has the file open for writing, and an idle reader blocks a writer. So
connections are short: open, one transaction or query, close, and wait a little where somebody else holds the file.
Who may not write the store folds into a copy of the catalog in the own cache folder.
"""

import os
import random
import shutil
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import duckdb
import polars as pl

from .copies import store_folder
from .errors import DataError, StoreError
from .folding import FILES, Column, Fold, Table, folded
from .fsio import partial_name
from .keys import content_key
from .listing import Listing, list_truth, loses
from .store import Store

_VERSION = 2
"""Of what the tables hold, where neither their columns nor their rules show that it changed."""

_BUSY_WORDS = ("Could not set lock", "Conflicting lock")
_STORAGE_VERSION = "v1.5.0"  # so that DuckDB 1.5 opens the file too
_QUESTIONS = ("SELECT", "EXPLAIN", "MULTI")
"""Kinds of statement that `query` takes, as DuckDB calls them; MULTI is a PIVOT. SHOW and DESCRIBE are SELECTs."""

_CLOSED: dict[str, Any] = {
    "enable_external_access": "false",
    "autoinstall_known_extensions": "false",
    "autoload_known_extensions": "false",
    "python_enable_replacements": "false",
}


class _BusyError(StoreError):
    """Another process held the catalog for too long."""


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
        self._file: Path | None = None
        self._ddl = [
            *[statement for table in self.tables for statement in table.statements()],
            *[f"CREATE VIEW {v.name} AS {v.sql}" for v in self.views],
        ]

    def fold(self, *, wait_s: float = 30.0) -> None:
        """Bring the catalog up to date with the truth files.

        Raises:
            StoreError: another process held the catalog for all of `wait_s`, or the file is no catalog.
            DamageError: a truth file cannot be read.
        """
        listing, shared = self._listing(), self.store.catalog
        if self._may_write():
            if not self._is_current(shared, listing, wait_s):
                self._update(shared, listing, wait_s)
            self._file = shared
            return
        with suppress(StoreError):
            if self._is_current(shared, listing, wait_s):
                self._file = shared
                return
        private = self._copy(wait_s)
        if not self._is_current(private, listing, wait_s):
            self._update(private, listing, wait_s)
        self._file = private

    def rebuild(self, *, wait_s: float = 30.0) -> None:
        """Make the catalog anew from the truth files alone, beside the old one, which answers until it is replaced.

        Raises:
            StoreError: the store is read-only, or others read or wrote the old catalog for all of `wait_s`.
            DamageError: a truth file cannot be read; the old catalog stays.
        """
        shared = self.store.catalog
        if not self._may_write():
            raise StoreError(f"the store {self.store.root} is read-only for you: its catalog cannot be made anew.")
        fresh = partial_name(shared)
        try:
            self._update(fresh, self._listing(), wait_s)
            self._replace(shared, fresh, wait_s)
        finally:
            fresh.unlink(missing_ok=True)
            _log(fresh).unlink(missing_ok=True)
        self._file = shared

    def query(self, sql: str, params: Sequence[Any] = (), *, wait_s: float = 30.0) -> pl.DataFrame:
        """The rows of one SELECT. Cannot write, attach, read or write other files, or reach the network.

        Raises:
            DataError: the SQL is refused; says why.
            StoreError: another process held the catalog for all of `wait_s`.
        """
        if self._file is None and not self.store.catalog.exists():
            self.fold(wait_s=wait_s)
        with self._open(self._file or self.store.catalog, wait_s, read_only=True) as connection:
            try:
                statements = connection.extract_statements(sql)
                if len(statements) != 1:
                    raise DataError("ask one question at a time: the SQL holds none, or several statements.")
                kind = statements[0].type.name
                if kind not in _QUESTIONS:
                    raise DataError(f"SQL refused: {kind} is no question: {sql.strip()[:80]!r}. Ask with SELECT.")
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
        return content_key([_VERSION, self._ddl, [table.rule for table in self.tables]])

    def _listing(self) -> Listing:
        return list_truth(self.store.root, [table.truth for table in self.tables])

    def _may_write(self) -> bool:
        """Whether this process may write the store's catalog; of a remote store every machine has its own."""
        root, file = self.store.root, self.store.catalog
        if not isinstance(root, Path):
            return True
        return os.access(root, os.W_OK) and (not file.exists() or os.access(file, os.W_OK))

    def _copy(self, wait_s: float) -> Path:
        """This user's own catalog of the store: to begin with a copy of the store's, which saves making all anew."""
        private = store_folder(self.store.root) / "catalog.duckdb"
        if not private.exists() and self.store.catalog.exists():
            partial = partial_name(private)
            with suppress(StoreError, OSError), self._open(self.store.catalog, wait_s, read_only=True):
                shutil.copyfile(self.store.catalog, partial)  # nobody writes it meanwhile
                partial.chmod(0o600)
                partial.replace(private)
            partial.unlink(missing_ok=True)
        return private

    def _is_current(self, file: Path, listing: Listing, wait_s: float) -> bool:
        if not file.exists():
            return False
        with self._open(file, wait_s, read_only=True) as connection:
            try:
                if connection.execute("SELECT format FROM truth.format").fetchall() != [(self._format,)]:
                    return False
                return folded(connection) == {truth: files for truth, files in listing.items() if files}
            except duckdb.Error:  # not of our making, or of another version: it is made anew
                return False

    def _update(self, file: Path, listing: Listing, wait_s: float) -> None:
        """Fold into a file, in several transactions where there is much: a fold that was killed is gone on with."""
        is_done = False
        while not is_done:
            with self._open(file, wait_s, read_only=False) as connection, _only_ours(file):
                connection.execute("BEGIN")
                self._prepare(connection)
                before = folded(connection)
                if loses(before, listing):
                    # By a listing from before the lock, what another process folded meanwhile would look gone.
                    listing = self._listing()
                is_done = Fold(connection, self.tables, self.store.root).run(before, listing)
                connection.execute("COMMIT")

    def _prepare(self, connection: duckdb.DuckDBPyConnection) -> None:
        """Make the tables; where they were made by another version of the schema, make everything anew."""
        connection.execute("CREATE SCHEMA IF NOT EXISTS truth; CREATE TABLE IF NOT EXISTS truth.format (format TEXT)")
        if connection.execute("SELECT format FROM truth.format").fetchall() == [(self._format,)]:
            return
        for schema, name, kind in connection.execute(
            "SELECT table_schema, table_name, table_type FROM information_schema.tables"
        ).fetchall():
            connection.execute(f'DROP {"VIEW" if kind == "VIEW" else "TABLE"} IF EXISTS "{schema}"."{name}" CASCADE')
        for statement in (FILES, *self._ddl, "CREATE TABLE truth.format (format TEXT)"):
            connection.execute(statement)
        connection.execute("INSERT INTO truth.format VALUES (?)", [self._format])

    def _replace(self, shared: Path, fresh: Path, wait_s: float) -> None:
        """Put a new catalog in the place of the old one, while nobody else has that open."""
        try:
            with self._open(shared, wait_s, read_only=False) as connection:
                connection.execute("CHECKPOINT")  # a log that a killed process left would not fit the new file
                fresh.replace(shared)
        except _BusyError:
            raise
        except StoreError:  # what stands there is no catalog
            _log(shared).unlink(missing_ok=True)
            fresh.replace(shared)

    @contextmanager
    def _open(self, file: Path, wait_s: float, *, read_only: bool) -> Iterator[duckdb.DuckDBPyConnection]:
        # Closed for writing too: a stranger's catalog may hold macros in place of functions that folding calls.
        config: dict[str, Any] = dict(_CLOSED)
        if not read_only:
            config["storage_compatibility_version"] = _STORAGE_VERSION
        if file == self.store.catalog and not self._may_write():
            config["temp_directory"] = str(store_folder(self.store.root) / "spill")
        deadline = time.monotonic() + wait_s
        is_new = not file.exists()
        while True:
            try:
                connection = duckdb.connect(str(file), read_only=read_only, config=config)
                break
            except duckdb.Error as error:
                if not any(word in str(error) for word in _BUSY_WORDS):
                    raise StoreError(
                        f"{file} cannot be opened ({str(error).splitlines()[0]}). It is a cache: "
                        "delete it, and the next command makes it anew from the truth files."
                    ) from error
                if time.monotonic() > deadline:
                    raise _BusyError(
                        f"another process has held {file} for {wait_s:.0f} s. Try again, or close it "
                        "(a DuckDB shell on the file blocks radfs)."
                    ) from error
                time.sleep(random.uniform(0.01, 0.05))
        try:
            if is_new:  # as private, or as shared, as the folder that it lies in
                file.chmod(file.parent.stat().st_mode & 0o666)
            # The bar would go to the standard output, into the midst of a CSV. No question may set anything else.
            connection.execute("SET enable_progress_bar = false; SET lock_configuration = true")
            yield connection
        finally:
            connection.close()


@contextmanager
def _only_ours(file: Path) -> Iterator[None]:
    """Folding into a file that radfs made raises none of these: it holds what somebody else put there."""
    try:
        yield
    except (
        duckdb.PermissionException,
        duckdb.CatalogException,
        duckdb.BinderException,
        duckdb.ParserException,
    ) as error:
        raise StoreError(
            f"{file} is not a catalog that radfs made ({str(error).splitlines()[0][:120]}). It is a cache: run `radfs "
            "reindex`, which makes it anew from the truth files."
        ) from error


def _log(file: Path) -> Path:
    """Where DuckDB keeps what it has not put into the file itself yet."""
    return file.with_name(f"{file.name}.wal")
