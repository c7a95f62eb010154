"""The paper's numbers, written out by hand from its tables and text; overrides, and what of a grid a store has."""

import polars as pl
import pytest

from cohorts import cohort_items
from cohorts.practice import build_practice
from featurestore.errors import DataError, UnknownNameError
from featurestore.extract import extract_features
from heads import Grid, open_catalog, train_grid
from heads.presets import get_preset, matching_presets, parse_overrides, preset_names
from heads.presets.draw import draw_preset, draw_results
from heads.presets.needs import find_needs
from heads.presets.tables import preset_table
from heads.selection import count_runs, find_runs, summarise

SEVEN = ("rad-dino", "c2l", "medical-mae", "mrm", "biovil-t", "gloria", "biomedclip")
SIX = SEVEN[:6]
STUDENTS = ("image", "self-distill", "distill", "teacher")

# Tables 3 to 7: fraction -> epochs.
TABLE_3 = {0.025: 100, 0.05: 100, 0.1: 100, 0.25: 50, 0.5: 50, 1.0: 50}
TABLE_4 = {0.01: 150, 0.025: 100, 0.05: 100, 0.1: 50}
TABLE_5 = {0.005: 100, 0.01: 100, 0.025: 100, 0.05: 50, 0.1: 50, 0.25: 50}
TABLE_6 = {0.05: 100, 0.1: 100, 0.175: 100, 0.25: 100, 0.5: 50}
TABLE_7 = {0.05: 100, 0.1: 100, 0.175: 100, 0.25: 100, 0.5: 50}


@pytest.mark.parametrize(
    ("panel", "cohort", "epochs", "seeds", "table"),
    [
        ("a", "mimic-5x1200", TABLE_3, 5, 3),
        ("b", "mimic-age", TABLE_4, 5, 4),
        ("c", "mimic-discharge-3d", TABLE_5, 5, 5),
        ("d", "inspect-ph-12m", TABLE_7, 5, 7),
        ("e", "inspect-readmission-12m", TABLE_6, 10, 6),
    ],
)
def test_figures_4_and_7_and_tables_3_to_7(panel, cohort, epochs, seeds, table):
    four, seven, sizes = (get_preset(name) for name in (f"fig4{panel}", f"fig7{panel}", f"table{table}"))
    (grid,) = four.grids()
    assert (grid.cohort, grid.method, grid.backbone, grid.head) == ((cohort,), ("image",), SEVEN, ("attention",))
    assert dict(grid.epochs) == epochs
    assert grid.seed == tuple(range(seeds))
    assert (grid.lr, grid.batch_size, grid.dropout, grid.views) == ((1e-4,), 64, 0.2, "augmented")
    assert (four.draw.form, four.draw.metric, four.draw.level) == ("curves", "auroc", 0.9)
    assert (seven.draw.form, seven.draw.metric, seven.draw.level) == ("curves", "auprc", 0.9)
    assert seven.grids() == sizes.grids() == four.grids()
    assert seven.same_as == f"fig4{panel}"
    assert "fraction" not in four.inferred


@pytest.mark.parametrize(
    ("names", "cohort", "fraction", "epochs", "tau"),
    [
        (("fig5a", "fig8a"), "inspect-readmission-12m", 0.05, 100, 0.25),
        (("fig5b", "fig8b"), "inspect-readmission-12m", 0.5, 50, 0.25),
        (("fig5c", "fig8c"), "mimic-5x1200", 0.05, 100, 2.5),
        (("fig5d", "fig8d"), "mimic-5x1200", 0.5, 50, 2.5),
        (("fig6a",), "mimic-discharge-3d", 0.01, 100, 0.25),
        (("fig6b",), "mimic-discharge-3d", 0.1, 50, 0.25),
    ],
)
def test_figures_5_6_and_8(names, cohort, fraction, epochs, tau):
    for name in names:
        preset = get_preset(name)
        (grid,) = preset.grids()
        assert (grid.cohort, grid.method, grid.backbone) == ((cohort,), STUDENTS, SIX)
        assert (grid.text_encoder, grid.seed) == (("biovil-t-bert",), (0, 1, 2, 3, 4))
        assert grid.epochs == ((fraction, epochs),)
        assert (grid.imitation, grid.temperature, grid.teacher_epoch) == ((0.75,), (tau,), "best")
        assert (preset.draw.form, preset.draw.level) == ("bars", 0.95)
        assert preset.draw.metric == ("auprc" if name.startswith("fig8") else "auroc")
        assert "fraction" in preset.inferred
        assert count_runs(preset.grids()) == 120  # 4 methods, 6 backbones, 5 seeds: appendix D


