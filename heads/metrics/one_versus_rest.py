"""How a C-class prediction becomes binary problems (positive scores against negative ones); shared by the metrics.

Binary tasks score class 1 alone. With more classes each class is set against the rest: pooled into one problem over
all n*C decisions (micro, the paper's section 3.2), or one problem a class, averaged without weights (macro). Findings,
which are present (1), absent (0) or unknown (-1) each, are such decisions already; unknown ones take no part.
"""

from collections.abc import Callable

import numpy as np

Binary = Callable[[np.ndarray, np.ndarray], float]
"""f(positive bool [m], scores [m]) -> float, with both classes present."""


def micro(binary: Binary, labels: np.ndarray, probabilities: np.ndarray) -> float:
    """`binary` of class 1 for two classes, else of all one-versus-rest decisions pooled; of findings, all known ones.

    Raises:
        ValueError: for inputs of a wrong shape or content, or a class of a binary task that has no sample.
    """
    labels, probabilities = checked(labels, probabilities)
    classes = probabilities.shape[1]
    if labels.ndim == 2:
        _require_decided(labels)
        return binary(labels[labels >= 0] == 1, probabilities[labels >= 0])
    if classes == 2:
        _require_classes(labels, 2)
        return binary(labels == 1, probabilities[:, 1])
    positive = labels[:, None] == np.arange(classes)
    return binary(positive.ravel(), probabilities.ravel())


def macro(binary: Binary, labels: np.ndarray, probabilities: np.ndarray) -> float:
    """The plain mean of `binary` over the classes, each against the rest; for two classes the same as `micro`.

    Of findings, the mean over those that are present in one sample and absent in another.

    Raises:
        ValueError: for inputs of a wrong shape or content, or a class that has no sample.
    """
    labels, probabilities = checked(labels, probabilities)
    classes = probabilities.shape[1]
    if labels.ndim == 2:
        _require_decided(labels)
        known = [(labels[:, c][labels[:, c] >= 0] == 1, probabilities[:, c][labels[:, c] >= 0]) for c in range(classes)]
        return float(np.mean([binary(present, p) for present, p in known if present.any() and not present.all()]))
    _require_classes(labels, classes)
    if classes == 2:
        return binary(labels == 1, probabilities[:, 1])
    return float(np.mean([binary(labels == c, probabilities[:, c]) for c in range(classes)]))


def one(binary: Binary, labels: np.ndarray, probabilities: np.ndarray, number: int) -> float:
    """`binary` of one class against all others; of one finding, where it is known.

    Raises:
        ValueError: for inputs of a wrong shape or content, no such class, or samples that are all or none of this
        class.
    """
    labels, probabilities = checked(labels, probabilities)
    if not 0 <= number < probabilities.shape[1]:
        raise ValueError(f"there is no class {number}: the classes are 0..{probabilities.shape[1] - 1}")
    positive, scores = labels == number, probabilities[:, number]
    if labels.ndim == 2:
        known = labels[:, number] >= 0
        positive, scores = labels[known, number] == 1, scores[known]
    if positive.all() or not positive.any():
        which = "all" if len(positive) and positive.all() else "no"
        raise ValueError(f"{which} sample of class {number} among {len(positive)} labels; this metric needs both kinds")
    return binary(positive, scores)


def tie_groups(scores: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(order, ends): indices that sort `scores` upwards, and the position of the last member of each group of ties."""
    order = np.argsort(scores, kind="stable")
    ascending = scores[order]
    return order, np.append(np.flatnonzero(ascending[1:] != ascending[:-1]), len(scores) - 1)


def checked(labels: np.ndarray, probabilities: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Both as arrays, once they are known to be what every metric takes.

    Raises:
        ValueError: a wrong shape, no sample, labels outside the classes, a probability that is not finite.
    """
    labels, probabilities = np.asarray(labels), np.asarray(probabilities)
    if labels.ndim == 2:
        return _checked_findings(labels, probabilities)
    if probabilities.ndim != 2 or probabilities.shape[1] < 2 or labels.shape != probabilities.shape[:1]:
        raise ValueError(
            f"a metric takes labels [n] and probabilities [n, C >= 2], not {labels.shape} and {probabilities.shape}"
        )
    if not len(labels) or labels.dtype.kind not in "iu" or labels.min() < 0 or labels.max() >= probabilities.shape[1]:
        raise ValueError(f"labels of a metric are integers 0..{probabilities.shape[1] - 1}, and at least one of them")
    _require_finite(probabilities)
    return labels, probabilities


def one_label(labels: np.ndarray, probabilities: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The same for a metric that takes one label a sample, and no findings.

    Raises:
        ValueError: as `checked`, or labels [n, C].
    """
    if np.ndim(labels) == 2:
        raise ValueError("this metric takes one label a sample, not findings of which each may be present")
    return checked(labels, probabilities)


def _checked_findings(labels: np.ndarray, probabilities: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    if labels.shape != probabilities.shape or labels.dtype.kind not in "iu" or not np.isin(labels, (-1, 0, 1)).all():
        raise ValueError(
            "a metric of findings takes labels 0, 1 or -1 (unknown) and probabilities of one shape [n, C], not "
            f"{labels.dtype} {labels.shape} and {probabilities.shape}"
        )
    _require_finite(probabilities)
    return labels, probabilities


def _require_finite(probabilities: np.ndarray) -> None:
    if not np.isfinite(probabilities).all():
        row = int(np.flatnonzero(~np.isfinite(probabilities).all(axis=1))[0])
        raise ValueError(f"probabilities must be finite; row {row} is not")


def _require_decided(labels: np.ndarray) -> None:
    if not ((labels == 1).any(axis=0) & (labels == 0).any(axis=0)).any():
        raise ValueError("no finding is present in one sample and absent in another; a metric of findings needs one")


def _require_classes(labels: np.ndarray, classes: int) -> None:
    counts = np.bincount(labels, minlength=classes)
    if not counts.all():
        missing = ", ".join(str(c) for c in np.flatnonzero(counts == 0))
        raise ValueError(f"no sample of class {missing} among {len(labels)} labels; this metric needs all {classes}")
