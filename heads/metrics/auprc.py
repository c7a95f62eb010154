"""Area under the precision-recall curve as average precision: precision at each threshold, weighted by recall gained.

No interpolation between thresholds (which would be too optimistic), as in scikit-learn.
"""

import numpy as np

from .one_versus_rest import macro, micro, one, tie_groups


def auprc(labels: np.ndarray, probabilities: np.ndarray) -> float:
    """Average precision of class 1 (two classes), or one-versus-rest and micro-averaged (the paper's appendix B.1)."""
    return micro(_average_precision, labels, probabilities)


def auprc_macro(labels: np.ndarray, probabilities: np.ndarray) -> float:
    """Average precision one-versus-rest, averaged over the classes without weights."""
    return macro(_average_precision, labels, probabilities)


def auprc_class(labels: np.ndarray, probabilities: np.ndarray, number: int) -> float:
    """Average precision of one class against all others."""
    return one(_average_precision, labels, probabilities, number)


def _average_precision(positive: np.ndarray, scores: np.ndarray) -> float:
    order, ends = tie_groups(-scores)  # highest score first
    hits = np.cumsum(positive[order])[ends]  # true positives at each threshold
    precision = hits / (ends + 1)
    return float(np.diff(hits, prepend=0) @ precision / hits[-1])
