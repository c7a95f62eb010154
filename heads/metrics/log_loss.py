"""Log loss: the mean of minus the logarithm of the true class's probability, in nats. Lower is better."""

import numpy as np

from .one_versus_rest import one_label

_LEAST = float(np.finfo(np.float32).eps)
"""Stored probabilities are single precision: what rounded to 0 counts as this, as in scikit-learn."""


def log_loss(labels: np.ndarray, probabilities: np.ndarray) -> float:
    """Mean cross-entropy of the samples, nats; a sample adds 15.9 at most."""
    return float(surprises(*one_label(labels, probabilities)).mean())


def surprises(labels: np.ndarray, probabilities: np.ndarray) -> np.ndarray:
    """Each sample's part, [n]."""
    p = probabilities.astype(np.float64)[np.arange(len(labels)), labels]
    return -np.log(np.clip(p, _LEAST, 1 - _LEAST))
