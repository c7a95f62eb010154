"""`radfs query`: one SELECT over the whole store."""

import sys
from typing import TYPE_CHECKING, Annotated

import typer

from .options import DEFAULT_STORE, CsvOption, JsonOption, ParquetOption, StoreOption

if TYPE_CHECKING:
    import polars as pl


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
    found = catalog.query(sql or sys.stdin.read())
    print_frame(found, csv=csv, as_json=as_json, parquet=parquet)
    if _beyond(found):
        typer.echo(
            "WARNING: an interval (ci_low to ci_high) goes beyond 0 to 1, where its metric ends: Student's t over too "
            "few seeds, or over values near an end. It is shown as it is, not cut.",
            err=True,
        )


def _beyond(found: "pl.DataFrame") -> bool:
    """Whether an interval over seeds of the view `summary`, of metrics that lie in 0 to 1, goes beyond."""
    low = [name for name in found.columns if name.endswith("_ci_low") and found[name].dtype.is_numeric()]
    high = [name for name in found.columns if name.endswith("_ci_high") and found[name].dtype.is_numeric()]
    return any((found[name] < 0).any() for name in low) or any((found[name] > 1).any() for name in high)
