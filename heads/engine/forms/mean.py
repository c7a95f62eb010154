"""The mean of the normalised tokens: with a linear classifier, a linear probe (Figures 15 and 16 of the paper).

Of a table that holds one class token an item, it is the probe on that token.
"""

from collections.abc import Mapping

import torch
from torch import Tensor

from ..streams import fresh_norm
from . import Pool, Reading

SUMMARY = "LayerNorm and the mean over tokens: a linear probe."

UNTRAINED = ()


def parameters(tower: str, dim: int, *, seed: int) -> dict[str, Tensor]:
    """Gain and bias of the LayerNorm."""
    return fresh_norm(f"{tower}.norm", dim)


def prepare(params: Mapping[str, Tensor], *, lengths: Tensor, training: bool) -> Pool:
    """The mean commutes with gain and bias, so it is taken once for all runs and epochs (`TokenTable.means`)."""
    gain, shift = params["norm.weight"][:, None], params["norm.bias"][:, None]

    def pool(reading: Reading) -> Tensor:
        means = reading.table.means
        views = torch.zeros((), dtype=torch.int64) if reading.views is None else reading.views
        picked = (views * reading.table.n_items + reading.items).view(-1).to(means.device)
        picked_means = means.flatten(0, 1).index_select(0, picked).view(*reading.items.shape, -1)
        return torch.addcmul(shift, picked_means, gain)

    return pool
