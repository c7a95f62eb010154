"""Metrics under many sets of sample weights at once: what a bootstrap computes a thousand times over. numpy only.

A sample of weight 2 counts as two samples. The scores of a run are sorted once, then every draw costs a few passes over
its weights.
"""

from collections.abc import Callable

import numpy as np

from ..metrics.accuracy import correct
from ..metrics.brier import squared_errors
from ..metrics.log_loss import surprises
from ..metrics.one_versus_rest import one_label, tie_groups

_Binary = Callable[[np.ndarray, np.ndarray, np.ndarray], np.ndarray]
"""f(positive bool [m], scores [m], weights [B, m]) -> [B]."""


def weighted_metric(metric: str, labels: np.ndarray, probabilities: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """A metric under each row of weights.

    Args:
        metric: a name of WEIGHTED.
        labels: int [n].
        probabilities: [n, C].
        weights: [B, n], none negative.

    Returns:
        float64 [B]; NaN where the weights leave a class that the metric needs without a sample.

    Raises:
        KeyError: no such metric.
        ValueError: labels and probabilities that no metric takes.
    """
    if metric not in WEIGHTED:
        raise KeyError(f"metric {metric!r} has no weighted form; those that have one: {', '.join(WEIGHTED)}")
    with np.errstate(invalid="ignore", divide="ignore"):
        return WEIGHTED[metric](*one_label(labels, probabilities), weights)


def _auroc(positive: np.ndarray, scores: np.ndarray, weights: np.ndarray) -> np.ndarray:
    order, ends = tie_groups(scores)
    sorted_weights, is_positive = weights[:, order], positive[order]
    ones, zeros = sorted_weights * is_positive, sorted_weights * ~is_positive
    if len(ends) < len(scores):
        starts = np.concatenate(([0], ends[:-1] + 1))
        ones, zeros = (np.add.reduceat(part, starts, axis=1) for part in (ones, zeros))
    below = np.cumsum(zeros, axis=1)
    total = below[:, -1].copy()
    below -= zeros / 2  # half of the ties
    return np.einsum("bm,bm->b", ones, below) / (ones.sum(axis=1) * total)


def _average_precision(positive: np.ndarray, scores: np.ndarray, weights: np.ndarray) -> np.ndarray:
    order, ends = tie_groups(-scores)
    sorted_weights = weights[:, order]
    hits = np.cumsum(sorted_weights * positive[order], axis=1)[:, ends]
    taken = np.cumsum(sorted_weights, axis=1)[:, ends]
    precision = np.divide(hits, taken, out=np.zeros_like(hits), where=taken > 0)
    return np.einsum("bm,bm->b", np.diff(hits, prepend=0, axis=1), precision) / hits[:, -1]


def _micro(binary: _Binary) -> "Weighted":
    def metric(labels: np.ndarray, probabilities: np.ndarray, weights: np.ndarray) -> np.ndarray:
        classes = probabilities.shape[1]
        if classes == 2:
            return binary(labels == 1, probabilities[:, 1], weights)
        positive = labels[:, None] == np.arange(classes)
        return binary(positive.ravel(), probabilities.ravel(), np.repeat(weights, classes, axis=1))

    return metric


def _macro(binary: _Binary) -> "Weighted":
    def metric(labels: np.ndarray, probabilities: np.ndarray, weights: np.ndarray) -> np.ndarray:
        classes = probabilities.shape[1]
        if classes == 2:
            return binary(labels == 1, probabilities[:, 1], weights)
        return np.mean([binary(labels == c, probabilities[:, c], weights) for c in range(classes)], axis=0)

    return metric


def _mean(values: Callable[[np.ndarray, np.ndarray], np.ndarray]) -> "Weighted":
    return lambda labels, probabilities, weights: weights @ values(labels, probabilities) / weights.sum(axis=1)


Weighted = Callable[[np.ndarray, np.ndarray, np.ndarray], np.ndarray]

WEIGHTED: dict[str, Weighted] = {
    "auroc": _micro(_auroc),
    "auroc_macro": _macro(_auroc),
    "auprc": _micro(_average_precision),
    "auprc_macro": _macro(_average_precision),
    "brier": _mean(squared_errors),
    "log_loss": _mean(surprises),
    "accuracy": _mean(correct),
}
