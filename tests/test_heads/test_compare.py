"""Comparisons: who is paired with whom, what the columns hold, and what the notes say."""

import numpy as np
import polars as pl
import pytest

from cohorts.cohort import SAMPLE_SCHEMA
from featurestore.errors import DamageError, DataError, UnknownNameError
from featurestore.fsio import write_parquet
from featurestore.store import open_store
from heads.catalog import open_catalog
from heads.compare import QUESTIONS, compare
from heads.metric_table import metric_table
from heads.stats import influence, population_interval, resampled_interval, seeds_interval, sign_flip

from .invented import TEXT, invent_run, invent_seeds

ROWS = [("p1/a", 1, 0.9), ("p2/a", 0, 0.2), ("p3/a", 1, 0.6), ("p4/a", 0, 0.7)]
BETTER = [("p1/a", 1, 0.9), ("p2/a", 0, 0.2), ("p3/a", 1, 0.8), ("p4/a", 0, 0.7)]


@pytest.fixture
def store(tmp_path):
    return open_store(tmp_path / "store", create=True)


def catalog_of(store):
    catalog = open_catalog(store)
    catalog.fold()
    return catalog


def pairs(store, **columns):
    where = " AND ".join(f"{name} = '{value}'" for name, value in columns.items()) or "true"
    return catalog_of(store).query(f"SELECT * FROM paired WHERE {where}")


# The view `paired`


def test_a_pair_is_a_run_and_another_method_on_the_same_rows_and_seed(store):
    image, distill = invent_run(store, auroc=0.7), invent_run(store, auroc=0.75, method="distill")
    (row,) = pairs(store, method="distill").iter_rows(named=True)
    assert (row["run"], row["baseline_run"]) == (distill, image)
    assert row["auroc_difference"] == pytest.approx(0.05)
    assert (row["method"], row["baseline_method"], row["differs"]) == ("distill", "image", [])
    assert pairs(store).height == 2  # and the other way round


@pytest.mark.parametrize(
    "change",
    [
        {"seed": 1},
        {"split": "s1"},
        {"split_seed": 3},
        {"fraction": 0.5},
        {"n_train": 74},
        {"common_rows": "other"},
        {"cohort": "other"},
        {"cohort_key": "other"},
        {"classes": ["yes", "no"]},
        {"backbone": "rad-dino", "image_features": "rad-dino@1"},
        {"image_features": "mrm@2"},
    ],
    ids=str,
)
def test_what_was_trained_or_tested_otherwise_is_no_pair(store, change):
    invent_run(store)
    invent_run(store, method="distill", **change)
    assert pairs(store).is_empty()


def test_a_text_run_is_paired_with_the_image_runs_of_every_backbone(store):
    text = invent_run(store, **TEXT)
    for backbone in ("mrm", "rad-dino"):
        invent_run(store, backbone=backbone, image_features=f"{backbone}@1")
    rows = pairs(store, method="text")
    assert rows["run"].to_list() == [text, text]
    assert sorted(rows["baseline_backbone"]) == ["mrm", "rad-dino"]


def test_a_teacher_is_paired_with_the_image_run_of_its_own_backbone_and_the_text_run_of_its_own_encoder(store):
    teacher = {"method": "teacher", "text_encoder": "bert", "text_features": "bert@1"}
    invent_run(store, **teacher)
    invent_run(store)
    invent_run(store, backbone="rad-dino", image_features="rad-dino@1")
    invent_run(store, **TEXT)
    invent_run(store, **{**TEXT, "text_encoder": "other", "text_features": "other@1"})
    rows = pairs(store, method="teacher")
    assert sorted(rows.select("baseline_method", "baseline_backbone", "baseline_text_encoder").rows()) == [
        ("image", "mrm", None),
        ("text", None, "bert"),
    ]


def test_of_several_baselines_the_one_with_equal_options_is_taken(store):
    slow, fast = invent_run(store, lr=1e-4), invent_run(store, lr=1e-3)
    invent_run(store, method="distill", lr=1e-3)
    invent_run(store, method="distill", lr=1e-4)
    found = {row["lr"]: (row["baseline_run"], row["differs"]) for row in pairs(store, method="distill").to_dicts()}
    assert found == {1e-4: (slow, []), 1e-3: (fast, [])}


def test_where_none_has_equal_options_the_nearest_is_taken_and_named(store):
    invent_run(store, epochs=2)
    near = invent_run(store, epochs=1)
    invent_run(store, method="image-long", epochs=3)
    far = invent_run(store, method="distill", epochs=1, dropout=0.2)
    rows = pairs(store, method="distill", baseline_method="image")
    assert rows.select("run", "baseline_run", "differs").rows() == [(far, near, [])]
    rows = pairs(store, method="distill", baseline_method="image-long")
    assert rows["differs"].to_list() == [["epochs"]]


