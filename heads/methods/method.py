"""What a method is: how a head is trained and from what. Knows no store, no tensors and no torch."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Method:
    """One way to train a head.

    Attributes:
        name: as a grid and the results name it.
        reads: the modalities whose tokens go into the head, in the order in which a run names its feature sets.
        summary: one sentence for `--help` and the docs.
    """

    name: str
    reads: tuple[str, ...]
    summary: str
