"""The hand-written attention against its slow twin and against the reference head, in float64: to rounding."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from heads.engine.attend import Maps, attend, attend_plainly, attend_shared, choose_form
from heads.engine.forms import Reading, attention, get_form
from heads.engine.network import tower_params
from heads.engine.objectives import supervised
from heads.engine.tokens import LAYER_NORM_EPS, TokenBatch, TokenTable
from heads.reference import fresh_head

from .heads_data import CONFIG

SHAPES = [  # runs, batch, tokens, dim, heads, ragged
    (1, 3, 1, 5, 1, False),
    (2, 1, 7, 5, 1, False),
    (3, 5, 49, 64, 1, False),
    (1, 2, 197, 320, 1, False),
    (2, 4, 7, 5, 1, True),
    (1, 6, 49, 64, 1, True),
    (2, 3, 9, 64, 8, False),
    (1, 5, 21, 12, 4, True),
]


def random_batch(runs, b, n, d, *, ragged):
    rng = np.random.default_rng([runs, b, n, d])
    lengths = torch.from_numpy(rng.integers(1, n + 1, (runs, b)))
    lengths[:, 0] = n
    real = torch.arange(n) < lengths[..., None] if ragged else None
    x = torch.from_numpy(rng.normal(size=(runs, b, n, d)))
    return TokenBatch(x if real is None else x * real[..., None], real)


@pytest.mark.parametrize("dropout", [0.0, 0.3])
@pytest.mark.parametrize(
    ("folded", "runs", "b", "n", "d", "heads", "ragged"),
    [(folded, *shape) for shape in SHAPES for folded in (True, False) if shape[4] == 1 or not folded],
)
def test_the_hand_written_backward_pass_is_that_of_autograd(folded, runs, b, n, d, heads, ragged, dropout):
    batch = random_batch(runs, b, n, d, ragged=ragged)
    generator = torch.Generator().manual_seed(1)
    drawn = [
        torch.randn(*shape, dtype=torch.float64, generator=generator) for shape in ((runs, d, d),) * 2 + ((runs, d),)
    ]
    query, key, bias = (t.requires_grad_() for t in drawn)
    keep = None
    if dropout:
        keep = (torch.rand(runs, b, heads, n, n, generator=generator) > dropout).to(torch.int8)
    results = []
    for compute in (attend, attend_plainly):
        pooled, total = compute(batch, Maps(query, None if folded else key, bias, heads), keep, dropout)
        weight = torch.linspace(-1, 1, pooled.numel(), dtype=torch.float64).view(pooled.shape)
        asked = [query, bias] if folded else [query, key, bias]
        gradients = torch.autograd.grad((pooled * weight).sum() + (total * total).sum(), asked)
        results.append([pooled.detach(), total.detach(), *gradients])
    for fast, slow in zip(*results, strict=True):
        assert (fast - slow).abs().max() <= 1e-12 * max(1.0, float(slow.abs().max()))


@pytest.mark.parametrize(
    ("folded", "runs", "b", "n", "d", "heads", "ragged"),
    [(folded, *shape) for shape in SHAPES for folded in (True, False) if shape[4] == 1 or not folded],
)
def test_runs_that_share_their_items_get_what_each_gets_alone(folded, runs, b, n, d, heads, ragged):
    batch = random_batch(1, b, n, d, ragged=ragged)
    generator = torch.Generator().manual_seed(1)
    shapes = ((runs, d, d),) * 2 + ((runs, d),)
    query, key, bias = (torch.randn(*shape, dtype=torch.float64, generator=generator) for shape in shapes)
    maps = Maps(query, None if folded else key, bias, heads)
    real = None if batch.real is None else batch.real.expand(runs, -1, -1)
    alone = attend_plainly(TokenBatch(batch.x.expand(runs, -1, -1, -1), real), maps, None, 0.0)
    for found, right in zip(attend_shared(batch, maps), alone, strict=True):
        assert found.shape == right.shape
        assert (found - right).abs().max() <= 1e-12 * max(1.0, float(right.abs().max()))


@pytest.mark.parametrize("form", ["folded", "projected"])
@pytest.mark.parametrize(("b", "n", "d", "ragged"), [(3, 1, 5, False), (4, 49, 64, False), (5, 9, 12, True)])
def test_loss_and_gradients_equal_the_reference_head(b, n, d, ragged, form, monkeypatch):
    monkeypatch.setattr(attention, "choose_form", lambda *_, **__: form)
    config = replace(CONFIG, classes=3, dropout=0.0)
    head = fresh_head(config, {"image": d}).double()
    generator = torch.Generator().manual_seed(d)
    with torch.no_grad():
        head.image.norm.weight.uniform_(0.5, 1.5, generator=generator)
        head.image.norm.bias.uniform_(-0.5, 0.5, generator=generator)
        head.image.query.weight *= 3  # scores wide enough for a peaked softmax
    rng = np.random.default_rng(n)
    tokens = torch.from_numpy(rng.normal(1.0, 2.0, (b, n, d)))
    lengths = torch.from_numpy(rng.integers(1, n + 1, b)) if ragged else torch.full((b,), n)
    lengths[0] = n
    real, targets = torch.arange(n) < lengths[:, None], torch.arange(b) % 3
    expected = nn.functional.cross_entropy(head({"image": (tokens, real, None)}), targets)
    expected.backward()
    leaves = {name: p.detach().clone()[None].requires_grad_() for name, p in head.named_parameters()}
    x = nn.functional.layer_norm(tokens, (d,), eps=LAYER_NORM_EPS).masked_fill(~real[:, :, None], 0.0)
    loss = _engine_loss(leaves, TokenBatch(x[None], real[None] if ragged else None), lengths, targets)
    loss.backward()
    assert abs(loss.item() - expected.item()) <= 1e-12
    for name, parameter in head.named_parameters():
        if name == "image.key.bias":
            assert leaves[name].grad is None
            assert parameter.grad.abs().max() < 1e-12
        else:
            scale = max(1e-3, float(parameter.grad.abs().max()))
            assert (leaves[name].grad[0] - parameter.grad).abs().max() <= 1e-12 * scale, name


def _engine_loss(leaves, batch, lengths, targets):
    """The engine's loss on a batch that is normalised already: a table that hands it out."""
    table = TokenTable.ragged(np.zeros((1, batch.x.shape[3]), np.float32), np.array([0, 1]))
    table.dtype, table.tokens_per_item, table.longest = torch.float64, batch.x.shape[2], batch.x.shape[2]
    table.gather = lambda items, views=None: batch
    pool = get_form("attention").prepare(tower_params(leaves, "image"), lengths=lengths, training=True)
    pooled = {"image": pool(Reading(table, torch.zeros(1, len(lengths), dtype=torch.int64)))}
    logits = supervised.logits(leaves, CONFIG, pooled)
    return nn.functional.cross_entropy(logits[0], targets)


def test_the_cheaper_form_is_chosen():
    assert choose_form(64 * 196, 64 * 196**2, 768, training=True) == "folded"
    assert choose_form(49, 49**2, 2048, training=True) == "projected"  # one item: folding would cost more
    assert choose_form(1000 * 49, 1000 * 49**2, 2048, training=False) == "folded"


@pytest.mark.parametrize("ragged", [False, True])
def test_bfloat16_is_near_float32(ragged):
    batch = random_batch(1, 8, 50, 64, ragged=ragged)
    single = TokenBatch(batch.x.float(), batch.real)
    half = TokenBatch(batch.x.bfloat16(), batch.real)
    generator = torch.Generator().manual_seed(2)
    maps = Maps(
        0.02 * torch.randn(1, 64, 64, generator=generator), None, 0.02 * torch.randn(1, 64, generator=generator)
    )
    keep = (torch.rand(1, 8, 1, 50, 50, generator=generator) > 0.2).to(torch.int8)
    for exact, rounded in zip(attend(single, maps, keep, 0.2), attend(half, maps, keep, 0.2), strict=True):
        assert rounded.dtype == torch.float32
        assert (exact - rounded).norm() <= 0.01 * exact.norm()
