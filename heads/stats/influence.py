"""How much each sample moves a metric: the derivative of the metric by the sample's weight, at weight 1 for all.

From it follow standard errors over test subjects without resampling: the infinitesimal jackknife (Efron, *The
Jackknife, the Bootstrap and Other Resampling Plans*, 1982, chapter 6), which for the AUROC is the variance of DeLong et
al. (Biometrics 44, 1988) and, summed by subject, that of Obuchowski (Biometrics 53, 1997) but for a factor near 1. A
metric here does not change when all weights are doubled, so its influences sum to zero. `weighted` is the slow twin:
the same metrics under any weights. numpy only.
"""

from collections.abc import Callable

import numpy as np

from ..metrics import get_metric
from ..metrics.accuracy import correct
from ..metrics.brier import squared_errors
from ..metrics.log_loss import surprises
from ..metrics.one_versus_rest import checked, tie_groups

_Binary = Callable[[np.ndarray, np.ndarray], np.ndarray]
"""f(positive bool [m], scores [m]) -> influences [m]."""


def influence(metric: str, labels: np.ndarray, probabilities: np.ndarray) -> tuple[float, np.ndarray]:
    """A metric, and its derivative by the weight of every sample.

    Args:
        metric: a name of INFLUENCES, with its argument where it takes one.
        labels: int [n], in 0..C-1; or findings, [n, C] of 0, 1 and -1 (unknown).
        probabilities: [n, C].

    Returns:
        (value, float64 [n] that sums to zero).

    Raises:
        KeyError: the metric has no derivative, or is unknown.
        ValueError: the metric has no value on these samples.
    """
    base, _, argument = metric.partition(":")
    if base not in INFLUENCES:
        raise KeyError(f"metric {metric!r} has no influence; those that have one: {', '.join(INFLUENCES)}")
    labels, probabilities = checked(labels, probabilities)
    value = get_metric(metric)(labels, probabilities)
    if labels.ndim == 2:
        return value, _of_findings(base, int(argument) if argument else None, labels, probabilities)
    if argument:
        labels, probabilities = labels == int(argument), probabilities[:, int(argument)]
    return value, INFLUENCES[base](labels, probabilities)


def by_subject(influences: np.ndarray, subjects: np.ndarray, n_subjects: int) -> np.ndarray:
    """Influences summed by subject.

    Args:
        influences: [n].
        subjects: int [n], number of each sample's subject, below `n_subjects`.
        n_subjects: how many subjects there are, with those that have no sample here.

    Returns:
        float64 [n_subjects].
    """
    return np.bincount(subjects, weights=influences, minlength=n_subjects)


def _auroc(positive: np.ndarray, scores: np.ndarray) -> np.ndarray:
    """Placement values less their mean, over the number of their class.

    Where A = sum of w_i w_j K_ij / (W1 W0) over pairs (i positive, j negative), dA/dw_i = (mean_j K_ij - A) / n1.
    """
    order, ends = tie_groups(scores)
    group = np.repeat(np.arange(len(ends)), np.diff(ends, prepend=-1))
    up_to = np.cumsum(positive[order])[ends], np.cumsum(~positive[order])[ends]
    middle = [(own + np.concatenate(([0], own[:-1]))) / 2 for own in up_to]  # below, and half of the ties
    n_positive, n_negative = int(positive.sum()), int((~positive).sum())
    placement = np.empty(len(scores))
    placement[order] = np.where(positive[order], middle[1][group] / n_negative, 1 - middle[0][group] / n_positive)
    area = placement[positive].mean()
    return (placement - area) / np.where(positive, n_positive, n_negative)


def _average_precision(positive: np.ndarray, scores: np.ndarray) -> np.ndarray:
    """Of AP = sum over thresholds g of h_g T_g / (n_g W1): h positives at g, T positives and n samples from g up."""
    order, ends = tie_groups(-scores)
    hits = np.cumsum(positive[order])[ends]
    at, taken, total = np.diff(hits, prepend=0), ends + 1, hits[-1]
    precision = hits / taken
    area = at @ precision / total
    # A sample counts in T and n of its own threshold and of all lower ones: sums from the end.
    gained = np.cumsum((at / taken)[::-1])[::-1]
    lost = np.cumsum((at * precision / taken)[::-1])[::-1]
    group = np.repeat(np.arange(len(ends)), np.diff(ends, prepend=-1))
    result = np.empty(len(scores))
    result[order] = (positive[order] * (precision + gained - area)[group] - lost[group]) / total
    return result


def _micro(binary: _Binary, labels: np.ndarray, probabilities: np.ndarray) -> np.ndarray:
    n, classes = probabilities.shape
    if classes == 2:
        return binary(labels == 1, probabilities[:, 1])
    positive = labels[:, None] == np.arange(classes)
    return binary(positive.ravel(), probabilities.ravel()).reshape(n, classes).sum(axis=1)


def _macro(binary: _Binary, labels: np.ndarray, probabilities: np.ndarray) -> np.ndarray:
    classes = probabilities.shape[1]
    if classes == 2:
        return binary(labels == 1, probabilities[:, 1])
    return np.mean([binary(labels == c, probabilities[:, c]) for c in range(classes)], axis=0)


def _of_findings(base: str, number: int | None, labels: np.ndarray, probabilities: np.ndarray) -> np.ndarray:
    """Of all known findings pooled, of one finding, or the mean over those that are present and absent; [n]."""
    binary = _auroc if base.startswith("auroc") else _average_precision
    known, each = labels >= 0, np.zeros(labels.shape)
    if base in ("auroc", "auprc"):
        each[known] = binary(labels[known] == 1, probabilities[known])
        return each.sum(axis=1)
    both = (labels == 1).any(axis=0) & (labels == 0).any(axis=0)
    measured = np.flatnonzero(both) if number is None else np.array([number])
    for c in measured:
        each[known[:, c], c] = binary(labels[known[:, c], c] == 1, probabilities[known[:, c], c])
    return each.sum(axis=1) / len(measured)


def _mean(values: Callable[[np.ndarray, np.ndarray], np.ndarray]) -> Callable[[np.ndarray, np.ndarray], np.ndarray]:
    def influences(labels: np.ndarray, probabilities: np.ndarray) -> np.ndarray:
        each = values(labels, probabilities)
        return (each - each.mean()) / len(each)

    return influences


INFLUENCES: dict[str, Callable[[np.ndarray, np.ndarray], np.ndarray]] = {
    "auroc_class": _auroc,
    "auprc_class": _average_precision,
    "auroc": lambda labels, probabilities: _micro(_auroc, labels, probabilities),
    "auroc_macro": lambda labels, probabilities: _macro(_auroc, labels, probabilities),
    "auprc": lambda labels, probabilities: _micro(_average_precision, labels, probabilities),
    "auprc_macro": lambda labels, probabilities: _macro(_average_precision, labels, probabilities),
    "brier": _mean(squared_errors),
    "log_loss": _mean(surprises),
    "accuracy": _mean(correct),
}
"""The metrics that have a derivative. Calibration error (bins) and sensitivity (a threshold) have none."""