@pytest.mark.parametrize(
    ("name", "cohort", "epochs"),
    [
        ("fig9", "inspect-pe", {0.05: 100, 0.5: 50}),
        ("fig10", "inspect-ph-12m", {0.05: 100, 0.5: 50}),
        ("fig11", "mimic-age", {0.01: 150, 0.1: 50}),
    ],
)
def test_figures_9_to_11(name, cohort, epochs):
    preset = get_preset(name)
    (grid,) = preset.grids()
    assert (grid.cohort, grid.method, grid.backbone, dict(grid.epochs)) == ((cohort,), STUDENTS, SIX, epochs)
    assert (grid.temperature, len(grid.seed), preset.draw.form) == ((0.25,), 5, "bars")
    assert ("epochs" in preset.inferred) == (cohort == "inspect-pe")
    assert "level" in preset.inferred


def test_figures_12_to_14_show_runs_of_figures_5_and_6():
    twelve, thirteen, fourteen = (get_preset(f"fig{n}") for n in (12, 13, 14))
    assert twelve.grids()[0].backbone == ("rad-dino", "mrm")
    assert twelve.grids({"backbone": list(SIX)}) == get_preset("fig6b").grids()
    assert [preset.draw.form for preset in (twelve, thirteen, fourteen)] == ["slopes"] * 3
    for preset, parts in ((thirteen, ("fig5a", "fig5b")), (fourteen, ("fig5c", "fig5d"))):
        assert preset.grids()[0].method == ("image", "distill")
        for name in parts:
            (whole,) = get_preset(name).grids()
            few = {"method": ["image", "distill"], "fraction": list(whole.fraction)}
            assert preset.grids(few | {"epochs": dict(whole.epochs)}) == get_preset(name).grids(few)


@pytest.mark.parametrize(("name", "epochs"), [("fig15", TABLE_6), ("fig16", TABLE_3)])
def test_figures_15_and_16(name, epochs):
    both, cls = get_preset(name).grids()
    assert (both.head, both.backbone) == (("attention", "mean"), SIX)
    assert (cls.head, cls.backbone) == (("cls",), ("rad-dino",))
    assert both.lr is cls.lr is None  # each head's own: 1e-4, and 1e-3 for linear probing
    assert dict(both.epochs) == dict(cls.epochs) == epochs


def test_figures_17_to_20():
    for name in ("fig17", "fig18"):
        preset = get_preset(name)
        assert {0.25, 2.5} < set(preset.grids()[0].temperature)
        assert preset.draw.options["x"] == "temperature"
        assert "temperature" in preset.inferred
    for name, tau in (("fig19", 0.25), ("fig20", 2.5)):
        (grid,) = get_preset(name).grids()
        assert grid.text_encoder == ("biovil-t-bert", "cxr-bert-general", "bio-clinicalbert")
        assert grid.temperature == (tau,)


def test_table_2():
    grids = get_preset("table2").grids()
    assert {grid.cohort[0]: grid.fraction for grid in grids} == {
        "mimic-5x1200": (0.05, 0.5),
        "mimic-age": (0.01, 0.1),
        "mimic-discharge-3d": (0.01, 0.1),
        "inspect-ph-12m": (0.05, 0.5),
        "inspect-readmission-12m": (0.05, 0.5),
    }
    tables = (TABLE_3, TABLE_4, TABLE_5, TABLE_7, TABLE_6)
    for grid, table in zip(grids, tables, strict=True):
        assert dict(grid.epochs) == {fraction: table[fraction] for fraction in grid.fraction}
        assert (grid.method, grid.backbone) == (("image", "text"), SEVEN)


def test_tables_1_and_8_are_the_papers():
    one = {line[0]: line[1:] for line in preset_table(None, None, get_preset("table1")).lines}
    assert one == {
        "RAD-DINO": ("ViT-B/14", "518", "yes", "no", "yes", "yes", "yes"),
        "C2L": ("ResNet-18", "224", "yes", "no", "yes", "yes", "yes"),
        "Medical MAE": ("ViT-B/16", "224", "yes", "no", "yes", "yes", "yes"),
        "MRM": ("ViT-B/16", "224", "yes", "yes", "yes", "no", "no"),
        "BioViL-T": ("ResNet-50", "448", "no", "yes, aligned", "yes", "no", "no"),  # of 512: appendix A crops
        "GLoRIA": ("ResNet-50", "224", "no", "yes, aligned", "no", "yes", "no"),
        "BiomedCLIP": ("ViT-B/16", "224", "no", "yes, aligned", "no", "no", "yes"),
    }
    eight = {line[0]: line[1:] for line in preset_table(None, None, get_preset("table8")).lines}
    yes, no = "yes", "no"
    assert eight == {
        "RAD-DINO": (yes, yes, yes, yes),
        "C2L": (yes, yes, yes, yes),
        "Medical MAE": (yes, yes, yes, no),
        "MRM": (yes, no, no, no),
        "BioViL-T": (yes, no, no, no),
        "GLoRIA": (no, yes, no, no),
        "BiomedCLIP": (no, no, no, yes),
    }


