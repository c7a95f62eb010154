"""`radfs cohort export-splits`, `import-splits` and `audit`: the same rows in two laboratories, and none that leak."""

from pathlib import Path
from typing import Annotated

import typer

from .options import DEFAULT_STORE, CsvOption, JsonOption, StoreOption

SeedsOption = Annotated[
    int | None,
    typer.Option(min=1, help="How many seeds, from 0 on.", show_default="5, or all folds or imports"),
]
CohortArgument = Annotated[str, typer.Argument(help="The cohort's name.")]


def export_splits(
    name: CohortArgument,
    *,
    out: Annotated[Path, typer.Option(help="File to write: .csv, .csv.gz, .tsv or .parquet.")],
    seeds: SeedsOption = None,
    store: StoreOption = DEFAULT_STORE,
) -> None:
    """Write a cohort's splits to a file, so that others train and test on the same rows. It holds ids and parts alone.

    Example: `radfs cohort export-splits mine --out splits.csv --seeds 5`
    """
    from cohorts import export_splits
    from featurestore.store import open_store

    keys = export_splits(open_store(store), name, out, None if seeds is None else range(seeds))
    for seed, key in keys.items():
        typer.echo(f"seed {seed}: split {key}")
    typer.echo(f"{len(keys)} splits -> {out}")


def import_splits(
    name: CohortArgument,
    file: Annotated[Path, typer.Argument(help="File with columns id and part, at will seed and rank.")],
    *,
    split: Annotated[
        str, typer.Option("--split", help="subject refuses a patient on both sides, admission a stay; image neither.")
    ] = "subject",
    store: StoreOption = DEFAULT_STORE,
) -> None:
    """Split a cohort as a file says: one that `export-splits` wrote, or the official split of a data set.

    Example: `radfs cohort import-splits mine splits.csv`
    """
    from cohorts import import_splits
    from featurestore.store import open_store

    for line in import_splits(open_store(store), name, file, unit=split).lines():
        typer.echo(line)


def audit(
    name: CohortArgument,
    *,
    seeds: SeedsOption = None,
    images: Annotated[bool, typer.Option("--images/--no-images", help="Read and compare the image files.")] = True,
    seen: Annotated[
        list[str] | None,
        typer.Option(metavar="ENCODER=FILE", help="Table of the images that an encoder was pre-trained on."),
    ] = None,
    as_json: JsonOption = False,
    csv: CsvOption = False,
    store: StoreOption = DEFAULT_STORE,
) -> None:
    """Look for leaks and for labels that give themselves away. Exit code 1 where the test part is known in training.

    Example: `radfs cohort audit mine`
    """
    from cohorts import audit_cohort
    from featurestore.store import open_store

    from .output import print_frame, progress_bar

    lists = {}
    for one in seen or []:
        encoder, equals, file = one.partition("=")
        if not equals:
            raise typer.BadParameter(f"{one!r} is not ENCODER=FILE", param_hint="--seen")
        lists[encoder] = Path(file)
    with progress_bar("images", "images") as tell:
        report = audit_cohort(
            open_store(store),
            name,
            seeds=None if seeds is None else range(seeds),
            images=images,
            seen=lists,
            on_progress=tell,
        )
    if as_json or csv:
        print_frame(report.table(), as_json=as_json, csv=csv)
    else:
        for line in report.lines():
            typer.echo(line)
    if report.leaks:
        raise typer.Exit(1)