# Numbers


def test_the_columns_of_a_line_by_another_way(store):
    invent_seeds(store, 6, quality=1.0)
    invent_seeds(store, 6, quality=1.5, method="distill")
    catalog = catalog_of(store)
    (row,) = compare(catalog, level="distill", against="image").table.iter_rows(named=True)
    values = {}
    for method in ("image", "distill"):
        frame = catalog.query(
            "SELECT r.seed, p.label, p.p_last FROM predictions p JOIN runs r USING (run) WHERE method = ? "
            "ORDER BY seed, sample",
            [method],
        )
        values[method] = np.array(
            [
                influence("auroc", part["label"].to_numpy(), np.array(part["p_last"].to_list(), np.float32))[0]
                for part in frame.partition_by("seed", maintain_order=True)
            ]
        )
    differences = values["distill"] - values["image"]
    seeds, patients = seeds_interval(differences), resampled_interval(differences, 25 / 75)
    assert row["value"] == pytest.approx(values["distill"].mean())
    assert row["baseline_value"] == pytest.approx(values["image"].mean())
    assert row["difference"] == pytest.approx(differences.mean())
    assert (row["seeds_low"], row["seeds_high"]) == pytest.approx((seeds.low, seeds.high))
    assert (row["patients_low"], row["patients_high"]) == pytest.approx((patients.low, patients.high))
    assert row["patients_p"] == row["patients_p_holm"] == pytest.approx(patients.p)
    assert row["seeds_p"] == pytest.approx(sign_flip(differences))
    assert (row["n_seeds"], row["n_test"], row["n_subjects"], row["basis"]) == (6, 40, 20, "resampled")
    assert row["higher"] == (differences > 0).sum()


def test_seeds_that_share_a_test_side_are_told_by_their_samples_and_clustered_by_subject(store):
    invent_seeds(store, 5, quality=1.0, own_split=False)
    invent_seeds(store, 5, quality=2.0, own_split=False, method="distill")
    catalog = catalog_of(store)
    (row,) = compare(catalog).table.iter_rows(named=True)
    assert (row["basis"], row["fixed_split"]) == ("components", 7)
    measured = {"image": [], "distill": []}
    for method, found in measured.items():
        for seed in range(5):
            part = catalog.query(
                "SELECT subject, label, p_last FROM predictions JOIN runs USING (run) WHERE method = ? AND seed = ? "
                "ORDER BY sample",
                [method, seed],
            )
            value, each = influence(
                "auroc", part["label"].to_numpy(), np.array(part["p_last"].to_list(), dtype=np.float32)
            )
            sums = part.with_columns(each=pl.Series(each)).group_by("subject").agg(pl.col("each").sum()).sort("subject")
            found.append((value, sums["each"].to_numpy()))
    values = np.array([a[0] - b[0] for a, b in zip(measured["distill"], measured["image"], strict=True)])
    influences = np.array([a[1] - b[1] for a, b in zip(measured["distill"], measured["image"], strict=True)])
    interval = population_interval(values, influences)
    assert (row["patients_low"], row["patients_high"]) == pytest.approx((interval.low, interval.high))


def test_equal_predictions_differ_by_nothing(store):
    invent_seeds(store, 5, quality=1.0, own_split=False)
    invent_seeds(store, 5, quality=1.0, own_split=False, method="distill")
    (row,) = compare(catalog_of(store)).table.iter_rows(named=True)
    assert (row["difference"], row["seeds_p"], row["patients_p"], row["higher"]) == (0, 1, 1, 0)


def test_one_pair_of_independent_samples_goes_to_delong(store):
    invent_run(store, ROWS)
    invent_run(store, BETTER, method="distill")
    (row,) = (comparison := compare(catalog_of(store))).table.iter_rows(named=True)
    # One of four pairs of a positive and a negative comes right: the other positive's and negative's means differ by 0.
    assert (row["basis"], row["difference"]) == ("delong", 0.25)
    se = np.sqrt(0.125 / 2 + 0.125 / 2)
    assert row["patients_high"] == pytest.approx(0.25 + 1.959964 * se, rel=1e-6)
    assert row["seeds_low"] is None
    assert any("Nothing is known about other seeds" in note for note in comparison.notes)
    assert any("one seed" in note for note in comparison.notes)


def test_one_pair_of_clustered_samples_does_not(store):
    clustered = [("p1/a", 1, 0.9), ("p1/b", 1, 0.8), ("p2/a", 0, 0.2), ("p3/a", 0, 0.85)]
    invent_run(store, clustered)
    invent_run(store, [(s, y, p / 2) for s, y, p in clustered], method="distill")
    (row,) = compare(catalog_of(store)).table.iter_rows(named=True)
    assert row["basis"] == "one seed"


