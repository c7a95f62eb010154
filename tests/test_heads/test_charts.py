"""Charts show what stands in the catalog's rows: asserted on their specs, not on pixels."""

import json

import polars as pl
import pytest
from PIL import Image

from featurestore.errors import DataError, UnknownNameError
from heads.charts import bars, config, curves, heatmap, save_chart, slopes, theme
from heads.charts.layout import size_ticks
from heads.figures import learning_curves
from heads.methods import METHODS

MAE = {"backbone": "medical-mae", "image_features": "medical-mae@1"}
BERT = {"text_encoder": "biovil-t-bert", "text_features": "biovil-t-bert@1"}


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
        "views": 0,
        "text_encoder": None,
        "text_features": None,
        "fraction": 1.0,
        "epochs": 20,
        "lr": 1e-4,
        "batch_size": 64,
        "dropout": 0.2,
        "imitation": None,
        "temperature": None,
        "teacher_epoch": None,
        "precision": "float32",
        "numerics": 1,
        "selected_by": "last",
        "fixed_split": None,
        "n_seeds": 5,
        "n_train": 100.0,
        "n_test": 25.0,
        "auroc_mean": 0.7,
        "auroc_sd": 0.02,
        "auprc_mean": 0.4,
        "auprc_sd": 0.01,
    }
    return {**row, **changes}


TEXT = {"method": "text", "backbone": None, "image_features": None, "text_encoder": "tiny-text", "text_features": "t@1"}


def frame(rows: list[dict]) -> pl.DataFrame:
    return pl.DataFrame(rows, infer_schema_length=None)


def summary() -> pl.DataFrame:
    sizes = [(0.1, 10.2, 0.6), (0.3, 30.4, 0.7), (1.0, 100.8, 0.8)]
    return frame(
        [
            summary_row(cohort=cohort, fraction=fraction, n_train=n, auroc_mean=mean, **method)
            for cohort in ("toy", "other")
            for method in ({}, TEXT)
            for fraction, n, mean in sizes
        ]
    )


def of_methods() -> pl.DataFrame:
    """Two backbones, four methods, two fractions."""
    return frame(
        [
            summary_row(method=method, fraction=f, n_train=100 * f, auroc_mean=0.6 + i / 50 + f / 10, **encoder, **text)
            for encoder in ({}, MAE)
            for i, (method, text) in enumerate(
                [("image", {}), ("teacher", BERT), ("self-distill", {}), ("distill", BERT)]
            )
            for f in (0.1, 1.0)
        ]
    )


def panels(chart) -> list[dict]:
    return chart.to_dict()["vconcat"][0]["concat"]


def layer(panel: dict, mark: str) -> dict:
    return next(one for one in panel["layer"] if one["mark"]["type"] == mark)


def values(chart, part: dict) -> list[dict]:
    """The rows behind a layer; Altair keeps those that layers or panels share further out, under a name."""
    whole = chart.to_dict()
    owners = [part, *(panel for panel in panels(chart) if part in panel["layer"]), whole["vconcat"][0], whole]
    data = next(owner["data"] for owner in owners if "data" in owner)
    return whole["datasets"][data["name"]] if "name" in data else data["values"]


def words(chart) -> str:
    return json.dumps(chart.to_dict())


def test_a_panel_shows_means_and_bands_at_the_real_numbers_of_samples():
    chart = curves(summary())
    assert [panel["title"]["text"] for panel in panels(chart)] == ["other", "toy"]
    for panel in panels(chart):
        line, band = layer(panel, "line"), layer(panel, "area")
        points = [v for v in values(chart, line) if v["line"] == "image only: tiny"]
        assert [(p["x"], p["value"]) for p in points] == [(10, 0.6), (30, 0.7), (101, 0.8)]
        assert line["encoding"]["x"]["scale"]["type"] == "log"
        assert line["encoding"]["x"]["axis"]["values"] == [10, 30, 101]
        assert (band["encoding"]["y"]["field"], band["encoding"]["y2"]["field"]) == ("low", "high")
        low, high = points[0]["low"], points[0]["high"]
        assert (low, high) == pytest.approx((0.6 - 2.776445 * 0.02 / 5**0.5, 0.6 + 2.776445 * 0.02 / 5**0.5))
        assert layer(panel, "text")["mark"]["style"] == "note"
    assert "chance" in words(chart)


