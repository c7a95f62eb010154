"""The random streams of a run: initial parameters, batch order, views, dropout.

Shared by the engine and the reference, so that the two can be compared number by number. Each stream depends on its own
seed alone, never on what a run is packed with, and torch's global generator is neither read nor touched. Parameters,
orders and views come from torch's CPU generator (mt19937); dropout comes from counters (`keep_mask`), so that a whole
fleet's masks are one computation, the same on every device.

NOTE: torch's generator takes the low 32 bits of a seed. The planner's seeds are hashes, whose low bits are as good as
any.
"""

import math
import zlib
from collections.abc import Iterator

import torch
from torch import Tensor

DROPOUT_LEVELS = 256
"""A dropout decision takes 8 random bits, so a rate is rounded to 1/256: 0.2 becomes 51/256."""

_LANES = 8  # decisions in one 64-bit word
_WEYL, _FIRST, _SECOND = 0x9E3779B97F4A7C15, 0xBF58476D1CE4E5B9, 0x94D049BB133111EB  # splitmix64 (Steele et al., 2014)


def draw_linear(name: str, outputs: int, inputs: int, *, seed: int) -> dict[str, Tensor]:
    """Parameters of a fresh linear layer, as torch.nn.Linear starts: uniform within 1/sqrt(inputs).

    They depend on the layer's name and the seed alone, so the image tower of one seed starts equal in every method.
    """
    generator = torch.Generator().manual_seed((seed + (zlib.crc32(name.encode()) << 16)) % 2**63)
    weight, bound = torch.empty(outputs, inputs), 1 / math.sqrt(inputs)
    torch.nn.init.kaiming_uniform_(weight, a=math.sqrt(5), generator=generator)  # torch.nn.Linear's own call
    bias = torch.empty(outputs).uniform_(-bound, bound, generator=generator)
    return {f"{name}.weight": weight, f"{name}.bias": bias}


def fresh_norm(name: str, dim: int) -> dict[str, Tensor]:
    """Gain 1 and bias 0 of a LayerNorm."""
    return {f"{name}.weight": torch.ones(dim), f"{name}.bias": torch.zeros(dim)}


def epoch_orders(n_items: int, *, seed: int) -> Iterator[Tensor]:
    """Epoch after epoch without end: a fresh permutation of 0..n_items-1, to be cut into batches."""
    generator = torch.Generator().manual_seed(seed)
    while True:
        yield torch.randperm(n_items, generator=generator)


def epoch_views(n_items: int, n_views: int, *, seed: int) -> Iterator[Tensor]:
    """Epoch after epoch without end: the view of each place of the epoch's order, uniform over `n_views`."""
    generator = torch.Generator().manual_seed(seed)
    while True:
        yield torch.randint(n_views, (n_items,), generator=generator)


def dropout_levels(rate: float) -> int:
    """The rate in steps of 1/256."""
    return round(rate * DROPOUT_LEVELS)


def dropout_scale(rate: float) -> float:
    """1 / (1 - p) of the rounded rate p, so that the mean of a scaled mask is 1."""
    return DROPOUT_LEVELS / (DROPOUT_LEVELS - dropout_levels(rate))


def dropout_keys(seeds: Tensor, steps: Tensor, tower: int) -> Tensor:
    """The keys of one step's masks of one tower: int64 [R] from the runs' seeds and their numbers of steps before."""
    return _finish(_finish(seeds.clone()) + (2 * steps + tower + 1) * _signed(_WEYL))


def keep_mask(
    keys: Tensor, positions: Tensor, n: int, *, longest: int, levels: int, heads: int = 1, queries: int | None = None
) -> Tensor:
    """Which attention weights stay: int8 0 or 1, [R, b, heads, queries, n], independent with P(0) = levels / 256.

    The decision of a weight depends on the key and on its place alone, not on padding or on what is computed with it.

    Args:
        keys: int64 [R], `dropout_keys` of each run's step.
        positions: int64 [b], places of the items in their batches.
        n: tokens of the padded batch, at most `longest`.
        longest: the most tokens of any item of the table: it lays out the counters.
        levels: `dropout_levels`.
        heads: attention heads.
        queries: rows of the mask; None: n, one a token.
    """
    words = -(-longest // _LANES)
    needed = -(-n // _LANES)
    device = keys.device
    place = (positions[:, None] * heads + torch.arange(heads, device=device)) * longest  # [b, h]
    place = (place[:, :, None] + torch.arange(queries or n, device=device)) * words  # [b, h, q]
    place = place[:, :, :, None] + torch.arange(needed, device=device)
    z = keys.view(-1, 1, 1, 1, 1) + place.mul_(_signed(_WEYL))
    lanes = _finish(z).view(torch.int8)[..., :n]  # [R, b, h, q, n]
    return (lanes >= levels - DROPOUT_LEVELS // 2).view(torch.int8)


def _finish(z: Tensor) -> Tensor:
    """splitmix64's finaliser, in place; int64 arithmetic wraps, and shifts are made logical by a mask."""
    shifted = torch.empty_like(z)
    for shift, factor in ((30, _FIRST), (27, _SECOND), (31, None)):
        torch.bitwise_right_shift(z, shift, out=shifted)
        shifted.bitwise_and_((1 << (64 - shift)) - 1)
        z.bitwise_xor_(shifted)
        if factor is not None:
            z.mul_(_signed(factor))
    return z


def _signed(z: int) -> int:
    return z - 2**64 if z >= 2**63 else z
