"""The paper's attention head in exact, cheaper algebra: what happens between tokens and pooled vectors.

Setting. One item has n tokens; h_i [d] is token i after LayerNorm without gain and bias (`x` of a TokenBatch), and
x_i = g * h_i + e with LayerNorm's gain g [d] and bias e [d]. The reference head computes, with W_* [d, d] and b_* [d]
as torch.nn.Linear holds them (y = W x + b) and r_ij in {0, 1/(1-p)} the dropout mask,

    S_ij = (W_q x_i + b_q) . (W_k x_j + b_k) / sqrt(d)       scores           [n, n]
    A    = softmax over j of S                               weights          [n, n]
    z    = (1/n) sum_i sum_j r_ij A_ij (W_v x_j + b_v)       pooled           [d]

1. The softmax does not see what is constant in j. All of b_k goes, and so does e on the key's side: with G = diag(g),
   S_ij = (W_q G h_i + W_q e + b_q) . (W_k G h_j) / sqrt(d). So b_k has no effect and no gradient; it stays as it was
   initialised (Adam would only normalise the rounding noise that the reference has for a gradient there).
2. Folded form: S_ij = (h_i M + c) . h_j with M = G W_q^T W_k G / sqrt(d) [d, d] and
   c = (W_q e + b_q) W_k G / sqrt(d) [d]. One product of n d^2 in place of two, and none for the keys on the way back.
3. The mean over i commutes with the value projection: with a_j = (1/n) sum_i r_ij A_ij [n], s = sum_j a_j and
   v = sum_j a_j h_j [d], z = W_v (g * v + s e) + s b_v. The value projection acts on one vector an item, not on n.

Padding gets weight 0 as a key (score -inf) and as a query (left out of the mean over i, whose n counts real tokens).
With several attention heads each has its own d/heads rows of W_q and W_k, its own A, and its own rows of W_v.

`attend` computes (v, s) from h, M (or the two projections) and c, and its gradients by hand: with dv, ds given,
    f_j  = (h_j . dv + ds) / (n (1-p)),  B = A where kept else 0,  t_i = sum_j B_ij f_j,
    dS_ij = B_ij f_j - A_ij t_i,         dM = H^T dS H,            dc = H^T dS^T 1.
Tokens need no gradient, so M costs two products forward and two back. What surrounds it (the folding, W_v, the
classifier) is small and stays under autograd (`forms/attention.py`).

Cost in multiply-adds of a training step on b items: folded 2 b n d^2 + 2 b n^2 d + 3 d^3; projected (two projections
kept apart) 4 b n d^2 + 3 b n^2 d. `choose_form` takes the smaller one.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from .streams import dropout_scale
from .tokens import TokenBatch

Form = Literal["folded", "projected"]


@dataclass(frozen=True)
class Maps:
    """The maps of R runs from normalised tokens to scores: S_ij = (h_i query) . k_j + bias . k_j.

    Attributes:
        query: [R, d, m]: M in the folded form (m = d), else W_q^T scaled.
        key: [R, d, m]: None in the folded form, where k_j = h_j.
        bias: [R, m]: c in the folded form, else the scaled query bias.
        heads: attention heads that share m; 1 in the folded form.
    """

    query: Tensor
    key: Tensor | None
    bias: Tensor
    heads: int = 1

    def split(self, size: int) -> "Iterator[Maps]":
        """The maps of `size` runs after another."""
        for start in range(0, len(self.query), size):
            some = slice(start, start + size)
            key = None if self.key is None else self.key[some]
            yield Maps(self.query[some], key, self.bias[some], self.heads)


def choose_form(rows: int, squares: int, dim: int, *, training: bool) -> Form:
    """The form of one attention head that takes fewer multiply-adds.

    Args:
        rows: sum over the items of n, under one set of parameters.
        squares: sum of n^2.
        dim: d.
        training: with the way back.
    """
    projection, product = rows * dim**2, squares * dim
    if training:
        folded, projected = 2 * projection + 2 * product + 3 * dim**3, 4 * projection + 3 * product
    else:
        folded, projected = projection + product + dim**3, 2 * projection + product
    return "folded" if folded < projected else "projected"


def attend(batch: TokenBatch, maps: Maps, keep: Tensor | None, dropout: float) -> tuple[Tensor, Tensor]:
    """(v, s) of the module's derivation: [R, b, heads, d] and [R, b, heads], float32.

    Args:
        batch: normalised tokens [R, b, n, d].
        maps: of each run; float32, computed with in the precision of the tokens.
        keep: int8 [R, b, heads, n, n], 1 where a weight stays, or None for no dropout.
        dropout: the rate that `keep` was drawn with.
    """
    scale = 1.0 if keep is None else dropout_scale(dropout)
    return _Attend.apply(batch.x, batch.real, maps.query, maps.key, maps.bias, maps.heads, keep, scale)  # pyright: ignore[reportReturnType]


def attend_plainly(batch: TokenBatch, maps: Maps, keep: Tensor | None, dropout: float) -> tuple[Tensor, Tensor]:
    """The slow twin of `attend`: the same by autograd, as the equations stand."""
    x, heads = batch.x, maps.heads
    keys = x if maps.key is None else x @ maps.key[:, None]
    queries = x @ maps.query[:, None] + maps.bias[:, None, None]
    q, k = (t.unflatten(3, (heads, -1)).transpose(2, 3) for t in (queries, keys))  # [R, b, heads, n, m / heads]
    scores = q @ k.transpose(3, 4)
    real = torch.ones(x.shape[:3], dtype=torch.bool, device=x.device) if batch.real is None else batch.real
    weights = scores.masked_fill(~real[:, :, None, None], -math.inf).softmax(dim=4)
    if keep is not None:
        weights = weights * keep * dropout_scale(dropout)
    weights = weights.masked_fill(~real[:, :, None, :, None], 0.0)
    pooling = weights.sum(dim=3) / real.sum(dim=2)[:, :, None, None]  # a_j: [R, b, heads, n]
    return pooling @ x, pooling.sum(dim=3)


@torch.no_grad()
def attend_shared(batch: TokenBatch, maps: Maps) -> tuple[Tensor, Tensor]:
    """`attend` without dropout of R runs that read the same items: every product is one for all of them.

    Args:
        batch: normalised tokens [1, b, n, d].
        maps: of each run.
    """
    x, runs = batch.x[0], len(maps.query)
    b, n, d = x.shape
    rows, wide = x.view(b * n, d), torch.promote_types(x.dtype, torch.float32)
    queries = (rows @ _side_by_side(maps.query, x.dtype)).add_(maps.bias.to(x.dtype).flatten())  # [b * n, R * m]
    if maps.key is None:
        scores = torch.bmm(queries.view(b, n * runs, d), x.transpose(1, 2)).view(b, n, runs, n)
    else:
        keys = rows @ _side_by_side(maps.key, x.dtype)
        q, k = (t.view(b, n, runs * maps.heads, -1).transpose(1, 2) for t in (queries, keys))
        scores = (q @ k.transpose(2, 3)).transpose(1, 2)
    lengths: int | Tensor = n
    if batch.real is None:
        weights = scores.softmax(dim=3)  # [b, n, R * heads, n]
    else:
        real = batch.real[0]
        weights = scores.masked_fill(~real[:, None, None], -math.inf).softmax(dim=3)
        weights.masked_fill_(~real[:, :, None, None], 0.0)
        lengths = real.sum(dim=1, dtype=wide)[:, None, None]
    pooling = weights.sum(dim=1, dtype=wide) / lengths  # a_j: [b, R * heads, n]
    pooled = torch.bmm(pooling.to(x.dtype), x).to(wide).view(b, runs, maps.heads, d)
    return pooled.transpose(0, 1), pooling.sum(dim=2).view(b, runs, maps.heads).transpose(0, 1)


def _side_by_side(weights: Tensor, dtype: torch.dtype) -> Tensor:
    """[R, d, m] -> [d, R * m]."""
    return weights.to(dtype).transpose(0, 1).flatten(1)


class _Attend(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        real: Tensor | None,
        query: Tensor,
        key: Tensor | None,
        bias: Tensor,
        heads: int,
        keep: Tensor | None,
        scale: float,
    ) -> tuple[Tensor, Tensor]:
        runs, b, n, d = x.shape
        wide = torch.promote_types(x.dtype, torch.float32)
        query, key, bias = query.to(x.dtype), None if key is None else key.to(x.dtype), bias.to(x.dtype)
        rows = x.view(runs, b * n, d)
        queries = _split(torch.bmm(rows, query).add_(bias[:, None]), b, heads)  # [R * b * heads, n, m / heads]
        keys = x.view(runs * b, n, d) if key is None else _split(torch.bmm(rows, key), b, heads)
        scores = torch.bmm(queries, keys.transpose(1, 2))
        if real is None:
            weights = scores.softmax(dim=2)
        else:
            padding = ~real.reshape(runs * b, n).repeat_interleave(heads, dim=0)
            weights = scores.masked_fill_(padding[:, None], -math.inf).softmax(dim=2)
            weights.masked_fill_(padding[:, :, None], 0.0)
        kept = weights if keep is None else _where_kept(weights, keep)
        lengths = n if real is None else real.sum(dim=2, dtype=wide).view(runs * b, 1).repeat_interleave(heads, dim=0)
        share = scale / lengths  # r_ij / n of a kept weight
        pooling = kept.sum(dim=1, dtype=wide).mul_(share)  # a_j: [R * b * heads, n]
        pooled = torch.bmm(pooling.view(runs * b, heads, n).to(x.dtype), x.view(runs * b, n, d))
        ctx.save_for_backward(x, key, weights, kept, queries, keys)
        ctx.share, ctx.heads = share, heads
        total = pooling.sum(dim=1)
        return pooled.to(wide).view(runs, b, heads, d), total.view(runs, b, heads)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        x, key, weights, kept, queries, keys = ctx.saved_tensors
        d_pooled, d_total = gradients  # [R, b, heads, d], [R, b, heads]
        (runs, b, n, d), heads, wide = x.shape, ctx.heads, d_pooled.dtype
        tokens = x.view(runs * b, n, d)
        toward = torch.bmm(d_pooled.reshape(runs * b, heads, d).to(x.dtype), tokens.transpose(1, 2))  # h_j . dv
        toward = toward.view(-1, n).to(wide) + d_total.reshape(-1, 1)
        f = toward.mul_(ctx.share).to(x.dtype)  # [R * b * heads, n]
        t = torch.bmm(kept, f[:, :, None])
        d_scores = (kept * f[:, None]).addcmul_(weights, t, value=-1)
        column = d_scores.sum(dim=1, dtype=wide).to(x.dtype)  # dS^T 1: [R * b * heads, n]
        rows = x.view(runs, b * n, d)
        if key is None:
            along = torch.bmm(d_scores, tokens).view(runs, b * n, d)
            d_query = torch.bmm(rows.transpose(1, 2), along)
            d_bias = torch.bmm(column.view(runs, 1, b * n), rows)[:, 0]
            return None, None, d_query.to(wide), None, d_bias.to(wide), None, None, None
        d_queries = torch.bmm(d_scores, keys)
        d_keys = torch.bmm(d_scores.transpose(1, 2), queries)
        d_bias = torch.bmm(column[:, None], keys).view(runs, b, -1).sum(dim=1, dtype=wide)
        d_query, d_key = (torch.bmm(rows.transpose(1, 2), _join(g, runs, b)) for g in (d_queries, d_keys))
        return None, None, d_query.to(wide), d_key.to(wide), d_bias, None, None, None


def _split(rows: Tensor, b: int, heads: int) -> Tensor:
    """[R, b * n, m] -> [R * b * heads, n, m / heads]."""
    runs, bn, m = rows.shape
    if heads == 1:
        return rows.view(runs * b, bn // b, m)
    return rows.view(runs * b, bn // b, heads, m // heads).transpose(1, 2).reshape(-1, bn // b, m // heads)


def _join(parts: Tensor, runs: int, b: int) -> Tensor:
    """The inverse of `_split`."""
    n, m = parts.shape[1:]
    return parts.view(runs * b, -1, n, m).transpose(1, 2).reshape(runs, b * n, -1)


def _where_kept(weights: Tensor, keep: Tensor) -> Tensor:
    """`weights` with zeros where not kept: bits times 0 or 1, several times faster than a product of other types."""
    bits = {2: torch.int16, 4: torch.int32, 8: torch.int64}[weights.element_size()]
    return (weights.view(bits) * keep.view(weights.shape).to(bits)).view(weights.dtype)
