"""Heads on frozen tokens: grids, plans, training and results.

    from heads import Grid, open_catalog, train_grid

Names load when they are first asked for, because `heads.engine` must be importable where only torch and numpy are,
and the rest where torch shall not be loaded.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .catalog import open_catalog
    from .estimator import HeadClassifier
    from .figures import learning_curves
    from .grid import Grid, parse_grid, read_grid
    from .plan import Plan, PlannedRun, make_plan
    from .spec import RunSpec
    from .train import Progress, TrainReport, train_grid

__all__ = [
    "Grid",
    "HeadClassifier",
    "Plan",
    "PlannedRun",
    "Progress",
    "RunSpec",
    "TrainReport",
    "learning_curves",
    "make_plan",
    "open_catalog",
    "parse_grid",
    "read_grid",
    "train_grid",
]

_MODULES = {
    "catalog": ("open_catalog",),
    "estimator": ("HeadClassifier",),
    "figures": ("learning_curves",),
    "grid": ("Grid", "parse_grid", "read_grid"),
    "plan": ("Plan", "PlannedRun", "make_plan"),
    "spec": ("RunSpec",),
    "train": ("Progress", "TrainReport", "train_grid"),
}


def __getattr__(name: str) -> Any:
    for module, names in _MODULES.items():
        if name in names:
            return getattr(import_module(f".{module}", __name__), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
