"""What every metric of the table must hold: agreement with an independent oracle, and the same manners on input.

A new metric needs one line in ORACLES: a metric that is compared with nothing is not a tested metric.
"""

from functools import partial

import numpy as np
import pytest
from sklearn.calibration import calibration_curve
from sklearn.metrics import (
    accuracy_score,
    average_precision_score,
    brier_score_loss,
    log_loss,
    roc_auc_score,
    roc_curve,
)
from sklearn.preprocessing import label_binarize

from heads.metrics import FROM_PREDICTIONS, METRICS, compute_metrics, get_metric


def sklearn_score(score, average, labels, probabilities):
    classes = probabilities.shape[1]
    if classes == 2:
        return score(labels, probabilities[:, 1])
    return score(label_binarize(labels, classes=range(classes)), probabilities, average=average)


def sklearn_class(score, number, labels, probabilities):
    return score(labels == number, probabilities[:, number])


def sklearn_sensitivity(at, labels, probabilities):
    """Over the thresholds of scikit-learn's curve; the last digits of 1 - fpr must not decide."""
    classes = [1] if probabilities.shape[1] == 2 else range(probabilities.shape[1])
    found = []
    for c in classes:
        fpr, tpr, _ = roc_curve(labels == c, probabilities[:, c], drop_intermediate=False)
        found.append(tpr[1 - fpr >= at - 1e-9].max())
    return np.mean(found)


def sklearn_brier(labels, probabilities):
    """scikit-learn refuses rows that do not add up to 1, which the score does not need."""
    probabilities = probabilities.astype(np.float64)
    if probabilities.shape[1] == 2:
        return brier_score_loss(labels, probabilities[:, 1], pos_label=1)
    truth = label_binarize(labels, classes=range(probabilities.shape[1]))
    return sum(brier_score_loss(t, p, pos_label=1) for t, p in zip(truth.T, probabilities.T, strict=True))


def sklearn_log_loss(labels, probabilities):
    """As a problem of two classes for each sample, is it the true class or not; in scikit-learn's single precision."""
    p = probabilities[np.arange(len(labels)), labels].astype(np.float32)
    return log_loss(np.ones(len(p), int), np.stack([1 - p, p], axis=1), labels=[0, 1])


def sklearn_calibration(labels, probabilities):
    """scikit-learn's bins are closed on the right too; what it does not give is how many lie in each."""
    binary = probabilities.shape[1] == 2
    said = (probabilities[:, 1] if binary else probabilities.max(axis=1)).astype(np.float64)
    true = labels == 1 if binary else labels == probabilities.argmax(axis=1)
    shares, means = calibration_curve(true, said, n_bins=15)
    numbers = np.unique(np.digitize(said, np.linspace(0, 1, 16)[1:-1], right=True), return_counts=True)[1]
    return np.abs(shares - means) @ numbers / len(labels)


ORACLES = {
    "brier": sklearn_brier,
    "log_loss": sklearn_log_loss,
    "calibration_error": sklearn_calibration,
    "accuracy": lambda labels, probabilities: accuracy_score(labels, probabilities.argmax(axis=1)),
    "sensitivity": partial(sklearn_sensitivity, 0.9),
    "sensitivity:0.5": partial(sklearn_sensitivity, 0.5),
    "sensitivity:1": partial(sklearn_sensitivity, 1.0),
    "auroc_class:0": partial(sklearn_class, roc_auc_score, 0),
    "auprc_class:1": partial(sklearn_class, average_precision_score, 1),
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


NEED_NO_CLASS = {"brier", "log_loss", "calibration_error", "accuracy"}
"""Metrics that have a value where all samples are of one class."""

CASES = [uniform, heavy_ties, constant, perfect, inverted, saturated, neighbouring_floats]


@pytest.fixture(params=sorted(ORACLES))
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
    assert value == pytest.approx(ORACLES[name](labels, probabilities), abs=1e-5 if name == "log_loss" else 1e-12)


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
    if message.startswith("class") and name in NEED_NO_CLASS:
        assert get_metric(name)(np.array(labels), np.array(probabilities)) == pytest.approx(
            ORACLES[name](np.array(labels), np.array(probabilities)), abs=1e-6
        )
        return
    if message.startswith("class") and "_class" in name:
        message = "all sample of class|no sample of class"
    with pytest.raises(ValueError, match=message):
        get_metric(name)(np.array(labels), np.array(probabilities))


def test_every_metric_has_an_oracle_and_is_computed():
    rng = np.random.default_rng(0)
    labels = all_classes(rng, 20, 2)
    assert set(compute_metrics(labels, uniform(rng, labels, 2))) == set(METRICS)
    assert {name.partition(":")[0] for name in ORACLES} == set(METRICS) | set(FROM_PREDICTIONS)
