"""The table of objectives: what a training step minimises.

One file and one line here add one; `tests/contracts` finds it. An objective is a frozen object that says what it needs
and gives functions of stacked parameters (R runs) and pooled vectors. It knows neither tokens nor forms, so it works
with every one of them.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor

    from ..run import HeadConfig


@dataclass(frozen=True)
class Step:
    """What an objective sees of one step of R runs, each with b samples.

    Attributes:
        pooled: modality -> pooled vectors [R, b, d], in the order of the config's `reads`.
        targets: int64 [R, b] classes, or [R, b, C] findings.
        imitation: lambda of each run, [R, 1].
        temperature: tau of each run, [R, 1, 1].
        logits: the teacher's [R, b, C], where there is a lesson.
        features: the teacher's pooled representation [R, b, F], likewise.
    """

    pooled: Mapping[str, "Tensor"]
    targets: "Tensor"
    imitation: "Tensor"
    temperature: "Tensor"
    logits: "Tensor | None" = None
    features: "Tensor | None" = None


@dataclass(frozen=True)
class Objective:
    """One objective, by the functions of its module.

    Attributes:
        module: where `parameters(config, dims, features, *, seed)`, `loss(params, config, step) -> [R, b]` and
            `logits(params, config, pooled) -> [R, b, C]` are.
        needs_lesson: it learns from a teacher's logits.
        needs_features: it learns from the teacher's pooled representation as well.
        privileged: modalities that are read in training alone.
    """

    module: str
    needs_lesson: bool = False
    needs_features: bool = False
    privileged: tuple[str, ...] = ()

    @cached_property
    def _module(self) -> Any:
        return import_module(self.module)

    def parameters(
        self, config: "HeadConfig", dims: Mapping[str, int], features: int, *, seed: int
    ) -> "dict[str, Tensor]":
        """Fresh parameters above the towers; `dims`: modality -> d; `features`: F of the lesson, 0 without."""
        return self._module.parameters(config, dims, features, seed=seed)

    def loss(self, params: "Mapping[str, Tensor]", config: "HeadConfig", step: Step) -> "Tensor":
        """The loss of every sample, [R, b]."""
        return self._module.loss(params, config, step)

    def logits(self, params: "Mapping[str, Tensor]", config: "HeadConfig", pooled: "Mapping[str, Tensor]") -> "Tensor":
        """What the trained head says, [R, b, C], from the modalities that it `serves`."""
        return self._module.logits(params, config, pooled)

    def serves(self, reads: Sequence[str]) -> tuple[str, ...]:
        """The modalities that a trained head reads."""
        return tuple(modality for modality in reads if modality not in self.privileged)


OBJECTIVES: dict[str, Objective] = {
    "supervised": Objective("heads.engine.objectives.supervised"),
    "distill": Objective("heads.engine.objectives.distill", needs_lesson=True),
    "feature-distill": Objective("heads.engine.objectives.feature_distill", needs_lesson=True, needs_features=True),
    "tram": Objective("heads.engine.objectives.tram", privileged=("text",)),
}
"""Name of an objective -> what it is."""
