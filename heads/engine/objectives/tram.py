"""Transfer and marginalise, TRAM (Collier et al., 2022): the image tower learns through a classifier that also sees the
report; a second classifier, which sees the image tower alone and teaches it nothing, is what serves.
"""

from collections.abc import Mapping

from torch import Tensor

from ..run import HeadConfig
from . import Step
from .classifier import fresh_classifier, hard_loss, linear, representation


def parameters(config: HeadConfig, dims: Mapping[str, int], features: int, *, seed: int) -> dict[str, Tensor]:
    """The privileged classifier on image and report, and the one that serves, on the image alone."""
    served = {modality: dim for modality, dim in dims.items() if modality != "text"}
    return fresh_classifier("privileged", dims, config.classes, seed=seed) | fresh_classifier(
        "classifier", served, config.classes, seed=seed
    )


def loss(params: Mapping[str, Tensor], config: HeadConfig, step: Step) -> Tensor:
    """The cross-entropies of both classifiers; the second one's gradient stops before the tower."""
    both = linear(params, "privileged", representation(params, "privileged", step.pooled))
    served = {modality: z.detach() for modality, z in step.pooled.items() if modality != "text"}
    return hard_loss(both, step.targets, config) + hard_loss(logits(params, config, served), step.targets, config)


def logits(params: Mapping[str, Tensor], config: HeadConfig, pooled: Mapping[str, Tensor]) -> Tensor:
    """The serving classifier's."""
    return linear(params, "classifier", representation(params, "classifier", pooled))