def test_the_level_of_the_interval_is_that_asked_for():
    chart = curves(summary(), level=0.9)
    point = values(chart, layer(panels(chart)[0], "line"))[0]
    assert point["high"] - point["value"] == pytest.approx(2.131847 * 0.02 / 5**0.5, rel=1e-6)
    assert "90% confidence interval" in words(chart)
    with pytest.raises(DataError, match="level 90 of an interval"):
        curves(summary(), level=90)


def test_a_chart_of_auprc_draws_auprc_and_no_chance():
    chart = curves(summary(), metric="auprc")
    assert {v["value"] for v in values(chart, layer(panels(chart)[0], "line"))} == {0.4}
    assert "chance" not in words(chart)
    with pytest.raises(UnknownNameError, match="unknown metric 'auc'"):
        curves(summary(), metric="auc")


def test_the_caption_says_seeds_interval_and_how_the_epoch_was_chosen():
    text = words(curves(summary()))
    assert "Mean test AUROC over 5 seeds. Bands: 95% confidence interval" in text
    assert "after the last epoch (of 20): no epoch was selected." in text
    assert "best on an inner validation part" in words(curves(summary().with_columns(selected_by=pl.lit("inner"))))


def test_one_seed_and_one_fraction_are_drawn_without_an_interval(tmp_path):
    one = frame([summary_row(n_seeds=1, auroc_sd=None)])
    chart = curves(one)
    assert "Mean test AUROC over 1 seed." in words(chart)
    assert "Bands" not in words(chart)
    (point,) = values(chart, layer(panels(chart)[0], "line"))
    assert (point["low"], point["high"]) == (None, None)
    learning_curves(one, tmp_path / "one.svg")


def labels(chart) -> list[str]:
    encoding = (layer(panels(chart)[0], "point"))["encoding"]
    return encoding["color"]["scale"]["domain"]


def test_lines_of_one_method_are_told_apart_by_the_settings_that_differ():
    rows = [
        summary_row(fraction=f, n_train=100 * f, lr=lr, epochs=e)
        for f in (0.1, 1.0)
        for lr, e in ((1e-4, 20), (1e-3, 20))
    ]
    assert labels(curves(frame(rows))) == ["tiny, lr 0.0001", "tiny, lr 0.001"]
    rows = [summary_row(fraction=f, n_train=100 * f, epochs=e) for f in (0.1, 1.0) for e in (20, 50)]
    assert labels(curves(frame(rows))) == ["tiny, epochs 20", "tiny, epochs 50"]
    by_fraction = [summary_row(fraction=f, n_train=100 * f, epochs=e) for f, e in ((0.1, 100), (1.0, 50))]
    assert labels(curves(frame(by_fraction))) == ["tiny"]


def test_more_lines_than_colours_are_told_apart_and_crowded_sizes_are_left_out():
    rows = [
        summary_row(backbone=f"encoder{i}", fraction=f, n_train=1000 * f, auroc_mean=0.6 + i / 50)
        for i in range(10)
        for f in (0.01, 0.0101, 0.5, 1.0)
    ]
    panel = panels(curves(frame(rows)))[0]
    point, line = layer(panel, "point")["encoding"], layer(panel, "line")["encoding"]
    shapes, dashes = point["shape"]["scale"]["range"], line["strokeDash"]["scale"]["range"]
    assert len({(shape, tuple(dash)) for shape, dash in zip(shapes, dashes, strict=True)}) == 10
    assert size_ticks([10, 11, 500, 1000], 300) == [11, 500, 1000]


def test_a_method_and_an_encoder_look_the_same_in_every_chart():
    for kind, names in (("method", list(METHODS)), ("backbone", ["rad-dino", "mrm", "efficientnet-lite0"])):
        together = dict(zip(names, theme.looks(kind, names), strict=True))
        for name in names:
            assert theme.looks(kind, [name])[0].colour == together[name].colour
    few = theme.looks("method", ["image", "self-distill", "distill", "teacher", "text"])
    assert len({look.colour for look in few}) == len({look.shape for look in few}) == 5