def test_every_figure_and_table_of_the_paper_has_a_preset():
    panels = {4: "abcde", 5: "abcd", 6: "ab", 7: "abcde", 8: "abcd"}
    figures = [f"fig{n}{panel}" for n in range(4, 21) for panel in panels.get(n, [""])]
    assert preset_names() == figures + [f"table{n}" for n in range(1, 9)]
    assert matching_presets("fig4") == [f"fig4{panel}" for panel in "abcde"]
    assert matching_presets("all") == preset_names()
    with pytest.raises(UnknownNameError, match="unknown preset 'fig3'"):
        matching_presets("fig3")


def test_overrides_are_parsed_and_checked():
    written = ["backbone=a,b", "seed=2", "fraction=0.5,1", "epochs=3", "temperature=0.25", "views=clean"]
    assert parse_overrides(written) == {
        "backbone": ["a", "b"],
        "seed": 2,
        "fraction": [0.5, 1],
        "epochs": 3,
        "temperature": 0.25,
        "views": "clean",
    }
    assert parse_overrides(["epochs=0.1:100,0.5:50", "seed=0,7"]) == {"epochs": {"0.1": 100, "0.5": 50}, "seed": [0, 7]}
    for wrong, message in {
        "backbone": "not of the form KEY=VALUE",
        "backbone=": "not of the form KEY=VALUE",
        "epochs=many": "'many' is no number",
        "views=clean,augmented": "takes one value",
    }.items():
        with pytest.raises(DataError, match=message):
            parse_overrides([wrong])
    with pytest.raises(DataError, match="given twice"):
        parse_overrides(["seed=1", "seed=2"])
    with pytest.raises(UnknownNameError, match=r"unknown key of --set 'backbon'\. Did you mean 'backbone'"):
        parse_overrides(["backbon=tiny"])


def test_overrides_change_grids_and_a_wrong_one_names_the_preset():
    (grid,) = get_preset("fig5a").grids({"backbone": "tiny", "fraction": 1.0, "epochs": 3})
    assert (grid.backbone, grid.epochs, grid.temperature) == (("tiny",), ((1.0, 3),), (0.25,))
    with pytest.raises(DataError, match=r"paper:fig5a: .*no number for fraction 0\.2.*--set epochs=50"):
        get_preset("fig5a").grids({"fraction": 0.2})
    with pytest.raises(UnknownNameError, match=r"paper:fig5a: .*no-such"):
        get_preset("fig5a").grids({"backbone": "no-such"})


def test_class_tokens_are_left_out_where_no_encoder_has_them():
    assert len(get_preset("fig15").grids({"backbone": "tiny"})) == 2
    (grid,) = get_preset("fig15").grids({"backbone": "efficientnet-lite0"})
    assert grid.head == ("attention", "mean")


