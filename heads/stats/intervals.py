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
from scipy.special import expit, logit


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

    def between_0_and_1(self) -> tuple[float, float]:
        """Both ends on the logit scale (delta method), for a metric that lies between 0 and 1.

        Near 1 it covers better than symmetric ends, and never passes 1 (docs/statistics.md). At 0 or 1 itself, where
        the scale ends, these are `low` and `high`.
        """
        if not 0 < self.estimate < 1:
            return self.low, self.high
        middle, room = logit(self.estimate), self._quantile * self.se / (self.estimate * (1 - self.estimate))
        return float(expit(middle - room)), float(expit(middle + room))

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
    variance = _unbiased(influences) * float(mean @ mean)
    return Interval(estimate, float(np.sqrt(variance)), _subjects_df(influences), level)


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
    df = _satterthwaite((own, n - 1), (shared, _subjects_df(influences)))
    return Interval(float(np.mean(values)), float(np.sqrt(own + shared)), df, level)


def resampled_interval(
    values: np.ndarray,
    test_to_pool: float,
    *,
    fraction: float = 1.0,
    influences: np.ndarray | None = None,
    level: float = 0.95,
) -> Interval:
    """Other data sets of this size, from seeds that each have a split of their own.

    Var(mean) = S^2 / n + C, with S^2 the variance over seeds and C the covariance of two seeds' metrics, which test and
    train on the same patients. The smaller of two estimates of C is taken, each of which tends to be too large:

    - (n_test / n_pool) S^2: the corrected resampled t (Nadeau and Bengio, Machine Learning 52, 2003, section 3). It is
      exact if only the test patients make seeds differ. `n_pool` is the whole training side, of which a fraction is
      trained on; n_train in its place makes small fractions' intervals several times too wide.
    - t V + o / (1 - o) (S^2 - (1 - t) V): two seeds share the part t of their test patients, of whose variance V the
      influences tell, and the part o = fraction (1 - t) of their training patients, to whom all the rest of S^2 is
      put down (a metric that is a sum over patients; what starts and batches add counts as theirs).

    Args:
        values: [n], one a seed, each with a split of its own.
        test_to_pool: number of test samples over number of samples on the training side.
        fraction: share of the training side that is trained on.
        influences: [n, S], of every seed's metric by subject, 0 where a subject is not in that seed's test samples;
            without them only the first estimate is there.
        level: confidence level.
    """
    n, estimate = _count(values), float(np.mean(values))
    if n == 1:
        return Interval(estimate, np.nan, np.nan, level)
    between = _sd(values) ** 2
    variance, df = (1 / n + test_to_pool) * between, float(n - 1)
    if influences is not None:
        tested = test_to_pool / (1 + test_to_pool)
        trained = fraction * (1 - tested)
        of_test = _unbiased(influences) * float(np.einsum("ns,ns->", influences, influences)) / n
        odds = trained / (1 - trained) if between > (1 - tested) * of_test else 0.0
        parts = ((1 / n + odds) * between, (tested - odds * (1 - tested)) * of_test)
        if sum(parts) < variance:
            variance = sum(parts)
            df = _satterthwaite((parts[0], n - 1), (parts[1], _subjects_df(influences)))
    return Interval(estimate, float(np.sqrt(variance)), df, level)


def _shared_variance(influences: np.ndarray) -> float:
    """The mean covariance of two seeds' metrics that comes from patients whom both were tested on; [n >= 2, S]."""
    n = len(influences)
    total = influences.sum(axis=0)
    products = float(total @ total) - float(np.einsum("ns,ns->", influences, influences))
    return _unbiased(influences) * products / (n * (n - 1))


def _satterthwaite(*parts: tuple[float, float]) -> float:
    """Degrees of freedom of a sum of (variance, its degrees of freedom)."""
    total, spread = sum(variance for variance, _ in parts), sum(variance**2 / df for variance, df in parts)
    return total**2 / spread if spread > 0 else np.inf


def _subjects_df(influences: np.ndarray) -> float:
    """Half the subjects less one: those of one of two classes. NaN where that says nothing."""
    n = _tested(influences)
    if not n:
        return 1.0  # nobody moves the metric: there is no variance to be told
    return n / 2 - 1 if n > 2 else np.nan


def _unbiased(influences: np.ndarray) -> float:
    """What makes up for the means that are estimated, one for each of two classes (as DeLong's n - 1 of each)."""
    n = _tested(influences)
    if not n:
        return 1.0
    return n / (n - 2) if n > 2 else np.nan


def _tested(influences: np.ndarray) -> float:
    """How many subjects a seed is tested on, on average."""
    return float(np.count_nonzero(influences, axis=1).mean())


def _count(values: np.ndarray) -> int:
    if not len(values):
        raise ValueError("an interval needs one value at least")
    return len(values)


def _sd(values: np.ndarray) -> float:
    return float(np.std(values, ddof=1)) if len(values) > 1 else np.nan
