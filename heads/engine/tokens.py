"""The tokens of all items of one modality, normalised once, for every run, step and epoch that reads them.

`(x - mean) / sqrt(variance + eps)` of the head's LayerNorm does not depend on any parameter, so it is computed here a
single time; the gain and bias that follow are folded into the projections (`attend.py`). This module knows arrays of
tokens and indices of items; it knows neither stores, nor labels, nor item names.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

LAYER_NORM_EPS = 1e-5
"""PyTorch's default, used by the reference head as well."""

_CHUNK_ROWS = 65_536  # tokens normalised at a time: bounds the float32 copy of a float16 table


@dataclass(frozen=True)
class TokenBatch:
    """Normalised tokens of R x b items, padded to the longest of them.

    Attributes:
        x: [R, b, n, d]; rows of padding are zero.
        real: bool [R, b, n], False at padding; None where all items have n tokens.
    """

    x: Tensor
    real: Tensor | None = None


class TokenTable:
    """Tokens of N items, in one view or several, as rows of normalised tokens.

    Build it with `dense` or `ragged`. The caller's arrays are kept, not copied. The normalised table is made at first
    use and held in memory (`resident`), or made batch by batch from the caller's arrays, which may be mapped files.

    Attributes:
        n_items: N.
        n_views: V; view 0 is the clean one.
        dim: d.
        lengths: int64 [N], tokens of each item.
        longest: the most tokens of any item.
        tokens_per_item: n where all items have n tokens, else None.
        dtype: of the normalised tokens: float32, or bfloat16 for products in that precision.
        device: where the normalised tokens go.
    """

    def __init__(
        self, views: Sequence[np.ndarray], offsets: np.ndarray, *, dtype: torch.dtype, device: str, resident: bool
    ) -> None:
        self._views = tuple(views)  # each [T, d]
        self._starts = torch.from_numpy(offsets[:-1].copy())
        self._rows = int(offsets[-1])
        self.lengths = torch.from_numpy(np.diff(offsets))
        self.n_items, self.n_views, self.dim = len(offsets) - 1, len(views), views[0].shape[1]
        self.longest = int(self.lengths.max()) if self.n_items else 0
        self.tokens_per_item = self.longest if bool((self.lengths == self.longest).all()) else None
        self.dtype, self.device, self.resident = dtype, torch.device(device), resident
        if resident:
            self._refuse_not_finite(offsets)

    @classmethod
    def dense(
        cls,
        *views: np.ndarray,
        dtype: torch.dtype = torch.float32,
        device: str = "cpu",
        resident: bool = True,
    ) -> "TokenTable":
        """A table of items with n tokens each, from one [N, n, d] float16 or float32 a view.

        Raises:
            ValueError: for another shape or type, or a token that is not finite (its item index is named).
        """
        for tokens in views:
            if tokens.ndim != 3 or tokens.shape[1] == 0 or tokens.shape[2] == 0 or tokens.shape != views[0].shape:
                raise ValueError(
                    f"dense tokens are [items, tokens, dim], alike in every view, none of them empty per item; "
                    f"got {tokens.shape}"
                )
        n_items, n, dim = views[0].shape
        offsets = np.arange(n_items + 1, dtype=np.int64) * n
        flat = [_checked_type(tokens).reshape(n_items * n, dim) for tokens in views]
        return cls(flat, offsets, dtype=dtype, device=device, resident=resident)

    @classmethod
    def ragged(
        cls,
        flat: np.ndarray,
        offsets: np.ndarray,
        *,
        dtype: torch.dtype = torch.float32,
        device: str = "cpu",
        resident: bool = True,
    ) -> "TokenTable":
        """A table of items of any length: item i is flat[offsets[i]:offsets[i + 1]].

        Args:
            flat: float16 or float32 [T, d].
            offsets: int64 [N + 1], rising from 0 to T.
            dtype, device, resident: as the class says.

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
        return cls([_checked_type(flat)], offsets, dtype=dtype, device=device, resident=resident)

    @property
    def nbytes(self) -> int:
        """Bytes of the normalised table."""
        return self.n_views * self._rows * self.dim * self.dtype.itemsize

    def raw_tokens(self, item: int, view: int = 0) -> Tensor:
        """The tokens of one item as they were given, before any normalisation: float32 [n, d], a copy."""
        start = int(self._starts[item])
        return torch.from_numpy(self._views[view][start : start + int(self.lengths[item])].astype(np.float32))

    def gather(self, items: Tensor, views: Tensor | None = None) -> TokenBatch:
        """The normalised tokens of `items` (int64 [R, b], on the CPU), padded to the longest of them.

        Args:
            items: which.
            views: int64 [R, b], the view of each; None: the clean one.
        """
        starts, lengths = self._starts[items], self.lengths[items]
        if views is not None and self.n_views > 1:
            starts = starts + views * self._rows
        n = self.tokens_per_item or int(lengths.max())
        position = torch.arange(n)
        rows, real = starts[..., None] + position, None
        if self.tokens_per_item is None:
            real = position < lengths[..., None]
            rows = torch.where(real, rows, self.n_views * self._rows)  # the last row is zero
            real = real.to(self.device)
        x = self._table_rows(rows.view(-1)).view(*items.shape, n, self.dim)
        return TokenBatch(x, real)

    @cached_property
    def means(self) -> Tensor:
        """The mean normalised token of every view and item: float32 [V, N, d]."""
        lengths = self.lengths[:, None].float()
        means = torch.zeros(self.n_views, self.n_items, self.dim)
        item_of_row = torch.repeat_interleave(torch.arange(self.n_items), self.lengths)
        for view, flat in enumerate(self._views):
            for start in range(0, self._rows, _CHUNK_ROWS):
                rows = _normalise(flat[start : start + _CHUNK_ROWS])
                means[view].index_add_(0, item_of_row[start : start + len(rows)], rows)
            means[view] /= lengths
        return means.to(self.device)

    @cached_property
    def _x_hat(self) -> Tensor:
        """LayerNorm without gain and bias of every row of every view, and a last row of zeros: [V * T + 1, d]."""
        x_hat = torch.zeros(self.n_views * self._rows + 1, self.dim, dtype=self.dtype, device=self.device)
        for view, flat in enumerate(self._views):
            for start in range(0, self._rows, _CHUNK_ROWS):
                rows = _normalise(flat[start : start + _CHUNK_ROWS])
                place = view * self._rows + start
                x_hat[place : place + len(rows)] = rows.to(self.device, self.dtype)
        return x_hat

    def _table_rows(self, rows: Tensor) -> Tensor:
        """Normalised rows by number (int64 [k]); the number past the last one means zeros."""
        if self.resident:
            return self._x_hat.index_select(0, rows.to(self.device))
        picked = np.zeros((len(rows), self.dim), np.float32)
        numbers = rows.numpy()
        for view, flat in enumerate(self._views):
            mine = np.flatnonzero((numbers >= view * self._rows) & (numbers < (view + 1) * self._rows))
            picked[mine] = flat[numbers[mine] - view * self._rows]
        x = _normalise(picked)  # a row of zeros stays one
        if not bool(torch.isfinite(x).all()):
            raise ValueError("a token of this batch is not finite: extract its item again or leave it out")
        if self.device.type == "cuda":
            return x.to(self.dtype).pin_memory().to(self.device, non_blocking=True)
        return x.to(self.device, self.dtype)

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

    def _refuse_not_finite(self, offsets: np.ndarray) -> None:
        for flat in self._views:
            for start in range(0, self._rows, _CHUNK_ROWS):
                rows = flat[start : start + _CHUNK_ROWS]
                with np.errstate(over="ignore", invalid="ignore"):  # a square that overflows makes the norm infinite
                    good = np.isfinite(np.square(rows, dtype=np.float32).sum(axis=1))
                if not good.all():
                    row = start + int(np.argmin(good))
                    item = int(np.searchsorted(offsets, row, side="right")) - 1
                    raise ValueError(f"item {item} has a token that is not finite: extract it again or leave it out")


def _checked_type(tokens: np.ndarray) -> np.ndarray:
    if tokens.dtype not in (np.float16, np.float32):
        raise ValueError(f"tokens are float16 or float32, not {tokens.dtype}")
    return tokens


def _normalise(rows: np.ndarray) -> Tensor:
    """LayerNorm without gain and bias: float32 [k, d]."""
    wide = torch.from_numpy(rows.astype(np.float32))
    return torch.nn.functional.layer_norm(wide, (rows.shape[1],), eps=LAYER_NORM_EPS)
