"""Whole trainings: the engine against the reference at odd shapes, fleets, determinism, what it learns and refuses."""

import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch

from heads.engine import Failure, HeadData, HeadJob, Lesson, TokenTable, apply_head, teach, train_head, train_heads
from heads.engine.evaluate import predict
from heads.engine.forms import FORMS
from heads.engine.log import RunLog
from heads.engine.network import initial_state, stack, untrained
from heads.metrics import METRICS
from heads.reference import train_reference

from .heads_data import CONFIG as BASE
from .heads_data import make_data, make_job, planted

CONFIG = replace(BASE, lr=1e-4)
N_TRAIN = 33  # four batches of 8 and one of 1: twenty steps in four epochs


def train_image(table, labels, train, test, config, trainer=train_head):
    """Train one head on one table of images."""
    return trainer(HeadData({"image": table}, labels), HeadJob(config, train, test, keep=("last", "best")))


def halves(n_train, n_test):
    order = np.random.default_rng(5).permutation(n_train + n_test)
    return order[:n_train], order[n_train:]


def assert_same(result, other):
    """Equal bit for bit in all that is not a time."""
    assert result.epochs == other.epochs
    assert result.chosen == other.chosen
    for choice, probabilities in result.probabilities.items():
        assert probabilities.tobytes() == other.probabilities[choice].tobytes()
    for choice, state in result.states.items():
        assert all(state[name].tobytes() == other.states[choice][name].tobytes() for name in state)


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
    result, expected = (train_image(table, labels, train, test, config, f) for f in (train_head, train_reference))
    for name, value in expected.states["last"].items():
        if name in untrained(config):  # no effect: the reference moves it by rounding noise, the engine leaves it
            fresh = initial_state(config, {"image": table.dim})[name].numpy()
            assert np.array_equal(result.states["last"][name], fresh)
        else:
            assert np.linalg.norm(result.states["last"][name] - value) <= 1e-5 * np.linalg.norm(value), name
    np.testing.assert_allclose(result.probabilities["last"], expected.probabilities["last"], atol=1e-5)
    for epoch, other in zip(result.epochs, expected.epochs, strict=True):
        assert epoch.train_loss == pytest.approx(other.train_loss, rel=1e-5)
        assert epoch.test_loss == pytest.approx(other.test_loss, rel=1e-5)


@pytest.mark.parametrize("dropout", [0.0, 0.2])
@pytest.mark.parametrize(("tokens", "dim", "classes", "ragged"), SHAPES)
def test_twenty_steps_equal_the_reference(tokens, dim, classes, ragged, dropout):
    table, labels = planted(N_TRAIN + 30, tokens, dim, classes, ragged=ragged)
    assert_equals_the_reference(table, labels, replace(CONFIG, classes=classes, dropout=dropout))


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("ragged", [False, True])
def test_batches_computed_in_parts_equal_the_reference(form, ragged, monkeypatch):
    monkeypatch.setattr("heads.engine.forms._RAGGED_ROWS", 40)
    monkeypatch.setattr("heads.engine.forms.BLOCK_BYTES", 4 * 20 * 40)  # two items of 20 tokens
    monkeypatch.setattr("heads.engine.evaluate._SAMPLES", 11)
    table, labels = planted(N_TRAIN + 30, 20, 16, 3, ragged=ragged)
    assert_equals_the_reference(table, labels, replace(CONFIG, classes=3, form=form))


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("ragged", [False, True])
def test_heads_that_share_their_tokens_say_what_each_says_alone(form, ragged, monkeypatch):
    monkeypatch.setattr("heads.engine.forms.BLOCK_BYTES", 4 * 16 * 9 * 20)  # two or three runs at a time
    table, labels = planted(40, 9, 16, 2, ragged=ragged)
    config, seeds = replace(CONFIG, form=form), range(5)
    states = [initial_state(replace(config, init_seed=seed), {"image": 16}) for seed in seeds]
    samples = np.random.default_rng(0).permutation(40)[:19]
    together = predict(stack(states), config, {"image": table}, {"image": torch.from_numpy(samples)[None]})
    data = HeadData({"image": table}, labels)
    for state, logits in zip(states, together, strict=True):
        alone = apply_head({name: value.numpy() for name, value in state.items()}, config, data, samples)
        np.testing.assert_allclose(logits.softmax(dim=1).numpy(), alone, atol=1e-6)


