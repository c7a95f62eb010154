"""A plan knows every run, on common rows, with ids that follow from what changes numbers and from nothing else."""

import dataclasses
import re
import shutil

import polars as pl
import pytest

from cohorts.cohort import load_cohort, load_excluded, load_flow, rows_key, save_cohort
from featurestore.errors import DataError, UnknownNameError
from featurestore.items import ITEM_SCHEMA, add_items, list_items
from featurestore.store import open_store
from heads.methods import METHODS
from heads.plan import make_plan
from heads.spec import RunSpec

from .stores import add_cohort, add_tokens, make_store, toy_grid

SPEC = RunSpec(
    cohort="toy",
    cohort_key="c",
    task="binary",
    classes=("a", "b"),
    method="image",
    head="attention",
    features=("tiny@1",),
    content=("x",),
    split_key="s",
    fraction=0.5,
    seed=0,
    n_train=10,
    n_test=5,
    epochs=3,
    lr=1e-4,
    batch_size=64,
    dropout=0.2,
)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    return make_store(tmp_path_factory.mktemp("made") / "store")


@pytest.fixture
def store(made, tmp_path):
    shutil.copytree(made.root, tmp_path / "store")
    return open_store(tmp_path / "store")


def ids(plan) -> list[str]:
    return [run.spec.run_id for run in plan.runs]


@pytest.mark.parametrize("field", [field.name for field in dataclasses.fields(RunSpec)])
def test_every_what_changes_the_run_id(field):
    value = getattr(SPEC, field)
    other = {str: "other", int: 99, float: 0.75, tuple: ("other",), type(None): 0.5}[type(value)]
    assert dataclasses.replace(SPEC, **{field: other}).run_id != SPEC.run_id


def test_no_how_changes_the_run_ids(store, tmp_path):
    ids_before = set(ids(make_plan(store, toy_grid())))
    turned = toy_grid(method=["text", "image"], fraction=[1.0, 0.25], seed=[1, 0], epochs={"1": 3, "0.25": 3})
    (full_name,) = {
        run.features["image"].name for run in make_plan(store, toy_grid()).runs if run.features.get("image")
    }
    assert set(ids(make_plan(store, turned))) == ids_before
    assert set(ids(make_plan(store, toy_grid(backbone=full_name)))) == ids_before
    shutil.copytree(store.root, tmp_path / "elsewhere")
    assert set(ids(make_plan(open_store(tmp_path / "elsewhere"), toy_grid()))) == ids_before


def test_a_run_id_is_stable_across_versions():
    # If this fails, runs of every store would be trained again: bump NUMERICS_VERSION instead, or say so in CHANGELOG.
    assert SPEC.run_id == "1878c1de695a4888"


def test_declared_numbers_of_training_samples_are_trained_on_and_make_other_runs(store):
    plain = make_plan(store, toy_grid(fraction=[0.25, 0.5]))
    cohort = load_cohort(store, "toy")
    n = {run.spec.n_train for run in plain.runs}
    few = cohort.samples.filter(pl.col("text").is_not_null())
    whole = dataclasses.replace(cohort, samples=few, rows_key=rows_key("toy", few, classes=cohort.classes))
    flow, excluded = load_flow(store, "toy"), load_excluded(store, "toy")
    save_cohort(store, whole, flow=flow, excluded=excluded)
    floors = make_plan(store, toy_grid(fraction=[0.25, 0.5]))
    assert {run.spec.n_train for run in floors.runs} == n
    declaring = dataclasses.replace(whole, scheme=dataclasses.replace(whole.scheme, n_train=((0.25, 17),)))
    save_cohort(store, declaring, flow=flow, excluded=excluded)
    plan = make_plan(store, toy_grid(fraction=[0.25, 0.5]))
    assert {run.spec.n_train for run in plan.runs if run.spec.fraction == 0.25} == {17}
    assert {run.spec.n_train for run in plan.runs if run.spec.fraction == 0.5} == {28, 29} == n - {14}
    assert not set(ids(plan)) & set(ids(floors))
    assert {r.spec.split_key for r in plan.runs}.isdisjoint(r.spec.split_key for r in floors.runs)
    assert any(" 17 " in line for line in plan.lines())
    # Samples without a report are in no common row: the numbers declared for the whole cohort do not hold.
    save_cohort(store, dataclasses.replace(cohort, scheme=declaring.scheme), flow=flow, excluded=excluded)
    partial = make_plan(store, toy_grid(fraction=[0.25, 0.5]))
    assert {run.spec.n_train for run in partial.runs} == n
    assert any("declared for all 80 samples" in line for line in partial.lines())


