"""A head as a whole: its parameters by name, and its way from items to pooled vectors, for R runs at once."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from .forms import Pool, get_form
from .objectives import OBJECTIVES
from .run import HeadConfig

Params = Mapping[str, Tensor]
"""Parameters of R runs by name, each stacked [R, ...]."""


def initial_state(config: HeadConfig, dims: Mapping[str, int], *, features: int = 0) -> dict[str, Tensor]:
    """Parameters of a fresh head; every layer depends on its name and the seed alone.

    Args:
        config: of the head.
        dims: modality -> dimensions of its tokens.
        features: dimensions of the teacher's representation, where the objective regresses it.
    """
    form, objective = get_form(config.form), OBJECTIVES[config.objective]
    state: dict[str, Tensor] = {}
    for modality in config.reads:
        state |= form.parameters(modality, dims[modality], seed=config.init_seed)
    read = {modality: dims[modality] for modality in config.reads}
    return state | objective.parameters(config, read, features, seed=config.init_seed)


def untrained(config: HeadConfig) -> frozenset[str]:
    """Names of parameters that have no effect, hence no gradient."""
    names = get_form(config.form).UNTRAINED
    return frozenset(f"{modality}.{name}" for modality in config.reads for name in names)


def prepare_towers(
    params: Params,
    config: HeadConfig,
    lengths: Mapping[str, Tensor],
    modalities: Sequence[str],
    *,
    training: bool,
) -> dict[str, Pool]:
    """The pooling of each modality; `lengths`: tokens of the items to come (see `HeadForm.prepare`)."""
    form = get_form(config.form)
    return {
        modality: form.prepare(tower_params(params, modality), lengths=lengths[modality], training=training)
        for modality in modalities
    }


def tower_params(params: Params, modality: str) -> dict[str, Tensor]:
    """The parameters of one tower, without its name."""
    prefix = f"{modality}."
    return {name.removeprefix(prefix): value for name, value in params.items() if name.startswith(prefix)}


def stack(states: Sequence[Mapping[str, Tensor]]) -> dict[str, Tensor]:
    """One state a run -> parameters stacked over the runs."""
    return {name: torch.stack([state[name] for state in states]) for name in states[0]}
