"""`radfs train`: run a grid."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from .options import DEFAULT_STORE, StoreOption

if TYPE_CHECKING:
    from featurestore.store import Store
    from heads.grid import Grid
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

    opened = open_store(store)
    checked = read_grid(grid)
    if dry_run:
        for line in make_plan(opened, checked).lines():
            typer.echo(line)
        return

    if run_grid(opened, checked).failed:
        raise typer.Exit(1)


def run_grid(store: "Store", grid: "Grid") -> "TrainReport":
    """Train a grid with a bar, and say what it did; failed runs by id."""
    from heads.train import Progress, train_grid  # loads torch: only once the grid is known to be right

    from .output import progress_bar

    failed: list[str] = []
    with progress_bar("train", "runs") as tell:

        def on_progress(progress: Progress) -> None:
            if progress.outcome == "failed":
                failed.append(progress.run.spec.run_id)
            tell(progress.finished, progress.total, len(failed))

        report = train_grid(store, grid, on_progress=on_progress)
    for line in report.lines():
        typer.echo(line)
    return report
