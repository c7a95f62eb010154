"""Generalized distillation (equation 2; Lopez-Paz et al., 2016): labels, and a teacher's softened predictions."""

from collections.abc import Mapping

from torch import Tensor

from ..run import HeadConfig
from . import Step
from .classifier import hard_loss, soft_loss
from .supervised import logits, parameters

__all__ = ["logits", "loss", "parameters"]


def loss(params: Mapping[str, Tensor], config: HeadConfig, step: Step) -> Tensor:
    """(1 - lambda) cross-entropy with the label + lambda that with the teacher's softmax at temperature tau."""
    assert step.logits is not None
    own = logits(params, config, step.pooled)
    taught = soft_loss(own, step.logits, step.temperature, config)
    return (1 - step.imitation) * hard_loss(own, step.targets, config) + step.imitation * taught