def test_holm_counts_the_lines_of_the_table(store):
    for fraction in (0.1, 0.5, 1.0):
        invent_seeds(store, 5, quality=1.0, fraction=fraction)
        invent_seeds(store, 5, quality=1.0 + fraction, fraction=fraction, method="distill")
    comparison = compare(catalog_of(store))
    p, adjusted = comparison.table["patients_p"].to_list(), comparison.table["patients_p_holm"].to_list()
    assert adjusted[int(np.argmin(p))] == pytest.approx(3 * min(p))
    assert any("Holm over the 3 lines" in note for note in comparison.notes)


# Choices


def test_backbones_are_compared_pairwise_within_a_method(store):
    for backbone, quality in (("mrm", 1.0), ("rad-dino", 2.0), ("c2l", 0.5)):
        invent_seeds(store, 3, quality=quality, backbone=backbone, image_features=f"{backbone}@1")
    invent_seeds(store, 3, quality=1.0, method="distill")
    table = compare(catalog_of(store), by="backbone").table
    assert table.select("backbone", "baseline_backbone", "method", "baseline_method").rows() == [
        ("c2l", "mrm", "image", "image"),
        ("c2l", "rad-dino", "image", "image"),
        ("mrm", "rad-dino", "image", "image"),
    ]
    against = compare(catalog_of(store), by="backbone", against="c2l").table
    assert against["backbone"].to_list() == ["mrm", "rad-dino"]
    assert (against["difference"] > 0).all()


def test_objectives_are_compared_by_the_mean_over_their_encoders(store):
    for backbone, quality in (("tiny", 1.0), ("tiny2@x", 3.0), ("efficientnet-lite0", 2.0)):
        invent_seeds(store, 4, quality=quality, backbone=backbone, image_features=f"{backbone}@1", lr=quality * 1e-4)
    comparison = compare(catalog_of(store), by="objective")
    assert set(comparison.table.select("objective", "baseline_objective").rows()) == {
        ("supervised", "none"),
        ("supervised", "unknown"),
        ("none", "unknown"),
    }
    assert any("these very encoders" in note for note in comparison.notes)


def test_subgroups_have_a_line_each_and_what_has_no_value_is_counted(store):
    invent_seeds(store, 3, quality=1.0)
    invent_seeds(store, 3, quality=2.0, method="distill")
    path = store.cohorts / "toy" / "k" / "samples.parquet"
    samples = [(f"p{i:02d}/{part}", "F" if i < 30 else "M", 30.0 + i) for i in range(60) for part in "ab"]
    frame = pl.DataFrame(samples, schema=["sample", "sex", "age"], orient="row")
    rest = {name: pl.lit(None, kind) for name, kind in SAMPLE_SCHEMA.items() if name not in frame.columns}
    write_parquet(path, frame.with_columns(**rest, cohort=pl.lit("toy"), cohort_key=pl.lit("k")))
    catalog = catalog_of(store)
    table = compare(catalog, subgroups=["sex", "age_bin"]).table
    assert table.select("sex", "age_bin").rows() == [
        ("F", "18-39"),
        ("F", "40-59"),
        ("M", "60-79"),
        ("M", "80+"),
    ]
    assert table["n_test"].sum() == pytest.approx(40)
    by_sex, _ = metric_table(catalog, ["accuracy"], by=["sex"])
    whole, _ = metric_table(catalog, ["accuracy"])
    for method in ("image", "distill"):
        parts = by_sex.filter(pl.col("method") == method)
        assert parts["n_test"].sum() == pytest.approx(40)
        assert set(parts["sex"]) == {"F", "M"}
    assert whole["n_test"].to_list() == [40, 40]
    only_negative = compare(catalog, where="seed = 0", subgroups=["sex"], metric="auroc_class:1")
    assert only_negative.table["n_seeds"].to_list() == [1, 1]


def test_a_subgroup_that_nobody_knows_is_refused(store):
    invent_seeds(store, 2, quality=1.0)
    with pytest.raises(UnknownNameError, match="unknown subgroup 'gender'"):
        metric_table(catalog_of(store), ["auroc"], by=["gender"])
    with pytest.raises(DataError, match="knows no sex"):
        metric_table(catalog_of(store), ["auroc"], by=["sex"])


def test_a_metric_without_a_derivative_has_no_interval_for_patients_on_one_test_side(store):
    for method in ("image", "distill"):
        invent_seeds(store, 3, quality=1.0, own_split=False, method=method)
    comparison = compare(catalog_of(store), metric="sensitivity:0.8")
    assert comparison.table["patients_low"].to_list() == [None]
    assert any("no interval for other patients" in note for note in comparison.notes)


