"""Metrics of many runs at once against `heads.metrics`, one run at a time."""

import numpy as np
import pytest
import torch

from heads.engine.scores import METRIC_NAMES, score_runs
from heads.metrics import get_metric


def labels_of(rng, n, classes):
    return rng.permutation(np.concatenate([np.arange(classes), rng.integers(0, classes, n - classes)]))


@pytest.mark.parametrize("kind", ["random", "ties", "constant", "saturated"])
@pytest.mark.parametrize(("n", "classes"), [(2, 2), (50, 2), (31, 3), (200, 14)])
def test_classes(n, classes, kind):
    rng = np.random.default_rng(n)
    labels = labels_of(rng, n, classes)
    scores = {
        "random": rng.random((5, n, classes)),
        "ties": rng.integers(0, 3, (5, n, classes)) / 4,
        "constant": np.full((5, n, classes), 0.5),
        "saturated": rng.integers(0, 2, (5, n, classes)).astype(float),
    }[kind].astype(np.float32)
    for run, found in zip(scores, score_runs(labels, torch.from_numpy(scores), "classes"), strict=True):
        assert found == pytest.approx({name: get_metric(name)(labels, run) for name in METRIC_NAMES}, abs=1e-12)


@pytest.mark.parametrize("classes", [1, 2, 14])
def test_findings_with_unknown_ones(classes):
    rng = np.random.default_rng(classes)
    labels = rng.integers(-1, 2, (60, classes))
    labels[:2] = [[0], [1]]
    if classes == 14:
        labels[:, 3] = np.where(labels[:, 3] == 1, -1, labels[:, 3])  # nowhere present: no curve of its own
    scores = (rng.integers(0, 9, (4, 60, classes)) / 8).astype(np.float32)
    for run, found in zip(scores, score_runs(labels, torch.from_numpy(scores), "findings"), strict=True):
        assert found == pytest.approx({name: get_metric(name)(labels, run) for name in METRIC_NAMES}, abs=1e-12)
