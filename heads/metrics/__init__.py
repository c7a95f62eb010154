"""Metrics of predicted probabilities, numpy only: one function a metric, found through the literal table below.

A metric is `f(labels, probabilities) -> float` with labels int [n] in 0..C-1 and probabilities [n, C], C >= 2; or with
findings, labels int [n, C] of 0, 1 and -1 (unknown) and the probability that each is present. It knows
nothing of heads, runs or stores. To add one: write the function, name it in METRICS (nothing is imported until it is
used), and give it an independent oracle in `tests/contracts/test_metric_contract.py`.
"""

from collections.abc import Callable
from functools import cache, partial
from importlib import import_module

import numpy as np

METRICS: dict[str, str] = {
    "auroc": "heads.metrics.auroc:auroc",
    "auroc_macro": "heads.metrics.auroc:auroc_macro",
    "auprc": "heads.metrics.auprc:auprc",
    "auprc_macro": "heads.metrics.auprc:auprc_macro",
}
"""Computed after every epoch, and kept."""

FROM_PREDICTIONS: dict[str, str] = {
    "brier": "heads.metrics.brier:brier",
    "log_loss": "heads.metrics.log_loss:log_loss",
    "calibration_error": "heads.metrics.calibration:calibration_error",
    "accuracy": "heads.metrics.accuracy:accuracy",
    "sensitivity": "heads.metrics.sensitivity:sensitivity",
    "auroc_class": "heads.metrics.auroc:auroc_class",
    "auprc_class": "heads.metrics.auprc:auprc_class",
}
"""Computed from stored predictions when they are asked for."""

ARGUMENTS: dict[str, tuple[str, Callable[[str], float]]] = {
    "sensitivity": ("at", float),
    "auroc_class": ("number", int),
    "auprc_class": ("number", int),
}
"""Metrics that take one more argument, written behind a colon: `sensitivity:0.95` (at this specificity),
`auroc_class:2`. The argument's name and type."""

LOWER_IS_BETTER = frozenset({"brier", "log_loss", "calibration_error"})

Metric = Callable[[np.ndarray, np.ndarray], float]


@cache
def get_metric(name: str) -> Metric:
    """The function behind a name of the tables above, its argument bound.

    Raises:
        KeyError: for a name that is not in the tables, or whose argument is missing or none that it takes.
    """
    known = METRICS | FROM_PREDICTIONS
    base, colon, argument = name.partition(":")
    if base not in known or (colon and base not in ARGUMENTS):
        raise KeyError(f"unknown metric {name!r}; known: {', '.join(known)}")
    module, _, function = known[base].partition(":")
    metric = getattr(import_module(module), function)
    if colon:
        parameter, parse = ARGUMENTS[base]
        try:
            return partial(metric, **{parameter: parse(argument)})
        except ValueError:
            raise KeyError(f"metric {name!r}: {argument!r} is no number that it takes") from None
    if base.endswith("_class"):
        raise KeyError(f"metric {name!r} is of one class: write its number behind it, as in {base}:0")
    return metric


def compute_metrics(labels: np.ndarray, probabilities: np.ndarray) -> dict[str, float]:
    """Every metric of METRICS, by name."""
    return {name: get_metric(name)(labels, probabilities) for name in METRICS}
