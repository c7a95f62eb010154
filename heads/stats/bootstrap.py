"""The crossed bootstrap: seeds and subjects are drawn anew together, and every draw weighs all runs alike.

Owen's pigeonhole bootstrap (Annals of Applied Statistics 1, 2007) for a mean over seeds of a metric over subjects. A
subject brings all of its samples, in every run that was tested on it, so runs that are compared stay paired.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from .weighted import weighted_metric

_BLOCK = 250
"""Draws at a time: the weights of a run then stay in the processor's cache."""


@dataclass(frozen=True)
class Predicted:
    """The predictions of one run.

    Attributes:
        labels: int [n].
        probabilities: [n, C].
        subjects: int [n], number of each sample's subject, the same in all runs.
        seed: number of the run's seed, below the number of seeds.
    """

    labels: np.ndarray
    probabilities: np.ndarray
    subjects: np.ndarray
    seed: int


def crossed_bootstrap(
    metric: str, runs: Sequence[Predicted], groups: np.ndarray, *, draws: int = 1000, seed: int = 0
) -> np.ndarray:
    """Bootstrap draws of each group's mean over seeds.

    Args:
        metric: a name of `weighted.WEIGHTED`.
        runs: the runs of all groups, R of them.
        groups: int [R], number of the group that each run belongs to, such as its method.
        draws: how many.
        seed: of the draws.

    Returns:
        [draws, groups]. All groups of a draw saw the same seeds and subjects: subtract columns for paired differences.
        NaN where a draw left a run without a class that the metric needs.
    """
    n_seeds, n_subjects = max(run.seed for run in runs) + 1, max(int(run.subjects.max()) for run in runs) + 1
    rng = np.random.default_rng(seed)
    seed_counts = _counts(rng, draws, n_seeds)
    subject_counts = _counts(rng, draws, n_subjects)
    n_groups = int(np.max(groups)) + 1
    sums, weights = np.zeros((draws, n_groups)), np.zeros((draws, n_groups))
    for start in range(0, draws, _BLOCK):
        block = slice(start, start + _BLOCK)
        for run, group in zip(runs, groups, strict=True):
            values = weighted_metric(metric, run.labels, run.probabilities, subject_counts[block][:, run.subjects])
            times = seed_counts[block, run.seed]
            sums[block, group] += np.where(times > 0, times * values, 0.0)
            weights[block, group] += times
    return np.divide(sums, weights, out=np.full_like(sums, np.nan), where=weights > 0)


def _counts(rng: np.random.Generator, draws: int, n: int) -> np.ndarray:
    """How often each of n is drawn when n are drawn with replacement, [draws, n]."""
    return rng.multinomial(n, np.full(n, 1 / n), size=draws).astype(np.float64)
