"""From a Pillow image to a network's input, as an ImagePreprocessing says. Loads torch when called."""

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np

from ..errors import DataError, ItemError
from ..views import RECIPE, Crop
from .spec import ImagePreprocessing

if TYPE_CHECKING:
    from PIL.Image import Image as PilImage
    from torch import Tensor

    Step = Callable[[PilImage], PilImage]

MAX_RESIZED_PIXELS = 89_478_485
"""Pillow's own bound on an image. A sliver of 1 x 80,000 pixels passes it and grows beyond memory when resized."""


def image_transform(preprocessing: ImagePreprocessing) -> "Callable[..., Tensor]":
    """The function that turns one image into a float32 tensor [3, crop_px, crop_px]; threads may share it.

    It takes an image of mode "RGB" or "L", which give the same where the channels are equal, gray in a third of the
    time; and optionally a `views.Crop`, which an augmented view shows in place of the resized image's centre.

    Resizing and cropping act on the Pillow image, as in the pipelines that the weights were made with; the values equal
    those of torchvision's ToTensor and Normalize. The function raises ItemError for an image of extreme proportions.

    Raises:
        DataError: the resizer's library is not installed; names the extra that installs it.
    """
    import torch

    before: list[Step] = [_stretch_levels] if preprocessing.min_max else []
    before += [_gray] if preprocessing.gray == "first" else []
    clean = [_resizer(preprocessing), _cropper(preprocessing)]
    after = [_gray] if preprocessing.gray == "cropped" else []
    mean, std = np.array(preprocessing.mean, np.float32), np.array(preprocessing.std, np.float32)

    def transform(image: "PilImage", crop: Crop | None = None) -> "Tensor":
        if preprocessing.fit == "shorter":
            _check_size(image, preprocessing.resize_px)
        shown = clean if crop is None else [_view(crop, preprocessing.crop_px)]
        for step in (*before, *shown, *after):
            image = step(image)
        # numpy for ToTensor and Normalize: the same bits, and no thread team of torch's in every reader thread.
        levels = np.atleast_3d(np.asarray(image)).astype(np.float32)
        scaled = (levels / 255 - mean) / std  # a single channel becomes three here
        return torch.from_numpy(np.ascontiguousarray(scaled.transpose(2, 0, 1)))

    return transform


def _resizer(preprocessing: ImagePreprocessing) -> "Step":
    if preprocessing.resizer == "opencv":
        return _pad_opencv(preprocessing.resize_px)
    from torchvision import transforms
    from torchvision.transforms.functional import resize

    side: int | list[int] = preprocessing.resize_px
    if preprocessing.fit == "stretch":
        side = [preprocessing.resize_px] * 2
    elif preprocessing.fit == "pad":
        raise ValueError("fit 'pad' needs resizer 'opencv'")
    interpolation = transforms.InterpolationMode(preprocessing.interpolation)
    # Of transformers' Pillow backend the same: the longer side is int(size * long / short) in both.
    return lambda image: resize(image, side, interpolation=interpolation, antialias=True)  # pyright: ignore


def _cropper(preprocessing: ImagePreprocessing) -> "Step":
    side = preprocessing.crop_px

    def crop(image: "PilImage") -> "PilImage":
        margins = image.width - side, image.height - side
        if preprocessing.resizer == "hub-pil":
            left, top = (margin // 2 for margin in margins)
        else:
            left, top = (round(margin / 2.0) for margin in margins)  # half to even, as torchvision's CenterCrop
        return image.crop((left, top, left + side, top + side))

    return crop


def _view(crop: Crop, side: int) -> "Step":
    """What an augmented view shows, as torchvision's `resized_crop`: cut out first, then resized to the square."""
    from PIL import Image

    box = (crop.left, crop.top, crop.left + crop.width, crop.top + crop.height)
    method = Image.Resampling[str(RECIPE["interpolation"]).upper()]
    return lambda image: image.crop(box).resize((side, side), method)


def _gray(image: "PilImage") -> "PilImage":
    return image.convert("L").convert("RGB")


def _stretch_levels(image: "PilImage") -> "PilImage":
    """Darkest value of any channel to 0, brightest to 255, truncated; a constant image becomes black."""
    from PIL import Image

    levels = np.asarray(image).astype(np.float64)
    levels -= levels.min()
    peak = levels.max()
    if peak > 0:
        levels /= peak
    levels *= 255
    return Image.fromarray(levels.astype(np.uint8))


def _pad_opencv(side: int) -> "Step":
    """As GLoRIA: to gray; longer side to `side` by area interpolation; zeros to a square, an odd one behind."""
    from PIL import Image

    cv2 = _opencv()

    def resize(image: "PilImage") -> "PilImage":
        levels = np.asarray(image)
        if levels.ndim == 3:
            levels = cv2.cvtColor(levels, cv2.COLOR_RGB2GRAY)
        height, width = levels.shape
        if height >= width:
            width, height = int(width * (side / height)), side
        else:
            width, height = side, int(height * (side / width))
        if min(width, height) < 1:
            raise ItemError(f"an image of {image.width} x {image.height} pixels is too narrow to be resized")
        square = np.zeros((side, side), np.uint8)
        top, left = (side - height) // 2, (side - width) // 2
        square[top : top + height, left : left + width] = cv2.resize(
            levels, (width, height), interpolation=cv2.INTER_AREA
        )
        return Image.fromarray(square).convert("RGB")

    return resize


def _opencv():  # noqa: ANN202
    try:
        import cv2
    except ImportError:
        raise DataError(
            'this preprocessing resizes with OpenCV, which is not installed: run pip install "radfs[opencv]".'
        ) from None
    cv2.setNumThreads(1)  # images are prepared in threads already
    return cv2


def _check_size(image: "PilImage", resize_px: int) -> None:
    long, short = max(image.size), min(image.size)
    if resize_px * resize_px * long > MAX_RESIZED_PIXELS * short:
        raise ItemError(f"an image of {image.width} x {image.height} pixels is too narrow to be resized")
