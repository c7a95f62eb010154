"""Accuracy: the share of samples whose most probable class is the true one; of equally probable classes the first."""

import numpy as np

from .one_versus_rest import one_label


def accuracy(labels: np.ndarray, probabilities: np.ndarray) -> float:
    """The share of samples that get their own class. Two classes: the threshold is 0.5."""
    return float(correct(*one_label(labels, probabilities)).mean())


def correct(labels: np.ndarray, probabilities: np.ndarray) -> np.ndarray:
    """1.0 where the most probable class is the true one, else 0.0; [n]."""
    return (probabilities.argmax(axis=1) == labels).astype(np.float64)
