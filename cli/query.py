"""`radfs query`: one SELECT over the whole store."""

from typing import Annotated

import typer

from .options import DEFAULT_STORE, CsvOption, JsonOption, ParquetOption, StoreOption


def query(
    sql: Annotated[str, typer.Argument(help="One SELECT. Tables and columns: docs/schema.md, or `SHOW TABLES`.")],
    *,
    csv: CsvOption = False,
    as_json: JsonOption = False,
    parquet: ParquetOption = None,
    store: StoreOption = DEFAULT_STORE,
) -> None:
    """Ask the store in SQL (DuckDB's dialect). Read-only: it cannot write, or reach other files or the network.

    Example: `radfs query "SELECT method, fraction, auroc_mean FROM summary"`
    """
    from featurestore.store import open_store
    from heads.catalog import open_catalog

    from .output import print_frame

    catalog = open_catalog(open_store(store))
    catalog.fold()
    print_frame(catalog.query(sql), csv=csv, as_json=as_json, parquet=parquet)
