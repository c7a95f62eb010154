"""Training a grid: every run exactly once, whatever is killed, repeated or run beside it, and the same numbers."""

import multiprocessing
import os
import signal
import time
from dataclasses import replace
from functools import partial

import numpy as np
import polars as pl
import pytest
from polars.testing import assert_frame_equal

from featurestore.errors import DamageError, DataError
from featurestore.store import Store, open_store
from heads import groups, rows, tables, train
from heads.catalog import open_catalog
from heads.engine import Failure, TokenTable
from heads.finished import FinishedRuns
from heads.jobs import head_config
from heads.kept import kept_runs
from heads.methods import METHODS
from heads.plan import make_plan
from heads.tables import Tables
from heads.train import Progress, train_grid

from . import stores
from .recipes import recipe
from .stores import make_store

toy_grid = partial(stores.toy_grid, fraction=[0.3, 1.0], seed=3, epochs=4, lr=0.02, batch_size=8)


NUMBERS = """
SELECT r.*, e.epoch, e.train_loss, e.test_loss, e.auroc AS epoch_auroc, p.sample, p.p_last, p.p_best
FROM results r JOIN epochs e USING (run) JOIN predictions p USING (run) ORDER BY run, epoch, sample
"""


def numbers(store: Store) -> pl.DataFrame:
    """All that training computed, without times."""
    return open_catalog(store).query(NUMBERS)


def assert_same_numbers(store: Store, other: Store) -> None:
    """Equal but for the rounding of other fleets."""
    assert_frame_equal(numbers(store), numbers(other), rel_tol=1e-4, abs_tol=1e-5)


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
    assert_same_numbers(store, whole)


def test_tokens_are_loaded_once_for_all_runs_that_read_them(tmp_path, monkeypatch):
    store = make_store(tmp_path / "store")
    loaded = []
    load = Tables._load
    monkeypatch.setattr(Tables, "_load", lambda self, rows, key: loaded.append(key) or load(self, rows, key))
    train_grid(store, toy_grid(method=["image", "text", "distill", "teacher", "tram"], head=["attention", "mean"]))
    assert sorted(key.feature_set.partition("@")[0] for key in loaded) == ["tiny", "tiny-text"]


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
    assert_same_numbers(store, whole)


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
    assert_same_numbers(store, whole)


def test_runs_that_stand_in_two_parts_count_once(tmp_path, monkeypatch):
    store = make_store(tmp_path / "store")
    grid = toy_grid(method="image")
    train_grid(store, grid)
    before = numbers(store)
    monkeypatch.setattr(FinishedRuns, "refresh", lambda self: set())
    monkeypatch.setattr(train, "PART_RUNS", 4)
    train_grid(store, grid)
    assert len(list(store.results.glob("*/runs.parquet"))) == 3
    assert_frame_equal(numbers(store), before, rel_tol=1e-4, abs_tol=1e-5)


def test_what_another_process_finished_meanwhile_is_not_trained_again(tmp_path, monkeypatch):
    store = make_store(tmp_path / "store")
    grid = toy_grid(method="image")
    plan = make_plan(store, grid)
    train_grid(store, grid)
    monkeypatch.setattr(train, "make_plan", lambda *args, **options: plan)
    report = train_grid(store, grid)
    assert (report.already, report.trained, report.elsewhere) == (0, 0, 6)
    assert "6 trained by another process" in report.lines()[0]


def fail_where(monkeypatch, condition) -> None:
    """Let the engine give no result for jobs of this kind."""
    real = groups.train_heads

    def train_heads(data, jobs):
        for number, outcome in real(data, jobs):
            bad = condition(jobs[number])
            yield number, Failure("the training loss is nan in epoch 2: it diverged") if bad else outcome

    monkeypatch.setattr(groups, "train_heads", train_heads)


def test_a_run_that_diverges_is_reported_and_the_others_go_on(tmp_path, monkeypatch):
    store = make_store(tmp_path / "store")
    fail_where(monkeypatch, lambda job: len(job.train) > 30)
    told: list[Progress] = []
    report = train_grid(store, toy_grid(), on_progress=told.append)
    assert (report.trained, len(report.failed)) == (6, 6)
    assert [p.outcome for p in told].count("failed") == 6
    assert open_catalog(store).query("SELECT DISTINCT fraction FROM results")["fraction"].to_list() == [0.3]
    run, _ = next((run, reason) for run, reason in report.failed if run.spec.method == "image" and run.spec.seed == 0)
    line = f"failed: {run.label} ({run.spec.run_id}): the training loss is nan in epoch 2: it diverged"
    assert line in report.lines()
    assert run.label == "toy image tiny fraction 1 seed 0"
    monkeypatch.undo()
    assert train_grid(store, toy_grid()).trained == 6


