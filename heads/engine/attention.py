"""The paper's attention head in exact, cheaper algebra, under autograd.

Setting. One item has n tokens t_i in R^d, x_i = g * h_i + e the LayerNorm of t_i with gain g [d], bias e [d] and h_i
(`x` of a TokenBatch) the normalised token without them. The reference head computes, with W_* [d, d] and b_* [d] as
torch.nn.Linear holds them (y = W x + b),

    S_ij = (W_q x_i + b_q) . (W_k x_j + b_k) / sqrt(d)       scores           [n, n]
    A    = softmax over j of S                               weights          [n, n]
    z    = (1/n) sum_i sum_j r_ij A_ij (W_v x_j + b_v)       pooled           [d]
    y    = W_c z + b_c                                       logits           [C]

with r_ij in {0, 1/(1-p)} the dropout mask.

1. LayerNorm's gain and bias fold into the projections that read x: W x + b = (W diag(g)) h + (W e + b). Below, W_q, b_q,
   W_k, W_v, b_v stand for these folded ones.
2. What is constant in j vanishes in the softmax, so every term with b_k does: S_ij = (W_q h_i + b_q) . (W_k h_j) / sqrt(d).
   b_k has no effect and no gradient (Adam would only normalise its rounding noise), so it stays as initialised.
3. Folded form: S_ij = (h_i M + c) . h_j with M = W_q^T W_k / sqrt(d) [d, d] and c = b_q W_k / sqrt(d) [d]: one product
   of n d^2 in place of two, and none in the backward pass for the keys.
4. The mean over i commutes with the value projection: with a_j = (1/n) sum_i r_ij A_ij [n], u = sum_j a_j h_j [d] and
   s = sum_j a_j, the pooled vector is z = W_v u + s b_v: the value projection acts on one vector, not on n.

Padding gets weight 0 as a key (score -inf) and as a query (left out of the mean over i, whose n counts real tokens).

Backward pass (autograd derives it): with dz the gradient at z, du = W_v^T dz and ds = b_v . dz,
    dA_ij = r_ij (h_j . du + ds) / n,  dS = A * (dA - rowsum(A * dA)),  dM = H^T dS H,  dc = H^T dS^T 1,
and the chain rule through 3 and 1. Tokens need no gradient, so the folded form costs two products forward and two back.

Cost in multiply-adds a training step on b items: folded 2 b n d^2 + 2 b n^2 d + 3 d^3, projected (two projections, then 4)
4 b n d^2 + 3 b n^2 d. `choose_form` takes the smaller one.
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
    """A head's parameters folded for one step or one evaluation: S_ij = (h_i query + query_bias) . (h_j key).

    Attributes:
        query: [d, d]: M, or W_q^T / sqrt(d) in the projected form.
        query_bias: [d]: c, or b_q / sqrt(d).
        key: [d, d]: None (the identity) in the folded form, or W_k^T.
        value: [d, d]: W_v^T, with LayerNorm's gain in it as in all of these.
        value_bias: [d].
        classifier: [d, C].
        classifier_bias: [C].
    """

    query: Tensor
    query_bias: Tensor
    key: Tensor | None
    value: Tensor
    value_bias: Tensor
    classifier: Tensor
    classifier_bias: Tensor


def choose_form(items: int, tokens: int, dim: int, *, training: bool) -> Form:
    """The form that takes fewer multiply-adds for `items` items of `tokens` tokens under one set of parameters.

    For a training step count the items of the batch; for an evaluation, which folds once, all its items.
    """
    projection, product, fold = items * tokens * dim**2, items * tokens**2 * dim, dim**3
    if training:
        folded, projected = 2 * projection + 2 * product + 3 * fold, 4 * projection + 3 * product
    else:
        folded, projected = projection + product + fold, 2 * projection + product
    return "folded" if folded < projected else "projected"


def fold(state: Mapping[str, Tensor], form: Form) -> HeadMaps:
    """Steps 1 to 3 of the module's derivation; `state` holds parameters under the reference head's names."""
    gain, bias = state["norm.weight"], state["norm.bias"]
    scale = 1 / math.sqrt(len(gain))
    query, key, value = (state[f"{name}.weight"] * gain for name in ("query", "key", "value"))
    query_bias = torch.addmv(state["query.bias"], state["query.weight"], bias)
    query, query_bias = query.T * scale, query_bias * scale
    if form == "folded":
        query, query_bias = query @ key, query_bias @ key
    return HeadMaps(
        query=query,
        query_bias=query_bias,
        key=key.T if form == "projected" else None,
        value=value.T,
        value_bias=torch.addmv(state["value.bias"], state["value.weight"], bias),
        classifier=state["classifier.weight"].T,
        classifier_bias=state["classifier.bias"],
    )


def head_logits(maps: HeadMaps, batch: TokenBatch, mask: Tensor | None = None) -> Tensor:
    """Logits [b, C] of a batch.

    WARN: padding rows of `batch.x` have weight 0 but are multiplied by it, so they must be finite (the table's are zero).

    Args:
        maps: folded parameters.
        batch: normalised tokens h [b, n, d].
        mask: dropout r_ij [b, n, n] on the attention weights, or None.
    """
    pooling = _pooling_weights(_scores(maps, batch), batch.real, mask)  # a_j: [b, n]
    pooled = torch.bmm(pooling[:, None], batch.x)[:, 0]  # u: [b, d]
    pooled = pooled @ maps.value + pooling.sum(dim=1, keepdim=True) * maps.value_bias
    return torch.addmm(maps.classifier_bias, pooled, maps.classifier)


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
    share = real / real.sum(dim=1, keepdim=True)  # 1/n of each real query, 0 of padding
    return torch.bmm(share.to(weights.dtype)[:, None], weights)[:, 0]
