"""Confidence intervals of a mean over seeds, or of the mean of paired differences; each speaks about something else.

- `seeds_interval`: this data set under other seeds.
- `subjects_interval`: these very heads on other patients.
- `population_interval`: other seeds and other test patients, for seeds that share their test samples.
- `resampled_interval`: other data sets of this size, for seeds that each have a split of their own.

Give differences in place of values, and differences of influences in place of influences, and the same functions give
paired intervals.
"""

from dataclasses import dataclass

import numpy as np
from scipy import stats


@dataclass(frozen=True)
class Interval:
    """An estimate and its interval.

    Attributes:
        estimate: the mean.
        se: its standard error; NaN where it cannot be had.
        df: degrees of freedom of Student's t, infinity for the normal distribution.
        level: confidence level, such as 0.95.
    """

    estimate: float
    se: float
    df: float
    level: float = 0.95

    @property
    def low(self) -> float:
        """Lower end; not cut to the range of the metric."""
        return self.estimate - self._quantile * self.se

    @property
    def high(self) -> float:
        """Upper end."""
        return self.estimate + self._quantile * self.se

    @property
    def p(self) -> float:
        """Two-sided p that the true value is 0."""
        if self.se == 0:
            return 1.0 if self.estimate == 0 else 0.0
        return float(2 * stats.t.sf(abs(self.estimate) / self.se, self.df))

    @property
    def _quantile(self) -> float:
        return float(stats.t.ppf((1 + self.level) / 2, self.df))


def seeds_interval(values: np.ndarray, *, level: float = 0.95) -> Interval:
    """Student's t over seeds: what other seeds would give on this very data set.

    Given the data set, seeds are independent draws, however much their training and test samples overlap.

    Args:
        values: [n], one a seed; differences of pairs for a paired interval. One seed alone gives no interval (NaN).
    """
    n = _count(values)
    return Interval(float(np.mean(values)), _sd(values) / np.sqrt(n), n - 1 if n > 1 else np.nan, level)


def subjects_interval(influences: np.ndarray, estimate: float, *, level: float = 0.95) -> Interval:
    """What these very heads would give on other patients of the same kind, by infinitesimal jackknife over subjects.

    Args:
        influences: [n, S], of every seed's metric by subject; 0 where a subject is not in that seed's test samples.
        estimate: mean of the metric over seeds.
    """
    mean = np.mean(influences, axis=0)
    n_subjects = _tested(influences)
    variance = _unbiased(n_subjects) * float(mean @ mean)
    return Interval(estimate, float(np.sqrt(variance)), n_subjects - 1, level)


def population_interval(values: np.ndarray, influences: np.ndarray, *, level: float = 0.95) -> Interval:
    """Other seeds and other test patients together, by components of variance, for seeds that share their test samples.

    Seeds are readers and patients are cases of a multi-reader multi-case study (Obuchowski and Rockette, Communications
    in Statistics - Simulation 24, 1995). With S^2 the variance over seeds and C the mean covariance of two seeds'
    metrics that comes from the patients whom both were tested on, Var(mean) = S^2 / n + C: S^2 / n holds what differs
    from seed to seed, its own test noise included, and C what all seeds share; a negative C counts as 0. Degrees of
    freedom after Satterthwaite: n - 1 for the first part (Hillis, Statistics in Medicine 26, 2007), those of the
    subjects for the second.

    It takes the patients that the heads were trained on as given.

    Args:
        values: [n], one a seed; of one seed alone it is `subjects_interval`.
        influences: [n, S], of every seed's metric by subject; 0 where a subject is not in that seed's test samples.
        level: confidence level.
    """
    n = _count(values)
    if n == 1:
        return subjects_interval(influences, float(np.mean(values)), level=level)
    own, shared = _sd(values) ** 2 / n, max(_shared_variance(influences), 0.0)
    parts = own**2 / (n - 1) + shared**2 / max(_tested(influences) - 1, 1)
    df = (own + shared) ** 2 / parts if parts > 0 else np.inf
    return Interval(float(np.mean(values)), float(np.sqrt(own + shared)), df, level)


def resampled_interval(values: np.ndarray, test_to_pool: float, *, level: float = 0.95) -> Interval:
    """Other data sets of this size, from seeds that each have a split of their own: the corrected resampled t interval.

    Var(mean) = (1/n + n_test / n_pool) S^2 (Nadeau and Bengio, Machine Learning 52, 2003, section 3): two seeds'
    metrics are correlated, because they test and train on the same patients, and the share of patients that a seed
    tests stands for that correlation. `n_pool` is the whole training side, of which a fraction is trained on: with
    n_train in its place, as in their equation, small fractions get intervals that are several times too wide.

    Args:
        values: [n], one a seed, each with a split of its own.
        test_to_pool: number of test samples over number of samples on the training side.
        level: confidence level.
    """
    n = _count(values)
    se = _sd(values) * np.sqrt(1 / n + test_to_pool)
    return Interval(float(np.mean(values)), float(se), n - 1 if n > 1 else np.nan, level)


def _shared_variance(influences: np.ndarray) -> float:
    """The mean covariance of two seeds' metrics that comes from patients whom both were tested on; [n >= 2, S]."""
    n = len(influences)
    total = influences.sum(axis=0)
    products = float(total @ total) - float(np.einsum("ns,ns->", influences, influences))
    return _unbiased(_tested(influences)) * products / (n * (n - 1))


def _tested(influences: np.ndarray) -> float:
    """How many subjects a seed is tested on, on average."""
    return float(np.count_nonzero(influences, axis=1).mean())


def _unbiased(n_subjects: float) -> float:
    if n_subjects == 1:
        return np.nan  # one subject does not tell how subjects differ
    return n_subjects / (n_subjects - 1) if n_subjects else 1.0


def _count(values: np.ndarray) -> int:
    if not len(values):
        raise ValueError("an interval needs one value at least")
    return len(values)


def _sd(values: np.ndarray) -> float:
    return float(np.std(values, ddof=1)) if len(values) > 1 else np.nan
