"""What the result tables say: metrics can be computed again in SQL, intervals are Student's, nothing is mixed."""

import json
import sys
from itertools import count

import numpy as np
import polars as pl
import pytest
from scipy import stats

import heads.metrics
from featurestore.fsio import write_parquet
from featurestore.keys import content_key
from featurestore.store import Store, open_store
from heads import schema
from heads.catalog import TABLES, VIEWS, open_catalog
from heads.grid import Grid
from heads.train import train_grid

from .recipes import recipe, recipes
from .stores import make_store

AUROC_OF_TWO_CLASSES = recipe("AUROC of two classes")
AUROC_OF_MORE_CLASSES = recipe("AUROC of more classes")
ACCURACY = recipe("Accuracy")
TEXT_AGAINST_IMAGE = recipe("Text against image, paired")


def trained(root, classes: int) -> Store:
    store = make_store(root, classes=classes)
    keys = {"cohort": "toy", "backbone": "tiny", "text_encoder": "tiny-text", "method": ["image", "text"]}
    train_grid(store, Grid(**keys, fraction=[0.3, 1.0], seed=2, epochs=3, lr=0.01))
    return store


@pytest.fixture(scope="module")
def binary(tmp_path_factory) -> Store:
    return trained(tmp_path_factory.mktemp("binary") / "store", 2)


@pytest.fixture(scope="module")
def ternary(tmp_path_factory) -> Store:
    return trained(tmp_path_factory.mktemp("ternary") / "store", 3)


def results_of(store: Store) -> pl.DataFrame:
    return open_catalog(store).query("SELECT * FROM results ORDER BY run")


def test_auroc_computed_again_from_predictions_in_sql_equals_results(binary, ternary):
    for store, sql in ((binary, AUROC_OF_TWO_CLASSES), (ternary, AUROC_OF_MORE_CLASSES)):
        again, results = open_catalog(store).query(sql), results_of(store)
        assert again["run"].to_list() == results["run"].to_list()
        np.testing.assert_allclose(again["auroc"], results["auroc"], rtol=0, atol=1e-12)


def test_auroc_in_sql_counts_ties_by_half(tmp_path):
    store = open_store(tmp_path / "store", create=True)
    put_run(store, auroc=0.0, predictions=[(0, 0.2), (0, 0.5), (1, 0.5), (1, 0.9)])
    assert open_catalog_of(store).query(AUROC_OF_TWO_CLASSES)["auroc"].to_list() == [0.875]


def test_accuracy_in_sql_equals_numpy(ternary):
    predictions = open_catalog(ternary).query("SELECT run, label, p_last FROM predictions")
    expected = {
        run: np.mean(part["label"].to_numpy() == np.array(part["p_last"].to_list()).argmax(axis=1))
        for (run,), part in predictions.group_by("run")
    }
    assert dict(open_catalog(ternary).query(ACCURACY).iter_rows()) == pytest.approx(expected)


def test_methods_can_be_paired_by_seed_and_split(binary):
    paired, results = open_catalog(binary).query(TEXT_AGAINST_IMAGE), results_of(binary)
    assert paired.select("fraction", "seed").rows() == [(0.3, 0), (0.3, 1), (1.0, 0), (1.0, 1)]
    at = results.filter((pl.col("fraction") == 1.0) & (pl.col("seed") == 1)).select("method", "auroc")
    auroc = dict(at.iter_rows())
    assert paired["difference"][3] == auroc["text"] - auroc["image"]


def test_results_are_of_the_last_epoch_and_the_best_is_flagged(binary):
    results = results_of(binary)
    epochs = open_catalog(binary).query("SELECT * FROM epochs ORDER BY run, epoch")
    for row in results.iter_rows(named=True):
        own = epochs.filter(pl.col("run") == row["run"])
        assert [row[m] for m in schema.METRICS] == list(own.filter(pl.col("epoch") == 3).select(*schema.METRICS).row(0))
        assert row["auroc_best"] == own["auroc"].max()
        assert row["best_epoch"] == own["auroc"].to_numpy().argmax() + 1
    assert results["best_is_selected_on_test"].all()