def test_too_few_seeds_are_warned_about(store):
    for method in ("image", "distill"):
        invent_seeds(store, 5, quality=1.0, method=method)
    (warning,) = [note for note in compare(catalog_of(store)).notes if note.startswith("WARNING")]
    assert "never under 0.0625" in warning
    assert "takes 6 seeds" in warning
    assert not [n for n in compare(catalog_of(store), confidence=0.9).notes if n.startswith("WARNING")]


def test_lower_is_better_and_best_are_said(store):
    for method in ("image", "distill"):
        invent_seeds(store, 6, quality=1.0, method=method)
    notes = " ".join(compare(catalog_of(store), metric="brier", epoch="best").notes)
    assert "Of brier lower is better" in notes
    assert "best epoch was chosen on the very test samples" in notes


def test_pairs_with_other_options_are_warned_about(store):
    invent_seeds(store, 6, quality=1.0)
    invent_seeds(store, 6, quality=1.0, method="image-long", epochs=2)
    comparison = compare(catalog_of(store))
    assert comparison.table["differs"].to_list() == [["epochs"]]
    assert any("differ in epochs" in note for note in comparison.notes)


# Errors


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({"by": "colour"}, "unknown thing to compare by 'colour'"),
        ({"level": "distil"}, "'distil'. Did you mean 'distill'"),
        ({"metric": "aucroc"}, "unknown metric 'aucroc'"),
        ({"metric": "sensitivity:high"}, "no number that it takes"),
        ({"metric": "auroc_class"}, "Write auroc_class:0"),
        ({"where": "fraction > 2"}, "no run for which fraction > 2"),
        ({"where": "colour = 1"}, "SQL refused"),
        ({"confidence": 95.0}, "confidence 95"),
        ({"by": "backbone"}, "no two runs can be paired by backbone"),
    ],
    ids=str,
)
def test_what_cannot_be_compared_is_said(store, asked, message):
    invent_run(store, ROWS)
    invent_run(store, BETTER, method="distill")
    with pytest.raises((DataError, UnknownNameError), match=message):
        compare(catalog_of(store), **asked)


def test_a_pair_tested_on_other_samples_is_damage(store):
    invent_run(store, ROWS)
    invent_run(store, [("p9/a", 1, 0.9), *ROWS[1:]], method="distill")
    with pytest.raises(DamageError, match="different samples"):
        compare(catalog_of(store))


def test_ready_made_comparisons_name_methods_and_objectives():
    assert QUESTIONS["student-teacher"] == {"level": "distill", "against": "teacher"}
    assert all({"level", "against"} <= set(question) for question in QUESTIONS.values())


def test_each_class_has_a_line(store):
    three = [("p1/a", 0, [0.8, 0.1, 0.1]), ("p2/a", 1, [0.2, 0.7, 0.1]), ("p3/a", 2, [0.3, 0.4, 0.3])]
    invent_run(store, three, classes=["x", "y", "z"])
    table, _ = metric_table(catalog_of(store), ["auroc_class", "auroc"])
    # Of 18 pairs, 0.8 and 0.7 lie above all six wrong ones each, 0.3 above four and beside one.
    assert dict(table.select("metric", "value").iter_rows()) == {
        "auroc": pytest.approx(16.5 / 18),
        "auroc_class:0": 1.0,
        "auroc_class:1": 1.0,
        "auroc_class:2": 1.0,
    }


# Findings


def test_findings_are_compared_where_they_are_known(store):
    # Of finding 0 the image run has one of two pairs right and the other run both; p4 is unknown. Finding 1: all right.
    labels = {"p1/a": [1, 1], "p2/a": [0, 0], "p3/a": [1, -1], "p4/a": [-1, 0]}
    for method, first in (("image", 0.3), ("distill", 0.8)):
        p = {"p1/a": [0.9, 0.9], "p2/a": [0.4, 0.1], "p3/a": [first, 0.5], "p4/a": [0.99, 0.2]}
        rows = [(sample, findings, p[sample]) for sample, findings in labels.items()]
        invent_run(store, rows, task="multilabel", classes=["edema", "mass"], method=method, n_test=4)
    catalog = catalog_of(store)
    (row,) = compare(catalog, level="distill", metric="auroc_macro").table.iter_rows(named=True)
    assert (row["value"], row["baseline_value"]) == (1.0, pytest.approx((0.5 + 1) / 2))
    assert row["basis"] == "one seed"  # not DeLong's, though two findings look like two classes
    table, _ = metric_table(catalog, ["auroc_class"], where="method = 'image'")
    assert dict(table.select("metric", "value").iter_rows()) == {"auroc_class:0": 0.5, "auroc_class:1": 1.0}
    assert dict(table.select("metric", "prevalence").iter_rows())["auroc_class:0"] == pytest.approx(2 / 3)
    with pytest.raises(DataError, match="findings have no brier: it takes one label a sample"):
        metric_table(catalog, ["brier"])
