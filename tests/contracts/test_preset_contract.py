"""What every preset must hold: a new TOML file in heads/presets is tested by itself, trained in small and drawn."""

import pytest

from cohorts import COHORT_BUILDERS
from cohorts.practice import build_practice
from featurestore.encoders import get_spec
from featurestore.errors import DataError
from featurestore.extract import extract_features
from featurestore.store import open_store
from heads.catalog import open_catalog
from heads.charts import save_chart
from heads.grid import parse_grid
from heads.methods import METHODS
from heads.presets import get_preset, preset_names
from heads.presets.draw import draw_preset
from heads.presets.needs import find_needs
from heads.presets.show import preset_lines
from heads.presets.tables import preset_table
from heads.selection import count_runs
from heads.train import train_grid

SMALL = {
    "backbone": "tiny",
    "text_encoder": "tiny-text",
    "fraction": [0.5, 1.0],
    "epochs": 1,
    "seed": 2,
    "views": "clean",
}
"""In place of the paper's: what the phantom cohorts can bear."""

PARTS = {"curves": "line", "bars": "bar", "slopes": "line"}
"""The mark of each form."""

FIGURES = [name for name in preset_names() if not get_preset(name).is_table]
TABLES = [name for name in preset_names() if get_preset(name).is_table]
NAMES = pytest.mark.parametrize("name", preset_names())


@pytest.fixture(scope="session")
def practice(tmp_path_factory):
    """A store with the six cohorts from phantom downloads, tokens, and the runs of every preset in small."""
    folder = tmp_path_factory.mktemp("practice")
    store = open_store(folder / "store", create=True)
    build_practice(store, folder / "raw", image_px=32)
    for encoder in ("tiny", "tiny-text"):
        extract_features(store, encoder)
    for grid in dict.fromkeys(grid for name in preset_names() for grid in get_preset(name).grids(SMALL)):
        report = train_grid(store, grid)
        assert not report.failed
    return store


@NAMES
def test_it_is_whole_and_names_what_there_is(name):
    preset = get_preset(name)
    assert preset.title
    assert preset.shows
    assert set(preset.cohorts) <= set(COHORT_BUILDERS)
    assert [get_spec(encoder).name for encoder in preset.encoders] == list(preset.encoders)
    assert all(method in METHODS for grid in preset.grids() for method in grid.method)
    assert count_runs(preset.grids()) >= sum(len(grid.seed) for grid in preset.grids())


@NAMES
def test_what_is_inferred_is_there_and_has_a_reason(name):
    preset = get_preset(name)
    keys = {key for part in preset.parts for key in part} | {"form", "level"}
    assert set(preset.inferred) <= keys
    assert all(len(reason) > 20 for reason in preset.inferred.values())


@NAMES
def test_shown_as_text_it_is_the_same_grids_again(name):
    preset = get_preset(name)
    text = "\n".join(preset_lines(preset))
    documents = text.split("\n# grid ")[1:] or [text]
    if not preset.parts:
        assert "[grid]" not in text
        return
    import tomllib

    read = [tomllib.loads(f"# grid {document}") for document in documents]
    assert tuple(parse_grid(tables) for tables in read) == preset.grids()
    assert all(f"# inferred: {why}" in text or f": {why}" in text for why in preset.inferred.values())


@NAMES
def test_without_data_it_says_all_that_is_missing(name):
    preset = get_preset(name)
    text = "\n".join(find_needs(None, preset.grids()).lines())
    for cohort in preset.cohorts:
        assert f"radfs cohort build {cohort} " in text
    for encoder in preset.encoders if preset.parts else ():
        assert f"  {encoder}: " in text
        assert encoder in text[text.index("radfs extract") :]


@pytest.mark.parametrize("name", FIGURES)
def test_it_runs_in_small_and_is_drawn_in_the_papers_form(name, practice, tmp_path):
    preset = get_preset(name)
    catalog = open_catalog(practice)
    drawing = draw_preset(catalog, preset, overrides=SMALL)
    assert drawing.notes == ()
    whole = drawing.chart.to_dict()
    assert whole["title"]["text"] == f"{preset.title} (changed)"
    caption = " ".join(whole["vconcat"][0]["title"]["text"])
    assert "Not the paper's: backbone tiny" in caption
    panels = whole["vconcat"][0]["concat"]
    assert len(panels) == {"curves": 1, "bars": 2, "slopes": 2}[preset.draw.form] + ("temperature" in str(preset.draw))
    for panel in panels:
        mark = next(one for one in panel["layer"] if one["mark"]["type"] == PARTS[preset.draw.form])
        axes = mark["encoding"]
        assert preset.draw.metric.upper() in axes["y"]["title"]
        if preset.draw.form == "curves":
            assert axes["x"]["scale"]["type"] == "log"
            assert "area" in [one["mark"]["type"] for one in panel["layer"]]
        if preset.draw.form == "bars":
            assert axes["xOffset"]["field"] == "line"
            assert "rule" in [one["mark"]["type"] for one in panel["layer"]]
    if preset.draw.form != "slopes":
        assert f"{100 * preset.draw.level:g}% confidence interval" in caption
        assert "over 2 seeds" in caption
    save_chart(drawing.chart, tmp_path / "figure.svg")


@pytest.mark.parametrize("name", FIGURES)
def test_with_nothing_to_draw_it_says_how_to_train(name, practice):
    with pytest.raises(DataError, match=rf"none of its .* runs\. Train them: radfs train --grid paper:{name}$"):
        draw_preset(open_catalog(practice), get_preset(name))


@pytest.mark.parametrize("name", TABLES)
def test_its_table_has_a_cell_in_every_column(name, practice):
    table = preset_table(practice, open_catalog(practice), get_preset(name), SMALL)
    assert table.lines
    assert all(len(line) == len(table.headings) for line in table.lines)
    if get_preset(name).draw.form == "text-image":
        assert all(all(line) for line in table.lines)
