"""Sensitivity at a specificity: the largest share of positives found by a threshold that spares enough negatives."""

import math
from functools import partial

import numpy as np

from .one_versus_rest import macro, tie_groups


def sensitivity(labels: np.ndarray, probabilities: np.ndarray, at: float = 0.9) -> float:
    """The sensitivity of class 1 (two classes), or the mean over one-versus-rest problems.

    No interpolation between thresholds: the value is reached by a threshold, chosen on these very samples.

    Args:
        labels: int [n].
        probabilities: [n, C].
        at: the least specificity, from 0 to 1.

    Raises:
        ValueError: `at` is outside 0..1, a wrong shape or content, or a class that has no sample.
    """
    if not 0 <= at <= 1:
        raise ValueError(f"a specificity is from 0 to 1, not {at}")
    return macro(partial(_sensitivity, at=at), labels, probabilities)


def _sensitivity(positive: np.ndarray, scores: np.ndarray, at: float) -> float:
    order, ends = tie_groups(-scores)  # highest score first: thresholds from strict to lax
    found, alarms = np.cumsum(positive[order])[ends], np.cumsum(~positive[order])[ends]
    negatives = alarms[-1]
    allowed = math.floor(
        (1 - at) * negatives + 1e-9
    )  # 0.9 of 10 negatives allows one alarm, whatever 1 - 0.9 is in binary
    return float(np.max(found, initial=0, where=alarms <= allowed) / found[-1])
