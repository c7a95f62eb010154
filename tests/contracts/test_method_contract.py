"""What every method of the table must do: a new method is covered by its line there."""

import shutil

import numpy as np
import pytest

from featurestore.store import Store, open_store
from heads.catalog import open_catalog
from heads.controls import frequency_logits, other_reports
from heads.engine.objectives import OBJECTIVES
from heads.grid import Grid
from heads.jobs import Jobs, head_config
from heads.kinds import HEADS, get_head
from heads.methods import METHODS, get_method
from heads.plan import make_plan
from heads.train import train_grid

from ..test_heads.stores import make_store

STUDENTS = [name for name in METHODS if get_method(name).teacher]
CONTROLS = [name for name in METHODS if get_method(name).other_reports]


def grid_of(*methods: str, **changes) -> Grid:
    keys = {"backbone": "tiny", "text_encoder": "tiny-text", "fraction": [0.3, 1.0], "seed": 2, "epochs": 2}
    return Grid(**{"cohort": "toy", "method": methods, "precision": "fp32", **keys, **changes})


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Store:
    return make_store(tmp_path_factory.mktemp("made") / "store", without_text=0)  # so that common rows are the same


@pytest.fixture(scope="module")
def trained(made, tmp_path_factory) -> Store:
    """A store in which every method was trained, in one call."""
    root = tmp_path_factory.mktemp("trained") / "store"
    shutil.copytree(made.root, root)
    store = open_store(root)
    report = train_grid(store, grid_of(*METHODS))
    assert (report.trained, report.failed) == (4 * len(METHODS), [])
    return store


@pytest.mark.parametrize("name", METHODS)
def test_a_method_describes_itself(name):
    method = get_method(name)
    assert method.name == name
    assert method.reads
    assert set(method.reads) <= {"image", "text"}
    assert len(set(method.reads)) == len(method.reads)
    assert method.summary.endswith(".")
    assert not (method.teacher and method.frequencies)
    objective = OBJECTIVES[method.objective]
    assert objective.needs_lesson == (method.teacher is not None or method.frequencies)
    assert method.serves == objective.serves(method.reads)
    if method.teacher:
        assert get_method(method.teacher).teacher is None  # one lesson deep: students do not teach


@pytest.mark.parametrize("name", METHODS)
def test_a_method_trains_and_its_results_are_finite(name, trained):
    results = open_catalog(trained).query(
        "SELECT auroc, auroc_macro, auprc, auprc_macro, auroc_best FROM results WHERE method = ?", [name]
    )
    assert len(results) == 4
    assert np.isfinite(results.to_numpy()).all()


@pytest.mark.parametrize("name", METHODS)
def test_a_run_names_the_encoders_of_its_training_and_what_it_serves(name, trained):
    method = get_method(name)
    read = {*method.reads, *(get_method(method.teacher).reads if method.teacher else ())}
    sql = "SELECT DISTINCT backbone, text_encoder, serves FROM results WHERE method = ?"
    ((backbone, text_encoder, serves),) = open_catalog(trained).query(sql, [name]).rows()
    assert [backbone is not None, text_encoder is not None] == [m in read for m in ("image", "text")]
    assert tuple(serves) == method.serves


@pytest.mark.parametrize("name", STUDENTS)
def test_a_student_names_its_teacher_in_the_results(name, trained):
    rows = open_catalog(trained).query(
        "SELECT s.teacher_epoch, t.method FROM results s JOIN results t ON t.run = s.teacher_run AND t.seed = s.seed "
        "AND t.fraction = s.fraction AND t.split = s.split WHERE s.method = ?",
        [name],
    )
    assert rows.rows() == [("best", get_method(name).teacher)] * 4