def test_where_an_inner_part_chose_results_are_of_its_epoch(tmp_path):
    store = make_store(tmp_path / "store")
    keys = {"cohort": "toy", "backbone": "tiny", "method": "image", "precision": "fp32"}
    train_grid(store, Grid(**keys, fraction=1.0, seed=4, epochs=6, lr=0.05, batch_size=8, select="inner"))
    catalog = open_catalog(store)
    for row in catalog.query("SELECT * FROM results").iter_rows(named=True):
        epochs = catalog.query("SELECT * FROM epochs WHERE run = ? ORDER BY epoch", [row["run"]])
        inner = epochs["inner_auroc"].to_numpy()
        assert row["selected_by"] == "inner"
        assert row["chosen_epoch"] == inner.argmax() + 1
        assert row["inner_auroc"] == inner.max()
        assert row["auroc"] == epochs["auroc"][row["chosen_epoch"] - 1]
        assert row["auroc_best"] == epochs["auroc"].max()
    counts = catalog.query(
        "SELECT count(p_inner) = count(*) AS all_there, count(DISTINCT chosen_epoch) > 1 AS differ "
        "FROM predictions JOIN results USING (run)"
    )
    assert counts.rows() == [(True, True)]


def test_without_an_inner_part_nothing_is_said_of_one(binary):
    rows = open_catalog(binary).query("SELECT DISTINCT selected_by, chosen_epoch, n_inner, inner_auroc FROM results")
    assert rows.rows() == [("last", 3, 0, None)]
    assert open_catalog(binary).query("SELECT count(p_inner) AS n FROM predictions")["n"][0] == 0


def test_tuning_runs_are_no_results(empty):
    put_run(empty, auroc=0.6)
    put_run(empty, auroc=0.9, stage="tuning")
    assert open_catalog_of(empty).query("SELECT auroc FROM results")["auroc"].to_list() == [0.6]


def test_an_image_run_names_no_text_encoder_and_the_other_way_round(binary):
    rows = open_catalog(binary).query("SELECT DISTINCT method, backbone, text_encoder FROM results ORDER BY method")
    assert rows.rows() == [("image", "tiny", None), ("text", None, "tiny-text")]


def test_a_run_can_be_traced(binary):
    row = (
        open_catalog(binary).query("SELECT * FROM runs WHERE method = 'image' ORDER BY run LIMIT 1").row(0, named=True)
    )
    assert content_key(json.loads(row["config"])) == row["run"]
    assert row["image_weights_sha256"] == "ab" * 32
    assert row["image_features"].startswith("tiny@")
    unknown = {name for name, value in row.items() if value is None} - {"radfs", "git_commit"}
    of_students = {"imitation", "temperature", "teacher_run", "teacher_epoch", "teacher_setting"}
    assert unknown == {"text_encoder", "text_features", "text_weights_sha256", "inner_auroc", *of_students}
    assert row["python"] == ".".join(map(str, sys.version_info[:3]))
    assert row["torch"].startswith("2.")
    assert row["device"] == "cpu"
    assert 0 < row["seconds"] < 60
    assert row["finished_at"] >= row["started_at"]
    assert row["classes"] == ["class 0", "class 1"]


@pytest.mark.parametrize("entry", [*schema.TABLES, *schema.VIEWS], ids=lambda entry: entry.name)
def test_the_documented_columns_are_those_of_the_database(binary, entry):
    described = open_catalog(binary).query(f"DESCRIBE {entry.name}")
    types = {"TEXT": "VARCHAR", "TEXT[]": "VARCHAR[]"}
    documented = [(column.name, types.get(column.type, column.type)) for column in entry.columns]
    assert described.select("column_name", "column_type").rows() == documented
    assert entry.comment
    assert all(column.comment for column in entry.columns)


def test_the_epochs_hold_every_metric_of_the_table():
    assert list(schema.METRICS) == list(heads.metrics.METRICS)


def test_no_two_tables_or_views_share_a_name():
    names = [entry.name for entry in (*TABLES, *VIEWS)]
    assert len(set(names)) == len(names)


def test_students_t_equals_scipy(binary):
    sql = f"SELECT df, {schema.t95_sql('df')} AS t95 FROM generate_series(0, 400) AS s(df)"
    rows = open_catalog(binary).query(sql)
    assert rows["t95"][0] is None
    np.testing.assert_allclose(rows["t95"][1:], stats.t.ppf(0.975, rows["df"][1:]), rtol=2e-8)


_NUMBERS = count()


def put_run(store: Store, *, auroc: float, predictions=(), **changes) -> None:
    """Write the rows of an invented run of one epoch, as a part of its own."""
    run = f"{next(_NUMBERS):016x}"
    text = {name: "x" for name, dtype in schema.polars_schema(schema.RUNS).items() if dtype == pl.String}
    row = {**text, "run": run, "classes": ["a", "b"], "split_seed": changes.get("seed", 0), "seed": 0}
    row |= {"fraction": 1.0, "epochs": 1, "best_epoch": 1, "n_train": 10, "n_test": 4, "lr": 1e-4, "dropout": 0.2}
    row |= {"stage": "study", "selected_by": "last", "chosen_epoch": 1, "serves": ["image"]}
    frames = {
        schema.RUNS: [{**row, **changes}],
        schema.EPOCHS: [{"run": run, "epoch": 1, **dict.fromkeys(schema.METRICS, auroc)}],
        schema.PREDICTIONS: [{"run": run, "label": label, "p_last": [1 - p, p]} for label, p in predictions],
    }
    for table, rows in frames.items():
        frame = pl.DataFrame(rows, schema=schema.polars_schema(table))
        write_parquet(store.results / run / f"{table.name}.parquet", frame)


