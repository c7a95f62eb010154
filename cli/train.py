"""`radfs train`: run a grid."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from .options import DEFAULT_STORE, StoreOption

if TYPE_CHECKING:
    from heads.train import TrainReport


def train(
    grid: Annotated[Path, typer.Option("--grid", help="The grid, a TOML file; docs/grid.md says what it may hold.")],
    *,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print the plan and what is done already; train nothing.")
    ] = (False),
    store: StoreOption = DEFAULT_STORE,
) -> None:
    """Train every run of a grid that the store does not have yet. A killed grid resumes where it stopped.

    Example: `radfs train --grid grid.toml`
    """
    from featurestore.store import open_store
    from heads.grid import read_grid
    from heads.plan import make_plan

    from .output import progress_bar

    opened = open_store(store)
    checked = read_grid(grid)
    if dry_run:
        for line in make_plan(opened, checked).lines():
            typer.echo(line)
        return

    from heads.train import train_grid  # loads torch: only once the grid is known to be right

    with progress_bar("train", "runs") as tell:
        report = train_grid(opened, checked, on_progress=tell)
    print_report(report)
    if report.failed:
        raise typer.Exit(1)


def print_report(report: "TrainReport") -> None:
    """Say what a grid did; failed runs by id."""
    for line in report.lines():
        typer.echo(line)
