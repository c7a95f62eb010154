"""The tokens of all items, held once and normalised once, for every run, step and epoch that reads them.

`(x - mean) / sqrt(variance + eps)` of the head's LayerNorm does not depend on any parameter, so it is computed here a
single time; the gain and bias that follow are folded into the projections (`attention.py`). This module knows arrays of
tokens and indices of items; it knows neither stores, nor labels, nor item names.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

LAYER_NORM_EPS = 1e-5
"""PyTorch's default, used by the reference head as well."""

_CHUNK_ROWS = 65_536  # tokens normalised at a time: bounds the float32 copy of a float16 table


@dataclass(frozen=True)
class TokenBatch:
    """Normalised tokens of some items, padded to the longest of them.

    Attributes:
        x: float [b, n, d]; rows of padding are zero.
        real: bool [b, n], False at padding; None where all items have n tokens.
    """

    x: Tensor
    real: Tensor | None = None


class TokenTable:
    """Tokens of N items as one float32 table [T + 1, d] of normalised rows; row T is zero and stands for padding.

    Build it with `dense` or `ragged`. The caller's array is kept beside it, not copied, for `raw_tokens`.

    Attributes:
        n_items: N.
        dim: d.
        lengths: int64 [N], tokens of each item.
        tokens_per_item: n where all items have n tokens, else None.
    """

    def __init__(self, flat: np.ndarray, offsets: np.ndarray) -> None:
        self._flat = flat
        self._starts = torch.from_numpy(offsets[:-1].copy())
        self.lengths = torch.from_numpy(np.diff(offsets))
        self.n_items = len(offsets) - 1
        self.dim = flat.shape[1]
        longest = int(self.lengths.max()) if self.n_items else 0
        self.tokens_per_item = longest if bool((self.lengths == longest).all()) else None
        self._x_hat = _normalise(flat, offsets)

    @classmethod
    def dense(cls, tokens: np.ndarray) -> "TokenTable":
        """A table of items with n tokens each, from [N, n, d] float16 or float32.

        Raises:
            ValueError: for another shape or type, or a token that is not finite (its item index is named).
        """
        if tokens.ndim != 3 or tokens.shape[1] == 0 or tokens.shape[2] == 0:
            raise ValueError(f"dense tokens are [items, tokens, dim], none of them empty per item; got {tokens.shape}")
        n_items, n, dim = tokens.shape
        return cls(_checked_type(tokens).reshape(n_items * n, dim), np.arange(n_items + 1, dtype=np.int64) * n)

    @classmethod
    def ragged(cls, flat: np.ndarray, offsets: np.ndarray) -> "TokenTable":
        """A table of items of any length: item i is flat[offsets[i]:offsets[i + 1]].

        Args:
            flat: float16 or float32 [T, d].
            offsets: int64 [N + 1], rising from 0 to T.

        Raises:
            ValueError: for another shape or type, an item without tokens or a token that is not finite (its item index
                is named).
        """
        if flat.ndim != 2 or flat.shape[1] == 0:
            raise ValueError(f"ragged tokens are one array [tokens, dim] for all items; got {flat.shape}")
        offsets = np.asarray(offsets, dtype=np.int64)
        if offsets.ndim != 1 or len(offsets) == 0 or offsets[0] != 0 or offsets[-1] != len(flat):
            raise ValueError(
                f"offsets rise from 0 to the number of tokens, {len(flat)}; got {offsets[:1]}..{offsets[-1:]}"
            )
        empty = np.flatnonzero(np.diff(offsets) <= 0)
        if len(empty):
            raise ValueError(f"item {empty[0]} has no tokens ({len(empty)} such items): leave it out of the table")
        return cls(_checked_type(flat), offsets)

    def raw_tokens(self, item: int) -> Tensor:
        """The tokens of one item as they were given, before any normalisation: float32 [n, d], a copy."""
        start = int(self._starts[item])
        return torch.from_numpy(self._flat[start : start + int(self.lengths[item])].astype(np.float32))

    def gather(self, items: Tensor) -> TokenBatch:
        """The normalised tokens of `items` (int64 [b]), padded to the longest of them."""
        starts, lengths = self._starts[items], self.lengths[items]
        n = self.tokens_per_item or int(lengths.max())
        position = torch.arange(n)
        real = None
        rows = starts[:, None] + position
        if self.tokens_per_item is None:
            real = position < lengths[:, None]
            rows = torch.where(real, rows, len(self._x_hat) - 1)
        x = self._x_hat.index_select(0, rows.view(-1)).view(len(items), n, self.dim)
        return TokenBatch(x, real)

    def length_groups(self, items: Tensor, *, max_rows: int) -> Iterator[Tensor]:
        """Positions within `items`, shortest item first, in groups of at most `max_rows` padded tokens (or one item).

        Neighbours in length share a group, so little of it is padding.
        """
        lengths, order = torch.sort(self.lengths[items], stable=True)
        start = 0
        for stop, length in enumerate(lengths.tolist()):
            if stop > start and (stop + 1 - start) * length > max_rows:
                yield order[start:stop]
                start = stop
        yield order[start:]


def _checked_type(tokens: np.ndarray) -> np.ndarray:
    if tokens.dtype not in (np.float16, np.float32):
        raise ValueError(f"tokens are float16 or float32, not {tokens.dtype}")
    return tokens


def _normalise(flat: np.ndarray, offsets: np.ndarray) -> Tensor:
    """LayerNorm without gain and bias of every row, and a last row of zeros: float32 [T + 1, d]."""
    dim = flat.shape[1]
    x_hat = torch.zeros(len(flat) + 1, dim)
    for start in range(0, len(flat), _CHUNK_ROWS):
        rows = torch.from_numpy(flat[start : start + _CHUNK_ROWS].astype(np.float32))
        normal = torch.nn.functional.layer_norm(rows, (dim,), eps=LAYER_NORM_EPS)
        finite = torch.isfinite(normal).all(dim=1)
        if not finite.all():
            row = start + int(torch.argmin(finite.int()))
            item = int(np.searchsorted(offsets, row, side="right")) - 1
            raise ValueError(f"item {item} has a token that is not finite: extract it again or leave it out")
        x_hat[start : start + len(rows)] = normal
    return x_hat
