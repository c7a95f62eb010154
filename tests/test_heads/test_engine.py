"""Whole trainings: the engine against the reference, its determinism, what it learns and what it refuses."""

import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch

from heads.engine import HeadConfig, TokenTable, train_head
from heads.engine.run import RunLog
from heads.engine.streams import initial_state
from heads.metrics import METRICS
from heads.reference import train_reference

CONFIG = HeadConfig(classes=2, epochs=4, init_seed=1, batch_seed=2, dropout_seed=3, batch_size=8)
N_TRAIN = 33  # four batches of 8 and one of 1: twenty steps in four epochs


def planted(n_items, tokens, dim, classes, *, ragged=False, strength=1.0, seed=0):
    """(table, labels): one token an item leans, by `strength`, towards its class; every class occurs in each tenth."""
    rng = np.random.default_rng(seed)
    labels = rng.permutation(np.arange(n_items) % classes)
    lengths = rng.integers(1, tokens + 1, n_items) if ragged else np.full(n_items, tokens)
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    flat = rng.normal(0.5, 2.0, (offsets[-1], dim))
    flat[offsets[:-1]] += strength * rng.normal(0, 2.0, (classes, dim))[labels]
    flat = flat.astype(np.float16)
    if ragged:
        return TokenTable.ragged(flat, offsets), labels
    return TokenTable.dense(flat.reshape(n_items, tokens, dim)), labels


def halves(n_train, n_test):
    order = np.random.default_rng(5).permutation(n_train + n_test)
    return order[:n_train], order[n_train:]


def assert_same(result, other):
    """Equal bit for bit in all that is not a time."""
    assert result.epochs == other.epochs
    assert result.best_epoch == other.best_epoch
    assert result.probabilities_last.tobytes() == other.probabilities_last.tobytes()
    assert result.probabilities_best.tobytes() == other.probabilities_best.tobytes()
    assert all(result.state[name].tobytes() == other.state[name].tobytes() for name in other.state)


SHAPES = [  # tokens, dim, classes, ragged
    (1, 64, 2, False),
    (7, 5, 3, False),
    (49, 320, 2, False),
    (197, 64, 14, False),
    (60, 64, 5, True),
]


def assert_equals_the_reference(table, labels, config):
    """Twenty steps of both give the same parameters, losses and probabilities but for float32 rounding."""
    train, test = halves(N_TRAIN, 30)
    result, expected = (f(table, labels, train, test, config) for f in (train_head, train_reference))
    for name, value in expected.state.items():
        if name == "key.bias":  # no effect: the reference moves it by rounding noise, the engine leaves it
            assert np.array_equal(result.state[name], initial_state(table.dim, config.classes, seed=1)[name].numpy())
        else:
            assert np.linalg.norm(result.state[name] - value) <= 1e-5 * np.linalg.norm(value), name
    np.testing.assert_allclose(result.probabilities_last, expected.probabilities_last, atol=1e-5)
    for epoch, other in zip(result.epochs, expected.epochs, strict=True):
        assert epoch.train_loss == pytest.approx(other.train_loss, rel=1e-5)
        assert epoch.test_loss == pytest.approx(other.test_loss, rel=1e-5)


@pytest.mark.parametrize("dropout", [0.0, 0.2])
@pytest.mark.parametrize(("tokens", "dim", "classes", "ragged"), SHAPES)
def test_twenty_steps_equal_the_reference(tokens, dim, classes, ragged, dropout):
    table, labels = planted(N_TRAIN + 30, tokens, dim, classes, ragged=ragged)
    assert_equals_the_reference(table, labels, replace(CONFIG, classes=classes, dropout=dropout))


@pytest.mark.parametrize("ragged", [False, True])
def test_steps_cut_into_groups_equal_the_reference(ragged, monkeypatch):
    for limit in ("_RAGGED_STEP_ROWS", "_DENSE_STEP_ROWS", "_EVALUATION_ROWS"):
        monkeypatch.setattr(f"heads.engine.train.{limit}", 40)
    table, labels = planted(N_TRAIN + 30, 20, 16, 3, ragged=ragged)
    assert_equals_the_reference(table, labels, replace(CONFIG, classes=3))


@pytest.mark.parametrize("ragged", [False, True])
def test_a_whole_training_has_the_reference_auroc(ragged):
    table, labels = planted(500, 12, 24, 3, ragged=ragged, strength=0.4)
    train, test = halves(200, 300)
    config = replace(CONFIG, classes=3, epochs=12, batch_size=32, lr=1e-3)
    result, expected = (f(table, labels, train, test, config) for f in (train_head, train_reference))
    for epoch, other in zip(result.epochs, expected.epochs, strict=True):
        assert epoch.metrics == pytest.approx(other.metrics, abs=1e-3)
    assert 0.6 < expected.epochs[-1].metrics["auroc"] < 0.99  # a task that is neither noise nor trivial


@pytest.mark.parametrize("classes", [2, 5])
def test_learns_a_planted_signal(classes):
    table, labels = planted(400, 9, 32, classes)
    train, test = halves(300, 100)
    result = train_head(table, labels, train, test, replace(CONFIG, classes=classes, epochs=20, batch_size=32, lr=3e-3))
    assert result.epochs[-1].metrics["auroc"] > 0.9
    assert result.epochs[-1].train_loss < 0.5 * result.epochs[0].train_loss