def test_test_sets_with_the_same_samples_are_evaluated_at_once(monkeypatch):
    asked = []

    def count(params, config, tables, items):
        asked.append((len(params["classifier.bias"]), items["image"].shape))
        return predict(params, config, tables, items)

    monkeypatch.setattr("heads.engine.train.predict", count)
    table, labels = planted(40, 3, 8, 2)
    train, test = np.arange(20), np.arange(20, 40)
    others = {"image": np.roll(np.arange(40), 1)}
    parts = [(test, {}), (test.copy(), {}), (test[:10], {}), (test, others), (test, {"image": others["image"].copy()})]
    jobs = [HeadJob(replace(CONFIG, epochs=1), train, part, rows=rows) for part, rows in parts]
    list(train_heads(HeadData({"image": table}, labels), jobs))
    assert sorted(asked) == [(1, (1, 10)), (2, (1, 20)), (2, (1, 20))]


@pytest.mark.slow
def test_the_largest_shape_equals_the_reference():
    table, labels = planted(8, 1369, 2048, 2)
    config = replace(CONFIG, epochs=1, batch_size=2)
    result, expected = (
        train_image(table, labels, np.arange(4), np.arange(4, 8), config, f) for f in (train_head, train_reference)
    )
    names = [name for name in expected.states["last"] if name != "image.key.bias"]
    found, right = (np.concatenate([r.states["last"][name].ravel() for name in names]) for r in (result, expected))
    assert np.linalg.norm(found - right) <= 1e-6 * np.linalg.norm(right)


@pytest.mark.parametrize("ragged", [False, True])
def test_a_whole_training_has_the_reference_auroc(ragged):
    table, labels = planted(500, 12, 24, 3, ragged=ragged, strength=0.6)
    train, test = halves(200, 300)
    config = replace(CONFIG, classes=3, epochs=12, batch_size=32, lr=1e-3)
    result, expected = (train_image(table, labels, train, test, config, f) for f in (train_head, train_reference))
    for epoch, other in zip(result.epochs, expected.epochs, strict=True):
        assert epoch.metrics == pytest.approx(other.metrics, abs=1e-3)
    assert 0.6 < expected.epochs[-1].metrics["auroc"] < 0.99  # a task that is neither noise nor trivial


@pytest.mark.parametrize("classes", [2, 5])
def test_learns_a_planted_signal(classes):
    table, labels = planted(400, 9, 32, classes)
    train, test = halves(300, 100)
    result = train_image(
        table, labels, train, test, replace(CONFIG, classes=classes, epochs=20, batch_size=32, lr=3e-3)
    )
    assert result.epochs[-1].metrics["auroc"] > 0.9
    assert result.epochs[-1].train_loss < 0.5 * result.epochs[0].train_loss


@pytest.mark.parametrize("ragged", [False, True])
def test_the_same_call_gives_the_same_bytes_whatever_the_global_generators(ragged):
    table, labels = planted(80, 20, 16, 2, ragged=ragged)
    train, test = halves(50, 30)
    before = torch.get_rng_state()
    result = train_image(table, labels, train, test, CONFIG)
    assert torch.equal(torch.get_rng_state(), before)
    with torch.random.fork_rng():
        torch.manual_seed(1234)
        assert_same(train_image(table, labels, train, test, CONFIG), result)


@pytest.mark.parametrize("stream", ["init_seed", "batch_seed", "dropout_seed"])
def test_each_seed_matters(stream):
    table, labels = planted(60, 5, 8, 2)
    train, test = halves(40, 20)
    results = [train_image(table, labels, train, test, replace(CONFIG, **{stream: seed})) for seed in (7, 8)]
    assert not np.array_equal(results[0].probabilities["last"], results[1].probabilities["last"])


def test_the_place_of_items_in_the_table_does_not_matter():
    rng = np.random.default_rng(0)
    items = [rng.normal(size=(n, 8)).astype(np.float32) for n in rng.integers(1, 9, 60)]
    labels, (train, test), order = np.arange(60) % 2, halves(40, 20), rng.permutation(60)
    place = np.argsort(order)  # item i stands at place[i] of the other table

    def table(sequence):
        return TokenTable.ragged(np.concatenate(sequence), np.cumsum([0, *map(len, sequence)]))

    result = train_image(table(items), labels, train, test, CONFIG)
    other = train_image(table([items[i] for i in order]), labels[order], place[train], place[test], CONFIG)
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
    assert_same(*(train_image(table, labels, train, test, CONFIG) for table in tables))


