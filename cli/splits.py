"""`radfs cohort export-splits`, `import-splits` and `audit`: the same rows in two laboratories, and none that leak."""

from pathlib import Path
from typing import Annotated

import typer

from .options import DEFAULT_STORE, StoreOption

CohortArgument = Annotated[str, typer.Argument(help="The cohort's name.")]


def export_splits(
    name: CohortArgument,
    *,
    out: Annotated[Path, typer.Option(help="File to write: .csv, .csv.gz, .tsv or .parquet.")],
    seeds: Annotated[int, typer.Option(min=1, help="Splits of the seeds 0 up to this number.")] = 5,
    store: StoreOption = DEFAULT_STORE,
) -> None:
    """Write a cohort's splits to a file, so that others train and test on the same rows. It holds ids and parts alone.

    Example: `radfs cohort export-splits mine --out splits.csv --seeds 5`
    """
    from cohorts import export_splits
    from featurestore.store import open_store

    keys = export_splits(open_store(store), name, out, range(seeds))
    for seed, key in keys.items():
        typer.echo(f"seed {seed}: split {key}")
    typer.echo(f"{len(keys)} splits -> {out}")


def import_splits(
    name: CohortArgument,
    file: Annotated[Path, typer.Argument(help="File with columns id and part, at will seed and rank.")],
    *,
    split: Annotated[
        str, typer.Option("--split", help="subject refuses a patient on both sides, image lets it pass.")
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