@pytest.mark.parametrize("ragged", [False, True])
def test_the_same_call_gives_the_same_bytes_whatever_the_global_generators(ragged):
    table, labels = planted(80, 20, 16, 2, ragged=ragged)
    train, test = halves(50, 30)
    before = torch.get_rng_state()
    result = train_head(table, labels, train, test, CONFIG)
    assert torch.equal(torch.get_rng_state(), before)
    with torch.random.fork_rng():
        torch.manual_seed(1234)
        assert_same(train_head(table, labels, train, test, CONFIG), result)


@pytest.mark.parametrize("stream", ["init_seed", "batch_seed", "dropout_seed"])
def test_each_seed_matters(stream):
    table, labels = planted(60, 5, 8, 2)
    train, test = halves(40, 20)
    results = [train_head(table, labels, train, test, replace(CONFIG, **{stream: seed})) for seed in (7, 8)]
    assert not np.array_equal(results[0].probabilities_last, results[1].probabilities_last)


def test_the_place_of_items_in_the_table_does_not_matter():
    rng = np.random.default_rng(0)
    items = [rng.normal(size=(n, 8)).astype(np.float32) for n in rng.integers(1, 9, 60)]
    labels, (train, test), order = np.arange(60) % 2, halves(40, 20), rng.permutation(60)
    place = np.argsort(order)  # item i stands at place[i] of the other table

    def table(sequence):
        return TokenTable.ragged(np.concatenate(sequence), np.cumsum([0, *map(len, sequence)]))

    result = train_head(table(items), labels, train, test, CONFIG)
    other = train_head(table([items[i] for i in order]), labels[order], place[train], place[test], CONFIG)
    assert_same(other, result)


def test_neighbours_in_the_table_do_not_leak_through_padding():
    rng = np.random.default_rng(0)
    lengths = rng.integers(1, 9, 60)
    offsets = np.cumsum([0, *lengths])
    flat = rng.normal(size=(offsets[-1], 8)).astype(np.float32)
    used, labels = np.arange(0, 60, 2), np.arange(60) // 2 % 2
    spoilt = flat.copy()
    for item in range(1, 60, 2):  # an unused item stands behind each used one
        spoilt[offsets[item] : offsets[item + 1]] *= -1e15
    train, test = used[:20], used[20:]
    tables = [TokenTable.ragged(f, offsets) for f in (flat, spoilt)]
    assert_same(*(train_head(table, labels, train, test, CONFIG) for table in tables))


def test_padding_of_a_batch_is_zero():
    table, _ = planted(10, 30, 8, 2, ragged=True)
    batch = table.gather(torch.arange(10))
    assert batch.real is not None
    assert batch.real.sum(dim=1).tolist() == table.lengths.tolist()
    assert batch.x[~batch.real].eq(0).all()
    assert batch.x[batch.real].ne(0).any(dim=1).all()


@pytest.mark.parametrize("max_rows", [1, 37, 100, 10_000])
def test_length_groups_cover_every_item_once_within_the_limit(max_rows):
    table, _ = planted(50, 30, 8, 2, ragged=True)
    items = torch.arange(49, -1, -1)
    groups = list(table.length_groups(items, max_rows=max_rows))
    assert sorted(torch.cat(groups).tolist()) == list(range(50))
    for positions in groups:
        longest = int(table.lengths[items[positions]].max())
        assert len(positions) == 1 or len(positions) * longest <= max_rows


def test_uniform_ragged_items_equal_a_dense_table():
    rng = np.random.default_rng(0)
    tokens, labels = rng.normal(size=(60, 6, 8)).astype(np.float16), np.arange(60) % 2
    train, test = halves(40, 20)
    ragged = TokenTable.ragged(tokens.reshape(-1, 8), np.arange(61) * 6)
    assert_same(*(train_head(t, labels, train, test, CONFIG) for t in (TokenTable.dense(tokens), ragged)))


def test_the_result_holds_every_epoch_and_the_best_one():
    table, labels = planted(90, 5, 8, 2, strength=0.3)
    train, test = halves(50, 40)
    result = train_head(table, labels, train, test, replace(CONFIG, epochs=9, lr=0.01))
    aurocs = [epoch.metrics["auroc"] for epoch in result.epochs]
    assert [epoch.epoch for epoch in result.epochs] == list(range(1, 10))
    assert all(set(epoch.metrics) == set(METRICS) for epoch in result.epochs)
    assert result.best_epoch == 1 + aurocs.index(max(aurocs))
    at_best = train_head(table, labels, train, test, replace(CONFIG, epochs=result.best_epoch, lr=0.01))
    assert np.array_equal(at_best.probabilities_last, result.probabilities_best)
    assert result.probabilities_last.dtype == np.float32
    assert result.probabilities_last.shape == (40, 2)
    np.testing.assert_allclose(result.probabilities_last.sum(axis=1), 1, atol=1e-6)
    assert result.samples_per_second > 0


