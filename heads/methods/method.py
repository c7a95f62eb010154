"""What a method is: how a head is trained and from what. Knows no store, no tensors and no torch."""

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, kw_only=True)
class Method:
    """One way to train a head.

    Attributes:
        name: as a grid and the results name it.
        reads: the modalities whose tokens go into the head, in the order in which a run names its feature sets.
        summary: one sentence for `--help` and the docs.
        objective: what training minimises, a name of `heads.engine.objectives.OBJECTIVES`.
        teacher: the method whose trained head says the lesson; None where nobody teaches, or class frequencies do.
        frequencies: the lesson says the shares of the classes in the training samples, of every sample alike.
        other_reports: the report of a sample is that of another subject (`heads.controls.other_reports`).
        epochs_factor: the grid's number of epochs times this.
        privileged: of `reads`, what the trained head does not need any more.
    """

    name: str
    reads: tuple[str, ...]
    summary: str
    objective: Literal["supervised", "distill", "feature-distill", "tram"] = "supervised"
    teacher: str | None = None
    frequencies: bool = False
    other_reports: bool = False
    epochs_factor: int = 1
    privileged: tuple[str, ...] = ()

    @property
    def serves(self) -> tuple[str, ...]:
        """What the trained head reads of a sample."""
        return tuple(modality for modality in self.reads if modality not in self.privileged)

    @property
    def uses_imitation(self) -> bool:
        """Whether lambda of equation 2 changes its numbers."""
        return self.objective in ("distill", "feature-distill")

    @property
    def uses_temperature(self) -> bool:
        """Whether tau of equation 2 changes its numbers."""
        return self.objective == "distill"

    @property
    def is_plain(self) -> bool:
        """Whether it is supervised training on a sample's own tokens, which any classifier can do."""
        return self.objective == "supervised" and not self.other_reports and self.epochs_factor == 1
