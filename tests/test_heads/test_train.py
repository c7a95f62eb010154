"""Training a grid: every run exactly once, whatever is killed, repeated or run beside it, and the same numbers."""

import multiprocessing
import os
import signal
import time
from functools import partial

import numpy as np
import polars as pl
import pytest

from featurestore.errors import DamageError, DataError
from featurestore.store import Store, open_store
from heads import train
from heads.catalog import open_catalog
from heads.finished import FinishedRuns
from heads.plan import make_plan
from heads.train import Progress, train_grid

from . import stores
from .recipes import recipe
from .stores import make_store

toy_grid = partial(stores.toy_grid, fraction=[0.3, 1.0], seed=3, epochs=4, lr=0.02)


NUMBERS = """
SELECT r.*, e.epoch, e.train_loss, e.test_loss, e.auroc AS epoch_auroc, p.sample, p.p_last, p.p_best
FROM results r JOIN epochs e USING (run) JOIN predictions p USING (run) ORDER BY run, epoch, sample
"""


def numbers(store: Store) -> pl.DataFrame:
    """All that training computed, without times."""
    return open_catalog(store).query(NUMBERS)


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> Store:
    """A store whose grid was trained without any interruption."""
    store = make_store(tmp_path_factory.mktemp("whole") / "store")
    train_grid(store, toy_grid())
    return store


def test_every_run_has_its_rows(whole):
    catalog, plan = open_catalog(whole), make_plan(whole, toy_grid())
    runs = catalog.query("SELECT * FROM runs")
    assert sorted(runs["run"]) == sorted(run.spec.run_id for run in plan.runs)
    assert len(runs) == 12
    epochs = catalog.query("SELECT run, list(epoch ORDER BY epoch) AS epochs FROM epochs GROUP BY run")
    assert epochs["epochs"].to_list() == [[1, 2, 3, 4]] * 12
    counts = catalog.query("SELECT n_test, count(*) AS n FROM predictions JOIN runs USING (run) GROUP BY run, n_test")
    assert (counts["n_test"] == counts["n"]).all()
    assert plan.todo == ()


def test_every_split_can_be_traced_to_its_samples(whole):
    train_of = recipe("Training samples of every run")
    rows = open_catalog(whole).query(train_of)
    assert len(rows) == 12
    assert (rows["n"] == rows["n_train"]).all()
    leaks = recipe("Predictions outside the test side")
    assert open_catalog(whole).query(leaks).is_empty()


def test_a_signal_in_the_tokens_is_learnt(whole):
    means = open_catalog(whole).query("SELECT avg(auroc) AS auroc FROM results WHERE fraction = 1 GROUP BY method")
    assert (means["auroc"] > 0.8).all()


def test_the_same_call_again_does_nothing(whole):
    before = sorted(whole.results.rglob("*"))
    told: list[Progress] = []
    report = train_grid(whole, toy_grid(), on_progress=told.append)
    assert (report.planned, report.already, report.trained, report.failed) == (12, 12, 0, [])
    assert (told, sorted(whole.results.rglob("*"))) == ([], before)
    assert report.lines()[0].startswith("12 runs: 12 done before, 0 trained, 0 failed")


def test_a_larger_grid_trains_only_what_is_new(whole, tmp_path):
    store = make_store(tmp_path / "store")
    train_grid(store, toy_grid(seed=[0, 1], method="text"))
    told: list[Progress] = []
    report = train_grid(store, toy_grid(), on_progress=told.append)
    assert (report.already, report.trained) == (4, 8)
    assert [p.finished for p in told] == list(range(1, 9))
    assert {p.outcome for p in told} == {"trained"}
    assert numbers(store).equals(numbers(whole))


def test_tokens_are_loaded_once_for_all_runs_that_read_them(tmp_path, monkeypatch):
    store = make_store(tmp_path / "store")
    loaded = []
    load = train._load_tokens
    monkeypatch.setattr(train, "_load_tokens", lambda store, run: loaded.append(run.spec.features) or load(store, run))
    train_grid(store, toy_grid())
    assert len(loaded) == len(set(loaded)) == 2


def _train_and_die(store: Store, after: int) -> None:
    """Train with small parts in this process and kill it, as a power cut would, when `after` runs are done."""

    def told(progress: Progress) -> None:
        if progress.finished == after:
            os.kill(os.getpid(), signal.SIGKILL)

    train.PART_RUNS = 2
    train_grid(store, toy_grid(), on_progress=told)


def _process(target, *args):
    process = multiprocessing.get_context("spawn").Process(target=target, args=args)
    process.start()
    return process


def test_a_kill_loses_little_and_the_next_call_ends_with_the_numbers_of_an_uninterrupted_one(whole, tmp_path):
    store = make_store(tmp_path / "store")
    process = _process(_train_and_die, store, 7)
    process.join()
    assert process.exitcode == -signal.SIGKILL
    assert len(FinishedRuns(store).refresh()) == 6
    report = train_grid(store, toy_grid())
    assert (report.already, report.trained) == (6, 6)
    assert numbers(store).equals(numbers(whole))


