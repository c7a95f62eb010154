"""Attentive pooling: one learnt query weighs the tokens (one row of attention in place of n): beyond the paper."""

import math
from collections.abc import Mapping

import torch
from torch import Tensor

from ..streams import draw_linear, dropout_levels, dropout_scale, fresh_norm, keep_mask
from . import Pool, Reading

SUMMARY = "LayerNorm, one learnt query that attends to the tokens, value projection."

UNTRAINED = ("query.bias",)
"""Constant over the tokens, so the softmax does not see it."""


def parameters(tower: str, dim: int, *, seed: int) -> dict[str, Tensor]:
    """Gain and bias of the LayerNorm; the query [1, d]; the value projection."""
    layers = (draw_linear(f"{tower}.{name}", n, dim, seed=seed) for name, n in (("query", 1), ("value", dim)))
    return fresh_norm(f"{tower}.norm", dim) | {name: value for layer in layers for name, value in layer.items()}


def prepare(params: Mapping[str, Tensor], *, lengths: Tensor, training: bool) -> Pool:
    """Scores q . x_j; the LayerNorm's bias is constant over the tokens, so only its gain enters them."""
    gain, shift = params["norm.weight"], params["norm.bias"]
    query = (params["query.weight"][:, 0] * gain)[:, None, :, None]  # [R, 1, d, 1]

    def pool(reading: Reading) -> Tensor:
        batch = reading.table.gather(reading.items, reading.views)
        scores = (batch.x @ query.to(batch.x.dtype))[..., 0].float()  # [R, b, n]
        if batch.real is not None:
            scores = scores.masked_fill(~batch.real, -math.inf)
        weights = scores.softmax(dim=2)
        levels = dropout_levels(reading.dropout)
        if reading.keys is not None and levels:
            kept = _kept(reading.keys, reading, batch.x.shape[2], levels).to(weights.device)
            weights = weights * kept * dropout_scale(reading.dropout)
        total = weights.sum(dim=2, keepdim=True)
        pooled = (weights[:, :, None].to(batch.x.dtype) @ batch.x)[:, :, 0].float()
        tokens = pooled * gain[:, None] + total * shift[:, None]
        return torch.bmm(tokens, params["value.weight"].transpose(1, 2)) + total * params["value.bias"][:, None]

    return pool


def _kept(keys: Tensor, reading: Reading, n: int, levels: int) -> Tensor:
    """int8 [R, b, n]."""
    positions = torch.arange(reading.items.shape[1])
    return keep_mask(keys, positions, n, longest=reading.table.longest, levels=levels, queries=1)[:, :, 0, 0]
