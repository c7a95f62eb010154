"""A run is made again from the store alone: the same plan, the same numbers, or a reason why not."""

import itertools
import json
import sys
from dataclasses import replace

import numpy as np
import polars as pl
import pytest

from cohorts.cohort import load_cohort, load_excluded, load_flow, save_cohort
from cohorts.scheme import SplitScheme
from featurestore.catalog import Catalog
from featurestore.errors import DamageError, DataError, UnknownNameError
from featurestore.fsio import read_parquet, write_parquet
from featurestore.store import Store
from heads.catalog import open_catalog
from heads.plan import make_plan
from heads.rebuild import rebuild_run
from heads.rerun import rerun
from heads.spec import RunSpec
from heads.trace import find_run, trace
from heads.train import train_grid

from .recipes import recipe
from .stores import add_tokens, make_store, toy_grid

METHODS = [
    "image",
    "text",
    "distill",
    "self-distill",
    "distill-shuffled",
    "distill-constant",
    "feature-distill",
    "tram",
]


def catalog_of(store: Store) -> Catalog:
    catalog = open_catalog(store)
    catalog.fold()
    return catalog


def grid(**changes):
    return toy_grid(**{"fraction": [0.5, 1.0], "lr": 0.01, **changes})


def edit(store: Store, table: str, of: str, **columns) -> None:
    """Change columns of a run's rows in its truth file."""
    for path in store.results.glob(f"*/{table}.parquet"):
        frame = read_parquet(path)
        if of in frame["run"]:
            own = pl.col("run") == of
            changed = [
                pl.when(own).then(pl.lit(value, frame.schema[c])).otherwise(pl.col(c)).alias(c)
                for c, value in columns.items()
            ]
            write_parquet(path, frame.with_columns(changed))
            (path.parent / "runs.parquet").touch()  # the catalog looks at the commit file alone


def run_of(store: Store, method: str, **where) -> str:
    conditions = " AND ".join([f"method = '{method}'", *(f"{name} = {value!r}" for name, value in where.items())])
    return catalog_of(store).query(f"SELECT run FROM results WHERE {conditions} ORDER BY run")["run"][0]


@pytest.mark.parametrize(
    "changes",
    [
        {"method": METHODS, "seed": 1},
        {"method": ["image", "teacher"], "head": ["attention", "mean", "logistic"], "seed": 1},
        {"method": ["image", "distill"], "select": "inner", "teacher_epoch": "inner", "split_seed": 3},
        {"method": ["image"], "select": "inner", "lr": [0.01, 0.1]},
    ],
    ids=["methods", "heads", "inner", "tuning"],
)
def test_every_run_is_rebuilt_as_it_was_planned(tmp_path, changes):
    store = make_store(tmp_path / "store")
    of = grid(**changes)
    train_grid(store, of)
    planned = {run.spec.run_id: run for run in make_plan(store, of).runs}
    catalog = catalog_of(store)
    assert set(catalog.query("SELECT run FROM runs")["run"]) == set(planned)
    for run_id, expected in planned.items():
        again = rebuild_run(store, catalog, run_id)
        assert again.spec == expected.spec
        assert again.split == expected.split
        assert {m: s.name for m, s in again.features.items()} == {m: s.name for m, s in expected.features.items()}
        np.testing.assert_array_equal(again.parts.train, expected.parts.train)
        np.testing.assert_array_equal(again.parts.test, expected.parts.test)
        assert (again.teacher and again.teacher.spec) == (expected.teacher and expected.teacher.spec)


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> Store:
    """Trained, and never changed by a test."""
    store = make_store(tmp_path_factory.mktemp("trained") / "store")
    train_grid(store, grid(method=METHODS))
    return store


@pytest.mark.parametrize("method", [*METHODS, "teacher", "teacher-shuffled"])
def test_a_run_of_a_fleet_gives_its_numbers_again_alone(trained, method):
    before = {p: p.read_bytes() for p in trained.root.rglob("*") if p.is_file() and "catalog" not in p.name}
    report = rerun(trained, catalog_of(trained), run_of(trained, method, fraction=0.5))
    assert report.is_equal
    assert report.largest < 1e-5
    for stored, again in report.metrics.values():
        assert again == pytest.approx(stored, abs=1e-9)
    assert (report.teacher is None) == (
        method in {"image", "text", "tram", "teacher", "teacher-shuffled", "distill-constant"}
    )
    assert [w for w in report.warnings if "committed" not in w and "git_commit" not in w] == []
    assert {p: p.read_bytes() for p in trained.root.rglob("*") if p.is_file() and "catalog" not in p.name} == before


