"""The paper's attention head in exact, cheaper algebra, under autograd.

Setting. One item has n tokens; h_i [d] is token i after LayerNorm without gain and bias (`x` of a TokenBatch), and
x_i = g * h_i + e with LayerNorm's gain g [d] and bias e [d]. The reference head computes, with W_* [d, d] and b_* [d]
as torch.nn.Linear holds them (y = W x + b) and r_ij in {0, 1/(1-p)} the dropout mask,

    S_ij = (W_q x_i + b_q) . (W_k x_j + b_k) / sqrt(d)       scores           [n, n]
    A    = softmax over j of S                               weights          [n, n]
    z    = (1/n) sum_i sum_j r_ij A_ij (W_v x_j + b_v)       pooled           [d]
    y    = W_c z + b_c                                       logits           [C]

1. The softmax does not see what is constant in j. All of b_k goes, and so does e on the key's side: with G = diag(g),
   S_ij = (W_q G h_i + W_q e + b_q) . (W_k G h_j) / sqrt(d). So b_k has no effect and no gradient; it stays as it was
   initialised (Adam would only normalise the rounding noise that the reference has for a gradient there).
2. Folded form: S_ij = (h_i M + c) . h_j with M = G W_q^T W_k G / sqrt(d) [d, d] and
   c = (W_q e + b_q) W_k G / sqrt(d) [d]. One product of n d^2 in place of two, and none for the keys on the way back.
3. The mean over i commutes with the value projection: with a_j = (1/n) sum_i r_ij A_ij [n] and s = sum_j a_j,
   u = sum_j a_j x_j = g * (sum_j a_j h_j) + s e [d] and z = W_v u + s b_v. The value projection acts on one vector an
   item, not on n.

Padding gets weight 0 as a key (score -inf) and as a query (left out of the mean over i, whose n counts real tokens).

Backward pass (autograd derives it): with dz the gradient at z, du = W_v^T dz and ds = b_v . dz + e . du,
    dA_ij = r_ij (h_j . (g * du) + ds) / n,   dS = A * (dA - rowsum(A * dA)),   dM = H^T dS H,   dc = H^T dS^T 1,
and the chain rule through 1 and 2. Tokens need no gradient, so M costs two products forward and two back.

Cost in multiply-adds of a training step on b items: folded 2 b n d^2 + 2 b n^2 d + 3 d^3; projected (two projections
kept apart, 1 and 3 only) 4 b n d^2 + 3 b n^2 d. `choose_form` takes the smaller one.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from .tokens import TokenBatch

Form = Literal["folded", "projected"]


@dataclass(frozen=True)
class HeadMaps:
    """A head's parameters folded for one step or one evaluation: S_ij = (h_i query) . k_j + query_bias . k_j.

    Attributes:
        query: [d, d]: M in the folded form, else W_q^T / sqrt(d).
        query_bias: [d]: c in the folded form, else b_q / sqrt(d).
        key: [d, d]: None in the folded form, where k_j = h_j; else W_k^T, and k_j = h_j W_k^T.
        state: all parameters as they are; the value projection takes one vector an item, so folding it saves nothing.
    """

    query: Tensor
    query_bias: Tensor
    key: Tensor | None
    state: Mapping[str, Tensor]


def choose_form(lengths: Tensor, dim: int, *, training: bool) -> Form:
    """The form that takes fewer multiply-adds for items of these `lengths` (int64 [b]) under one set of parameters.

    For a training step give the lengths of its batch; for an evaluation, which folds once, those of all its items.
    """
    projection, product = int(lengths.sum()) * dim**2, int((lengths * lengths).sum()) * dim
    if training:
        folded, projected = 2 * projection + 2 * product + 3 * dim**3, 4 * projection + 3 * product
    else:
        folded, projected = projection + product + dim**3, 2 * projection + product
    return "folded" if folded < projected else "projected"


def fold(state: Mapping[str, Tensor], form: Form) -> HeadMaps:
    """Steps 1 and 2 of the module's derivation; `state` holds parameters under the reference head's names."""
    gain, query, key = state["norm.weight"], state["query.weight"], state["key.weight"]
    query_bias = torch.addmv(state["query.bias"], query, state["norm.bias"])
    scaled_gain = gain / math.sqrt(len(gain))
    if form == "projected":
        return HeadMaps((query * scaled_gain).T, query_bias / math.sqrt(len(gain)), (key * gain).T, state)
    product = (query.T @ key) * torch.outer(gain, scaled_gain)
    return HeadMaps(product, (query_bias @ key) * scaled_gain, None, state)


def head_logits(maps: HeadMaps, batch: TokenBatch, mask: Tensor | None = None) -> Tensor:
    """Logits [b, C] of a batch.

    WARN: padding rows of `batch.x` are multiplied by a weight of 0, so they must be finite (the table's are zero).

    Args:
        maps: folded parameters.
        batch: normalised tokens h [b, n, d].
        mask: dropout r_ij [b, n, n] on the attention weights, or None.
    """
    state = maps.state
    pooling = _pooling_weights(_scores(maps, batch), batch.real, mask)  # a_j: [b, n]
    total = pooling.sum(dim=1, keepdim=True)  # s: [b, 1]
    normalised = torch.bmm(pooling[:, None], batch.x)[:, 0]  # sum_j a_j h_j: [b, d]
    tokens = normalised * state["norm.weight"] + total * state["norm.bias"]  # u: [b, d]
    pooled = tokens @ state["value.weight"].T + total * state["value.bias"]  # z: [b, d]
    return torch.addmm(state["classifier.bias"], pooled, state["classifier.weight"].T)


def _scores(maps: HeadMaps, batch: TokenBatch) -> Tensor:
    """S [b, n, n], -inf in the columns of padding."""
    b, n, d = batch.x.shape
    rows = batch.x.view(b * n, d)
    queries = (rows @ maps.query).view(b, n, d)
    keys = rows if maps.key is None else rows @ maps.key
    # The bias of the queries enters as one number a key: a pass over [b, n, n] where adding it to them costs [b, n, d].
    column = (keys @ maps.query_bias).view(b, 1, n)
    if batch.real is not None:
        column = column.masked_fill(~batch.real[:, None], -math.inf)
    return torch.baddbmm(column, queries, keys.view(b, n, d).transpose(1, 2))


def _pooling_weights(scores: Tensor, real: Tensor | None, mask: Tensor | None) -> Tensor:
    """a_j = (1/n) sum over real i of r_ij softmax(S)_ij: [b, n]."""
    weights = scores.softmax(dim=2)
    if mask is not None:
        weights = weights * mask
    if real is None:
        return weights.mean(dim=1)
    share = real.to(weights.dtype) / real.sum(dim=1, keepdim=True)  # 1/n of each real query, 0 of padding
    return torch.bmm(share[:, None], weights)[:, 0]
