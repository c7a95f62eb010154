"""Metrics of predicted probabilities, numpy only: one function a metric, found through the literal table below.

A metric is `f(labels, probabilities) -> float` with labels int [n] in 0..C-1 and probabilities [n, C], C >= 2; or with
findings, labels int [n, C] of 0, 1 and -1 (unknown) and the probability that each is present. It knows
nothing of heads, runs or stores. To add one: write the function, name it in METRICS (nothing is imported until it is
used), and give it an independent oracle in `tests/contracts/test_metric_contract.py`.
"""

from collections.abc import Callable
from functools import cache
from importlib import import_module

import numpy as np

METRICS: dict[str, str] = {
    "auroc": "heads.metrics.auroc:auroc",
    "auroc_macro": "heads.metrics.auroc:auroc_macro",
    "auprc": "heads.metrics.auprc:auprc",
    "auprc_macro": "heads.metrics.auprc:auprc_macro",
}

Metric = Callable[[np.ndarray, np.ndarray], float]


@cache
def get_metric(name: str) -> Metric:
    """The function behind a name of METRICS.

    Raises:
        KeyError: for a name that is not in the table.
    """
    if name not in METRICS:
        raise KeyError(f"unknown metric {name!r}; known: {', '.join(METRICS)}")
    module, _, function = METRICS[name].partition(":")
    return getattr(import_module(module), function)


def compute_metrics(labels: np.ndarray, probabilities: np.ndarray) -> dict[str, float]:
    """Every metric of the table, by name."""
    return {name: get_metric(name)(labels, probabilities) for name in METRICS}
