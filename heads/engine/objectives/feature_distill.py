"""Feature distillation: labels, and a regression of the teacher's pooled representation (hints; Romero et al., 2015).

The student's pooled vector goes through a linear map of its own to the teacher's representation, which a two-modality
teacher has normalised; the map is used in training alone.
"""

from collections.abc import Mapping

from torch import Tensor

from ..run import HeadConfig
from ..streams import draw_linear
from . import Step, supervised
from .classifier import hard_loss, linear, representation
from .supervised import logits

__all__ = ["logits", "loss", "parameters"]


def parameters(config: HeadConfig, dims: Mapping[str, int], features: int, *, seed: int) -> dict[str, Tensor]:
    """A classifier, and the map to the teacher's representation."""
    hint = draw_linear("hint", features, sum(dims.values()), seed=seed)
    return supervised.parameters(config, dims, features, seed=seed) | hint


def loss(params: Mapping[str, Tensor], config: HeadConfig, step: Step) -> Tensor:
    """(1 - lambda) cross-entropy + lambda mean squared error against the teacher's representation."""
    assert step.features is not None
    own = representation(params, "classifier", step.pooled)
    error = (linear(params, "hint", own) - step.features).square().mean(dim=2)
    hard = hard_loss(linear(params, "classifier", own), step.targets, config)
    return (1 - step.imitation) * hard + step.imitation * error