GRID = {"cohort": "inspect-ph-12m", "backbone": "tiny", "text_encoder": "tiny-text", "fraction": [0.5, 1.0]}


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A store with one cohort whose grid is trained, and the others without tokens."""
    from featurestore.store import open_store

    folder = tmp_path_factory.mktemp("presets")
    store = open_store(folder / "store", create=True)
    build_practice(store, folder / "raw", image_px=32)
    for encoder, modality in (("tiny", "image"), ("tiny-text", "text")):
        extract_features(store, encoder, items=cohort_items(store, "inspect-ph-12m", modality))
    grid = Grid(**GRID, method=["image", "distill"], seed=3, epochs=1)
    train_grid(store, grid)
    return store, grid


def test_the_store_has_the_runs_that_a_grid_lists(trained):
    store, grid = trained
    results = open_catalog(store).query("SELECT * FROM results")
    found = find_runs(results, [grid])
    assert (found.expected, found.rows.height, found.missing) == (12, 12, ())
    assert count_runs([grid]) == results.height == 18  # with the teachers
    wider = Grid(**GRID, method=["image", "text"], seed=4, epochs=1)
    found = find_runs(results, [wider])
    assert (found.expected, found.rows.height) == (16, 6)
    assert found.missing == (
        "inspect-ph-12m: image of tiny, 2 runs",
        "inspect-ph-12m: text of tiny-text, 8 runs",
    )
    for other in ({"epochs": 2}, {"epochs": 1, "lr": 0.5}, {"epochs": 1, "views": "augmented"}):
        assert find_runs(results, [Grid(**GRID, method="image", seed=3, **other)]).rows.is_empty()


def test_means_over_the_grids_seeds_are_those_of_the_view_summary(trained):
    store, grid = trained
    catalog = open_catalog(store)
    results = find_runs(catalog.query("SELECT * FROM results"), [grid]).rows
    ours = summarise(results).sort("method", "fraction")
    view = catalog.query("SELECT * FROM summary WHERE method <> 'teacher' ORDER BY method, fraction")
    for name in ("auroc_mean", "auroc_sd", "auprc_mean", "auprc_sd", "n_seeds", "n_train", "n_test", "epochs"):
        assert ours[name].to_list() == pytest.approx(view[name].to_list()), name
    assert ours["fixed_split"].to_list() == view["fixed_split"].to_list() == [None] * 4
    few = summarise(results.filter(pl.col("seed") < 2))
    assert few["n_seeds"].to_list() == [2] * 4


def test_what_is_missing_is_said_at_once_and_what_could_run(trained):
    store, _ = trained
    small = {"backbone": ["tiny", "mrm"], "text_encoder": "tiny-text", "views": "clean"}
    needs = find_needs(store, [*get_preset("fig10").grids(small), *get_preset("fig6a").grids(small)])
    text = "\n".join(needs.lines())
    assert not needs.cohorts
    assert "mrm: fetch MRM.pth in a browser" in text
    assert "radfs extract --backbone mrm --cohort inspect-ph-12m" in text
    assert "radfs extract --backbone tiny,mrm,tiny-text --cohort mimic-discharge-3d" in text
    ready = needs.runnable(get_preset("fig10").grids(small))
    assert ready == "--set cohort=inspect-ph-12m --set backbone=tiny --set text_encoder=tiny-text"
    augmented = find_needs(store, get_preset("fig10").grids(small | {"views": "augmented"}))
    assert "--views 4" in "\n".join(augmented.lines())
    assert not find_needs(store, get_preset("fig10").grids(small | {"backbone": "tiny"}))


def test_a_figure_of_half_a_grid_says_what_is_missing(trained):
    store, _ = trained
    drawing = draw_preset(
        open_catalog(store),
        get_preset("fig10"),
        overrides={**GRID, "seed": 3, "epochs": 1, "views": "clean"},
        metric="auprc",
        level=0.9,
    )
    assert drawing.notes == (
        "missing: 6 of 24 runs",
        "  inspect-ph-12m: self-distill of tiny, 6 runs",
        "Train the rest: radfs train --grid paper:fig10 --set cohort=inspect-ph-12m --set backbone=tiny "
        "--set text_encoder=tiny-text --set fraction=0.5,1.0 --set seed=3 --set epochs=1 --set views=clean",
    )
    caption = " ".join(drawing.chart.to_dict()["vconcat"][0]["title"]["text"])
    assert "Drawn from 18 of 24 runs." in caption
    assert "Mean test AUPRC over 3 seeds. Error bars: 90% confidence interval" in caption
    with pytest.raises(DataError, match="is a table: radfs table paper:table2"):
        draw_preset(open_catalog(store), get_preset("table2"))


@pytest.mark.parametrize("form", ["curves", "bars", "slopes", "heatmap"])
def test_whatever_the_store_holds_is_drawn(trained, form):
    store, grid = trained
    catalog = open_catalog(store)
    drawing = draw_results(catalog, form, where="fraction = 1")
    assert drawing.chart.to_dict()["vconcat"][0]["concat"]
    assert draw_results(catalog, form, grid=grid).notes == ()
    with pytest.raises(DataError, match="no run of this grid"):
        draw_results(catalog, form, grid=Grid(**GRID, method="image", seed=1, epochs=9))
    with pytest.raises(DataError, match="there is no run for which"):
        draw_results(catalog, form, where="fraction = 2")
    with pytest.raises(UnknownNameError, match="form of chart 'pie'"):
        draw_results(catalog, "pie")


def test_the_sizes_really_used_stand_beside_the_papers(trained):
    store, _ = trained
    overrides = {"backbone": "tiny", "fraction": [0.5], "epochs": 1, "seed": 3, "views": "clean"}
    table = preset_table(store, open_catalog(store), get_preset("table7"), overrides)
    assert table.headings[2:5] == ("#samples, paper", "#samples, cohort", "#samples, runs")
    (line,) = table.lines
    assert line[:3] == ("inspect-ph-12m", "50%", "2,044")
    assert line[3] == line[4] != ""
    assert line[5:] == ("50", "1")
    assert table.notes == ()
