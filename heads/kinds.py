"""The table of heads: what a grid may name under `head`. Knows no tensors and no torch."""

from dataclasses import dataclass

from featurestore.errors import unknown_name

from .methods.method import Method


@dataclass(frozen=True, kw_only=True)
class HeadKind:
    """One kind of head.

    Attributes:
        summary: one line for docs.
        form: of its towers, a name of `heads.engine.forms.FORMS`.
        lr: Adam's learning rate where the grid names none.
        reads_cls: of an image it reads the class token alone. (Of a report, the mean token.)
        pools_means: it sees but the mean (or class) token of an item, so that precision and dropout change nothing.
        is_baseline: `heads.baselines` fits it, in one pass and without a seed.
    """

    summary: str
    form: str
    lr: float = 1e-4
    reads_cls: bool = False
    pools_means: bool = False
    is_baseline: bool = False

    def goes_with(self, method: Method) -> bool:
        """Whether a run of both makes sense: baselines know no teachers, and class tokens are of images."""
        return (method.is_plain or not self.is_baseline) and ("image" in method.reads or not self.reads_cls)


HEADS = {
    "attention": HeadKind(summary="one self-attention head, mean pooling: the paper's", form="attention"),
    "multihead": HeadKind(summary="eight self-attention heads, mean pooling", form="multihead"),
    "query": HeadKind(summary="one learnt query attends to the tokens", form="query"),
    "mean": HeadKind(summary="linear probe on the mean token (Figure 15)", form="mean", lr=1e-3, pools_means=True),
    "cls": HeadKind(
        summary="linear probe on the class token (Figure 16)", form="mean", lr=1e-3, reads_cls=True, pools_means=True
    ),
    "ridge": HeadKind(summary="ridge regression on the mean token", form="mean", pools_means=True, is_baseline=True),
    "logistic": HeadKind(
        summary="logistic regression on the mean token", form="mean", pools_means=True, is_baseline=True
    ),
}
"""Name of a head -> what it is."""


def get_head(name: str) -> HeadKind:
    """The head of this name.

    Raises:
        UnknownNameError: no such head; names the nearest ones and all that are known.
    """
    if name not in HEADS:
        raise unknown_name("head", name, HEADS)
    return HEADS[name]