def test_padding_of_a_batch_is_zero():
    table, _ = planted(10, 30, 8, 2, ragged=True)
    batch = table.gather(torch.arange(10)[None])
    assert batch.real is not None
    assert batch.real[0].sum(dim=1).tolist() == table.lengths.tolist()
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
    assert_same(*(train_image(t, labels, train, test, CONFIG) for t in (TokenTable.dense(tokens), ragged)))


def test_the_result_holds_every_epoch_and_the_best_one():
    table, labels = planted(90, 5, 8, 2, strength=0.3)
    train, test = halves(50, 40)
    result = train_image(table, labels, train, test, replace(CONFIG, epochs=9, lr=0.01))
    aurocs = [epoch.metrics["auroc"] for epoch in result.epochs]
    assert [epoch.epoch for epoch in result.epochs] == list(range(1, 10))
    assert all(set(epoch.metrics) == set(METRICS) for epoch in result.epochs)
    assert result.chosen["best"] == 1 + aurocs.index(max(aurocs))
    at_best = train_image(table, labels, train, test, replace(CONFIG, epochs=result.chosen["best"], lr=0.01))
    assert np.array_equal(at_best.probabilities["last"], result.probabilities["best"])
    assert result.probabilities["last"].dtype == np.float32
    assert result.probabilities["last"].shape == (40, 2)
    np.testing.assert_allclose(result.probabilities["last"].sum(axis=1), 1, atol=1e-6)
    assert result.samples_per_second > 0


def test_of_equally_good_epochs_the_first_is_the_best():
    log = RunLog(make_job(replace(CONFIG, epochs=3), keep=("best", "inner")))
    for number, (auroc, inner) in enumerate([(0.5, 0.9), (1.0, 0.8), (1.0, 0.9)]):
        log.add_epoch(
            train_loss=0.7,
            test_loss=0.7,
            metrics={"auroc": auroc},
            probabilities=np.full((1, 2), number),
            inner_auroc=inner,
            state=lambda number=number: {"epoch": np.array(number)},
        )
    result = log.result(samples_per_second=1.0)
    assert result.chosen == {"last": 3, "best": 2, "inner": 1}
    assert {choice: int(p[0, 0]) for choice, p in result.probabilities.items()} == {"last": 2, "best": 1, "inner": 0}
    assert {choice: int(state["epoch"]) for choice, state in result.states.items()} == {"best": 1, "inner": 0}


def test_probabilities_stand_in_the_order_of_test():
    table, labels = planted(60, 25, 8, 2, ragged=True)
    train, test = halves(40, 20)
    result = train_image(table, labels, train, test, CONFIG)
    turned = train_image(table, labels, train, test[::-1], CONFIG)
    np.testing.assert_allclose(turned.probabilities["last"][::-1], result.probabilities["last"], atol=1e-6)


@pytest.mark.parametrize("trainer", [train_head, train_reference])
def test_a_diverging_run_names_its_epoch(trainer):
    table, labels = planted(60, 5, 8, 2)
    train, test = halves(40, 20)
    with pytest.raises(FloatingPointError, match=r"loss is (nan|inf) in epoch \d+.*lower learning rate"):
        train_image(table, labels, train, test, replace(CONFIG, lr=1e30), trainer)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"labels": np.zeros(59, int)}, "the image table has 60 items for 59 samples"),
        ({"labels": np.zeros(60)}, "labels of classes are integers"),
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
        train_image(table, inputs["labels"], inputs["train"], inputs["test"], CONFIG, trainer)


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
        ("imitation", 1.5),
        ("temperature", 0.0),
        ("form", "perceptron"),
        ("objective", "guess"),
        ("reads", ()),
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
    assert train_image(TokenTable.dense(tokens), np.arange(60) % 2, train, test, CONFIG).chosen["best"] >= 1


def test_runs_of_a_fleet_equal_the_same_runs_alone_and_come_and_go():
    table, labels = planted(90, 7, 16, 3)
    data, order = HeadData({"image": table}, labels), np.random.default_rng(0).permutation(90)
    jobs = [
        HeadJob(
            replace(
                CONFIG, classes=3, epochs=1 + s % 3, init_seed=s, batch_seed=s, dropout_seed=s, lr=10.0 ** -(2 + s % 2)
            ),
            order[: 20 + 4 * s],
            order[60:],
        )
        for s in range(8)
    ]
    alone = [train_head(data, job) for job in jobs]
    for size in (1, 3, 8):
        fleet = dict(train_heads(data, jobs, fleet_size=size))
        assert sorted(fleet) == list(range(8))
        for number, expected in enumerate(alone):
            assert len(fleet[number].epochs) == jobs[number].config.epochs
            for name, value in expected.states["last"].items():
                distance = np.linalg.norm(fleet[number].states["last"][name] - value)
                assert distance <= 1e-5 * np.linalg.norm(value), name


