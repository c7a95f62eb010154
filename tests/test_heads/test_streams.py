"""The random streams: initial parameters, orders, views and dropout, each from its own seed alone."""

import numpy as np
import pytest
import torch
from torch import nn

from heads.engine.streams import (
    draw_linear,
    dropout_keys,
    dropout_levels,
    dropout_scale,
    epoch_orders,
    epoch_views,
    keep_mask,
)


def keys(*seeds, step=0, tower=0):
    return dropout_keys(torch.tensor(seeds), torch.full((len(seeds),), step), tower)


def test_a_linear_layer_starts_as_torch_does():
    drawn = draw_linear("query", 300, 200, seed=11)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        layer = nn.Linear(200, 300)
    for name in ("weight", "bias"):
        ours, theirs = drawn[f"query.{name}"], getattr(layer, name).detach()
        assert ours.shape == theirs.shape
        assert ours.abs().max() <= 1 / np.sqrt(200)
        assert abs(ours.std() - theirs.std()) < 0.1 * theirs.std()


def test_a_layer_depends_on_its_name_and_the_seed_alone():
    first = draw_linear("image.query", 4, 4, seed=1)["image.query.weight"]
    assert torch.equal(draw_linear("image.query", 4, 4, seed=1)["image.query.weight"], first)
    assert not torch.equal(draw_linear("image.key", 4, 4, seed=1)["image.key.weight"], first)
    assert not torch.equal(draw_linear("image.query", 4, 4, seed=2)["image.query.weight"], first)


def test_each_epoch_is_a_fresh_permutation():
    orders = epoch_orders(10, seed=5)
    first, second = next(orders), next(orders)
    assert sorted(first.tolist()) == sorted(second.tolist()) == list(range(10))
    assert first.tolist() != second.tolist()
    assert torch.equal(next(epoch_orders(10, seed=5)), first)
    assert not torch.equal(next(epoch_orders(10, seed=6)), first)


def test_views_are_uniform():
    views = torch.cat([view for view, _ in zip(epoch_views(1000, 4, seed=3), range(4), strict=False)])
    counts = torch.bincount(views, minlength=4)
    assert counts.sum() == 4000
    assert (counts - 1000).abs().max() < 5 * np.sqrt(4000 * 0.25 * 0.75)


@pytest.mark.parametrize("rate", [0.05, 0.2, 0.5])
def test_masks_are_bernoulli_of_the_rate_and_keep_the_mean(rate):
    levels = dropout_levels(rate)
    mask = keep_mask(keys(1), torch.arange(40), 100, longest=100, levels=levels)
    kept, share = mask.double().flatten(), 1 - levels / 256
    assert set(mask.unique().tolist()) == {0, 1}
    assert abs(kept.mean().item() - share) < 4 * np.sqrt(share * (1 - share) / len(kept))
    assert dropout_scale(rate) * share == pytest.approx(1)
    for lag in (1, 2, 7, 8, 9, 100, 104):  # neighbours share a word; rows and columns must not show it
        correlation = np.corrcoef(kept[:-lag], kept[lag:])[0, 1]
        assert abs(correlation) < 4.5 / np.sqrt(len(kept))


def test_masks_of_other_runs_steps_towers_and_heads_are_independent():
    shape = {"longest": 64, "levels": 51}
    base = keep_mask(keys(1, 2), torch.arange(8), 64, heads=2, **shape).double()
    others = [
        keep_mask(keys(1, step=1), torch.arange(8), 64, heads=2, **shape).double()[0],
        keep_mask(keys(1, tower=1), torch.arange(8), 64, heads=2, **shape).double()[0],
        base[1],
    ]
    for other in others:
        assert abs(np.corrcoef(base[0].flatten(), other.flatten())[0, 1]) < 4.5 / np.sqrt(other.numel())
    first, second = base[0, :, 0].flatten(), base[0, :, 1].flatten()
    assert abs(np.corrcoef(first, second)[0, 1]) < 4.5 / np.sqrt(len(first))


def test_a_decision_depends_on_its_place_alone():
    levels, positions = 51, torch.tensor([3, 0, 7])
    whole = keep_mask(keys(1, 2, 3), torch.arange(8), 21, longest=21, levels=levels)
    assert torch.equal(keep_mask(keys(2), positions, 21, longest=21, levels=levels)[0], whole[1, positions])
    assert torch.equal(keep_mask(keys(2), positions, 5, longest=21, levels=levels)[0], whole[1, positions, :, :5, :5])
    assert torch.equal(
        keep_mask(keys(2), positions, 9, longest=21, levels=levels, queries=1)[0], whole[1, positions, :, :1, :9]
    )
