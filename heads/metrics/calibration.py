"""Expected calibration error over 15 bins of equal width (Naeini et al., AAAI 2015; Guo et al., ICML 2017).

Two classes: the probability of class 1 against how often class 1 is true, as clinical prediction reports it. More
classes: the probability of the most probable class against how often that is right. Lower is better. It depends on the
bins, and small samples give more than 0 even to perfect probabilities: compare at equal n only.
"""

import numpy as np

from .accuracy import correct
from .one_versus_rest import one_label

BINS = 15


def calibration_error(labels: np.ndarray, probabilities: np.ndarray) -> float:
    """The mean over samples of |mean probability - share that is true| of the sample's bin, from 0 to 1."""
    labels, probabilities = one_label(labels, probabilities)
    p = probabilities.astype(np.float64)
    if p.shape[1] == 2:
        said, true = p[:, 1], (labels == 1).astype(np.float64)
    else:
        said, true = p.max(axis=1), correct(labels, p)
    # Bins are closed on the right, as Guo et al. have them: (0, 1/15], ..., (14/15, 1]; 0 falls into the first.
    inner = np.linspace(0, 1, BINS + 1)[1:-1]
    gaps = np.bincount(np.searchsorted(inner, said, side="left"), weights=said - true, minlength=BINS)
    return float(np.abs(gaps).sum() / len(said))
