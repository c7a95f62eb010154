"""The reference head against the paper's equations in numpy, one item at a time, and the random streams it draws."""

import numpy as np
import pytest
import torch
from torch import nn

from heads.engine import HeadConfig, TokenTable
from heads.engine.streams import DropoutMasks, batch_orders, initial_state
from heads.reference import AttentionHead, padded_tokens, train_reference


def random_head(dim, classes, *, seed=0):
    """A float64 head whose LayerNorm is not the identity."""
    generator = torch.Generator().manual_seed(seed)
    head = AttentionHead(dim, classes).double()
    state = initial_state(dim, classes, seed=seed)
    state["norm.weight"].uniform_(0.5, 1.5, generator=generator)
    state["norm.bias"].uniform_(-0.5, 0.5, generator=generator)
    head.load_state_dict(state)
    return head


def logits_by_hand(head, tokens, mask):
    """LayerNorm, attention, dropout, mean, classifier for the tokens [n, d] of one item, as the equations stand."""
    p = {name: value.detach().numpy() for name, value in head.state_dict().items()}
    centred = tokens - tokens.mean(axis=1, keepdims=True)
    x = centred / np.sqrt((centred**2).mean(axis=1, keepdims=True) + 1e-5) * p["norm.weight"] + p["norm.bias"]
    q, k, v = (x @ p[f"{name}.weight"].T + p[f"{name}.bias"] for name in ("query", "key", "value"))
    exponentials = np.exp(q @ k.T / np.sqrt(x.shape[1]))
    weights = exponentials / exponentials.sum(axis=1, keepdims=True) * mask
    return (weights @ v).mean(axis=0) @ p["classifier.weight"].T + p["classifier.bias"]


@pytest.mark.parametrize("classes", [2, 5])
def test_equals_the_equations_item_by_item(classes):
    rng = np.random.default_rng(0)
    head, lengths, dim = random_head(12, classes), [1, 4, 7], 12
    items = [rng.normal(1, 3, (n, dim)) for n in lengths]
    masks = DropoutMasks(0.2, seed=3).draw(3, 7).double()
    padded = nn.utils.rnn.pad_sequence([torch.from_numpy(item) for item in items], batch_first=True)
    real = torch.arange(7) < torch.tensor(lengths)[:, None]
    logits = head(padded, real, masks).detach().numpy()
    for i, (item, n) in enumerate(zip(items, lengths, strict=True)):
        np.testing.assert_allclose(logits[i], logits_by_hand(head, item, masks[i, :n, :n].numpy()), rtol=1e-10)
        alone = head(padded[i : i + 1, :n], real[i : i + 1, :n]).detach().numpy()[0]
        np.testing.assert_allclose(alone, logits_by_hand(head, item, 1.0), rtol=1e-10)


@pytest.mark.parametrize("rubbish", [float("nan"), float("inf"), 1e30])
def test_what_stands_at_padding_is_never_read(rubbish):
    head = random_head(8, 3)
    tokens = torch.randn(2, 6, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    real = torch.arange(6) < torch.tensor([[6], [2]])
    spoilt = tokens.masked_fill(~real[:, :, None], rubbish)

    def logits_and_gradients(values):
        head.zero_grad()
        logits = head(values, real)
        logits.logsumexp(dim=1).sum().backward()
        return [logits, *(p.grad.clone() for p in head.parameters())]

    for clean, other in zip(logits_and_gradients(tokens), logits_and_gradients(spoilt), strict=True):
        assert torch.equal(clean, other)


def test_initial_state_is_that_of_torch_linear_under_the_same_seed():
    with torch.random.fork_rng():
        torch.manual_seed(11)
        layers = {name: nn.Linear(20, n) for name, n in (("query", 20), ("key", 20), ("value", 20), ("classifier", 3))}
    state = initial_state(20, 3, seed=11)
    assert list(state) == list(AttentionHead(20, 3).state_dict())
    for name, layer in layers.items():
        assert torch.equal(state[f"{name}.weight"], layer.weight)
        assert torch.equal(state[f"{name}.bias"], layer.bias)
    assert state["norm.weight"].eq(1).all()
    assert state["norm.bias"].eq(0).all()


def test_each_epoch_is_a_fresh_permutation_cut_into_batches():
    orders = batch_orders(10, batch_size=4, seed=5)
    first, second = next(orders), next(orders)
    assert [len(batch) for batch in first] == [4, 4, 2]
    assert sorted(torch.cat(first).tolist()) == sorted(torch.cat(second).tolist()) == list(range(10))
    assert torch.cat(first).tolist() != torch.cat(second).tolist()
    assert torch.equal(torch.cat(next(batch_orders(10, batch_size=4, seed=5))), torch.cat(first))
    assert not torch.equal(torch.cat(next(batch_orders(10, batch_size=4, seed=6))), torch.cat(first))


@pytest.mark.parametrize("rate", [0.05, 0.2, 0.5])
def test_dropout_masks_are_bernoulli_of_the_rate_and_keep_the_mean(rate):
    mask = DropoutMasks(rate, seed=1).draw(40, 100)
    n = mask.numel()
    assert set(np.unique(mask.numpy())) == {0.0, np.float32(65536 / (65536 - round(rate * 65536)))}
    assert abs((mask == 0).float().mean().item() - rate) < 4 * np.sqrt(rate * (1 - rate) / n)
    kept = (mask > 0).float().flatten()
    for lag in (1, 2, 3, 4, 100):  # neighbours share a draw; rows and columns must not show it
        correlation = np.corrcoef(kept[:-lag], kept[lag:])[0, 1]
        assert abs(correlation) < 4.5 / np.sqrt(n)


def test_dropout_masks_follow_one_stream_a_run():
    masks, again, other = (DropoutMasks(0.2, seed=s) for s in (1, 1, 2))
    first, second = masks.draw(3, 5), masks.draw(2, 7)
    assert first.shape == (3, 5, 5)
    assert torch.equal(again.draw(3, 5), first)
    assert torch.equal(again.draw(2, 7), second)
    assert not torch.equal(other.draw(3, 5), first)
    assert DropoutMasks(0.0, seed=1).draw(3, 5) is None


def test_reference_reads_raw_tokens_not_the_normalised_table():
    tokens = np.random.default_rng(0).normal(3, 2, (4, 5, 8)).astype(np.float16)
    padded, real = padded_tokens(TokenTable.dense(tokens), np.array([2, 0]))
    assert real.all()
    assert np.array_equal(padded.numpy(), tokens[[2, 0]].astype(np.float32))


def test_reference_learns_and_leaves_the_global_generator_alone():
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 2, 90)
    tokens = rng.normal(size=(90, 4, 8)).astype(np.float32)
    tokens[:, 1, :4] += 2.0 * (2 * labels - 1)[:, None]
    config = HeadConfig(classes=2, epochs=15, init_seed=0, batch_seed=1, dropout_seed=2, lr=0.01, batch_size=16)
    before = torch.get_rng_state()
    result = train_reference(TokenTable.dense(tokens), labels, np.arange(60), np.arange(60, 90), config)
    assert torch.equal(torch.get_rng_state(), before)
    assert result.epochs[-1].metrics["auroc"] > 0.9
    assert result.epochs[-1].train_loss < result.epochs[0].train_loss
