"""The table of head forms: how a tower pools the tokens of its modality to one vector.

One file and one line here add a form; `tests/contracts` finds it by itself. A form is a module object with

    parameters(tower, dim, *, seed) -> dict of fresh parameters, named "<tower>.<layer>.<weight or bias>"
    prepare(params, *, lengths, training) -> a function from a Reading to pooled vectors [R, b, d]

where `params` holds the tower's parameters of R runs, stacked and without the tower's name. What does not depend on the
items is done once in `prepare`.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from importlib import import_module
from typing import Protocol

import torch
from torch import Tensor

from ..memory import BLOCK_BYTES
from ..tokens import TokenBatch, TokenTable

# Padded tokens of one part of a ragged batch on a CPU: items of similar length, which saves more padding than it costs
# in calls (measured best at 1,000 to 2,000).
_RAGGED_ROWS = 1_536

_ROWS_CUDA = 1 << 20


@dataclass(frozen=True)
class Reading:
    """The items that R runs read in one step or evaluation.

    Attributes:
        table: of the tokens.
        items: int64 [R, b]; or [1, b] outside training, where all runs read the same.
        views: int64 like `items`, the view of each; None: the clean one.
        keys: int64 [R], keys of the dropout masks; None outside training.
        dropout: the rate.
    """

    table: TokenTable
    items: Tensor
    views: Tensor | None = None
    keys: Tensor | None = None
    dropout: float = 0.0


Pool = Callable[[Reading], Tensor]


def most_rows(table: TokenTable) -> int:
    """Tokens, over all runs, that are computed together: what a CPU keeps memory for, what a GPU has."""
    if table.device.type == "cuda":
        return _ROWS_CUDA
    return BLOCK_BYTES // (table.dtype.itemsize * max(table.dim, table.longest))


def by_parts(compute: Callable[[TokenBatch, Tensor], tuple[Tensor, ...]], reading: Reading) -> tuple[Tensor, ...]:
    """What `compute` gives for the items of a reading, part by part, put together in their order.

    Args:
        compute: from the tokens of b' items and their positions in the reading, int64 [b'], to tensors [R, b', ...].
        reading: of b items.
    """
    table, items, positions = reading.table, reading.items, list(_parts(reading.table, reading.items))
    found = []
    for part in positions:
        views = None if reading.views is None else reading.views[:, part]
        found.append(compute(table.gather(items[:, part], views), part))
    if len(found) == 1 and table.tokens_per_item is not None:
        return found[0]
    back = torch.argsort(torch.cat(positions)).to(table.device)
    return tuple(torch.cat(parts, dim=1)[:, back] for parts in zip(*found, strict=True))


def _parts(table: TokenTable, items: Tensor) -> Iterator[Tensor]:
    """Positions within the items [R, b]; of ragged ones, those of similar length together where but one run asks."""
    if table.tokens_per_item is None and len(items) == 1:
        yield from table.length_groups(items[0], max_rows=_ROWS_CUDA if table.device.type == "cuda" else _RAGGED_ROWS)
    else:
        yield from torch.arange(items.shape[1]).split(max(1, most_rows(table) // (len(items) * table.longest)))


class HeadForm(Protocol):
    """What a form's module offers."""

    SUMMARY: str
    UNTRAINED: tuple[str, ...]
    """Parameters that have no effect, hence no gradient."""

    def parameters(self, tower: str, dim: int, *, seed: int) -> dict[str, Tensor]:
        """Fresh parameters of one tower."""
        ...

    def prepare(self, params: Mapping[str, Tensor], *, lengths: Tensor, training: bool) -> Pool:
        """The pooling of R runs with these parameters.

        Args:
            params: the tower's parameters, each stacked over R runs.
            lengths: int64, tokens of the items to come under one set of parameters: the cheaper algebra depends on it.
            training: whether gradients will be asked for.
        """
        ...


FORMS: dict[str, str] = {
    "attention": "heads.engine.forms.attention",
    "multihead": "heads.engine.forms.multihead",
    "query": "heads.engine.forms.query",
    "mean": "heads.engine.forms.mean",
}
"""Name of a form -> its module."""


def get_form(name: str) -> HeadForm:
    """The form of this name, one of FORMS."""
    return import_module(FORMS[name])  # pyright: ignore[reportReturnType]
