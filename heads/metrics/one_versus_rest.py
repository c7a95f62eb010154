"""How a C-class prediction becomes binary problems (positive scores against negative ones); shared by the metrics.

Binary tasks score class 1 alone. With more classes each class is set against the rest: pooled into one problem over all
n*C decisions (micro, the paper's section 3.2), or one problem a class, averaged without weights (macro).
"""

from collections.abc import Callable

import numpy as np

Binary = Callable[[np.ndarray, np.ndarray], float]
"""f(positive bool [m], scores [m]) -> float, with both classes present."""


def micro(binary: Binary, labels: np.ndarray, probabilities: np.ndarray) -> float:
    """`binary` of class 1 for two classes, else of all one-versus-rest decisions pooled.

    Raises:
        ValueError: for inputs of a wrong shape or content, or a class of a binary task that has no sample.
    """
    labels, probabilities = _checked(labels, probabilities)
    classes = probabilities.shape[1]
    if classes == 2:
        _require_classes(labels, 2)
        return binary(labels == 1, probabilities[:, 1])
    positive = labels[:, None] == np.arange(classes)
    return binary(positive.ravel(), probabilities.ravel())


def macro(binary: Binary, labels: np.ndarray, probabilities: np.ndarray) -> float:
    """The plain mean of `binary` over the classes, each against the rest; for two classes the same as `micro`.

    Raises:
        ValueError: for inputs of a wrong shape or content, or a class that has no sample.
    """
    labels, probabilities = _checked(labels, probabilities)
    classes = probabilities.shape[1]
    _require_classes(labels, classes)
    if classes == 2:
        return binary(labels == 1, probabilities[:, 1])
    return float(np.mean([binary(labels == c, probabilities[:, c]) for c in range(classes)]))


def tie_groups(scores: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(order, ends): indices that sort `scores` upwards, and the position of the last member of each group of ties."""
    order = np.argsort(scores, kind="stable")
    ascending = scores[order]
    return order, np.append(np.flatnonzero(ascending[1:] != ascending[:-1]), len(scores) - 1)


def _checked(labels: np.ndarray, probabilities: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    labels, probabilities = np.asarray(labels), np.asarray(probabilities)
    if probabilities.ndim != 2 or probabilities.shape[1] < 2 or labels.shape != probabilities.shape[:1]:
        raise ValueError(
            f"a metric takes labels [n] and probabilities [n, C >= 2], not {labels.shape} and {probabilities.shape}"
        )
    if not len(labels) or labels.dtype.kind not in "iu" or labels.min() < 0 or labels.max() >= probabilities.shape[1]:
        raise ValueError(f"labels of a metric are integers 0..{probabilities.shape[1] - 1}, and at least one of them")
    if not np.isfinite(probabilities).all():
        row = int(np.flatnonzero(~np.isfinite(probabilities).all(axis=1))[0])
        raise ValueError(f"probabilities must be finite; row {row} is not")
    return labels, probabilities


def _require_classes(labels: np.ndarray, classes: int) -> None:
    counts = np.bincount(labels, minlength=classes)
    if not counts.all():
        missing = ", ".join(str(c) for c in np.flatnonzero(counts == 0))
        raise ValueError(f"no sample of class {missing} among {len(labels)} labels; this metric needs all {classes}")
