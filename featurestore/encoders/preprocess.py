"""From a Pillow image in mode "RGB" to a network's input, as an ImagePreprocessing says. Loads torch when called."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import ItemError
from .spec import ImagePreprocessing

if TYPE_CHECKING:
    from PIL.Image import Image as PilImage
    from torch import Tensor

MAX_RESIZED_PIXELS = 89_478_485
"""Pillow's own bound on an image. A sliver of 1 x 80,000 pixels passes it and grows beyond memory when resized."""


def image_transform(preprocessing: ImagePreprocessing) -> "Callable[[PilImage], Tensor]":
    """The function that turns one image into a float32 tensor [3, crop_px, crop_px]; threads may share it.

    Resizing and cropping act on the Pillow image, as in the pipelines that the weights were made with; the values equal
    those of torchvision's ToTensor and Normalize. The function raises ItemError for an image of extreme proportions.
    """
    import torch
    from torchvision import transforms

    interpolation = transforms.InterpolationMode(preprocessing.interpolation)
    steps = [
        transforms.Resize(preprocessing.resize_px, interpolation=interpolation, antialias=True),
        transforms.CenterCrop(preprocessing.crop_px),
        *([transforms.Grayscale(num_output_channels=3)] if preprocessing.channels == "gray" else []),
    ]
    cut: Any = transforms.Compose(steps)
    mean, std = np.array(preprocessing.mean, np.float32), np.array(preprocessing.std, np.float32)

    def transform(image: "PilImage") -> "Tensor":
        _check_size(image, preprocessing.resize_px)
        # numpy for ToTensor and Normalize: the same bits, and no thread team of torch's in every reader thread.
        levels = np.asarray(cut(image)).astype(np.float32)
        scaled = (levels / 255 - mean) / std
        return torch.from_numpy(np.ascontiguousarray(scaled.transpose(2, 0, 1)))

    return transform


def _check_size(image: "PilImage", resize_px: int) -> None:
    long, short = max(image.size), min(image.size)
    if resize_px * resize_px * long > MAX_RESIZED_PIXELS * short:
        raise ItemError(f"an image of {image.width} x {image.height} pixels is too narrow to be resized")