def test_a_job_that_the_engine_refuses_fails_alone(tmp_path, monkeypatch):
    store = make_store(tmp_path / "store")
    real = groups.check_job

    def check(data, job):
        if job.config.reads == ("image",) and len(job.train) > 30:
            raise ValueError("a label of train lies outside 0..1")
        real(data, job)

    monkeypatch.setattr(groups, "check_job", check)
    report = train_grid(store, toy_grid(seed=1))
    assert (report.trained, [reason for _, reason in report.failed]) == (3, ["a label of train lies outside 0..1"])


def test_students_of_a_teacher_that_failed_say_so(tmp_path, monkeypatch):
    store = make_store(tmp_path / "store")
    fail_where(monkeypatch, lambda job: job.config.reads == ("image", "text") and len(job.train) > 30)
    report = train_grid(store, toy_grid(method=["distill", "image"], seed=1))
    assert report.trained == 4
    (teacher, student) = report.failed
    assert student[1].startswith(f"its teacher {teacher[0].spec.run_id} failed: the training loss is nan")


def test_an_interrupt_keeps_what_was_trained(tmp_path):
    store = make_store(tmp_path / "store")

    def interrupt(progress: Progress) -> None:
        if progress.finished == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train_grid(store, toy_grid(), on_progress=interrupt)
    assert open_catalog(store).query("SELECT count(*) AS n FROM runs")["n"][0] == 3


def test_image_and_text_of_a_seed_see_the_same_batches(whole):
    configs = {(run.spec.method, run.spec.seed): head_config(run.spec) for run in make_plan(whole, toy_grid()).runs}
    for seed in range(3):
        assert configs["image", seed].batch_seed == configs["text", seed].batch_seed
    assert len({configs["image", seed].batch_seed for seed in range(3)}) == 3


def test_a_student_added_later_is_taught_by_the_teacher_that_is_there(tmp_path):
    both, later = make_store(tmp_path / "both"), make_store(tmp_path / "later")
    grid = toy_grid(method=["teacher", "distill"])
    train_grid(both, grid)
    assert train_grid(later, toy_grid(method="teacher")).again == 0
    plan = make_plan(later, grid)
    assert (len(plan.todo), len(plan.again)) == (6, 6)
    assert "6 teachers are done; their lessons are made again" in plan.lines()[-1]
    report = train_grid(later, grid)
    assert (report.already, report.trained, report.again) == (6, 6, 6)
    assert "6 of the runs done before were trained again" in report.lines()[1]
    assert_same_numbers(later, both)


def test_heads_of_runs_that_are_done_are_kept_later(whole, tmp_path):
    store = make_store(tmp_path / "store")
    grid = toy_grid(method=["image", "distill"], head=["attention", "ridge"], seed=1)
    train_grid(store, grid)
    before = numbers(store)
    report = train_grid(store, grid, keep_heads=True)
    assert (report.trained, report.again, report.failed) == (0, 6, [])
    assert len(kept_runs(store)) == 6
    assert numbers(store).equals(before)
    report = train_grid(store, grid, keep_heads=True)
    assert (report.trained, report.again) == (0, 0)


def test_a_kept_teacher_is_not_trained_again(tmp_path):
    both, later = make_store(tmp_path / "both"), make_store(tmp_path / "later")
    grid = toy_grid(method=["teacher", "distill", "feature-distill"])
    train_grid(both, grid)
    train_grid(later, toy_grid(method="teacher"), keep_heads=True)
    report = train_grid(later, grid)
    assert (report.trained, report.again) == (12, 0)
    assert_same_numbers(later, both)


@pytest.mark.parametrize("objective", ["distill", "feature-distill"])
def test_lessons_speak_of_training_samples_alone(tmp_path, monkeypatch, objective):
    store = make_store(tmp_path / "store")
    asked, jobs = [], []
    teach, train_heads = groups.teach, groups.train_heads
    monkeypatch.setattr(
        groups, "teach", lambda s, c, d, train, rows: asked.append(train) or teach(s, c, d, train, rows)
    )
    monkeypatch.setattr(groups, "train_heads", lambda d, new: jobs.extend(new) or train_heads(d, new))
    train_grid(store, toy_grid(method=objective, select="inner", seed=1, fraction=1.0))
    (teacher, student), (train,) = jobs, asked
    assert np.array_equal(train, student.train)
    assert student.lesson.logits.shape == (1, len(student.train), 2)
    assert (student.lesson.features is not None) == (objective == "feature-distill")
    for job in (teacher, student):
        assert not set(job.train) & (set(job.test) | set(job.inner))
    assert np.array_equal(teacher.train, student.train)


def test_a_learning_rate_is_chosen_on_the_inner_part_and_its_trials_are_no_results(tmp_path):
    store = make_store(tmp_path / "store")
    grid = toy_grid(method=["image", "distill"], lr=[1e-6, 0.02], select="inner", fraction=1.0)
    report = train_grid(store, grid)
    assert (report.planned, report.trained, report.failed, report.unplanned) == (2 * 3 + 3 * 3, 15, [], 0)
    catalog = open_catalog(store)
    tried = catalog.query("SELECT method, lr, inner_auroc FROM runs WHERE stage = 'tuning' ORDER BY method, lr")
    best = tried.sort("inner_auroc", "lr", descending=[False, True]).group_by("method", maintain_order=True).last()
    used = catalog.query("SELECT DISTINCT method, lr FROM results ORDER BY method")
    assert used.rows() == sorted(best.select("method", "lr").rows())
    assert catalog.query("SELECT DISTINCT seed FROM results ORDER BY seed")["seed"].to_list() == [0, 1, 2]
    assert train_grid(store, grid).already == 15