def test_of_equally_good_epochs_the_first_is_the_best():
    log = RunLog(np.array([0, 1, 1]))
    for slope in (-1.0, 1.0, 2.0):  # wrong, right, right
        log.add_epoch(0.7, torch.tensor([[slope, 0.0], [0.0, slope], [0.0, slope]]))
    result = log.result({}, samples_per_second=1.0)
    assert result.best_epoch == 2
    assert result.probabilities_best[0, 0] < result.probabilities_last[0, 0]


def test_probabilities_stand_in_the_order_of_test():
    table, labels = planted(60, 25, 8, 2, ragged=True)
    train, test = halves(40, 20)
    result = train_head(table, labels, train, test, CONFIG)
    turned = train_head(table, labels, train, test[::-1], CONFIG)
    np.testing.assert_allclose(turned.probabilities_last[::-1], result.probabilities_last, atol=1e-6)


@pytest.mark.parametrize("trainer", [train_head, train_reference])
def test_a_diverging_run_names_its_epoch(trainer):
    table, labels = planted(60, 5, 8, 2)
    train, test = halves(40, 20)
    with pytest.raises(FloatingPointError, match=r"loss is (nan|inf) in epoch \d+.*lower learning rate"):
        trainer(table, labels, train, test, replace(CONFIG, lr=1e30))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"labels": np.zeros(59, int)}, "labels are 60 integers"),
        ({"labels": np.zeros(60)}, "labels are 60 integers"),
        ({"labels": np.full(60, 2)}, "a label of train lies outside 0..1"),
        ({"train": np.array([], int)}, "train is a list of item indices, not empty"),
        ({"test": np.array([50, 60])}, "test holds indices outside 0..59"),
        ({"train": np.array([-1, 3])}, "train holds indices outside"),
        ({"train": np.array([3, 4, 3])}, "train holds an item twice"),
        ({"train": np.array([3, 50])}, r"item 50 is in train and in test \(1 such"),
        ({"test": np.array([50, 52])}, "no test sample of class 1"),
    ],
)
@pytest.mark.parametrize("trainer", [train_head, train_reference])
def test_inputs_that_do_not_fit_are_refused(trainer, change, message):
    table, _ = planted(60, 2, 4, 2)
    inputs = {"labels": np.arange(60) % 2, "train": np.arange(40), "test": np.arange(40, 60), **change}
    with pytest.raises(ValueError, match=message):
        trainer(table, inputs["labels"], inputs["train"], inputs["test"], CONFIG)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("classes", 1),
        ("epochs", 0),
        ("batch_size", 0),
        ("lr", 0.0),
        ("lr", float("nan")),
        ("dropout", 1.0),
        ("dropout", -0.1),
        ("init_seed", -1),
        ("dropout_seed", 2**63),
    ],
)
def test_a_config_that_means_nothing_is_refused(name, value):
    with pytest.raises(ValueError, match=f"{name} = "):
        replace(CONFIG, **{name: value})


@pytest.mark.parametrize(
    ("tokens", "message"),
    [
        (np.zeros((3, 4), np.float16), r"\[items, tokens, dim\]"),
        (np.zeros((3, 0, 4), np.float16), "none of them empty"),
        (np.zeros((3, 4, 5)), "float16 or float32, not float64"),
    ],
)
def test_dense_tokens_of_a_wrong_shape_are_refused(tokens, message):
    with pytest.raises(ValueError, match=message):
        TokenTable.dense(tokens)


@pytest.mark.parametrize(
    ("offsets", "message"),
    [
        ([0, 2, 2, 5], "item 1 has no tokens"),
        ([0, 4, 2, 5], "item 1 has no tokens"),
        ([0, 2, 4], "number of tokens, 5"),
        ([1, 2, 5], "rise from 0"),
    ],
)
def test_offsets_that_do_not_cut_the_tokens_into_items_are_refused(offsets, message):
    with pytest.raises(ValueError, match=message):
        TokenTable.ragged(np.zeros((5, 4), np.float16), np.array(offsets))


def test_a_token_that_is_not_finite_names_its_item():
    tokens = np.zeros((4, 3, 8), np.float16)
    tokens[2, 1, 0] = np.inf
    with pytest.raises(ValueError, match="item 2 has a token that is not finite"):
        TokenTable.dense(tokens)


def test_read_only_tokens_are_taken_as_they_are():
    tokens = np.random.default_rng(0).normal(size=(60, 3, 8)).astype(np.float32)
    tokens.setflags(write=False)
    train, test = halves(40, 20)
    assert train_head(TokenTable.dense(tokens), np.arange(60) % 2, train, test, CONFIG).best_epoch >= 1


def test_the_engine_runs_where_only_torch_and_numpy_are():
    check = (
        "import sys, heads.engine, heads.reference, heads.metrics.auroc, heads.metrics.auprc;"
        "foreign = {'featurestore', 'cohorts', 'polars', 'duckdb', 'zarr', 'sklearn', 'scipy'};"
        "sys.exit(', '.join(foreign & set(sys.modules)) or 0)"
    )
    done = subprocess.run([sys.executable, "-c", check], check=False, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
