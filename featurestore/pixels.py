"""What the decoders of images share: parsing a header in silence, and 8 bits of any depth. Knows no format."""

import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np

from .errors import ItemError

_HEADER_LOCK = threading.Lock()


@contextmanager
def quietly() -> Iterator[None]:
    """Parse a header without its warnings.

    WARN: `warnings.catch_warnings` changes the whole process, so threads must not interleave in it: a lock is held
    here. Pixels are decoded outside.
    """
    with _HEADER_LOCK, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def min_max(pixels: np.ndarray, *, inverted: bool = False) -> np.ndarray:
    """`pixels` [h, w] of any depth as uint8: minimum to 0, maximum to 255, truncated."""
    values = pixels.astype(np.float64)
    if not np.isfinite(values).all():
        raise ItemError("the image holds NaN or infinite values")
    if inverted:
        values = -values
    values -= values.min()
    peak = values.max()
    if peak > 0:
        values /= peak
    values *= 255
    return values.astype(np.uint8)