def test_every_combination_that_makes_sense_is_one_run(store):
    labels = add_cohort(store, "more", subjects=30)
    add_tokens(store, "tiny", "image", labels)
    add_tokens(store, "tiny-text", "text", labels)
    plan = make_plan(store, toy_grid(cohort=["toy", "more"]))
    assert len(set(ids(plan))) == len(plan.runs) == 2 * 2 * 2 * 2
    by_method = {run.spec.method: set(run.features) for run in plan.runs}
    assert by_method == {"image": {"image"}, "text": {"text"}}


def planned(store, **changes):
    return make_plan(store, toy_grid(**changes))


def test_a_student_names_its_teacher_which_is_planned_once_for_every_lambda_and_tau(store):
    options = {"imitation": [0.5, 0.75], "temperature": [0.25, 1.0, 2.5]}
    plan = planned(store, method=["distill", "feature-distill"], **options)
    by_method = {name: [run for run in plan.runs if run.spec.method == name] for name in METHODS}
    assert {name: len(runs) for name, runs in by_method.items() if runs} == {
        "teacher": 2 * 2,
        "distill": 2 * 2 * 2 * 3,
        "feature-distill": 2 * 2 * 2,
    }
    teachers = {run.spec.run_id: run for run in by_method["teacher"]}
    assert plan.needed == set(teachers)
    for run in (*by_method["distill"], *by_method["feature-distill"]):
        teacher = teachers[run.spec.teacher_run]
        assert run.teacher is teacher
        same = ("cohort", "seed", "fraction", "split_key", "head", "epochs", "lr", "n_train")
        assert all(getattr(run.spec, name) == getattr(teacher.spec, name) for name in same)
        assert plan.runs.index(teacher) < plan.runs.index(run)
    assert "of these 4 are marked *" in "\n".join(plan.lines())


def test_a_teacher_that_the_grid_lists_is_the_same_run(store):
    listed = planned(store, method=["distill", "teacher"])
    assert listed.needed == set()
    assert set(ids(listed)) == set(ids(planned(store, method="distill")))
    alone = planned(store, method="teacher")
    assert set(ids(alone)) < set(ids(listed))


def test_what_changes_the_teacher_changes_the_student(store):
    students = {
        change: {run.spec.run_id for run in planned(store, **{"method": "distill", **dict([change])}).runs}
        for change in [("teacher_epoch", "best"), ("teacher_epoch", "last"), ("lr", 1e-3), ("epochs", 4)]
    }
    first, last, *others = students.values()
    assert len(first & last) == 4  # the teachers are the same runs, the students are not
    assert all(not first & other for other in others)


def test_only_what_a_method_uses_is_in_its_id(store):
    plans = [planned(store, method=["image", "tram"], **c) for c in ({}, {"imitation": 0.5, "temperature": 9.0})]
    assert ids(plans[0]) == ids(plans[1])
    means = [planned(store, head=["mean", "ridge"], precision=p, dropout=d) for p, d in (("fp32", 0.2), ("bf16", 0.5))]
    assert ids(means[0]) == ids(means[1])
    assert not set(ids(planned(store, precision="bf16"))) & set(ids(planned(store, precision="fp32")))