def open_catalog_of(store: Store):
    catalog = open_catalog(store)
    catalog.fold()
    return catalog


@pytest.fixture
def empty(tmp_path) -> Store:
    return open_store(tmp_path / "store", create=True)


def test_the_summary_has_means_and_t_intervals_over_seeds(empty):
    values = [0.61, 0.7, 0.66, 0.72, 0.64]
    for seed, value in enumerate(values):
        put_run(empty, auroc=value, seed=seed, n_train=10 + seed)
    put_run(empty, auroc=0.9, seed=0, fraction=0.1)
    one, five = open_catalog_of(empty).query("SELECT * FROM summary").iter_rows(named=True)
    low, high = stats.t.interval(0.95, 4, loc=np.mean(values), scale=stats.sem(values))
    assert (five["n_seeds"], five["n_train"]) == (5, 12.0)
    assert five["auroc_mean"] == pytest.approx(np.mean(values))
    assert five["auroc_sd"] == pytest.approx(np.std(values, ddof=1))
    assert (five["auroc_ci_low"], five["auroc_ci_high"]) == pytest.approx((low, high), rel=1e-9)
    assert five["auprc_ci_high"] == pytest.approx(high, rel=1e-9)
    assert (one["fraction"], one["n_seeds"], one["auroc_mean"]) == (0.1, 1, 0.9)
    assert (one["auroc_sd"], one["auroc_ci_low"], one["auroc_ci_high"]) == (None, None, None)


@pytest.mark.parametrize(
    "change",
    [
        {"cohort": "y"},
        {"cohort_key": "y"},
        {"common_rows": "y"},
        {"backbone": None},
        {"image_features": "y"},
        {"epochs": 1, "lr": 1e-3},
        {"dropout": 0.0},
        {"numerics": 2},
        {"head": "mean"},
        {"views": 4},
        {"imitation": 0.5},
        {"temperature": 1.0},
        {"teacher_epoch": None},
        {"teacher_setting": "y"},
        {"precision": "bf16"},
        {"selected_by": "inner"},
    ],
    ids=str,
)
def test_the_summary_never_mixes_settings(empty, change):
    for seed in range(3):
        put_run(empty, auroc=0.6, seed=seed)
        put_run(empty, auroc=0.8, seed=seed, **change)
    rows = open_catalog_of(empty).query("SELECT n_seeds, auroc_mean FROM summary ORDER BY auroc_mean").rows()
    assert rows == [(3, pytest.approx(0.6)), (3, pytest.approx(0.8))]


def test_the_summary_tells_one_split_for_all_seeds_from_a_split_for_each(empty):
    for seed in range(3):
        put_run(empty, auroc=0.6, seed=seed, split_seed=seed)
    query = "SELECT fixed_split, n_seeds, auroc_mean FROM summary ORDER BY fixed_split NULLS FIRST"
    assert open_catalog_of(empty).query(query).rows() == [(None, 3, pytest.approx(0.6))]
    for seed in (1, 2):  # seed 0 with split 0 is there already, and belongs to both grids
        put_run(empty, auroc=0.9, seed=seed, split_seed=0)
    assert open_catalog_of(empty).query(query).rows() == [(None, 3, pytest.approx(0.6)), (0, 3, pytest.approx(0.8))]


def test_a_fixed_split_alone_gives_one_row(empty):
    for seed in range(3):
        put_run(empty, auroc=0.7, seed=seed, split_seed=0)
    put_run(empty, auroc=0.7, seed=5, split_seed=4, method="y")
    rows = open_catalog_of(empty).query("SELECT method, fixed_split, n_seeds FROM summary ORDER BY method").rows()
    assert rows == [("x", 0, 3), ("y", 4, 1)]


def test_an_empty_store_answers(empty):
    assert open_catalog_of(empty).query("SELECT * FROM summary").is_empty()


@pytest.mark.parametrize("title", recipes())
def test_every_recipe_of_the_documentation_runs(title, binary):
    assert open_catalog_of(binary).query(recipe(title)).width > 0
