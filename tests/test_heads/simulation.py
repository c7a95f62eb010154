"""Studies drawn from a population whose truth is known, to see which intervals cover and how often tests cry wolf.

A population: patients with one to three samples each, of one class, whose two feature blocks (two encoders) are equally
good. A study: one data set of such patients, seeds that split and train as a grid does, a linear classifier on each
block with a start of its own. The AUROC that a trained classifier has on the whole population is known in closed form,
so what an interval claims can be checked under redraws of the whole data set. The paired difference of the two blocks
has the truth 0 over data sets, though on one data set one of them is better.
"""

from dataclasses import dataclass

import numpy as np
from scipy.stats import norm

from heads.stats import by_subject, influence

BLOCKS = ((0, 0), (1, 1), (2, 0))
"""The classifiers, and the block that each reads."""


@dataclass(frozen=True)
class Population:
    """How patients are drawn.

    Attributes:
        dim: features of a block.
        effect: distance of the class means, in standard deviations.
        within: share of the variance that a patient's samples have in common.
        between: correlation of the two blocks.
        prevalence: share of patients of class 1.
        most_samples: a patient has 1 to so many samples.
        start: size of the part of a classifier's weights that its start decides, to the learned part.
    """

    dim: int = 8
    effect: float = 1.2
    within: float = 0.5
    between: float = 0.3
    prevalence: float = 0.4
    start: float = 0.25
    most_samples: int = 3

    def draw(self, rng: np.random.Generator, n_subjects: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """(features [n, 2, dim], labels [n], subjects [n]) of so many patients."""
        subjects = np.repeat(np.arange(n_subjects), rng.integers(1, self.most_samples + 1, n_subjects))
        labels = (rng.random(n_subjects) < self.prevalence).astype(np.int64)[subjects]
        common = self._noise(rng, n_subjects)[subjects]
        noise = np.sqrt(self.within) * common + np.sqrt(1 - self.within) * self._noise(rng, len(subjects))
        return noise + labels[:, None, None] * self._means, labels, subjects

    def auroc(self, weights: np.ndarray) -> np.ndarray:
        """The AUROC over all patients of linear classifiers [..., dim]."""
        along = weights @ self._means
        return norm.cdf(along / np.sqrt(2) / np.linalg.norm(weights, axis=-1))

    @property
    def _means(self) -> np.ndarray:
        return np.full(self.dim, self.effect / np.sqrt(self.dim))

    def _noise(self, rng: np.random.Generator, n: int) -> np.ndarray:
        both = rng.normal(size=(n, 1, self.dim))
        return np.sqrt(self.between) * both + np.sqrt(1 - self.between) * rng.normal(size=(n, 2, self.dim))


@dataclass(frozen=True)
class Study:
    """One data set under many seeds.

    Attributes:
        values: measured AUROC, [seeds, 3]: first block, second block, twin of the first.
        influences: of every measured AUROC by subject, [seeds, 3, subjects].
        truths: AUROC on the whole population of every trained classifier, [seeds, 3].
        tested: the predictions, one a seed and classifier: (labels [m], scores [m], subjects [m]).
        expected: mean of the truths over the untested seeds, [3]: what this data set's training patients lead to.
        test_to_train: test samples over training samples.
    """

    values: np.ndarray
    influences: np.ndarray
    truths: np.ndarray
    tested: list[list[tuple[np.ndarray, np.ndarray, np.ndarray]]]
    expected: np.ndarray
    test_to_train: float


def draw_study(
    population: Population,
    rng: np.random.Generator,
    *,
    seeds: int,
    design: str,
    fraction: float = 1.0,
    subjects: int = 300,
    test_share: float = 0.25,
    untested: int = 0,
) -> Study:
    """Draw a data set and train on it.

    Args:
        population: where patients come from.
        rng: of everything.
        seeds: how many.
        design: "redrawn" (every seed has its own split), "test" (one test side, every seed draws its training samples
            from the other) or "split" (test and training samples are the same for all seeds).
        fraction: of the training side.
        subjects: patients in the data set.
        test_share: share of the patients on the test side.
        untested: so many seeds more are trained for `expected` alone.
    """
    features, labels, subject = population.draw(rng, subjects)
    is_test, is_train = _sides(
        rng, labels, subject, seeds=seeds + untested, design=design, shares=(test_share, fraction)
    )
    weights = _fit(features, labels, is_train)[:, [0, 1, 0]]
    starts = rng.normal(size=weights.shape) / np.sqrt(population.dim)
    weights = weights + population.start * np.linalg.norm(weights, axis=-1, keepdims=True) * starts
    values, influences, tested = np.empty((seeds, 3)), np.zeros((seeds, 3, subjects)), []
    for s in range(seeds):
        test = np.flatnonzero(is_test[s])
        tested.append([(labels[test], features[test, block] @ weights[s, k], subject[test]) for k, block in BLOCKS])
        for k, (label, score, who) in enumerate(tested[s]):
            values[s, k], each = influence("auroc", label, np.stack([-score, score], axis=1))
            influences[s, k] = by_subject(each, who, subjects)
    ratio = float(is_test.sum() / is_train.sum())
    truths = population.auroc(weights)
    expected = truths[seeds:].mean(axis=0) if untested else np.full(3, np.nan)
    return Study(values, influences, truths[:seeds], tested, expected, ratio)


def _sides(
    rng: np.random.Generator,
    labels: np.ndarray,
    subject: np.ndarray,
    *,
    seeds: int,
    design: str,
    shares: tuple[float, float],
) -> tuple[np.ndarray, np.ndarray]:
    """Which samples each seed tests and trains on, bool [seeds, n] twice; whole patients, balanced by class."""
    is_test, is_train = np.zeros((seeds, len(labels)), bool), np.zeros((seeds, len(labels)), bool)
    class_of = labels[np.unique(subject, return_index=True)[1]]
    split, subset = rng.random(len(class_of)), rng.random(len(class_of))
    for s in range(seeds):
        if design == "redrawn":
            split = rng.random(len(class_of))
        if design != "split":
            subset = rng.random(len(class_of))
        test = np.concatenate([_first(split, class_of == c, shares[0]) for c in (0, 1)])
        pool = np.setdiff1d(np.arange(len(class_of)), test)
        train = np.concatenate([pool[_first(subset[pool], class_of[pool] == c, shares[1])] for c in (0, 1)])
        is_test[s], is_train[s] = np.isin(subject, test), np.isin(subject, train)
    return is_test, is_train


def _first(order: np.ndarray, members: np.ndarray, share: float) -> np.ndarray:
    places = np.flatnonzero(members)
    return places[np.argsort(order[places])[: max(2, round(share * len(places)))]]


def _fit(features: np.ndarray, labels: np.ndarray, is_train: np.ndarray) -> np.ndarray:
    """Linear discriminants with a ridge of every seed and block, [seeds, 2, dim]."""
    seeds, dim = len(is_train), features.shape[-1]
    result = np.empty((seeds, 2, dim))
    for block in range(2):
        x = features[:, block]
        squares = (x[:, :, None] * x[:, None, :]).reshape(len(x), dim * dim)
        scatter, means = np.zeros((seeds, dim, dim)), []
        for c in (0, 1):
            w = (is_train & (labels == c)).astype(np.float64)
            n = w.sum(axis=1)[:, None]
            means.append(w @ x / n)
            scatter += (w @ squares).reshape(seeds, dim, dim) - n[:, :, None] * means[c][:, :, None] * means[c][
                :, None, :
            ]
        scatter /= is_train.sum(axis=1)[:, None, None]
        scatter += 0.3 * np.eye(dim)
        result[:, block] = np.linalg.solve(scatter, (means[1] - means[0])[..., None])[..., 0]
    return result