def test_heads_have_learning_rates_of_their_own(store):
    plan = planned(store, head=["attention", "multihead", "query", "mean", "ridge", "logistic"])
    rates = {(run.spec.head, run.spec.lr, run.spec.epochs) for run in plan.runs}
    assert rates == {
        *((head, 1e-4, 3) for head in ("attention", "multihead", "query")),
        ("mean", 1e-3, 3),
        ("ridge", None, 1),
        ("logistic", None, 1),
    }
    assert {run.spec.lr for run in planned(store, head=["attention", "mean"], lr=0.5).runs} == {0.5}


def test_the_long_control_trains_as_long_as_teacher_and_student(store):
    plan = planned(store, method=["image-long", "distill"])
    epochs = {run.spec.method: run.spec.epochs for run in plan.runs}
    assert epochs["image-long"] == epochs["teacher"] + epochs["distill"]


def test_class_tokens_are_asked_of_sets_that_have_them(store):
    with pytest.raises(DataError, match=r"head 'cls' reads class tokens, and feature set tiny@\w+ has none.*head mean"):
        planned(store, head="cls", method="image")


def test_augmented_views_are_asked_of_sets_that_have_them(store):
    with pytest.raises(DataError, match=r"views = \"augmented\": feature set tiny@\w+ has the clean view alone"):
        planned(store, views="augmented")
    assert {run.spec.views for run in planned(store, views="augmented", method="text").runs} == {0}


def test_an_inner_part_is_set_aside_from_the_subset(store):
    for run in planned(store, select="inner", fraction=[0.5, 1.0]).runs:
        subset = run.split.subset(run.spec.fraction)
        names = run.rows.samples["sample"]
        train, inner = (set(names.gather(part)) for part in (run.parts.train, run.parts.inner))
        assert train | inner == set(subset)
        assert not train & inner
        assert (run.spec.n_train, run.spec.n_inner) == (len(train), len(inner))
        subject = dict(run.rows.samples.select("sample", "subject").iter_rows())
        assert not {subject[s] for s in train} & {subject[s] for s in inner}


def test_an_inner_part_without_a_class_is_refused(store):
    with pytest.raises(DataError, match=r"cohort toy, split seed 0: fraction 0.1: none of its 5 .* validation part"):
        planned(store, select="inner", fraction=0.1)
    with pytest.raises(DataError, match=r"fraction 0.15: none of the \d+ samples of the .* part is of class.*Use"):
        planned(store, select="inner", fraction=0.15, seed=5)


def test_learning_rates_are_tried_before_the_grid_is_known(store):
    plan = planned(store, select="inner", lr=[1e-3, 1e-2], method=["image", "distill"], fraction=1.0)
    assert {run.spec.stage for run in plan.runs} == {"tuning"}
    assert {run.spec.seed for run in plan.runs} == {1_000_000}
    tried = sorted((run.spec.method, run.spec.lr) for run in plan.runs)
    assert tried == [("image", 1e-3), ("image", 1e-2), ("teacher", 1e-3), ("teacher", 1e-2)]
    assert plan.waiting == 2 * 2
    assert "4 runs of the grid, and trials of students, follow when the rows (tuning) are done" in plan.lines()[-1]


def test_image_runs_are_not_repeated_for_each_text_encoder(store):
    labels = dict(make_plan(store, toy_grid()).cohorts()[0].samples.select("sample", "label").iter_rows())
    one = make_plan(store, toy_grid())
    add_tokens(store, "minilm", "text", labels)
    two = make_plan(store, toy_grid(text_encoder=["tiny-text", "minilm"]))
    image_ids = [run.spec.run_id for run in two.runs if run.spec.method == "image"]
    assert image_ids == [run.spec.run_id for run in one.runs if run.spec.method == "image"]
    assert len(two.runs) == len(one.runs) + 4


def test_every_method_trains_and_tests_on_the_common_rows(store):
    both, image = make_plan(store, toy_grid()), make_plan(store, toy_grid(method="image"))
    (rows,) = both.cohorts()
    assert (rows.cohort.samples.height, rows.samples.height) == (80, 77)
    assert rows.lost[:2] == (("without image", 0), ("without text", 3))
    assert image.cohorts()[0].samples.height == 80
    for seed in (0, 1):
        assert len({run.split.key for run in both.runs if run.spec.seed == seed}) == 1
    assert not {run.split.key for run in both.runs} & {run.split.key for run in image.runs}
    for run in both.runs:
        assert set(run.split.train) | set(run.split.test) == set(rows.samples["sample"])


