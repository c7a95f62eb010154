"""The standard metrics of many runs at once, where the probabilities are: the fast twin of `heads.metrics`.

Ranks come from one sort and two binary searches a row, so ties are exact; sums are in float64.
"""

import numpy as np
import torch
from torch import Tensor

from .run import UNKNOWN, Target

METRIC_NAMES = ("auroc", "auroc_macro", "auprc", "auprc_macro")


def score_runs(labels: np.ndarray, probabilities: Tensor, target: Target) -> list[dict[str, float]]:
    """Every metric of METRIC_NAMES for K runs with the same test labels.

    Args:
        labels: int [n] classes, each with a sample, or [n, C] findings.
        probabilities: [K, n, C].
        target: what the labels are.
    """
    runs, n, classes = probabilities.shape
    truth = torch.from_numpy(np.ascontiguousarray(labels)).to(probabilities.device)
    if target == "classes" and classes == 2:
        micro = macro = _binary(probabilities[:, :, 1], truth == 1, torch.ones_like(truth, dtype=torch.bool))
        return _records(micro, macro)
    if target == "classes":
        positive = truth[:, None] == torch.arange(classes, device=truth.device)
        known = torch.ones_like(positive)
    else:
        positive, known = truth == 1, truth != UNKNOWN
    micro = _binary(probabilities.reshape(runs, n * classes), positive.flatten(), known.flatten())
    per_class = [
        _binary(probabilities[:, :, c], positive[:, c], known[:, c])
        for c in range(classes)
        if bool(positive[:, c].any()) and bool((known[:, c] & ~positive[:, c]).any())
    ]
    return _records(micro, torch.stack(per_class).mean(dim=0))


def _binary(scores: Tensor, positive: Tensor, known: Tensor) -> Tensor:
    """(AUROC, average precision) of each row of `scores` [K, m]: float64 [2, K]."""
    m, n_known, n_positive = len(positive), int(known.sum()), int(positive.sum())
    scores = scores.double().masked_fill(~known, -1.0).contiguous()  # unknown entries rank below all, and count nowhere
    ordered = scores.sort(dim=1).values
    of_positive = scores[:, positive].contiguous()
    below = torch.searchsorted(ordered, of_positive)  # entries with a lower score
    up_to = torch.searchsorted(ordered, of_positive, right=True)
    midranks = (below + up_to + 1).double() / 2 - (m - n_known)
    pairs = midranks.sum(dim=1) - n_positive * (n_positive + 1) / 2
    auroc = pairs / (n_positive * (n_known - n_positive))
    found = n_positive - torch.searchsorted(of_positive.sort(dim=1).values, of_positive)  # positives at or above
    precision = found.double() / (m - below)
    return torch.stack([auroc, precision.mean(dim=1)])


def _records(micro: Tensor, macro: Tensor) -> list[dict[str, float]]:
    columns = torch.stack([micro[0], macro[0], micro[1], macro[1]], dim=1).tolist()
    return [dict(zip(METRIC_NAMES, row, strict=True)) for row in columns]
