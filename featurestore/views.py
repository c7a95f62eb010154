"""Augmented views: which part of an image a view shows.

Every crop is drawn from a generator of its own, keyed by the image's id and the view's number: it depends on no order,
batch, worker or number of views, and encoders see the same part. View 0 is the clean image. Knows no pixels.
"""

import math
from typing import NamedTuple

import numpy as np

from .keys import stream_seed

SCALE = (0.4, 0.9)
RATIO = (3 / 4, 4 / 3)
_ATTEMPTS = 10

RECIPE = {
    "name": "random-resized-crop-1",
    "scale": SCALE,
    "ratio": RATIO,
    "interpolation": "bilinear",
    "flip": False,
    "generator": "pcg64 of sha256(item, view)",
}
"""Enters the content key of every image set, for its views lie beside the clean one."""

INFERRED = (
    "scale 0.4 to 0.9 is the paper's; aspect ratio 3/4 to 4/3, bilinear resizing and no flip are inferred, from "
    "torchvision's RandomResizedCrop, for the paper does not say"
)


class Crop(NamedTuple):
    """A rectangle of an image, in pixels."""

    left: int
    top: int
    width: int
    height: int


def crop_of(item: str, view: int, *, width: int, height: int) -> Crop:
    """What view `view` (from 1) of an image of this size shows, as torchvision's RandomResizedCrop would choose it.

    Args:
        item: id of the image, `dataset/key`.
        view: number of the view.
        width: of the image, in pixels.
        height: of the image, in pixels.
    """
    if view < 1:
        raise ValueError(f"view {view} is not an augmented one")
    draws = _uniforms(item, view)
    for _ in range(_ATTEMPTS):
        area = width * height * (SCALE[0] + draws.pop() * (SCALE[1] - SCALE[0]))
        low, high = math.log(RATIO[0]), math.log(RATIO[1])
        ratio = math.exp(low + draws.pop() * (high - low))
        w, h = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
        if 0 < w <= width and 0 < h <= height:
            top = int(draws.pop() * (height - h + 1))
            return Crop(int(draws.pop() * (width - w + 1)), top, w, h)
    # Too long or too narrow for any of them: the largest middle part of an allowed ratio.
    w, h = width, height
    if width / height < RATIO[0]:
        h = round(width / RATIO[0])
    elif width / height > RATIO[1]:
        w = round(height * RATIO[1])
    return Crop((width - w) // 2, (height - h) // 2, w, h)


def _uniforms(item: str, view: int) -> list[float]:
    """Numbers in [0, 1), as many as `crop_of` may need, cut from the raw draws of PCG64, whose stream is fixed."""
    raw = np.random.PCG64(stream_seed(view, f"view/{item}")).random_raw(2 * _ATTEMPTS + 2)
    return ((raw >> np.uint64(11)) * 2.0**-53).tolist()
