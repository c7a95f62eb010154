"""Area under the receiver operating characteristic curve, by midranks (Mann-Whitney): exact with ties."""

import numpy as np

from .one_versus_rest import macro, micro, one, tie_groups


def auroc(labels: np.ndarray, probabilities: np.ndarray) -> float:
    """AUROC of class 1 (two classes), or one-versus-rest and micro-averaged (the paper's section 3.2)."""
    return micro(_auroc, labels, probabilities)


def auroc_macro(labels: np.ndarray, probabilities: np.ndarray) -> float:
    """AUROC one-versus-rest, averaged over the classes without weights."""
    return macro(_auroc, labels, probabilities)


def auroc_class(labels: np.ndarray, probabilities: np.ndarray, number: int) -> float:
    """AUROC of one class against all others."""
    return one(_auroc, labels, probabilities, number)


def _auroc(positive: np.ndarray, scores: np.ndarray) -> float:
    """The share of (positive, negative) pairs in the right order; a tie counts one half."""
    order, ends = tie_groups(scores)
    below_and_in = np.cumsum(positive[order])[ends]  # positives up to and with each group of ties
    positives = np.diff(below_and_in, prepend=0)  # positives in each group
    sizes = np.diff(ends, prepend=-1)
    midranks = ends + 1 - (sizes - 1) / 2  # 1-based, the mean rank of the group
    n_positive, n_negative = int(positive.sum()), int((~positive).sum())
    rank_sum = float(positives @ midranks)
    return (rank_sum - n_positive * (n_positive + 1) / 2) / (n_positive * n_negative)
