"""`radfs train`: run a grid."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from .options import DEFAULT_STORE, StoreOption

if TYPE_CHECKING:
    from featurestore.store import Store
    from heads.grid import Grid
    from heads.plan import Plan
    from heads.train import TrainReport


def train(
    grid: Annotated[Path, typer.Option("--grid", help="The grid, a TOML file; docs/grid.md says what it may hold.")],
    *,
    dry_run: Annotated[
        bool,
        typer.Option("--dry-run", help="Print the plan, what is done already and what the rest takes; train nothing."),
    ] = (False),
    measure: Annotated[
        bool,
        typer.Option(
            "--measure", help="Time matrix products for a second: tells the time it takes, or the share of that speed."
        ),
    ] = False,
    keep_heads: Annotated[
        bool, typer.Option("--keep-heads", help="Keep the trained heads, for `radfs predict` and for students to come.")
    ] = False,
    precision: Annotated[
        str | None, typer.Option(help="auto, fp32 or bf16, in place of the grid's.", show_default="the grid's")
    ] = None,
    device: Annotated[str, typer.Option(help="auto, cpu or cuda.")] = "auto",
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
    if precision is not None:
        checked = checked.with_precision(precision)
    if dry_run:
        print_plan(make_plan(opened, checked, device=device), device, measure=measure)
        return
    report = run_grid(opened, checked, device=device, keep_heads=keep_heads, measure=measure)
    if report.failed or report.unplanned:
        raise typer.Exit(1)


def print_plan(plan: "Plan", device: str, *, measure: bool) -> None:
    """The plan and its cost, for a person."""
    from heads.cost import plan_cost

    for line in plan.lines():
        typer.echo(line)
    cost = plan_cost(plan)
    for line in cost.lines(_rate(plan, device) if measure and cost.runs else None):
        typer.echo(line)


def run_grid(
    store: "Store", grid: "Grid", *, device: str = "auto", keep_heads: bool = False, measure: bool = False
) -> "TrainReport":
    """Train a grid with a live line, and say what it did; failed runs by id."""
    from heads.train import train_grid  # loads torch: only once the grid is known to be right

    from .live import training_table

    with training_table(measure=measure, device=device) as tell:
        report = train_grid(store, grid, device=device, keep_heads=keep_heads, on_progress=tell)
    for line in report.lines():
        typer.echo(line)
    return report


def _rate(plan: "Plan", device: str) -> float:
    """FLOP a second of matrix products in the precision of the plan."""
    from heads.hardware import resolve_device
    from heads.rate import product_rate

    precision = "bf16" if any(run.spec.precision == "bf16" for run in plan.todo) else "fp32"
    return product_rate(precision, resolve_device(device))
