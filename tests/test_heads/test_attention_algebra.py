"""The engine's algebra against the reference head in float64: loss and all gradients, to rounding."""

import numpy as np
import pytest
import torch
from torch import nn

from heads.engine.attention import choose_form, fold, head_logits
from heads.engine.streams import DropoutMasks, initial_state
from heads.engine.tokens import LAYER_NORM_EPS, TokenBatch
from heads.reference import AttentionHead

SHAPES = [  # batch, tokens, dim, classes, ragged
    (3, 1, 5, 2, False),
    (1, 7, 5, 3, False),
    (2, 7, 64, 14, False),
    (5, 49, 64, 2, False),
    (2, 49, 320, 5, False),
    (1, 197, 64, 2, False),
    (2, 197, 320, 2, False),
    (4, 7, 5, 2, True),
    (6, 49, 64, 14, True),
    (2, 197, 64, 3, True),
    (1, 9, 64, 2, True),
]


def random_state(dim, classes):
    """Float64 parameters whose LayerNorm is not the identity, with scores wide enough for a peaked softmax."""
    generator = torch.Generator().manual_seed(dim)
    state = {name: value.double() for name, value in initial_state(dim, classes, seed=classes).items()}
    state["norm.weight"].uniform_(0.5, 1.5, generator=generator)
    state["norm.bias"].uniform_(-0.5, 0.5, generator=generator)
    state["query.weight"] *= 3
    state["key.weight"] *= 3
    return state


def random_batch(b, n, d, *, ragged):
    """(tokens as an encoder gives them, real [b, n], the same as a TokenBatch), padding zero in the batch."""
    rng = np.random.default_rng([b, n, d])
    tokens = torch.from_numpy(rng.normal(1.0, 2.0, (b, n, d)))
    lengths = torch.from_numpy(rng.integers(1, n + 1, b))
    lengths[0] = n
    real = torch.arange(n) < (lengths[:, None] if ragged else n)
    real = real.expand(b, n)
    x = nn.functional.layer_norm(tokens, (d,), eps=LAYER_NORM_EPS).masked_fill(~real[:, :, None], 0.0)
    return tokens, real, TokenBatch(x, real if ragged else None)


def engine_loss(state, batch, targets, mask, form):
    """Loss and gradients (None where there is none) of the engine's algebra."""
    leaves = {name: value.clone().requires_grad_() for name, value in state.items()}
    loss = nn.functional.cross_entropy(head_logits(fold(leaves, form), batch, mask), targets)
    loss.backward()
    return loss.item(), {name: leaf.grad for name, leaf in leaves.items()}


def reference_loss(state, tokens, real, targets, mask):
    head = AttentionHead(tokens.shape[2], len(state["classifier.bias"])).double()
    head.load_state_dict(state)
    loss = nn.functional.cross_entropy(head(tokens, real, mask), targets)
    loss.backward()
    return loss.item(), {name: p.grad for name, p in head.named_parameters()}


@pytest.mark.parametrize("rate", [0.0, 0.2])
@pytest.mark.parametrize("form", ["folded", "projected"])
@pytest.mark.parametrize(("b", "n", "d", "classes", "ragged"), SHAPES)
def test_loss_and_all_gradients_equal_the_reference(b, n, d, classes, ragged, form, rate):
    state = random_state(d, classes)
    tokens, real, batch = random_batch(b, n, d, ragged=ragged)
    targets = torch.arange(b) % classes
    mask = DropoutMasks(rate, seed=7).draw(b, n)
    mask = None if mask is None else mask.double()
    loss, gradients = engine_loss(state, batch, targets, mask, form)
    expected_loss, expected = reference_loss(state, tokens, real, targets, mask)
    assert loss == pytest.approx(expected_loss, rel=1e-12)
    assert gradients.pop("key.bias") is None
    assert expected.pop("key.bias").norm() < 1e-14  # the reference has only rounding noise there
    for name, gradient in expected.items():
        assert (gradients[name] - gradient).norm() <= 1e-12 * gradient.norm(), name


@pytest.mark.parametrize("form", ["folded", "projected"])
def test_finite_rubbish_at_padding_changes_neither_loss_nor_gradients(form):
    state = random_state(16, 3)
    _, real, batch = random_batch(4, 9, 16, ragged=True)
    spoilt = TokenBatch(batch.x.masked_fill(~real[:, :, None], 1e4), real)
    mask = DropoutMasks(0.2, seed=7).draw(4, 9).double()
    loss, gradients = engine_loss(state, batch, torch.arange(4) % 3, mask, form)
    other_loss, other = engine_loss(state, spoilt, torch.arange(4) % 3, mask, form)
    assert loss == pytest.approx(other_loss, rel=1e-14)
    gradients.pop("key.bias")
    for name, gradient in gradients.items():
        assert (other[name] - gradient).norm() <= 1e-13 * gradient.norm(), name


@pytest.mark.parametrize(
    ("items", "tokens", "dim", "form"),
    [
        (64, 49, 320, "folded"),
        (64, 196, 768, "folded"),
        (64, 49, 2048, "folded"),  # 8,450 d^2 against 12,618 d^2 and 0.4 d^2 less: still
        (1, 49, 320, "projected"),  # a last batch of one sample
        (64, 1, 320, "projected"),  # class tokens only
        (16, 49, 2048, "projected"),
        (1, 1369, 768, "folded"),  # one item of many tokens
    ],
)
def test_the_cheaper_form_of_a_training_step_is_chosen(items, tokens, dim, form):
    assert choose_form(torch.full((items,), tokens), dim, training=True) == form


def test_evaluation_folds_once_for_all_its_items():
    one_batch, all_items = torch.full((8,), 49), torch.full((1000,), 49)
    assert choose_form(one_batch, 2048, training=False) == "projected"
    assert choose_form(all_items, 2048, training=False) == "folded"


def test_cost_counts_real_tokens_not_items():
    lengths = torch.tensor([1, 1, 1, 700])
    assert choose_form(lengths, 320, training=True) == "folded"
    assert choose_form(lengths[:3], 320, training=True) == "projected"
