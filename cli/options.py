"""Options that several commands share."""

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from featurestore.errors import DataError

if TYPE_CHECKING:
    from cohorts import SplitScheme

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

SetOption = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="KEY=VALUE",
        help="Another value for a key of the grid, such as cohort=mine or fraction=0.5,1.0 (may be repeated).",
    ),
]

SplitOption = Annotated[
    str | None,
    typer.Option(
        "--split",
        help="subject: no patient on both sides. admission: no stay. image: one by one. official: the publishers'.",
        show_default="subject",
    ),
]
TestOption = Annotated[
    str | None,
    typer.Option("--test", help="per-seed: a test part for each seed. fixed: one for all.", show_default="per-seed"),
]
TestShareOption = Annotated[
    float | None, typer.Option(help="Share of the samples kept for the test.", show_default="0.2")
]
FoldsOption = Annotated[
    int | None,
    typer.Option(help="K folds, no test share: seed s tests on fold s mod K.", show_default="none"),
]
GroupOption = Annotated[
    bool, typer.Option("--group", help="If this makes the store: let its folder's group read and write it too.")
]
ReplaceOption = Annotated[bool, typer.Option("--replace", help="Replace a cohort of this name with other content.")]


def split_scheme(
    split: str | None,
    test: str | None,
    test_share: float | None,
    folds: int | None,
    default: "SplitScheme | None" = None,
) -> "SplitScheme":
    """The default scheme with what the options of splitting say. DataError where they do not go together."""
    from cohorts import SplitScheme

    if split == "official" and test_share is not None:
        raise DataError("--split official says itself which samples are the test part: leave out --test-share.")
    given: dict[str, Any] = {"unit": split, "test": test, "test_share": test_share, "folds": folds}
    base = SplitScheme() if default is None or split == "official" else default
    return replace(base, **{name: value for name, value in given.items() if value is not None})


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
