"""One self-attention head, mean pooling (the paper's section 2.2): the algebra of `attend.py` around one pass."""

import math
from collections.abc import Mapping

import torch
from torch import Tensor

from ..attend import Maps, attend, choose_form
from ..streams import draw_linear, dropout_levels, fresh_norm, keep_mask
from . import Pool, Reading

SUMMARY = "LayerNorm, one self-attention head, mean pooling: the paper's head."

UNTRAINED = ("key.bias",)
"""Has no effect on the head (step 1 of the derivation), so it is not updated."""

# Padded tokens that are computed together. A ragged batch is cut into items of similar length, which saves more padding
# than it costs in calls (measured best at 1,000 to 2,000).
_RAGGED_ROWS = 1_536


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
    table, items = reading.table, reading.items
    if table.tokens_per_item is not None or len(items) > 1:
        return _attend_some(reading, maps, heads, torch.arange(items.shape[1]))
    groups = list(table.length_groups(items[0], max_rows=_RAGGED_ROWS))
    pooled, total = zip(*(_attend_some(reading, maps, heads, group) for group in groups), strict=True)
    back = torch.argsort(torch.cat(groups)).to(pooled[0].device)
    return torch.cat(pooled, dim=1)[:, back], torch.cat(total, dim=1)[:, back]


def _attend_some(reading: Reading, maps: Maps, heads: int, positions: Tensor) -> tuple[Tensor, Tensor]:
    views = None if reading.views is None else reading.views[:, positions]
    batch = reading.table.gather(reading.items[:, positions], views)
    levels, keep = dropout_levels(reading.dropout), None
    if reading.keys is not None and levels:
        keep = keep_mask(
            reading.keys.to(batch.x.device),
            positions.to(batch.x.device),
            batch.x.shape[2],
            longest=reading.table.longest,
            levels=levels,
            heads=heads,
        )
    return attend(batch, maps, keep, reading.dropout)