def test_a_failing_run_leaves_its_neighbours_alone():
    table, labels = planted(60, 5, 8, 2)
    data, (train, test) = HeadData({"image": table}, labels), halves(40, 20)
    jobs = [HeadJob(replace(CONFIG, init_seed=s, lr=1e30 if s == 1 else 1e-3), train, test) for s in range(3)]
    outcomes = dict(train_heads(data, jobs, fleet_size=3))
    assert isinstance(outcomes[1], Failure)
    assert "loss is" in outcomes[1].reason
    for number in (0, 2):
        expected = train_head(data, jobs[number])
        np.testing.assert_allclose(outcomes[number].probabilities["last"], expected.probabilities["last"], atol=1e-6)


def test_want_of_memory_makes_smaller_fleets(monkeypatch):
    from heads.engine import fleet

    table, labels = planted(60, 5, 8, 2)
    data, (train, test) = HeadData({"image": table}, labels), halves(40, 20)
    jobs = [HeadJob(replace(CONFIG, init_seed=s), train, test) for s in range(5)]
    step, sizes = fleet.Fleet.step, set()

    def hungry(self):
        if len(self.places) > 2 or self.places[0].job.config.init_seed == 4:
            raise torch.OutOfMemoryError("pretended")
        sizes.add(len(self.places))
        return step(self)

    monkeypatch.setattr(fleet.Fleet, "step", hungry)
    outcomes = dict(train_heads(data, jobs, fleet_size=5))
    assert max(sizes) == 2
    assert outcomes[4] == Failure("not enough memory to train it alone: pretended", MemoryError)
    with pytest.raises(MemoryError, match="train it alone: pretended"):
        train_head(data, jobs[4])
    monkeypatch.setattr(fleet.Fleet, "step", step)
    for number in range(4):
        assert outcomes[number].epochs[-1].metrics == pytest.approx(train_head(data, jobs[number]).epochs[-1].metrics)


def test_rows_give_a_sample_the_item_of_another():
    data = make_data(views=1)
    job = make_job(replace(CONFIG, reads=("text",)), views=1)
    shift = np.roll(np.arange(len(data.labels)), 1)
    text = data.tokens["text"]
    moved = [text.raw_tokens(int(item)).numpy() for item in shift]
    other = TokenTable.ragged(np.concatenate(moved), np.cumsum([0, *map(len, moved)]))
    result = train_head(data, replace(job, rows={"text": shift}))
    expected = train_head(HeadData({"text": other}, data.labels), job)
    np.testing.assert_allclose(result.probabilities["last"], expected.probabilities["last"], atol=1e-6)
    np.testing.assert_allclose(
        train_reference(data, replace(job, rows={"text": shift})).probabilities["last"],
        expected.probabilities["last"],
        atol=1e-5,
    )


def test_a_lesson_is_what_the_teacher_says_in_every_view():
    data = make_data()
    job = make_job(replace(CONFIG, reads=("image", "text")))
    state, train = train_head(data, job).states["last"], job.train
    lesson = teach(state, job.config, data, train)
    assert lesson.logits.shape == (3, len(train), 2)
    assert lesson.features.shape == (3, len(train), 28)
    probabilities = torch.from_numpy(lesson.logits[0]).softmax(dim=1).numpy()
    np.testing.assert_allclose(probabilities, apply_head(state, job.config, data, train), atol=1e-6)
    second = np.stack([data.tokens["image"].raw_tokens(i, 1).numpy() for i in range(len(data.labels))])
    clean = HeadData({"image": TokenTable.dense(second), "text": data.tokens["text"]}, data.labels)
    np.testing.assert_allclose(teach(state, job.config, clean, train).logits[0], lesson.logits[1], atol=1e-5)


