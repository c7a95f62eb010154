"""Options that several commands share."""

from pathlib import Path
from typing import Annotated

import typer

StoreOption = Annotated[
    Path,
    typer.Option("--store", envvar="RADFS_STORE", help="The store's folder.", show_default="./radfs-store"),
]
DEFAULT_STORE = Path("radfs-store")

JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON, one array of objects.")]
CsvOption = Annotated[bool, typer.Option("--csv", help="Print CSV.")]
ParquetOption = Annotated[Path | None, typer.Option("--parquet", help="Write a Parquet file in place of printing.")]