def test_a_learning_rate_that_diverges_is_not_chosen(tmp_path, monkeypatch):
    store = make_store(tmp_path / "store")
    grid = toy_grid(method="image", lr=[1e-6, 0.02], select="inner", fraction=1.0, seed=1)
    fail_where(monkeypatch, lambda job: job.config.lr == 0.02)
    report = train_grid(store, grid)
    assert (report.trained, len(report.failed)) == (2, 1)
    assert open_catalog(store).query("SELECT lr FROM results")["lr"].to_list() == [1e-6]
    fail_where(monkeypatch, lambda job: True)
    report = train_grid(make_store(tmp_path / "second"), grid)
    assert (report.trained, len(report.failed), report.unplanned) == (0, 2, 1)
    assert "1 not planned, for none of their learning rates works" in report.lines()[0]


def test_training_draws_from_augmented_views_and_teachers_speak_of_each(tmp_path, monkeypatch):
    store = open_store(tmp_path / "store", create=True)
    labels = stores.add_cohort(store, "toy")
    stores.add_tokens(store, "tiny", "image", labels, views=2)
    stores.add_tokens(store, "tiny-text", "text", labels)
    seen = []
    real = groups.train_heads
    monkeypatch.setattr(
        groups, "train_heads", lambda data, jobs: seen.extend((data, j) for j in jobs) or real(data, jobs)
    )
    grid = toy_grid(method=["image", "distill"], views="augmented", fraction=1.0, seed=1)
    assert {run.spec.views for run in make_plan(store, grid).runs} == {2}
    report = train_grid(store, grid)
    assert (report.trained, report.failed) == (3, [])
    assert {data.tokens["image"].n_views for data, _ in seen} == {3}
    (lesson,) = [job.lesson for _, job in seen if job.lesson is not None]
    assert lesson.logits.shape[0] == 3
    assert not np.array_equal(lesson.logits[1], lesson.logits[2])
    train_grid(store, toy_grid(method=["image", "distill"], fraction=1.0, seed=1))
    views = open_catalog(store).query("SELECT views, count(*) AS n FROM summary GROUP BY views ORDER BY views")
    assert views.rows() == [(0, 3), (2, 3)]


def test_tokens_beyond_memory_lie_in_a_mapped_file_and_give_the_same_numbers(whole, tmp_path, monkeypatch):
    store = make_store(tmp_path / "store")
    made = []
    monkeypatch.setattr(tables.memory, "available_bytes", lambda: 1000)
    dense = TokenTable.dense
    monkeypatch.setattr(TokenTable, "dense", lambda *views, **how: made.append((views, how)) or dense(*views, **how))
    train_grid(store, toy_grid())
    ((views, how),) = made
    assert isinstance(views[0], np.memmap)
    assert not how["resident"]
    assert_same_numbers(store, whole)


def test_three_classes_train(tmp_path):
    store = make_store(tmp_path / "store", classes=3)
    train_grid(store, toy_grid(fraction=1.0))
    results = open_catalog(store).query("SELECT auroc, auroc_macro, auprc, auprc_macro, len(classes) AS n FROM results")
    assert results["n"].to_list() == [3] * 6
    assert np.isfinite(results.to_numpy()).all()


def test_every_method_trains_on_findings_of_which_some_are_unknown(tmp_path, monkeypatch):
    store = make_store(tmp_path / "store")
    cohort = rows.load_cohort(store, "toy")
    rng = np.random.default_rng(0)
    known = rng.random((80, 3)) < 0.8
    findings = np.where(known, rng.integers(0, 2, (80, 3)), -1)
    findings[:, 0] = cohort.samples["label"]
    samples = cohort.samples.with_columns(pl.Series("findings", findings.tolist(), dtype=pl.List(pl.Int8)))
    several = replace(cohort, task="multilabel", classes=("effusion", "edema", "mass"), samples=samples)
    monkeypatch.setattr(rows, "load_cohort", lambda store, name: several)
    grid = toy_grid(method=list(METHODS), head=["mean", "ridge", "logistic"], fraction=1.0, seed=1, select="inner")
    report = train_grid(store, grid)
    assert (report.trained, report.failed) == (len(METHODS) + 2 * 3, [])
    catalog = open_catalog(store)
    assert np.isfinite(catalog.query("SELECT auroc, auroc_macro, auprc FROM results").to_numpy()).all()
    said = catalog.query("SELECT label, findings, p_last FROM predictions")
    assert said["label"].null_count() == len(said)
    assert set(said["p_last"].list.len()) == set(said["findings"].list.len()) == {3}


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
