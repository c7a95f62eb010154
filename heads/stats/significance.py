"""Tests of paired differences, their correction for many, and what a number of seeds can show. numpy and scipy."""

import math

import numpy as np
from scipy import optimize, stats

EXACT_FLIPS = 16
"""Up to this many seeds all sign patterns are tried; above, 99,999 random ones."""


def sign_flip(differences: np.ndarray) -> float:
    """Two-sided p of the exact sign-flip (permutation) test that the differences are symmetric about 0.

    It speaks about seeds: all share one data set, so a small p says that the difference comes back under other seeds on
    this data set, not on other patients.

    Args:
        differences: [n], one a seed.
    """
    n = len(differences)
    if n < 2 or not np.any(differences):
        return 1.0
    result = stats.permutation_test(
        (np.asarray(differences, dtype=np.float64),),
        lambda d, axis: np.mean(d, axis=axis),
        permutation_type="samples",
        n_resamples=2**n if n <= EXACT_FLIPS else 99_999,
        vectorized=True,
        rng=np.random.default_rng(0),
        batch=4096,
    )
    return float(result.pvalue)


def least_sign_flip_p(n_seeds: int) -> float:
    """The smallest two-sided p that any differences of this many seeds can have: 2 / 2^n, 0.0625 for 5."""
    return min(1.0, 2.0 ** (1 - n_seeds))


def seeds_needed(alpha: float, comparisons: int = 1) -> int:
    """The fewest seeds whose sign-flip p can reach `alpha` in the first step of Holm's correction of `comparisons`."""
    return math.ceil(1 - math.log2(alpha / comparisons) - 1e-12)


def holm(p_values: np.ndarray) -> np.ndarray:
    """Adjusted p of Holm's step-down procedure (Scandinavian Journal of Statistics 6, 1979), in the order given.

    NaN stands for a comparison that has no p: it is left out, and does not count.
    """
    p = np.asarray(p_values, dtype=np.float64)
    adjusted = np.full(p.shape, np.nan)
    order = np.argsort(p)[: np.count_nonzero(~np.isnan(p))]  # NaN sorts last
    factors = np.arange(len(order), 0, -1)
    adjusted[order] = np.minimum(np.maximum.accumulate(p[order] * factors), 1.0)
    return adjusted


def detectable_difference(se: float, df: float, *, alpha: float = 0.05, power: float = 0.8) -> float:
    """The smallest true difference that a two-sided t test with this standard error finds with probability `power`.

    Exact by the noncentral t distribution, but for the standard error being an estimate.

    Args:
        se: standard error of the mean difference.
        df: its degrees of freedom; infinity for a normal test.
        alpha: level of the test.
        power: probability to find the difference.
    """
    if not (se > 0 and df > 0):
        return 0.0 if se == 0 else math.nan
    df = min(df, 1e6)  # beyond, the t distributions are the normal ones
    critical = float(stats.t.ppf(1 - alpha / 2, df))

    def missing(shift: float) -> float:
        return float(stats.nct.sf(critical, df, shift)) - power  # the other tail finds it with the wrong sign

    return se * float(optimize.root_scalar(missing, bracket=(0.0, 2 * critical + 10)).root)


def delong(
    labels: np.ndarray, first: np.ndarray, second: np.ndarray, subjects: np.ndarray
) -> tuple[float, float, float]:
    """DeLong's test of two AUROCs on the same samples (Biometrics 44, 1988), for its one case.

    That case: two fixed classifiers of two classes, each subject with one sample. It knows nothing of seeds.

    Args:
        labels: [n], 0 or 1.
        first: scores [n] of one classifier.
        second: scores [n] of the other.
        subjects: [n], the subject of every sample.

    Returns:
        (difference of the AUROCs, its standard error, two-sided p).

    Raises:
        ValueError: labels that are not 0 and 1, or a subject with several samples.
    """
    labels = np.asarray(labels)
    if set(np.unique(labels).tolist()) != {0, 1}:
        raise ValueError("DeLong's test compares AUROCs of two classes: labels 0 and 1, and both must be there")
    if len(np.unique(subjects)) < len(labels):
        raise ValueError(
            f"DeLong's test takes independent samples, but {len(labels)} samples are of {len(np.unique(subjects))} "
            "subjects: use an interval clustered by subject"
        )
    kernels = [_kernel(labels, np.asarray(scores, dtype=np.float64)) for scores in (first, second)]
    of_pairs = kernels[0] - kernels[1]  # [positives, negatives]
    difference = float(of_pairs.mean())
    variances = [np.var(of_pairs.mean(axis=axis), ddof=1) / of_pairs.shape[1 - axis] for axis in (0, 1)]
    se = float(np.sqrt(sum(variances)))
    return difference, se, float(2 * stats.norm.sf(abs(difference) / se)) if se else float(difference == 0)


def _kernel(labels: np.ndarray, scores: np.ndarray) -> np.ndarray:
    """1 where a positive lies above a negative, one half for a tie, [positives, negatives]."""
    positive, negative = scores[labels == 1][:, None], scores[labels == 0]
    return (positive > negative) + 0.5 * (positive == negative)
