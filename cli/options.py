"""Options that several commands share."""

from pathlib import Path
from typing import Annotated

import typer

from featurestore.errors import DataError

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

WeightsOption = Annotated[
    Path | None,
    typer.Option(help="A weights file, or a folder, to use in place of the encoder's own.", show_default="none"),
]
VariantOption = Annotated[
    list[str] | None,
    typer.Option(help="AXIS=CHOICE, such as preprocessing=authors (may be repeated); see `radfs backbones show`."),
]

PrecisionOption = Annotated[
    str, typer.Option(help="What networks compute in: float32, bfloat16 or float16; a feature set each.")
]
LongTextOption = Annotated[
    str,
    typer.Option(help="Reports beyond the context length: truncate, or window to read them in overlapping windows."),
]


def parse_variants(written: list[str] | None) -> dict[str, str]:
    """{"preprocessing": "authors"} of ["preprocessing=authors"]. DataError where it is not AXIS=CHOICE, or twice."""
    chosen: dict[str, str] = {}
    for entry in written or ():
        axis, equals, choice = entry.partition("=")
        if not (axis and equals and choice):
            raise DataError(f"--variant {entry!r} is not of the form AXIS=CHOICE, such as preprocessing=authors.")
        if axis in chosen:
            raise DataError(f"--variant {axis} is given twice: {chosen[axis]!r} and {choice!r}.")
        chosen[axis] = choice
    return chosen