def test_streams_of_a_seed_are_shared_by_its_methods_and_differ_between_seeds(store):
    streams = {(run.spec.method, run.spec.seed): run.spec.streams() for run in make_plan(store, toy_grid()).runs}
    assert streams["image", 0] == streams["text", 0]
    assert len(set(streams["image", 0].values()) | set(streams["image", 1].values())) == 8


def test_a_split_seed_gives_all_seeds_one_split(store):
    plan = make_plan(store, toy_grid(split_seed=7))
    assert len({run.spec.split_key for run in plan.runs}) == 1
    own = make_plan(store, toy_grid(seed=[7]))
    assert own.runs[0].spec.split_key == plan.runs[0].spec.split_key


def test_recorded_failures_leave_the_common_rows_and_are_counted(tmp_path):
    store = open_store(tmp_path / "store", create=True)
    labels = add_cohort(store, "toy")
    feature_set = add_tokens(store, "tiny", "image", labels, failed=["toy/s004", "toy/s040"])
    plan = make_plan(store, toy_grid(method="image"))
    (rows,) = plan.cohorts()
    assert rows.samples.height == 78
    assert rows.lost[-1] == (f"failed in {feature_set.name}", 2)
    assert f"  2 failed in {feature_set.name}" in plan.lines()


def test_a_half_extracted_set_is_an_error_with_the_command(tmp_path):
    store = open_store(tmp_path / "store", create=True)
    labels = add_cohort(store, "toy")
    with pytest.raises(DataError, match="Run: radfs extract --backbone tiny --cohort toy"):
        make_plan(store, toy_grid(method="image"))
    add_tokens(store, "tiny", "image", labels, skip=["toy/s004", "toy/s040"])
    with pytest.raises(DataError, match=r"2 of 80 image items .* first is toy/s004.* --backbone tiny --cohort toy"):
        make_plan(store, toy_grid(method="image"))


def test_tokens_of_a_report_that_has_changed_do_not_count(store):
    changed = pl.DataFrame([("toy/s010", "text", None, "another report")], schema=ITEM_SCHEMA, orient="row")
    add_items(store, changed)
    with pytest.raises(DataError, match=r"1 of 77 text items .* toy/s010"):
        make_plan(store, toy_grid())


def test_tokens_of_other_images_make_other_runs(tmp_path):
    plans = []
    for name in ("first", "second"):
        store = open_store(tmp_path / name, create=True)
        labels = add_cohort(store, "toy")
        add_tokens(store, "tiny", "image", labels, content=name)
        plans.append(ids(make_plan(store, toy_grid(method="image"))))
    assert not set(plans[0]) & set(plans[1])


def test_several_sets_of_one_encoder_must_be_named(store):
    labels = dict(make_plan(store, toy_grid()).cohorts()[0].cohort.samples.select("sample", "label").iter_rows())
    other = add_tokens(store, "tiny", "image", labels, weights="cd" * 32)
    with pytest.raises(DataError, match=f"several feature sets of tiny: .*{re.escape(other.name)}.*Name one"):
        make_plan(store, toy_grid())
    plan = make_plan(store, toy_grid(backbone=other.name, method="image"))
    assert {run.features["image"].name for run in plan.runs} == {other.name}
    with pytest.raises(DataError, match=r"no tokens of tiny@00000000. It has tiny@"):
        make_plan(store, toy_grid(backbone="tiny@00000000"))


def test_a_cohort_without_reports_says_so(tmp_path):
    store = open_store(tmp_path / "store", create=True)
    labels = add_cohort(store, "toy", without_text=80)
    add_tokens(store, "tiny", "image", labels)
    with pytest.raises(DataError, match=r"cohort toy: none of its 80 samples can be used .* .80 without text.. Leave"):
        make_plan(store, toy_grid())


