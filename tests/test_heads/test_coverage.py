"""What intervals and tests promise, on studies whose truth is known: the small version of `benchmarks/coverage.py`."""

import numpy as np
import pytest

from heads.stats import population_interval, resampled_interval, seeds_interval, sign_flip, subjects_interval

from .simulation import Population, draw_study

DATA_SETS = 80


def studies(design, **keys):
    rng = np.random.default_rng(4)
    return [draw_study(Population(), rng, seeds=5, design=design, subjects=150, **keys) for _ in range(DATA_SETS)]


def share(held):
    """Of 80 data sets; 0.95 is missed by more than 0.06 in one of a hundred."""
    return np.mean(list(held))


def holds(interval, truth):
    return interval.low <= truth <= interval.high


@pytest.fixture(scope="module")
def own():
    return studies("redrawn")


@pytest.fixture(scope="module")
def shared():
    return studies("split", untested=30)


def test_the_interval_over_seeds_covers_what_other_seeds_give_on_the_data_set(own):
    assert share(holds(seeds_interval(s.values[:, 0] - s.values[:, 2]), 0) for s in own) >= 0.89


def test_it_does_not_cover_what_other_data_sets_give(own, shared):
    assert share(holds(seeds_interval(s.values[:, 0] - s.values[:, 1]), 0) for s in own) < 0.92
    assert share(holds(seeds_interval(s.values[:, 0] - s.values[:, 1]), 0) for s in shared) < 0.5


def test_the_resampled_interval_does(own):
    found = share(holds(resampled_interval(s.values[:, 0] - s.values[:, 1], 1 / 3), 0) for s in own)
    assert found >= 0.89


def test_the_population_interval_covers_other_patients_where_the_test_side_is_shared(shared):
    found = []
    for s in shared:
        interval = population_interval(s.values[:, 0] - s.values[:, 1], s.influences[:, 0] - s.influences[:, 1])
        found.append(holds(interval, s.expected[0] - s.expected[1]))
    assert 0.89 <= share(found) <= 0.99


def test_the_interval_over_subjects_covers_what_these_heads_give_on_other_patients(own):
    found = []
    for s in own:
        difference = s.influences[:, 0] - s.influences[:, 1]
        interval = subjects_interval(difference, float((s.values[:, 0] - s.values[:, 1]).mean()))
        found.append(holds(interval, (s.truths[:, 0] - s.truths[:, 1]).mean()))
    assert share(found) >= 0.88


def test_the_sign_flip_test_is_exact_on_one_data_set_and_blind_to_other_patients():
    rng, alarms = np.random.default_rng(1), {"twins": 0, "blocks": 0}
    for _ in range(DATA_SETS):
        study = draw_study(Population(), rng, seeds=8, design="split", subjects=60)
        alarms["twins"] += sign_flip(study.values[:, 0] - study.values[:, 2]) < 0.05
        alarms["blocks"] += sign_flip(study.values[:, 0] - study.values[:, 1]) < 0.05
    assert alarms["twins"] / DATA_SETS <= 0.12
    assert alarms["blocks"] / DATA_SETS > 0.4


def test_the_population_knows_the_auroc_of_a_classifier():
    population, rng = Population(), np.random.default_rng(0)
    features, labels, _ = population.draw(rng, 20_000)
    weights = rng.normal(size=population.dim)
    score = features[:, 1] @ weights
    pairs = score[labels == 1][:5000, None] > score[labels == 0][:5000]
    assert population.auroc(weights) == pytest.approx(pairs.mean(), abs=0.01)
