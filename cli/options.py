"""Options that several commands share."""

from pathlib import Path
from typing import Annotated

import typer

StoreOption = Annotated[
    str,
    typer.Option(
        "--store",
        envvar="RADFS_STORE",
        metavar="FOLDER",
        help="The store's folder, or s3://bucket/prefix.",
        show_default="./radfs-store",
    ),
]
DEFAULT_STORE = "radfs-store"

JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON, one array of objects.")]
CsvOption = Annotated[bool, typer.Option("--csv", help="Print CSV.")]
ParquetOption = Annotated[Path | None, typer.Option("--parquet", help="Write a Parquet file in place of printing.")]
