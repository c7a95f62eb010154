"""Several self-attention heads, each with its share of the dimensions, then mean pooling: beyond the paper.

The usual output projection is left out: after mean pooling the classifier is the next linear map, so it would add
parameters and no function.
"""

import math
from collections.abc import Mapping

from torch import Tensor

from . import Pool
from .attention import UNTRAINED, parameters, prepare_heads

__all__ = ["SUMMARY", "UNTRAINED", "head_count", "parameters", "prepare"]

SUMMARY = "LayerNorm, eight self-attention heads, mean pooling."


def head_count(dim: int) -> int:
    """Attention heads for tokens of `dim` dimensions: eight, or the largest of 4, 2, 1 that divides `dim`."""
    return math.gcd(8, dim)


def prepare(params: Mapping[str, Tensor], *, lengths: Tensor, training: bool) -> Pool:
    """As `attention.prepare`, with several heads."""
    return prepare_heads(params, head_count(params["norm.weight"].shape[1]), lengths=lengths, training=training)
