"""Metrics on cases small enough to work out by hand, and what they do where scikit-learn only warns."""

import subprocess
import sys
import time

import numpy as np
import pytest

from heads.metrics import METRICS, compute_metrics, get_metric
from heads.metrics.auprc import auprc, auprc_macro
from heads.metrics.auroc import auroc, auroc_macro


def binary(scores):
    scores = np.asarray(scores, dtype=np.float64)
    return np.stack([1 - scores, scores], axis=1)


def test_auroc_is_the_share_of_rightly_ordered_pairs():
    # Pairs (positive, negative): .8>.1, .8>.6, .4>.1, .4<.6: three of four.
    assert auroc(np.array([0, 1, 0, 1]), binary([0.1, 0.4, 0.6, 0.8])) == 0.75


def test_a_tie_counts_one_half():
    assert auroc(np.array([0, 1, 1]), binary([0.5, 0.5, 0.9])) == 0.75


def test_constant_scores_are_worth_one_half():
    labels = np.array([0, 1, 1, 0, 1])
    assert auroc(labels, binary([0.3] * 5)) == 0.5
    assert auroc_macro(np.array([0, 1, 2]), np.full((3, 3), 1 / 3)) == 0.5


def test_average_precision_by_hand():
    # From the top: hit (1/1), miss, hit (2/3): half of the recall at each.
    assert auprc(np.array([1, 0, 1, 0]), binary([0.9, 0.8, 0.7, 0.1])) == pytest.approx((1 + 2 / 3) / 2)


def test_average_precision_of_constant_scores_is_the_prevalence():
    assert auprc(np.array([1, 0, 0, 0]), binary([0.5] * 4)) == 0.25


def test_for_two_classes_macro_is_the_same_number():
    rng = np.random.default_rng(0)
    labels, probabilities = rng.integers(0, 2, 40), binary(rng.random(40))
    assert auroc_macro(labels, probabilities) == auroc(labels, probabilities)
    assert auprc_macro(labels, probabilities) == auprc(labels, probabilities)


def test_micro_needs_no_sample_of_every_class_and_macro_names_the_missing_ones():
    labels = np.array([0, 1, 1, 0])
    probabilities = np.random.default_rng(0).dirichlet(np.ones(4), 4)
    assert 0 <= auroc(labels, probabilities) <= 1
    assert 0 <= auprc(labels, probabilities) <= 1
    for macro in (auroc_macro, auprc_macro):
        with pytest.raises(ValueError, match="class 2, 3 among 4 labels"):
            macro(labels, probabilities)


def test_micro_pools_scores_across_classes():
    # Each sample ranks its own class first, but the second one's 0.2 lies below the first one's wrong 0.3.
    probabilities = np.array([[0.6, 0.3, 0.1], [0.1, 0.2, 0.1]])
    assert auroc(np.array([0, 1]), probabilities) == 7 / 8


def test_an_unknown_name_lists_the_known_ones():
    with pytest.raises(KeyError, match=r"'f1'.*auroc, auroc_macro"):
        get_metric("f1")


def test_listing_metrics_imports_none():
    check = "import sys, heads.metrics; sys.exit('heads.metrics.auroc' in sys.modules or 'torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", check], check=False).returncode == 0


def test_a_metric_of_a_thousand_samples_takes_less_than_a_millisecond():
    rng = np.random.default_rng(0)
    labels, probabilities = rng.integers(0, 2, 1000), binary(rng.random(1000)).astype(np.float32)
    seconds = []
    for _ in range(30):
        started = time.perf_counter()
        compute_metrics(labels, probabilities)
        seconds.append(time.perf_counter() - started)
    assert min(seconds) < 0.001 * len(METRICS)
