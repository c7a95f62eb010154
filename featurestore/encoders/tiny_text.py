"""A seeded random table of word vectors: the text encoder for tests. Variable length, nothing to install.

A word's vector depends on the word alone, so tokens are the same bytes on every platform and in every batch.
"""

import zlib
from typing import TYPE_CHECKING

import numpy as np

from .frozen import TextEncoder
from .sources import SeededWeights
from .spec import Architecture, EncoderSpec, TextPreprocessing, TokenLayout

if TYPE_CHECKING:
    from torch import Tensor

_SEED = 20251029
_ROWS = 4096

SPEC = EncoderSpec(
    name="tiny-text",
    modality="text",
    architecture=Architecture(library="radfs", name="word-table"),
    weights=SeededWeights(seed=_SEED),
    preprocessing=TextPreprocessing(tokenizer="words-crc32", context_length=32, lower_case=True, special_tokens=()),
    tokens=TokenLayout(dim=16),
    output="words",
    layer="a random vector for each word between blanks",
    builder="featurestore.encoders.tiny_text:build",
    objective="none",
    pretraining=(),
    licence="Apache-2.0",
)


def build(spec: EncoderSpec, *, device: str) -> TextEncoder:
    """The encoder on `device`."""
    import torch

    assert isinstance(spec.weights, SeededWeights)
    table = torch.from_numpy(_table(spec.weights.seed, spec.tokens.dim)).to(device)

    def tokenize(text: str) -> list[int]:
        return [zlib.crc32(word.encode()) % _ROWS for word in text.lower().split()]

    def forward(ids: "Tensor", mask: "Tensor") -> "Tensor":
        return table[ids]

    return TextEncoder(spec, tokenize, forward, device=device)


def _table(seed: int, dim: int) -> np.ndarray:
    """Float32 [rows, dim] in [-1, 1), multiples of 2**-23 cut from the raw draws of PCG64, whose stream is fixed."""
    raw = np.random.PCG64(seed).random_raw(_ROWS * dim)
    return ((raw >> np.uint64(40)).astype(np.float32) * np.float32(2**-23) - 1).reshape(_ROWS, dim)