def test_a_cohort_whose_every_image_failed_says_so(tmp_path):
    store = open_store(tmp_path / "store", create=True)
    labels = add_cohort(store, "toy")
    feature_set = add_tokens(store, "tiny", "image", labels, failed=list(labels))
    with pytest.raises(DataError, match=rf"none of its 80 samples .* \(80 failed in {feature_set.name}\)"):
        make_plan(store, toy_grid(method="image"))


def test_samples_that_embeddings_made_elsewhere_lack_are_left_out_and_counted(tmp_path):
    store = open_store(tmp_path / "store", create=True)
    labels = add_cohort(store, "toy")
    absent = ["toy/s003", "toy/s007"]
    feature_set = add_tokens(store, "mine", "image", labels, imported=True, skip=absent, failed=["toy/s009"])
    grid = toy_grid(backbone=feature_set.name, method="image")
    (rows,) = make_plan(store, grid).cohorts()
    assert set(labels) - set(rows.samples["sample"]) == {*absent, "toy/s009"}
    assert rows.lost[-1] == (f"not in {feature_set.name}", 3)


def test_an_import_that_was_broken_off_shrinks_no_study(tmp_path):
    store = open_store(tmp_path / "store", create=True)
    labels = add_cohort(store, "toy")
    skipped = list(labels)[:40]
    feature_set = add_tokens(store, "mine", "image", labels, imported=True, skip=skipped)
    feature_set.plan(list_items(store, modality="image"))  # the rest was begun
    with pytest.raises(DataError, match=r"40 of 80 image items are not in feature set mine@.* Run `radfs import`"):
        make_plan(store, toy_grid(backbone=feature_set.name, method="image"))


def test_an_unknown_cohort_is_named(store):
    with pytest.raises(UnknownNameError, match=r"'toi'.*toy"):
        make_plan(store, toy_grid(cohort="toi"))


def test_a_fraction_that_leaves_a_class_empty_names_what_works(store):
    with pytest.raises(DataError) as error:
        make_plan(store, toy_grid(fraction=[0.02, 0.5, 1.0], seed=3))
    message = str(error.value)
    assert re.search(
        r"cohort toy, split seed 0, fraction 0.02: none of the 1 training samples is of class 'class .'", message
    )
    assert "the smallest of this grid that works is 0.5" in message
    (least,) = map(float, re.findall(r"any from ([0-9.]+) on would", message))
    assert make_plan(store, toy_grid(fraction=least, seed=3)).runs
    with pytest.raises(DataError, match="none of this grid works"):
        make_plan(store, toy_grid(fraction=0.001))


def test_a_class_without_test_or_training_samples_is_refused(tmp_path):
    store = open_store(tmp_path / "store", create=True)
    labels = add_cohort(store, "rare", labels="rare")
    add_tokens(store, "tiny", "image", labels)
    with pytest.raises(
        DataError, match=r"cohort rare, split seed 0: none of the \d+ (test|training) samples is of class"
    ):
        make_plan(store, toy_grid(cohort="rare", method="image"))


def test_a_cohort_of_one_class_is_refused(tmp_path):
    store = open_store(tmp_path / "store", create=True)
    labels = add_cohort(store, "single", classes=1)
    add_tokens(store, "tiny", "image", labels)
    with pytest.raises(DataError, match="cohort single has one class only, class 0"):
        make_plan(store, toy_grid(cohort="single", method="image"))


def test_the_plan_prints_counts_and_writes_nothing(store):
    before = sorted(store.root.rglob("*"))
    plan = make_plan(store, toy_grid())
    lines = plan.lines()
    assert sorted(store.root.rglob("*")) == before
    assert lines[0] == "cohort toy: 2 classes, 80 samples; 77 common rows of 39 subjects"
    assert lines[-1] == "8 runs: 0 done, 8 to do"
    (row,) = [line.split() for line in lines if line.startswith("toy") and " image " in line and " 0.25 " in line]
    assert row[0:2] == ["toy", "image"]
    assert row[-2:] == ["0", "2"]
