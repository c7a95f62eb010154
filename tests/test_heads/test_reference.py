"""The reference head against the paper's equations in numpy, one item at a time."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from heads.engine import HeadData, HeadJob, TokenTable
from heads.reference import fresh_head, padded_tokens, train_reference

from .heads_data import CONFIG


def random_head(dim, classes, *, seed=0):
    """A float64 image head whose LayerNorm is not the identity."""
    generator = torch.Generator().manual_seed(seed)
    head = fresh_head(replace(CONFIG, classes=classes, init_seed=seed), {"image": dim}).double()
    with torch.no_grad():
        head.image.norm.weight.uniform_(0.5, 1.5, generator=generator)
        head.image.norm.bias.uniform_(-0.5, 0.5, generator=generator)
    return head


def logits_by_hand(head, tokens, mask):
    """LayerNorm, attention, dropout, mean, classifier for the tokens [n, d] of one item, as the equations stand."""
    p = {name.removeprefix("image."): value.detach().numpy() for name, value in head.state_dict().items()}
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
    masks = torch.from_numpy((rng.random((3, 1, 7, 7)) > 0.2) / 0.8)
    padded = nn.utils.rnn.pad_sequence([torch.from_numpy(item) for item in items], batch_first=True)
    real = torch.arange(7) < torch.tensor(lengths)[:, None]
    logits = head({"image": (padded, real, masks)}).detach().numpy()
    for i, (item, n) in enumerate(zip(items, lengths, strict=True)):
        np.testing.assert_allclose(logits[i], logits_by_hand(head, item, masks[i, 0, :n, :n].numpy()), rtol=1e-10)
        alone = head({"image": (padded[i : i + 1, :n], real[i : i + 1, :n], None)}).detach().numpy()[0]
        np.testing.assert_allclose(alone, logits_by_hand(head, item, 1.0), rtol=1e-10)


@pytest.mark.parametrize("rubbish", [float("nan"), float("inf"), 1e30])
def test_what_stands_at_padding_is_never_read(rubbish):
    head = random_head(8, 3)
    tokens = torch.randn(2, 6, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    real = torch.arange(6) < torch.tensor([[6], [2]])
    spoilt = tokens.masked_fill(~real[:, :, None], rubbish)

    def logits_and_gradients(values):
        head.zero_grad()
        logits = head({"image": (values, real, None)})
        logits.logsumexp(dim=1).sum().backward()
        return [logits, *(p.grad.clone() for p in head.parameters())]

    for clean, other in zip(logits_and_gradients(tokens), logits_and_gradients(spoilt), strict=True):
        assert torch.equal(clean, other)


def test_two_modalities_are_normalised_each_by_itself_before_the_classifier():
    config = replace(CONFIG, reads=("image", "text"), form="mean")
    head = fresh_head(config, {"image": 6, "text": 4})
    rng, real = np.random.default_rng(0), torch.ones(3, 2, dtype=torch.bool)
    tokens = {m: torch.from_numpy(rng.normal(5, 3, (3, 2, d))).float() for m, d in (("image", 6), ("text", 4))}
    logits = head({m: (t, real, None) for m, t in tokens.items()})

    def norm(x):
        return (x - x.mean(-1, keepdim=True)) / (x.var(-1, keepdim=True, unbiased=False) + 1e-5).sqrt()

    joined = torch.cat([norm(norm(t).mean(dim=1)) for t in tokens.values()], dim=1)
    torch.testing.assert_close(logits, joined @ head.classifier.weight.T + head.classifier.bias)


def test_equation_2_by_hand():
    config = replace(CONFIG, classes=3, objective="distill", imitation=0.75, temperature=0.25, form="mean")
    head, rng = fresh_head(config, {"image": 6}), np.random.default_rng(0)
    batch = {"image": (torch.from_numpy(rng.normal(size=(4, 2, 6))).float(), torch.ones(4, 2, dtype=torch.bool), None)}
    labels, teacher = torch.tensor([0, 2, 1, 1]), torch.from_numpy(rng.normal(size=(4, 3))).float()
    log_p = head(batch).log_softmax(dim=1)
    soft = torch.exp(4 * teacher) / torch.exp(4 * teacher).sum(dim=1, keepdim=True)
    expected = 0.25 * -log_p[torch.arange(4), labels] + 0.75 * -(soft * log_p).sum(dim=1)
    torch.testing.assert_close(head.loss(batch, labels, teacher, None), expected)


def test_unknown_findings_have_no_loss():
    config = replace(CONFIG, classes=3, target="findings", form="mean")
    head, rng = fresh_head(config, {"image": 6}), np.random.default_rng(0)
    batch = {"image": (torch.from_numpy(rng.normal(size=(2, 2, 6))).float(), torch.ones(2, 2, dtype=torch.bool), None)}
    p = head(batch).sigmoid()
    losses = head.loss(batch, torch.tensor([[1, -1, 0], [-1, -1, -1]]), None, None)
    assert losses[0].item() == pytest.approx(-(p[0, 0].log() + (1 - p[0, 2]).log()).item() / 2, rel=1e-6)
    assert losses[1].item() == 0


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
    config = replace(CONFIG, epochs=15, lr=0.01, batch_size=16)
    before = torch.get_rng_state()
    data = HeadData({"image": TokenTable.dense(tokens)}, labels)
    result = train_reference(data, HeadJob(config, np.arange(60), np.arange(60, 90)))
    assert torch.equal(torch.get_rng_state(), before)
    assert result.epochs[-1].metrics["auroc"] > 0.9
    assert result.epochs[-1].train_loss < result.epochs[0].train_loss
