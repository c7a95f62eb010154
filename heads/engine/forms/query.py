"""Attentive pooling: one learnt query weighs the tokens (one row of attention in place of n): beyond the paper."""

import math
from collections.abc import Mapping

import torch
from torch import Tensor

from ..streams import draw_linear, dropout_levels, dropout_scale, fresh_norm, keep_mask
from ..tokens import TokenBatch
from . import Pool, Reading, by_parts

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
    query = params["query.weight"][:, 0] * gain  # [R, d]

    def pool(reading: Reading) -> Tensor:
        levels = dropout_levels(reading.dropout)

        def compute(batch: TokenBatch, positions: Tensor) -> tuple[Tensor, Tensor]:
            scores = _scores(batch.x, query.to(batch.x.dtype)).float()
            if batch.real is not None:
                scores = scores.masked_fill(~batch.real, -math.inf)
            weights = scores.softmax(dim=2)
            if reading.keys is not None and levels:
                longest, n = reading.table.longest, batch.x.shape[2]
                kept = keep_mask(reading.keys, positions, n, longest=longest, levels=levels, queries=1)[:, :, 0, 0]
                weights = weights * kept.to(weights.device) * dropout_scale(reading.dropout)
            return _pooled(weights.to(batch.x.dtype), batch.x).float(), weights.sum(dim=2, keepdim=True)

        pooled, total = by_parts(compute, reading)
        tokens = pooled * gain[:, None] + total * shift[:, None]
        return torch.bmm(tokens, params["value.weight"].transpose(1, 2)) + total * params["value.bias"][:, None]

    return pool


def _scores(x: Tensor, query: Tensor) -> Tensor:
    """[R, b, n] of queries [R, d] on tokens [R, b, n, d], or on the same tokens [1, b, n, d]: then in one product."""
    if len(x) == len(query):
        return torch.bmm(x.flatten(1, 2), query[:, :, None]).view(x.shape[:3])
    return (x[0].flatten(0, 1) @ query.T).T.reshape(len(query), *x.shape[1:3])


def _pooled(weights: Tensor, x: Tensor) -> Tensor:
    """[R, b, d] of weights [R, b, n], likewise."""
    if len(x) == len(weights):
        return torch.bmm(weights.flatten(0, 1)[:, None], x.flatten(0, 1))[:, 0].view(*weights.shape[:2], -1)
    return torch.bmm(weights.transpose(0, 1), x[0]).transpose(0, 1)