def test_the_path_of_a_reviewer(trained):
    """One cell of `summary`, derived from per-sample predictions in SQL; one of its runs, trained again."""
    catalog = catalog_of(trained)
    cell = catalog.query("SELECT * FROM summary WHERE method = 'distill' AND fraction = 1.0").row(0, named=True)
    of_runs = catalog.query(
        f"SELECT run, seed, a.auroc FROM ({recipe('AUROC of two classes')}) a JOIN runs USING (run) "
        "WHERE method = 'distill' AND fraction = 1.0 ORDER BY seed"
    )
    assert len(of_runs) == cell["n_seeds"] == 2
    assert of_runs["auroc"].mean() == pytest.approx(cell["auroc_mean"], abs=1e-12)
    assert of_runs["auroc"].std() == pytest.approx(cell["auroc_sd"], abs=1e-12)
    for run, _, auroc in of_runs.iter_rows():
        assert rerun(trained, catalog, run).metrics["auroc"][1] == pytest.approx(auroc, abs=1e-9)


@pytest.fixture
def own(tmp_path) -> Store:
    """Trained, for a test to change."""
    store = make_store(tmp_path / "store")
    train_grid(store, grid(method=["image", "distill"], fraction=1.0))
    return store


def test_other_predictions_are_not_equal(own):
    run = run_of(own, "image")
    edit(own, "predictions", run, p_last=[0.5, 0.5])
    report = rerun(own, catalog_of(own), run)
    assert not report.is_equal
    assert report.largest > 0.01
    assert report.verdict().startswith("NOT EQUAL: beyond the tolerance of 0.0001")
    assert rerun(own, catalog_of(own), run, tolerance=1.0).is_equal


def test_what_differs_since_is_named(own):
    run = run_of(own, "image")
    edit(own, "runs", run, torch="1.0.0", threads=99, git_commit="abc-dirty", python="2.7")
    warnings = " / ".join(rerun(own, catalog_of(own), run).warnings)
    assert "torch is 2." in warnings
    assert ", was 1.0.0" in warnings
    assert f"python is {sys.version.split()[0]}, was 2.7" in warnings
    assert "was 99" in warnings
    assert "changes that were not committed" in warnings


def test_a_cohort_that_was_replaced_is_refused(own):
    cohort = load_cohort(own, "toy")
    other = replace(cohort, scheme=SplitScheme(test_share=0.5))
    save_cohort(own, other, flow=load_flow(own, "toy"), excluded=load_excluded(own, "toy"))
    run = catalog_of(own).query("SELECT run FROM runs")["run"][0]
    with pytest.raises(DataError, match=r"cohort 'toy' was replaced since .* Build the cohort as it was"):
        rerun(own, catalog_of(own), run)
    assert trace(catalog_of(own), run)["trained_on"]["replaced_since"]


def test_images_that_were_replaced_are_refused(own):
    run = run_of(own, "distill")
    (name,) = [p.name for p in own.features.glob("tiny@*")]
    for record in (own.features / name).rglob("commits/**/*.json"):
        record.unlink()
    labels = dict(load_cohort(own, "toy").samples.select("sample", "label").iter_rows())
    with pytest.raises(DataError, match=r"tiny@\w+ has no tokens any more of 77 of its 77 samples, the first is toy/s"):
        rerun(own, catalog_of(own), run)
    add_tokens(own, "tiny", "image", labels, content="other bytes")
    with pytest.raises(DataError, match=r"were made from changed since.*Data were replaced"):
        rerun(own, catalog_of(own), run)