def test_bars_stand_side_by_side_for_every_backbone_with_their_intervals():
    chart = bars(of_methods())
    assert [panel["title"]["text"] for panel in panels(chart)] == ["toy, 10%", "toy, 100%"]
    panel = panels(chart)[0]
    bar, rule = layer(panel, "bar"), layer(panel, "rule")
    methods = ["image only", "self-distillation", "distillation", "teacher (image and report)"]
    assert bar["encoding"]["color"]["scale"]["domain"] == bar["encoding"]["xOffset"]["sort"] == methods
    assert bar["encoding"]["x"]["sort"] == ["Medical MAE", "tiny"]
    assert (rule["encoding"]["y"]["field"], rule["encoding"]["y2"]["field"]) == ("low", "high")
    (value,) = [v for v in values(chart, bar) if v["group"] == "tiny" and v["line"] == "distillation"]
    assert value["value"] == pytest.approx(0.67)
    assert layer(panel, "point")["encoding"]["shape"]["scale"]["domain"] == methods
    assert "The axis does not begin at 0." in words(chart)


def test_bars_of_text_encoders_begin_with_the_baseline_that_reads_none():
    rows = [summary_row()]
    rows += [
        summary_row(method="distill", text_encoder=name, text_features=f"{name}@1")
        for name in ("bio-clinicalbert", "biovil-t-bert")
    ]
    encoding = layer(panels(bars(frame(rows), bar="text_encoder"))[0], "bar")["encoding"]
    assert encoding["color"]["scale"]["domain"] == ["image only", "BioViL-T BERT", "Bio_ClinicalBERT"]


def test_lines_by_head_share_a_panel_of_their_backbone():
    rows = [
        summary_row(head=head, fraction=f, n_train=100 * f, lr=1e-4 if head == "attention" else 1e-3, **encoder)
        for head in ("cls", "mean", "attention")
        for f in (0.1, 1.0)
        for encoder in ({}, MAE)
    ]
    chart = curves(frame(rows), line="head", panel=("cohort", "backbone"))
    assert [panel["title"]["text"] for panel in panels(chart)] == ["toy, Medical MAE", "toy, tiny"]
    assert labels(chart) == ["attention head", "mean - LP", "CLS - LP"]


def test_lines_by_temperature_stand_above_the_level_of_the_baseline():
    rows = [
        summary_row(auroc_mean=0.61),
        *(
            summary_row(method="distill", temperature=t, auroc_mean=0.7, teacher_epoch="best", **BERT)
            for t in (0.25, 2.5)
        ),
    ]
    chart = curves(frame(rows), x="temperature", line="backbone", panel=("cohort", "fraction"))
    (panel,) = panels(chart)
    line = layer(panel, "line")
    assert line["encoding"]["x"]["axis"]["values"] == [0.25, 2.5]
    assert [v["x"] for v in values(chart, line)] == [0.25, 2.5]
    level = next(one for one in panel["layer"] if one["mark"].get("strokeDash") == [2, 3])
    assert values(chart, level)[0] == {"value": 0.61, "line": "tiny", "method": "image only"}
    with pytest.raises(DataError, match="no row has a temperature"):
        curves(frame(rows[:1]), x="temperature")


def results() -> pl.DataFrame:
    base = {"cohort": "toy", "fraction": 1.0, "backbone": "tiny", "classes": ["a", "b"], "n_train": 100, "epochs": 20}
    base |= {"text_encoder": None}
    aurocs = {"image": (0.6, 0.7, 0.8), "distill": (0.65, 0.75, 0.79), "teacher": (0.9, 0.9, 0.9)}
    return pl.DataFrame(
        [base | {"method": m, "seed": s, "auroc": v} for m, seen in aurocs.items() for s, v in enumerate(seen)]
    )


def test_a_slope_is_a_seed_and_says_whether_it_rises():
    chart = slopes(results())
    (panel,) = panels(chart)
    line = layer(panel, "line")
    seen = {(v["seed"], v["verdict"]) for v in values(chart, line)}
    assert seen == {(0, "distillation above image only"), (1, "distillation above image only"), (2, "not above")}
    assert len(values(chart, line)) == 6
    assert line["encoding"]["x"]["scale"]["domain"] == ["image only", "distillation"]
    four = slopes(results(), of="distill", against="teacher", methods=["image", "distill", "teacher"])
    assert {v["verdict"] for v in values(four, layer(panels(four)[0], "line"))} == {"not above"}
    with pytest.raises(DataError, match="no seed has results of both tram and image"):
        slopes(results(), of="tram")
    with pytest.raises(DataError, match="several runs of image with seed 0"):
        slopes(pl.concat([results(), results()]))


