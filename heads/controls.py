"""What the negative controls read and hear: reports of other subjects, and class frequencies. numpy alone."""

from collections.abc import Sequence

import numpy as np

from featurestore.errors import DataError
from featurestore.keys import seeded_order_key


def other_reports(subjects: Sequence[str], parts: Sequence[Sequence[int]], *, seed: int) -> np.ndarray:
    """For every sample the sample whose report it reads instead of its own: int64 [N].

    Within each part the subjects stand in a seeded order, in a ring, and each reads the reports of the next one: so
    nobody reads a report of the own subject, and no report crosses from one part into another. Where the next subject
    has fewer samples, its reports are read several times. A sample of no part keeps its own; nobody trains on it.

    Args:
        subjects: the subject of every sample.
        parts: sample numbers of each part of a split (training, test).
        seed: of the run.

    Raises:
        DataError: a part has one subject only, so nobody else's report is there.
    """
    rows = np.arange(len(subjects))
    for part in parts:
        of_subject: dict[str, list[int]] = {}
        for sample in sorted(part):
            of_subject.setdefault(subjects[sample], []).append(sample)
        if len(of_subject) < 2:
            raise DataError("the reports of one subject cannot be given to another: the control needs two subjects.")
        ring = sorted(of_subject, key=lambda subject: (seeded_order_key(seed, "reports", subject), subject))
        for subject, other in zip(ring, [*ring[1:], ring[0]], strict=True):
            own, theirs = of_subject[subject], of_subject[other]
            rows[own] = [theirs[i % len(theirs)] for i in range(len(own))]
    return rows


def frequency_logits(labels: np.ndarray, classes: int) -> np.ndarray:
    """Logits of a teacher that says the class frequencies of the training samples, of each alike: float32 [1, n, C].

    Args:
        labels: of the training samples: int [n], classes; or int [n, C], findings 0, 1 or -1 (unknown, not counted).
        classes: C.

    A share of 0 or 1 counts as half a sample, so that its logit is finite.
    """
    if labels.ndim == 1:
        counts, known = np.bincount(labels, minlength=classes), np.full(classes, len(labels))
    else:
        counts, known = (labels == 1).sum(axis=0), (labels >= 0).sum(axis=0)
    n = np.maximum(known, 1)
    shares = np.clip(counts / n, 0.5 / n, 1 - 0.5 / n)
    logits = np.log(shares) if labels.ndim == 1 else np.log(shares / (1 - shares))
    return np.broadcast_to(logits.astype(np.float32), (1, len(labels), classes))