def test_a_perfect_teacher_with_all_the_weight_teaches_as_labels_do():
    data, job = make_data(views=1), make_job(CONFIG, views=1)
    logits = 40.0 * (2 * (data.labels[job.train][:, None] == np.arange(2)) - 1)
    taught = replace(
        job, config=replace(CONFIG, objective="distill", imitation=1.0), lesson=Lesson(logits[None].astype(np.float32))
    )
    np.testing.assert_allclose(
        train_head(data, taught).probabilities["last"], train_head(data, job).probabilities["last"], atol=1e-6
    )


def test_without_imitation_a_student_is_an_image_head():
    data, job = make_data(), make_job(CONFIG)
    student = make_job(replace(CONFIG, objective="distill", imitation=0.0))
    np.testing.assert_allclose(
        train_head(data, student).probabilities["last"], train_head(data, job).probabilities["last"], atol=1e-6
    )


def test_tram_teaches_its_tower_through_the_privileged_classifier_alone():
    data = make_data(views=1)
    job = make_job(replace(CONFIG, objective="tram", reads=("image", "text")), views=1)
    state, fresh = train_head(data, job).states["last"], initial_state(job.config, {"image": 16, "text": 12})
    assert not np.allclose(state["classifier.weight"], fresh["classifier.weight"].numpy())
    # Where the serving classifier starts makes no difference to anything but itself.
    moved = {name: value + (0.5 if name == "classifier.weight" else 0.0) for name, value in fresh.items()}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("heads.engine.fleet.initial_state", lambda *_, **__: moved)
        other = train_head(data, job).states["last"]
    assert not np.allclose(other["classifier.weight"], state["classifier.weight"])
    for name, value in state.items():
        if not name.startswith("classifier."):
            np.testing.assert_allclose(other[name], value, atol=1e-7, err_msg=name)


@pytest.mark.parametrize("ragged", [False, True])
def test_a_table_that_is_not_held_in_memory_gives_the_same(ragged):
    table, labels = planted(60, 12, 16, 2, ragged=ragged)
    train, test = halves(40, 20)
    if ragged:
        flat = np.concatenate([table.raw_tokens(i).numpy() for i in range(60)])
        streamed = TokenTable.ragged(flat, np.cumsum([0, *table.lengths.tolist()]), resident=False)
    else:
        streamed = TokenTable.dense(np.stack([table.raw_tokens(i).numpy() for i in range(60)]), resident=False)
    result, other = (train_image(t, labels, train, test, CONFIG) for t in (table, streamed))
    np.testing.assert_allclose(result.probabilities["last"], other.probabilities["last"], atol=1e-6)


def test_bfloat16_products_stay_near_float32():
    table, labels = planted(500, 12, 24, 3, strength=0.4)
    half = TokenTable.dense(np.stack([table.raw_tokens(i).numpy() for i in range(500)]), dtype=torch.bfloat16)
    train, test = halves(200, 300)
    config = replace(CONFIG, classes=3, epochs=12, batch_size=32, lr=1e-3)
    result, other = (train_image(t, labels, train, test, config) for t in (table, half))
    assert abs(result.epochs[-1].metrics["auroc"] - other.epochs[-1].metrics["auroc"]) < 0.01


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"lesson": None}, "learns from a teacher"),
        ({"lesson": Lesson(np.zeros((1, 32, 2), np.float32))}, r"logits are \[views, 33, 2\]"),
        ({"lesson": Lesson(np.full((1, 33, 2), np.nan, np.float32))}, "not finite"),
        ({"inner": np.array([0])}, "no inner sample of class"),
        ({"rows": {"image": np.zeros(3, int)}}, "rows of image are 72 indices"),
    ],
)
def test_jobs_that_do_not_fit_are_refused(change, message):
    data = make_data(views=1)
    job = make_job(replace(CONFIG, objective="distill"), views=1, inner=False)
    if "inner" in change:
        change = {"inner": np.setdiff1d(np.arange(72), np.concatenate([job.train, job.test]))[:1]}
    with pytest.raises(ValueError, match=message):
        train_head(data, replace(job, **change))


def test_the_engine_runs_where_only_torch_and_numpy_are():
    check = (
        "import sys, heads.engine, heads.reference, heads.metrics.auroc, heads.metrics.auprc;"
        "foreign = {'featurestore', 'cohorts', 'polars', 'duckdb', 'zarr', 'sklearn', 'scipy'};"
        "sys.exit(', '.join(foreign & set(sys.modules)) or 0)"
    )
    done = subprocess.run([sys.executable, "-c", check], check=False, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
