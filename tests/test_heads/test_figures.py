"""Figures are drawn from the summary alone; what they show is what stands there."""

import numpy as np
import polars as pl
import pytest
from PIL import Image

from featurestore.errors import DataError
from heads import figures
from heads.figures import learning_curves


def summary_row(**changes) -> dict:
    row = {
        "cohort": "toy",
        "cohort_key": "k",
        "content": "x",
        "common_rows": "r",
        "classes": ["a", "b"],
        "method": "image",
        "head": "attention",
        "backbone": "tiny",
        "image_features": "tiny@1",
        "text_encoder": None,
        "text_features": None,
        "fraction": 1.0,
        "epochs": 20,
        "lr": 1e-4,
        "batch_size": 64,
        "dropout": 0.2,
        "precision": "float32",
        "numerics": 1,
        "fixed_split": None,
        "n_seeds": 5,
        "n_train": 100.0,
        "n_test": 25.0,
        "auroc_mean": 0.7,
        "auroc_sd": 0.02,
        "auroc_ci_low": 0.675,
        "auroc_ci_high": 0.725,
    }
    return {**row, **changes}


TEXT = {"method": "text", "backbone": None, "image_features": None, "text_encoder": "tiny-text", "text_features": "t@1"}


def summary() -> pl.DataFrame:
    sizes = [(0.1, 10.2, 0.6), (0.3, 30.4, 0.7), (1.0, 100.8, 0.8)]
    return pl.DataFrame(
        [
            summary_row(cohort=cohort, fraction=fraction, n_train=n, auroc_mean=mean, auroc_ci_high=0.99, **method)
            for cohort in ("toy", "other")
            for method in ({}, TEXT)
            for fraction, n, mean in sizes
        ]
    )


def test_a_picture_is_written(tmp_path):
    path = tmp_path / "folder" / "curves.png"
    learning_curves(summary(), path)
    with Image.open(path) as picture:
        assert min(picture.size) > 700
        assert len(picture.convert("RGB").getcolors(1 << 24) or []) > 20
    assert learning_curves(summary(), tmp_path / "again.png") is None
    assert path.read_bytes() == (tmp_path / "again.png").read_bytes()


def test_a_panel_shows_means_at_the_real_numbers_of_samples():
    axes = figures._draw(summary()).axes
    assert [axis.get_title(loc="left") for axis in axes] == ["other", "toy"]
    for axis in axes:
        lines = {line.get_label(): line for line in axis.get_lines() if not str(line.get_label()).startswith("_")}
        assert set(lines) == {"image: tiny", "text: tiny-text"}
        assert list(np.asarray(lines["image: tiny"].get_ydata())) == [0.6, 0.7, 0.8]
        assert axis.get_xscale() == "log"
        assert [tick.get_text() for tick in axis.get_xticklabels()] == ["10", "30", "101"]
        assert any("chance" in text.get_text() for text in axis.texts)
        assert len(axis.collections) == 2
    colours = [line.get_color() for line in axes[0].get_lines()[:2]]
    assert colours == [line.get_color() for line in axes[1].get_lines()[:2]]


def test_the_footnote_says_seeds_and_how_the_epoch_was_chosen():
    texts = " ".join(text.get_text() for text in figures._draw(summary()).texts)
    assert "Mean over 5 seeds. Bands: 95% confidence interval" in texts
    assert "Values after the last epoch (of 20): no epoch was selected." in texts


def test_one_seed_and_one_fraction_are_drawn_without_an_interval(tmp_path):
    row = summary_row(n_seeds=1, auroc_sd=None, auroc_ci_low=None, auroc_ci_high=None)
    frame = pl.DataFrame([row])
    learning_curves(frame, tmp_path / "one.svg")
    texts = " ".join(text.get_text() for text in figures._draw(frame).texts)
    assert "Mean over 1 seed." in texts
    assert "Bands" not in texts


def test_lines_of_one_method_are_told_apart_by_the_settings_that_differ():
    rows = [
        summary_row(fraction=f, n_train=100 * f, lr=lr, epochs=e)
        for f in (0.1, 1.0)
        for lr, e in ((1e-4, 20), (1e-3, 20))
    ]
    labels = {line.label for line in figures._lines(rows)}
    assert labels == {"image: tiny, lr 0.0001", "image: tiny, lr 0.001"}
    rows = [summary_row(fraction=f, n_train=100 * f, epochs=e) for f in (0.1, 1.0) for e in (20, 50)]
    assert {line.label for line in figures._lines(rows)} == {"image: tiny, epochs 20", "image: tiny, epochs 50"}
    by_fraction = [summary_row(fraction=f, n_train=100 * f, epochs=e) for f, e in ((0.1, 100), (1.0, 50))]
    (line,) = figures._lines(by_fraction)
    assert (line.label, len(line.rows)) == ("image: tiny", 2)


def test_more_lines_than_colours_and_crowded_sizes_are_drawn(tmp_path):
    rows = [
        summary_row(backbone=f"encoder{i}", fraction=f, n_train=1000 * f, auroc_mean=0.6 + i / 50)
        for i in range(10)
        for f in (0.01, 0.0101, 0.5, 1.0)
    ]
    figure = figures._draw(pl.DataFrame(rows))
    looks = {(line.get_color(), line.get_linestyle()) for line in figure.axes[0].get_lines()[:10]}
    assert len(looks) == 10
    assert figures._tick_labels([10, 11, 500, 1000]) == ["", "11", "500", "1,000"]


def test_nothing_to_draw_and_an_unknown_suffix_are_refused(tmp_path):
    with pytest.raises(DataError, match="no results to draw"):
        learning_curves(summary().clear(), tmp_path / "a.png")
    with pytest.raises(DataError, match=r"cannot write a\.docx: give one of the suffixes .*\.png"):
        learning_curves(summary(), tmp_path / "a.docx")