def test_slopes_of_several_text_encoders_have_a_panel_each_with_the_one_baseline():
    both = [
        results().filter(pl.col("method") == "distill").with_columns(text_encoder=pl.lit(name))
        for name in ("minilm", "tiny-text")
    ]
    image = results().filter(pl.col("method") == "image").cast({"text_encoder": pl.String})
    chart = slopes(pl.concat([image, *both]))
    assert [panel["title"]["text"] for panel in panels(chart)] == ["minilm", "tiny-text"]
    assert panels(chart)[0]["title"]["subtitle"][0] == "toy, 100%, tiny"


def test_a_heat_map_shows_paired_gains_and_frames_what_excludes_zero():
    base = {"cohort": "toy", "method": "distill", "baseline_method": "image", "n_train": 100}
    sides = {"backbone": "tiny", "baseline_backbone": "tiny"}
    pairs = [
        base | sides | {"fraction": f, "seed": seed, "split_seed": seed, "auroc_difference": d}
        for f, differences in ((0.1, (0.03, 0.05)), (1.0, (-0.02, -0.021, -0.019)))
        for seed, d in enumerate(differences)
    ]
    chart = heatmap(pl.DataFrame(pairs))
    cells = {v["fraction"]: v for v in values(chart, layer(panels(chart)[0], "rect"))}
    assert cells["100 (10%)"]["value"] == pytest.approx(0.04)
    assert (cells["100 (10%)"]["sure"], cells["100 (100%)"]["sure"]) == (False, True)
    scale = layer(panels(chart)[0], "rect")["encoding"]["color"]["scale"]
    assert scale["domain"] == pytest.approx([-0.04, -0.02, 0, 0.02, 0.04])
    with pytest.raises(DataError, match="toy, 10%, tiny: 2 pairs with seed 0, of runs whose settings differ"):
        heatmap(pl.DataFrame([*pairs, pairs[0]]))


@pytest.mark.parametrize("suffix", ["png", "svg", "pdf", "html"])
def test_a_chart_is_written_in_every_format_without_a_network(tmp_path, suffix):
    path = tmp_path / "folder" / f"curves.{suffix}"
    learning_curves(summary(), path)
    written = path.read_bytes()
    assert learning_curves(summary(), tmp_path / f"again.{suffix}") is None
    if suffix in ("png", "svg"):
        assert written == (tmp_path / f"again.{suffix}").read_bytes()
    if suffix == "png":
        with Image.open(path) as picture:
            assert min(picture.size) > 600
            assert len(picture.convert("RGB").getcolors(1 << 24) or []) > 20
    elif suffix == "html":
        assert b'src="http' not in written
        assert b"vegaEmbed" in written
    else:
        assert written.startswith({"svg": b"<svg", "pdf": b"%PDF"}[suffix])


def test_a_chart_has_a_light_and_a_dark_variant(tmp_path):
    save_chart(bars(of_methods()), tmp_path / "light.svg")
    save_chart(bars(of_methods()), tmp_path / "dark.svg", dark=True)
    light, dark = ((tmp_path / f"{name}.svg").read_text() for name in ("light", "dark"))
    assert config()["background"] in light
    assert config(dark=True)["background"] in dark
    for colour in theme.METHOD_PALETTE[:4]:
        assert colour.lower() in light.lower()
        assert colour.lower() in dark.lower()


def test_nothing_to_draw_and_an_unknown_suffix_are_refused(tmp_path):
    with pytest.raises(DataError, match="no results to draw"):
        learning_curves(summary().clear(), tmp_path / "a.png")
    with pytest.raises(DataError, match=r"cannot write a\.docx: give one of the suffixes \.svg, \.png, \.pdf, \.html"):
        learning_curves(summary(), tmp_path / "a.docx")
    (tmp_path / "file").touch()
    with pytest.raises(DataError, match="cannot write"):
        learning_curves(summary(), tmp_path / "file" / "a.svg")
