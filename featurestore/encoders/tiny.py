"""A seeded random patch projection: the image encoder for tests. 16 tokens and a class token, nothing to install.

Every number it computes is an integer below 2**24 times a power of two, which float32 holds exactly: its tokens are
the same bytes on every platform and device, and at every thread count and batch size.
"""

from typing import TYPE_CHECKING

import numpy as np

from .frozen import ImageEncoder
from .sources import SeededWeights
from .spec import Architecture, EncoderSpec, ImagePreprocessing, TokenLayout

if TYPE_CHECKING:
    from torch import Tensor

_SEED = 20251028
_PATCH_PX = 8

SPEC = EncoderSpec(
    name="tiny",
    modality="image",
    architecture=Architecture(library="radfs", name="patch-projection"),
    weights=SeededWeights(seed=_SEED),
    preprocessing=ImagePreprocessing(
        resize_px=32, interpolation="bilinear", crop_px=32, mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0)
    ),
    tokens=TokenLayout(dim=16, grid=(4, 4), has_cls=True),
    output="projection",
    layer="a random projection of each 8x8 patch, and their mean as CLS",
    builder="featurestore.encoders.tiny:build",
    objective="none",
    pretraining=(),
    licence="Apache-2.0",
)


def build(spec: EncoderSpec, *, device: str) -> ImageEncoder:
    """The encoder on `device`."""
    import torch

    assert isinstance(spec.weights, SeededWeights)
    assert spec.tokens.grid is not None
    rows, columns = spec.tokens.grid
    inputs = 3 * _PATCH_PX * _PATCH_PX
    weight = torch.from_numpy(_small_integers(spec.weights.seed, inputs, spec.tokens.dim)).to(device)

    def forward(images: "Tensor") -> "tuple[Tensor, Tensor]":
        levels = (images * 255).round() - 127.5  # the 8-bit values again, exactly; never 0, so no sum is -0.0
        tiles = levels.unflatten(3, (columns, _PATCH_PX)).unflatten(2, (rows, _PATCH_PX))  # [b, 3, r, p, c, p]
        flat = tiles.permute(0, 2, 4, 1, 3, 5).reshape(len(images), rows * columns, inputs)
        patches = (flat @ weight) * 2**-10  # |sum| <= 127.5 * 8 * 192 < 2**18
        return patches, patches.sum(dim=1) / (rows * columns)

    return ImageEncoder(spec, forward, device=device)


def _small_integers(seed: int, inputs: int, outputs: int) -> np.ndarray:
    """Float32 [inputs, outputs] of integers from -8 to 7, cut from the raw draws of PCG64, whose stream is fixed."""
    raw = np.random.PCG64(seed).random_raw(inputs * outputs)
    return ((raw >> np.uint64(60)).astype(np.float32) - 8).reshape(inputs, outputs)
