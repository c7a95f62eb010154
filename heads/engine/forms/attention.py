"""One self-attention head, mean pooling (the paper's section 2.2): the algebra of `attend.py` around one pass."""

import math
from collections.abc import Mapping

import torch
from torch import Tensor

from ..attend import Maps, attend, attend_shared, choose_form
from ..streams import draw_linear, dropout_levels, fresh_norm, keep_mask
from ..tokens import TokenBatch
from . import Pool, Reading, by_parts, most_rows

SUMMARY = "LayerNorm, one self-attention head, mean pooling: the paper's head."

UNTRAINED = ("key.bias",)
"""Has no effect on the head (step 1 of the derivation), so it is not updated."""


def parameters(tower: str, dim: int, *, seed: int) -> dict[str, Tensor]:
    """Gain and bias of the LayerNorm; query, key and value projections."""
    layers = (draw_linear(f"{tower}.{name}", dim, dim, seed=seed) for name in ("query", "key", "value"))
    return fresh_norm(f"{tower}.norm", dim) | {name: value for layer in layers for name, value in layer.items()}


def prepare(params: Mapping[str, Tensor], *, lengths: Tensor, training: bool) -> Pool:
    """Steps 1 and 2 of the derivation, once; the passes over tokens, and step 3, for each reading."""
    return prepare_heads(params, 1, lengths=lengths, training=training)


def prepare_heads(params: Mapping[str, Tensor], heads: int, *, lengths: Tensor, training: bool) -> Pool:
    """The same for any number of attention heads, each with its share of the dimensions."""
    gain, shift = params["norm.weight"], params["norm.bias"]
    dim = gain.shape[1]
    folded = (
        heads == 1
        and choose_form(int(lengths.sum()), int((lengths * lengths).sum()), dim, training=training) == "folded"
    )
    scale = math.sqrt(heads / dim)
    query, key = params["query.weight"] * (gain * scale)[:, None], params["key.weight"] * gain[:, None]
    bias = (torch.bmm(params["query.weight"], shift[:, :, None]) + params["query.bias"][:, :, None]) * scale
    value = params["value.weight"].unflatten(1, (heads, dim // heads)).transpose(2, 3)  # [R, heads, d, d / heads]
    value_bias = params["value.bias"].view(-1, 1, heads, dim // heads)
    maps: dict[torch.dtype, Maps] = {}

    def maps_for(dtype: torch.dtype) -> Maps:
        if dtype not in maps:
            q, k = query.to(dtype), key.to(dtype)
            if folded:
                maps[dtype] = Maps(torch.bmm(q.transpose(1, 2), k), None, torch.bmm(bias.transpose(1, 2), key)[:, 0])
            else:
                maps[dtype] = Maps(q.transpose(1, 2), k.transpose(1, 2), bias[:, :, 0], heads)
        return maps[dtype]

    def pool(reading: Reading) -> Tensor:
        pooled, total = _attended(reading, maps_for(reading.table.dtype), heads)
        tokens = pooled * gain[:, None, None] + total[..., None] * shift[:, None, None]  # u: [R, b, heads, d]
        projected = (tokens.transpose(1, 2) @ value).transpose(1, 2)  # [R, b, heads, d / heads]
        return (projected + total[..., None] * value_bias).flatten(2)

    return pool


def _attended(reading: Reading, maps: Maps, heads: int) -> tuple[Tensor, Tensor]:
    """(v, s) of all items of a reading."""
    runs, levels = len(maps.query), dropout_levels(reading.dropout)

    def compute(batch: TokenBatch, positions: Tensor) -> tuple[Tensor, Tensor]:
        if len(batch.x) < runs:
            block = max(1, most_rows(reading.table) // batch.x[0, ..., 0].numel())
            blocks = [attend_shared(batch, some) for some in maps.split(block)]
            return torch.cat([v for v, _ in blocks]), torch.cat([s for _, s in blocks])
        keep = None
        if reading.keys is not None and levels:
            device, longest = batch.x.device, reading.table.longest
            keys, places = reading.keys.to(device), positions.to(device)
            keep = keep_mask(keys, places, batch.x.shape[2], longest=longest, levels=levels, heads=heads)
        return attend(batch, maps, keep, reading.dropout)

    pooled, total = by_parts(compute, reading)
    return pooled, total
