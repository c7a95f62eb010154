"""The table of head forms: how a tower pools the tokens of its modality to one vector.

One file and one line here add a form; `tests/contracts` finds it by itself. A form is a module object with

    parameters(tower, dim, *, seed) -> dict of fresh parameters, named "<tower>.<layer>.<weight or bias>"
    prepare(params, *, lengths, training) -> a function from a Reading to pooled vectors [R, b, d]

where `params` holds the tower's parameters of R runs, stacked and without the tower's name. What does not depend on the
items is done once in `prepare`.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib import import_module
from typing import Protocol

from torch import Tensor

from ..tokens import TokenTable


@dataclass(frozen=True)
class Reading:
    """The items that R runs read in one step or evaluation.

    Attributes:
        table: of the tokens.
        items: int64 [R, b].
        views: int64 [R, b], the view of each; None: the clean one.
        keys: int64 [R], keys of the dropout masks; None outside training.
        dropout: the rate.
    """

    table: TokenTable
    items: Tensor
    views: Tensor | None = None
    keys: Tensor | None = None
    dropout: float = 0.0


Pool = Callable[[Reading], Tensor]


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
