"""`radfs train`: run a grid."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from .options import DEFAULT_STORE, SetOption, StoreOption

if TYPE_CHECKING:
    from featurestore.store import Store
    from heads.grid import Grid
    from heads.plan import Plan
    from heads.presets.resolve import NamedGrids
    from heads.train import TrainReport


def train(
    grid: Annotated[
        list[str],
        typer.Option(
            "--grid",
            metavar="FILE|paper:NAME",
            help="A TOML file (docs/grid.md), or a figure or table of the paper (`radfs grid list`; paper:fig4: all "
            "its panels; paper:all). May be repeated.",
        ),
    ],
    *,
    set_: SetOption = None,
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
    from heads.plan import make_plan
    from heads.presets.resolve import PREFIX, name_grids

    is_there = "://" in store or Path(store).exists()
    opened = open_store(store) if is_there or not any(name.startswith(PREFIX) for name in grid) else None
    named, whole = name_grids(grid, set_ or []), True
    refuse_missing(named, opened, store)
    opened = opened or open_store(store)
    for one in named:
        for part in one.grids:
            if len(named) > 1 or len(one.grids) > 1:
                typer.echo(f"{one.name}, {', '.join(part.cohort)}:")
            checked = part if precision is None else part.with_precision(precision)
            if dry_run:
                print_plan(make_plan(opened, checked, device=device), device, measure=measure)
                continue
            report = run_grid(opened, checked, device=device, keep_heads=keep_heads, measure=measure)
            whole = whole and not (report.failed or report.unplanned)
    if not whole:
        raise typer.Exit(1)


def refuse_missing(named: "Sequence[NamedGrids]", opened: "Store | None", store: str) -> None:
    """Refuse presets whose cohorts, weights or tokens are missing: all that is, at once, and how to get it.

    Raises:
        DataError: something is missing.
    """
    from featurestore.errors import DataError
    from heads.presets.needs import find_needs

    presets = [one for one in named if one.preset is not None]
    grids = [grid for one in presets for grid in one.grids]
    if not grids:
        return
    needs = find_needs(opened, grids)
    if not needs:
        return
    names = ", ".join(one.name for one in presets[:3]) + (f" and {len(presets) - 3} more" if len(presets) > 3 else "")
    lines = [f"{names} cannot run: something is missing in {store}.", *needs.lines()]
    runnable = needs.runnable(grids)
    lines.append(
        f"What is there could run now: {runnable}" if runnable else "Nothing of it can run yet on what is there."
    )
    lines.append("Any preset runs on other data and encoders: --set cohort=NAME --set backbone=NAME, and so on.")
    raise DataError("\n".join(lines))


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
