"""The random streams of a run: initial parameters, batch order, dropout masks.

Shared by the engine and the reference, so that the two can be compared number by number. Each stream is a generator of
its own, made from its own seed; torch's global generator is neither read nor touched. All draws come from torch's CPU
generator (mt19937) and depend neither on the platform nor on the number of threads.

NOTE: that generator takes the low 32 bits of a seed. The planner's seeds are hashes, whose low bits are as good as any.
"""

import math
from collections.abc import Iterator

import torch
from torch import Tensor

_LANE_LEVELS = 1 << 16  # a dropout decision takes 16 random bits: four decisions a draw


def initial_state(dim: int, classes: int, *, seed: int) -> dict[str, Tensor]:
    """Parameters of a fresh head under the reference head's names.

    LayerNorm starts at gain 1 and bias 0. The linear layers start as torch.nn.Linear's do: weight and bias uniform
    within 1/sqrt(inputs), drawn in the order of the returned dictionary.
    """
    generator = torch.Generator().manual_seed(seed)
    state = {"norm.weight": torch.ones(dim), "norm.bias": torch.zeros(dim)}
    bound = 1 / math.sqrt(dim)
    for name, outputs in (("query", dim), ("key", dim), ("value", dim), ("classifier", classes)):
        weight = torch.empty(outputs, dim)
        torch.nn.init.kaiming_uniform_(weight, a=math.sqrt(5), generator=generator)  # torch.nn.Linear's own call
        state[f"{name}.weight"] = weight
        state[f"{name}.bias"] = torch.empty(outputs).uniform_(-bound, bound, generator=generator)
    return state


def batch_orders(n_items: int, *, batch_size: int, seed: int) -> Iterator[list[Tensor]]:
    """Epoch after epoch without end: the batches of a fresh permutation of 0..n_items-1; the last may be smaller."""
    generator = torch.Generator().manual_seed(seed)
    while True:
        yield list(torch.randperm(n_items, generator=generator).split(batch_size))


class DropoutMasks:
    """The dropout masks of a run, one call a batch, in the order of the batches.

    A mask holds r_ij in {0, 1 / (1 - p)}, independent of each other. p is the wanted rate rounded to 1/65536, so that
    four decisions can be cut from one 64-bit draw; the scale is that of the rounded rate, so the mean of r_ij is 1.
    """

    def __init__(self, rate: float, *, seed: int) -> None:
        self._generator = torch.Generator().manual_seed(seed)
        self._dropped_levels = round(rate * _LANE_LEVELS)

    def draw(self, batch: int, tokens: int) -> Tensor | None:
        """float32 [batch, tokens, tokens] (padding included), or None where nothing is ever dropped."""
        if self._dropped_levels == 0:
            return None
        count = batch * tokens * tokens
        words = torch.empty(-(-count // 4), dtype=torch.int64).random_(-(2**63), None, generator=self._generator)
        lanes = words.view(torch.int16)[:count].view(batch, tokens, tokens)
        keep = lanes >= self._dropped_levels - _LANE_LEVELS // 2
        return keep.float().mul_(_LANE_LEVELS / (_LANE_LEVELS - self._dropped_levels))
