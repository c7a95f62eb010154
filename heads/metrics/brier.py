"""Brier score: the mean squared error of probabilities (Brier, Monthly Weather Review 78, 1950). Lower is better."""

import numpy as np

from .one_versus_rest import one_label


def brier(labels: np.ndarray, probabilities: np.ndarray) -> float:
    """Mean squared error: of class 1 for two classes (0 to 1), else summed over classes (0 to 2), as scikit-learn."""
    return float(squared_errors(*one_label(labels, probabilities)).mean())


def squared_errors(labels: np.ndarray, probabilities: np.ndarray) -> np.ndarray:
    """Each sample's part, [n]."""
    p = probabilities.astype(np.float64)
    if p.shape[1] == 2:
        return (p[:, 1] - (labels == 1)) ** 2
    return ((p - (labels[:, None] == np.arange(p.shape[1]))) ** 2).sum(axis=1)