def _train(store: Store) -> None:
    train.PART_RUNS = 1
    train_grid(store, toy_grid())


def test_two_processes_with_one_grid_leave_every_run_once(whole, tmp_path, monkeypatch):
    store = make_store(tmp_path / "store")
    process = _process(_train, store)
    while process.is_alive() and not FinishedRuns(store).refresh():
        time.sleep(0.001)
    monkeypatch.setattr(train, "PART_RUNS", 1)
    train_grid(store, toy_grid())
    process.join()
    assert process.exitcode == 0
    open_catalog(store).fold()
    assert numbers(store).equals(numbers(whole))


def test_runs_that_stand_in_two_parts_count_once(tmp_path, monkeypatch):
    store = make_store(tmp_path / "store")
    grid = toy_grid(method="image")
    train_grid(store, grid)
    before = numbers(store)
    monkeypatch.setattr(FinishedRuns, "refresh", lambda self: set())
    monkeypatch.setattr(train, "PART_RUNS", 4)
    train_grid(store, grid)
    assert len(list(store.results.glob("*/runs.parquet"))) == 3
    assert numbers(store).equals(before)


def test_what_another_process_finished_meanwhile_is_not_trained_again(tmp_path, monkeypatch):
    store = make_store(tmp_path / "store")
    grid = toy_grid(method="image")
    plan = make_plan(store, grid)
    train_grid(store, grid)
    monkeypatch.setattr(train, "make_plan", lambda store, grid: plan)
    report = train_grid(store, grid)
    assert (report.already, report.trained, report.elsewhere) == (0, 0, 6)
    assert "6 trained by another process" in report.lines()[0]


def test_a_run_that_diverges_is_reported_and_the_others_go_on(tmp_path, monkeypatch):
    store = make_store(tmp_path / "store")
    real = train.train_head

    def diverge(data, job):
        if len(job.train) > 30:
            raise FloatingPointError("the training loss is nan in epoch 2")
        return real(data, job)

    monkeypatch.setattr(train, "train_head", diverge)
    told: list[Progress] = []
    report = train_grid(store, toy_grid(), on_progress=told.append)
    assert (report.trained, len(report.failed)) == (6, 6)
    assert [p.outcome for p in told].count("failed") == 6
    assert open_catalog(store).query("SELECT DISTINCT fraction FROM results")["fraction"].to_list() == [0.3]
    run, _ = report.failed[0]
    assert report.lines()[1] == f"failed: {run.label} ({run.spec.run_id}): the training loss is nan in epoch 2"
    assert run.label == "toy image tiny fraction 1 seed 0"
    monkeypatch.undo()
    assert train_grid(store, toy_grid()).trained == 6


def test_an_interrupt_keeps_what_was_trained(tmp_path):
    store = make_store(tmp_path / "store")

    def interrupt(progress: Progress) -> None:
        if progress.finished == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train_grid(store, toy_grid(), on_progress=interrupt)
    assert open_catalog(store).query("SELECT count(*) AS n FROM runs")["n"][0] == 3


def test_image_and_text_of_a_seed_see_the_same_batches(whole, monkeypatch):
    configs = {}
    real = train._config
    monkeypatch.setattr(train, "_config", lambda run: configs.setdefault((run.spec.method, run.spec.seed), real(run)))
    plan = make_plan(whole, toy_grid())
    for run in plan.runs:
        train._config(run)
    for seed in range(3):
        assert configs["image", seed].batch_seed == configs["text", seed].batch_seed
    assert len({configs["image", seed].batch_seed for seed in range(3)}) == 3


def test_three_classes_train(tmp_path):
    store = make_store(tmp_path / "store", classes=3)
    train_grid(store, toy_grid(fraction=1.0))
    results = open_catalog(store).query("SELECT auroc, auroc_macro, auprc, auprc_macro, len(classes) AS n FROM results")
    assert results["n"].to_list() == [3] * 6
    assert np.isfinite(results.to_numpy()).all()


def test_what_cannot_be_planned_starts_nothing(tmp_path):
    store = make_store(tmp_path / "store")
    with pytest.raises(DataError):
        train_grid(store, toy_grid(fraction=[0.02, 1.0]))
    assert not store.results.exists()


def test_a_damaged_part_is_named(tmp_path):
    store = make_store(tmp_path / "store")
    train_grid(store, toy_grid(method="image", fraction=1.0))
    (part,) = store.results.iterdir()
    (part / "runs.parquet").write_bytes(b"PAR1 cut")
    with pytest.raises(DamageError, match=f"results part {part.name} cannot be read.*Delete its folder"):
        make_plan(open_store(store.root), toy_grid())