@pytest.mark.parametrize("name", METHODS)
def test_alone_and_among_all_the_numbers_are_the_same(name, made, trained, tmp_path):
    shutil.copytree(made.root, tmp_path / "store")
    store = open_store(tmp_path / "store")
    report = train_grid(store, grid_of(name, fraction=0.3, seed=1))
    assert report.failed == []
    sql = "SELECT run, auroc, auprc FROM results WHERE method = ? AND fraction = 0.3 AND seed = 0"
    assert open_catalog(store).query(sql, [name]).equals(open_catalog(trained).query(sql, [name]))


@pytest.mark.parametrize("name", METHODS)
def test_ids_are_stable_and_follow_what_changes_numbers(name, made):
    def ids(**changes) -> list[str]:
        return [run.spec.run_id for run in make_plan(made, grid_of(name, **changes)).runs if run.spec.method == name]

    method, before = get_method(name), ids()
    assert ids(seed=[1, 0], fraction=[1.0, 0.3])[::-1] == before
    for key, value in {"lr": 1e-3, "batch_size": 8, "dropout": 0.1, "epochs": 3, "select": "inner"}.items():
        assert not set(ids(**{key: value, "fraction": 1.0})) & set(before)
    assert (ids(imitation=0.5) == before) == (not method.uses_imitation)
    assert (ids(temperature=1.0) == before) == (not method.uses_temperature)
    assert (ids(teacher_epoch="last") == before) == (method.teacher is None)


@pytest.mark.parametrize("name", CONTROLS)
def test_no_sample_of_a_control_reads_a_report_of_its_own_subject(name, made):
    runs = [run for run in make_plan(made, grid_of(name, seed=5)).runs if run.spec.method == name]
    seen = set()
    for run in runs:
        subjects = np.array(run.rows.samples["subject"].to_list())
        rows = Jobs().make(run, None, ()).rows["text"]
        sides = {"train": run.split.train, "test": run.split.test}
        places = {side: {run.rows.places[sample] for sample in samples} for side, samples in sides.items()}
        for own in places.values():
            assert {int(rows[i]) for i in own} <= own  # no report crosses from training to test
        used = sorted(places["train"] | places["test"])
        assert (subjects[rows[used]] != subjects[used]).all()
        seen.add(rows.tobytes())
    assert len(seen) == 5  # one order of reports a seed


@pytest.mark.parametrize("head", HEADS)
@pytest.mark.parametrize("name", METHODS)
def test_the_engine_takes_every_method_with_every_head_that_goes_with_it(name, head, made):
    if not get_head(head).goes_with(get_method(name)) or head == "cls":
        return
    for run in make_plan(made, grid_of(name, head=head, seed=1, fraction=1.0)).runs:
        assert head_config(run.spec).form == get_head(head).form


def test_reports_of_others_go_round_among_the_subjects_of_a_part():
    subjects = ["a", "a", "b", "c", "c", "c", "d", "e"]
    rows = other_reports(subjects, [[0, 1, 2, 3, 4, 5], [6, 7]], seed=3)
    assert rows[6:].tolist() == [7, 6]
    taken = {subject: {subjects[rows[i]] for i in range(6) if subjects[i] == subject} for subject in "abc"}
    assert taken in ({"a": {"b"}, "b": {"c"}, "c": {"a"}}, {"a": {"c"}, "c": {"b"}, "b": {"a"}})
    with pytest.raises(Exception, match="the control needs two subjects"):
        other_reports(["a", "a", "b"], [[0, 1], [2]], seed=0)


def test_class_frequencies_are_those_of_the_training_samples():
    logits = frequency_logits(np.array([0, 0, 0, 1]), 2)
    assert logits.shape == (1, 4, 2)
    np.testing.assert_allclose(np.exp(logits[0]), [[0.75, 0.25]] * 4, rtol=1e-6)
    findings = np.array([[1, 0], [0, 0], [-1, 0], [1, 0]])  # two of three known, none of four
    shares = 1 / (1 + np.exp(-frequency_logits(findings, 2)[0, 0]))
    np.testing.assert_allclose(shares, [2 / 3, 1 / 8], rtol=1e-6)
