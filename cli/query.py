"""`radfs query`: one SELECT over the whole store."""

import sys
from typing import Annotated

import typer

from .options import DEFAULT_STORE, CsvOption, JsonOption, ParquetOption, StoreOption


def query(
    sql: Annotated[
        str | None,
        typer.Argument(help="One SELECT; none: a prompt. Tables and columns: docs/schema.md, or `SHOW TABLES`."),
    ] = None,
    *,
    csv: CsvOption = False,
    as_json: JsonOption = False,
    parquet: ParquetOption = None,
    store: StoreOption = DEFAULT_STORE,
) -> None:
    """Ask the store in SQL (DuckDB's dialect). Read-only: it cannot write, or reach other files or the network.

    Without SQL it reads one question from a pipe, or opens a prompt on a terminal.

    Example: `radfs query "SELECT method, fraction, auroc_mean FROM summary"`
    """
    from featurestore.store import open_store
    from heads.catalog import open_catalog

    from .output import print_frame

    catalog = open_catalog(open_store(store))
    catalog.fold()
    if sql is None and sys.stdin.isatty():
        from .prompt import prompt

        prompt(catalog)
        return
    print_frame(catalog.query(sql or sys.stdin.read()), csv=csv, as_json=as_json, parquet=parquet)
