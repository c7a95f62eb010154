"""What heads say about samples, without dropout, on the clean view: for many heads at once.

Heads that are asked about the same samples share their tokens: one gathering, one product where the algebra allows.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits, cross_entropy

from .forms import Reading
from .network import prepare_towers, stack
from .objectives import OBJECTIVES
from .objectives.classifier import representation
from .run import UNKNOWN, HeadConfig, HeadData, Lesson, Target
from .tokens import TokenTable

_SAMPLES = 4_096
"""Samples that are pooled at a time: a head with several attention heads holds several vectors of each."""


@torch.no_grad()
def predict(
    params: Mapping[str, Tensor], config: HeadConfig, tables: Mapping[str, TokenTable], items: Mapping[str, Tensor]
) -> Tensor:
    """Logits [R, m, C] of R heads about m samples each.

    Args:
        params: stacked parameters.
        config: what the heads have in common.
        tables: modality -> tokens.
        items: modality -> int64 [R, m], or [1, m] where all heads are asked about the same.
    """
    objective = OBJECTIVES[config.objective]
    pooled = pool_items(params, config, tables, items, objective.serves(config.reads))
    return objective.logits(params, config, pooled)


def pool_items(
    params: Mapping[str, Tensor],
    config: HeadConfig,
    tables: Mapping[str, TokenTable],
    items: Mapping[str, Tensor],
    modalities: Sequence[str],
    view: int = 0,
) -> dict[str, Tensor]:
    """Pooled vectors [R, m, d] of each modality, in one view."""
    lengths = {m: tables[m].lengths[items[m][0]] for m in modalities}
    towers = prepare_towers(params, config, lengths, modalities, training=False)
    pooled = {}
    for modality, pool in towers.items():
        parts = []
        for some in items[modality].split(_SAMPLES, dim=1):
            views = None if view == 0 else torch.full(some.shape, view)
            parts.append(pool(Reading(tables[modality], some, views)))
        pooled[modality] = torch.cat(parts, dim=1)
    return pooled


@dataclass(frozen=True)
class Spoken:
    """What one head says about a part: probabilities float32 [m, C], and its mean loss against the labels, in nats."""

    probabilities: Tensor
    loss: float


def speak(logits: Tensor, labels: np.ndarray, target: Target) -> list[Spoken]:
    """Probabilities and losses of R heads from their logits [R, m, C] about the same labels."""
    truth = torch.from_numpy(labels.astype(np.int64)).to(logits.device)
    truth = truth.expand(len(logits), *truth.shape)
    if target == "classes":
        losses = cross_entropy(logits.transpose(1, 2), truth, reduction="none").mean(dim=1)
        probabilities = logits.softmax(dim=2)
    else:
        known = truth != UNKNOWN
        each = binary_cross_entropy_with_logits(logits, truth.clamp(min=0).to(logits.dtype), reduction="none")
        losses, probabilities = (each * known).sum(dim=(1, 2)) / known.sum(dim=(1, 2)), logits.sigmoid()
    return [Spoken(p, loss) for p, loss in zip(probabilities, losses.tolist(), strict=True)]


@torch.no_grad()
def teach(
    state: Mapping[str, np.ndarray],
    config: HeadConfig,
    data: HeadData,
    train: np.ndarray,
    rows: Mapping[str, np.ndarray] | None = None,
) -> Lesson:
    """The lesson of a trained teacher about the samples `train` of its student, in every view that the images have.

    Args:
        state: the teacher's parameters.
        config: the teacher's.
        data: as the teacher was trained on.
        train: the student's training samples.
        rows: the teacher's (`HeadJob.rows`).
    """
    params = stack([{name: torch.from_numpy(value).to(_device(data)) for name, value in state.items()}])
    samples = torch.from_numpy(train.astype(np.int64))
    objective = OBJECTIVES[config.objective]
    reads = objective.serves(config.reads)
    items = {m: samples[None] if m not in (rows or {}) else torch.from_numpy(rows[m])[samples][None] for m in reads}  # pyright: ignore[reportOptionalSubscript]
    logits, features = [], []
    for view in range(max(data.tokens[m].n_views for m in reads)):
        pooled: dict[str, Tensor] = {}
        for modality in reads:  # a text has but one view
            own = min(view, data.tokens[modality].n_views - 1)
            pooled |= pool_items(params, config, data.tokens, items, (modality,), own)
        logits.append(objective.logits(params, config, pooled)[0].cpu().numpy())
        features.append(representation(params, "classifier", pooled)[0].cpu().numpy())
    return Lesson(np.stack(logits), np.stack(features))


def apply_head(state: Mapping[str, np.ndarray], config: HeadConfig, data: HeadData, samples: np.ndarray) -> np.ndarray:
    """Probabilities float32 [m, C] of a trained head about samples."""
    params = stack([{name: torch.from_numpy(value).to(_device(data)) for name, value in state.items()}])
    items = {modality: torch.from_numpy(samples.astype(np.int64))[None] for modality in data.tokens}
    logits = predict(params, config, data.tokens, items)[0]
    return (logits.softmax(dim=1) if config.target == "classes" else logits.sigmoid()).cpu().numpy()


def _device(data: HeadData) -> torch.device:
    return next(iter(data.tokens.values())).device