def test_a_feature_set_or_a_split_that_is_gone_is_named(own):
    run = run_of(own, "distill")
    (split,) = [p for p in own.cohorts.glob("toy/splits/*.parquet") if p.stem == RunSpec.of(config(own, run)).split_key]
    data = split.read_bytes()
    split.unlink()
    with pytest.raises(DataError, match="cohort toy has no stored split"):
        rerun(own, catalog_of(own), run)
    split.write_bytes(data)
    (features,) = own.features.glob("tiny-text@*")
    features.rename(own.root / "elsewhere")
    with pytest.raises(UnknownNameError, match="unknown feature set 'tiny-text@"):
        rerun(own, catalog_of(own), run)
    assert [e["in_store"] for e in trace(catalog_of(own), run)["encoders"]] == [True, False]


def test_a_teacher_without_results_is_named(own):
    run = run_of(own, "distill")
    teacher = config(own, run)["teacher_run"]
    edit(own, "runs", teacher, run="0" * 16)
    with pytest.raises(DataError, match=f"no results of run {teacher}"):
        rerun(own, catalog_of(own), run)


def test_a_config_that_is_not_the_runs_is_damage(own):
    run = run_of(own, "image")
    edit(own, "runs", run, config=json.dumps(config(own, run) | {"lr": 0.5}))
    with pytest.raises(DamageError, match=f"run {run}: its config has the hash"):
        rerun(own, catalog_of(own), run)
    edit(own, "runs", run, config=json.dumps({"strange": 1}))
    with pytest.raises(DataError, match="made by another version of radfs"):
        rerun(own, catalog_of(own), run)


def config(store: Store, run: str) -> dict:
    return trace(catalog_of(store), run)["config"]


def test_a_run_is_found_by_its_first_digits(trained):
    catalog = catalog_of(trained)
    runs = sorted(catalog.query("SELECT run FROM runs")["run"])
    assert find_run(catalog, runs[0]) == find_run(catalog, runs[0][:8].upper()) == runs[0]
    with pytest.raises(UnknownNameError, match="no run's id begins with 'zz'"):
        find_run(catalog, "zz")
    with pytest.raises(UnknownNameError, match="begins with ''"):
        find_run(catalog, "")
    first = next(a[0] for a, b in itertools.pairwise(runs) if a[0] == b[0])
    with pytest.raises(DataError, match=rf"'{first}' is the beginning of \d+ runs: .*Write more digits"):
        find_run(catalog, first)


def test_a_trace_holds_all_that_a_run_came_from(trained):
    run = run_of(trained, "distill", fraction=1.0)
    found = trace(catalog_of(trained), run)
    json.dumps(found, allow_nan=False)
    assert RunSpec.of(found["config"]).run_id == run
    assert [e["encoder"] for e in found["encoders"]] == ["tiny", "tiny-text"]
    assert {e["weights_sha256"] for e in found["encoders"]} == {"ab" * 32}
    assert found["trained_on"]["split"] == found["config"]["split_key"]
    assert not found["trained_on"]["replaced_since"]
    assert found["teacher"]["method"] == "teacher"
    assert found["teacher"]["run"] == found["config"]["teacher_run"]
    students = trace(catalog_of(trained), found["teacher"]["run"])["students"]
    assert {"run": run, "method": "distill", "imitation": 0.75, "temperature": 0.25} in students
    assert {name for each in found["results"] for name in each["which"]} == {"last", "best", "chosen"}
    assert None not in (set(found["software"].values()) - {found["software"]["git_commit"]})
    assert found["machine"]["device"] == "cpu"
    assert found["machine"]["threads"] >= 1
    assert found["machine"]["precision"] == "fp32"
    assert found["failures"] == []


def test_a_trace_names_items_that_failed(tmp_path):
    store = make_store(tmp_path / "store")
    labels = dict(load_cohort(store, "toy").samples.select("sample", "label").iter_rows())
    add_tokens(store, "tiny", "image", labels, weights="cd" * 32, failed=["toy/s007", "toy/s009"])
    broken = next(p.name for p in store.features.glob("tiny@*") if "cd" * 32 in (p / "zarr.json").read_text())
    train_grid(store, grid(method="image", backbone=broken, fraction=1.0, seed=1))
    (failures,) = trace(catalog_of(store), run_of(store, "image"))["failures"]
    assert failures == {"feature_set": broken, "view": 0, "items": 2, "first": "toy/s007"}
