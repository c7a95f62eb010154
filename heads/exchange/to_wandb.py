"""Results into an offline folder of Weights & Biases, which `wandb sync` sends. Needs radfs[wandb].

Nothing is sent from here, and what W&B would note of the machine and its user is turned off.
"""

from pathlib import Path
from typing import Any

from featurestore.catalog import Catalog
from featurestore.errors import DataError

from .tracked import TrackedRun, tracked_runs

_DONE = "radfs-runs.txt"
"""In the folder: ids of the runs that were written whole."""


def to_wandb(catalog: Catalog, folder: Path, *, project: str = "radfs", where: str | None = None) -> tuple[int, int]:
    """Write runs that the folder does not have yet.

    Args:
        catalog: of the store, up to date.
        folder: where; made if need be.
        project: W&B's project.
        where: an SQL condition on `results`.

    Returns:
        How many were written, and how many were there.

    Raises:
        DataError: W&B is not installed.
    """
    try:
        import wandb
    except ImportError:
        raise DataError('--wandb needs Weights & Biases: run pip install "radfs[wandb]".') from None
    folder.mkdir(parents=True, exist_ok=True)
    noted = folder / _DONE
    done = set(noted.read_text().split()) if noted.exists() else set()
    written = there = 0
    for run in tracked_runs(catalog, where):
        if run.run in done:
            there += 1
            continue
        _write(wandb, folder, project, run)
        with noted.open("a") as file:
            file.write(f"{run.run}\n")
        written += 1
    return written, there


def _write(wandb: Any, folder: Path, project: str, run: TrackedRun) -> None:
    settings = wandb.Settings(
        mode="offline",
        silent=True,
        console="off",
        host="radfs",
        username="radfs",
        disable_git=True,
        disable_code=True,
        save_code=False,
        x_disable_meta=True,
        x_disable_stats=True,
        x_disable_machine_info=True,
    )
    made = wandb.init(
        dir=str(folder),
        project=project,
        group=run.cohort,
        id=run.run,
        name=run.name,
        config={**run.settings, **run.tags},
        settings=settings,
    )
    for epoch, values in run.epochs.items():
        made.log(values, step=epoch)
    made.summary.update({f"chosen_{name}": value for name, value in run.metrics.items()})
    made.finish()
