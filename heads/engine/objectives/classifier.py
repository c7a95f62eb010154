"""What every objective shares: the linear classifier on pooled vectors, and the losses of its logits."""

from collections.abc import Mapping

import torch
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits, cross_entropy, layer_norm, log_softmax, softmax

from ..run import UNKNOWN, HeadConfig
from ..streams import draw_linear, fresh_norm
from ..tokens import LAYER_NORM_EPS


def fresh_classifier(name: str, dims: Mapping[str, int], classes: int, *, seed: int) -> dict[str, Tensor]:
    """A linear classifier; of two modalities, each pooled vector has a LayerNorm of its own before concatenation.

    Appendix A of the paper: "an additional normalization was used for the teacher model before concatenating". That
    each vector has its own, with gain and bias, is inferred.
    """
    params = draw_linear(name, classes, sum(dims.values()), seed=seed)
    if len(dims) > 1:
        for modality, dim in dims.items():
            params |= fresh_norm(f"{name}.{modality}_norm", dim)
    return params


def representation(params: Mapping[str, Tensor], name: str, pooled: Mapping[str, Tensor]) -> Tensor:
    """What the classifier `name` sees, [R, b, F]: the pooled vector, or the normalised ones side by side."""
    if len(pooled) == 1:
        return next(iter(pooled.values()))
    return torch.cat([_normed(params, f"{name}.{modality}_norm", z) for modality, z in pooled.items()], dim=2)


def linear(params: Mapping[str, Tensor], name: str, x: Tensor) -> Tensor:
    """The linear layer `name` of each run on its rows: [R, b, F] -> [R, b, outputs]."""
    return torch.baddbmm(params[f"{name}.bias"][:, None], x, params[f"{name}.weight"].transpose(1, 2))


def hard_loss(logits: Tensor, targets: Tensor, config: HeadConfig) -> Tensor:
    """Cross-entropy in nats against labels, [R, b]; of findings, the mean over those that are known (0 if none is)."""
    if config.target == "classes":
        return cross_entropy(logits.flatten(0, 1), targets.flatten(), reduction="none").view(targets.shape)
    known = targets != UNKNOWN
    losses = binary_cross_entropy_with_logits(logits, targets.clamp(min=0).to(logits.dtype), reduction="none")
    return (losses * known).sum(dim=2) / known.sum(dim=2).clamp(min=1)


def soft_loss(logits: Tensor, teacher: Tensor, temperature: Tensor, config: HeadConfig) -> Tensor:
    """Cross-entropy against the teacher's prediction at temperature tau, [R, b] (the second term of equation 2).

    Of findings, the mean over all of them: the teacher has an opinion where the label is unknown, too.
    """
    tempered = teacher / temperature
    if config.target == "classes":
        return -(softmax(tempered, dim=2) * log_softmax(logits, dim=2)).sum(dim=2)
    return binary_cross_entropy_with_logits(logits, tempered.sigmoid(), reduction="none").mean(dim=2)


def _normed(params: Mapping[str, Tensor], name: str, z: Tensor) -> Tensor:
    normal = layer_norm(z, z.shape[2:], eps=LAYER_NORM_EPS)
    return normal * params[f"{name}.weight"][:, None] + params[f"{name}.bias"][:, None]
