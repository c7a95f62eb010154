"""What every metric of the table must hold: agreement with an independent oracle, and the same manners on input.

A new metric needs one line in ORACLES: a metric that is compared with nothing is not a tested metric.
"""

from functools import partial

import numpy as np
import pytest
from sklearn.metrics import average_precision_score, roc_auc_score
from sklearn.preprocessing import label_binarize

from heads.metrics import METRICS, compute_metrics, get_metric


def sklearn_score(score, average, labels, probabilities):
    classes = probabilities.shape[1]
    if classes == 2:
        return score(labels, probabilities[:, 1])
    return score(label_binarize(labels, classes=range(classes)), probabilities, average=average)


ORACLES = {
    "auroc": partial(sklearn_score, roc_auc_score, "micro"),
    "auroc_macro": partial(sklearn_score, roc_auc_score, "macro"),
    "auprc": partial(sklearn_score, average_precision_score, "micro"),
    "auprc_macro": partial(sklearn_score, average_precision_score, "macro"),
}


def all_classes(rng, n, classes):
    """Labels in which every class occurs."""
    return rng.permutation(np.concatenate([np.arange(classes), rng.integers(0, classes, n - classes)]))


def normalised(scores):
    return (scores / scores.sum(axis=1, keepdims=True)).astype(np.float32)


def uniform(rng, labels, classes):
    return normalised(rng.random((len(labels), classes)) + 1e-3)


def heavy_ties(rng, labels, classes):
    return rng.integers(0, 3, (len(labels), classes)).astype(np.float32) / 4


def constant(rng, labels, classes):
    return np.full((len(labels), classes), 1 / classes, np.float32)


def perfect(rng, labels, classes):
    return np.eye(classes, dtype=np.float32)[labels]


def inverted(rng, labels, classes):
    return normalised(1 - perfect(rng, labels, classes))


def saturated(rng, labels, classes):
    """As of a trained head: most of it rounded to exactly 0 or 1, some of that wrong."""
    logits = rng.normal(0, 80, (len(labels), classes))
    logits = np.exp(logits - logits.max(axis=1, keepdims=True))
    return normalised(logits)


def neighbouring_floats(rng, labels, classes):
    """Scores that differ in the last bit only."""
    one = np.float32(0.5)
    return np.where(rng.random((len(labels), classes)) < 0.5, one, np.nextafter(one, np.float32(1)))


CASES = [uniform, heavy_ties, constant, perfect, inverted, saturated, neighbouring_floats]


@pytest.fixture(params=sorted(METRICS))
def name(request):
    return request.param


@pytest.mark.parametrize("make", CASES)
@pytest.mark.parametrize("classes", [2, 3, 5, 14])
@pytest.mark.parametrize("n", [14, 333])
def test_agrees_with_its_oracle(name, make, classes, n):
    rng = np.random.default_rng([classes, n])
    labels = all_classes(rng, n, classes)
    probabilities = make(rng, labels, classes)
    value = get_metric(name)(labels, probabilities)
    assert type(value) is float
    assert value == pytest.approx(ORACLES[name](labels, probabilities), abs=1e-12)


@pytest.mark.parametrize("classes", [2, 5])
def test_order_of_the_samples_does_not_matter(name, classes):
    rng = np.random.default_rng(0)
    labels = all_classes(rng, 100, classes)
    probabilities = heavy_ties(rng, labels, classes)
    shuffled = rng.permutation(100)
    metric = get_metric(name)
    assert metric(labels[shuffled], probabilities[shuffled]) == pytest.approx(metric(labels, probabilities), abs=1e-14)


def test_leaves_its_arguments_alone(name):
    rng = np.random.default_rng(0)
    labels = all_classes(rng, 50, 3)
    probabilities = uniform(rng, labels, 3)
    labels.setflags(write=False)
    probabilities.setflags(write=False)
    before = probabilities.copy()
    get_metric(name)(labels, probabilities)
    assert np.array_equal(before, probabilities)


@pytest.mark.parametrize("dtype", [np.int32, np.int64, np.uint8])
def test_any_integer_type_of_label_gives_the_same(name, dtype):
    rng = np.random.default_rng(0)
    labels = all_classes(rng, 50, 3)
    probabilities = uniform(rng, labels, 3)
    metric = get_metric(name)
    assert metric(labels.astype(dtype), probabilities) == metric(labels, probabilities)


@pytest.mark.parametrize(
    ("labels", "probabilities", "message"),
    [
        ([0, 1], [[0.5, 0.5]], "takes labels"),
        ([0, 1], [0.5, 0.5], "takes labels"),
        ([0, 0], [[1.0], [1.0]], "takes labels"),
        ([0, 2], [[0.5, 0.5], [0.5, 0.5]], "0..1"),
        ([0, -1], [[0.5, 0.5], [0.5, 0.5]], "0..1"),
        ([0.0, 1.0], [[0.5, 0.5], [0.5, 0.5]], "integers"),
        ([0, 1], [[0.5, 0.5], [np.nan, 0.5]], "row 1"),
        ([0, 0], [[0.5, 0.5], [0.5, 0.5]], "class 1"),
        ([1, 1], [[0.5, 0.5], [0.5, 0.5]], "class 0"),
    ],
)
def test_refuses_what_has_no_value(name, labels, probabilities, message):
    with pytest.raises(ValueError, match=message):
        get_metric(name)(np.array(labels), np.array(probabilities))


def test_every_metric_has_an_oracle_and_is_computed():
    rng = np.random.default_rng(0)
    labels = all_classes(rng, 20, 2)
    assert set(compute_metrics(labels, uniform(rng, labels, 2))) == set(METRICS) == set(ORACLES)
