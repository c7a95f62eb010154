"""Supervised training: cross-entropy against labels (equation 1; with one modality, the baseline of section 2.2)."""

from collections.abc import Mapping

from torch import Tensor

from ..run import HeadConfig
from . import Step
from .classifier import fresh_classifier, hard_loss, linear, representation


def parameters(config: HeadConfig, dims: Mapping[str, int], features: int, *, seed: int) -> dict[str, Tensor]:
    """One classifier."""
    return fresh_classifier("classifier", dims, config.classes, seed=seed)


def loss(params: Mapping[str, Tensor], config: HeadConfig, step: Step) -> Tensor:
    """Cross-entropy."""
    return hard_loss(logits(params, config, step.pooled), step.targets, config)


def logits(params: Mapping[str, Tensor], config: HeadConfig, pooled: Mapping[str, Tensor]) -> Tensor:
    """The classifier's."""
    return linear(params, "classifier", representation(params, "classifier", pooled))
