"""`radfs grid`, `train --grid paper:...`, `figure` and `table`, as a person types them."""

import json

import pytest

from featurestore.errors import DataError, UnknownNameError

SMALL = (
    *("--set", "cohort=mine", "--set", "backbone=tiny", "--set", "text_encoder=tiny-text"),
    *("--set", "fraction=0.5,1.0", "--set", "epochs=2", "--set", "seed=2", "--set", "views=clean"),
)


def test_presets_are_listed_and_shown(run):
    rows = {row["name"]: row for row in json.loads(run("grid", "list", "--json").output)}
    assert rows["paper:fig5c"]["runs"] == 120
    assert rows["paper:fig7e"]["same_as"] == "fig4e"
    text = run("grid", "show", "paper:fig5c").output
    assert 'cohort = "mimic-5x1200"' in text
    assert "# inferred: the text says no fraction" in text
    changed = run("grid", "show", "paper:fig5c", "--set", "fraction=0.5", "--set", "epochs=3").output
    assert "# Not the paper's: fraction, epochs." in changed
    assert "fraction = 0.5" in changed
    with pytest.raises(UnknownNameError, match="unknown preset 'fig5x'"):
        run("grid", "show", "paper:fig5x")


def test_what_grid_show_prints_is_a_grid_file(study, tmp_path):
    (tmp_path / "mine.toml").write_text(study("grid", "show", "paper:fig5c", *SMALL).output)
    assert "0 done, 16 to do" in study("train", "--grid", "mine.toml", "--dry-run").output
    changed = study("train", "--grid", "mine.toml", "--dry-run", "--set", "method=image", "--set", "seed=3").output
    assert "6 runs: 0 done, 6 to do" in changed


def test_a_preset_is_trained_drawn_and_tabulated_on_other_data(study, tmp_path):
    assert "16 trained, 0 failed" in study("train", "--grid", "paper:fig5c", *SMALL).output
    both = study("train", "--grid", "paper:fig5c", "--grid", "paper:table2", *SMALL).output
    assert both.count("16 done before, 0 trained") == 1
    assert "paper:table2, mine:" in both
    for form in ("svg", "png", "pdf", "html"):
        assert study("figure", "paper:fig5c", *SMALL, "--format", form).output == f"paper:fig5c -> fig5c.{form}\n"
        assert (tmp_path / f"fig5c.{form}").stat().st_size > 5_000
    study("figure", "paper:fig8c", *SMALL, "--out", "folder/auprc.svg", "--dark")
    assert (tmp_path / "folder" / "auprc.svg").is_file()
    markdown = study("table", "paper:table2", *SMALL, "--format", "markdown").output
    assert "| Text AUC (sd) |" in markdown
    assert "mean and standard deviation over 2 seeds" in markdown
    assert r"\begin{tabular}" in study("table", "paper:table2", *SMALL, "--format", "latex").output
    assert study("table", "paper:table2", *SMALL, "--format", "csv").output.startswith("Dataset,mine\n")
    assert study("figure", "paper:fig5", *SMALL).output.splitlines()[-1] == "paper:fig5d -> fig5d.svg"
    with pytest.raises(DataError, match="paper:fig5 is 4 figures: leave out --out"):
        study("figure", "paper:fig5", *SMALL, "--out", "all.svg")
    partly = study("figure", "paper:fig5c", *SMALL[:-4], "--set", "seed=3", "--set", "views=clean").output
    assert partly.startswith("missing: 8 of 24 runs\n  mine: image of tiny, 2 runs\n")


def test_charts_of_whatever_the_store_holds(study, tmp_path):
    study("train", "--grid", "grid.toml")
    for form in ("curves", "bars"):
        assert study("figure", form, "--grid", "grid.toml").output == f"{form} -> {form}.svg\n"
    assert study("figure", "slopes", "--of", "text", "--where", "fraction = 1").output == "slopes -> slopes.svg\n"
    assert study("figure", "heatmap", "--of", "text", "--metric", "auprc").output == "heatmap -> heatmap.svg\n"
    for arguments, message in {
        ("pie",): "unknown form of chart 'pie'",
        ("curves", "--of", "text"): "--of and --against go with slopes and heatmap",
        ("curves", "--set", "seed=1"): "--set changes keys of a grid",
        ("curves", "--format", "gif"): r"give one of the suffixes \.svg",
        ("curves", "--format", "svg", "--out", "a.png"): "--format svg and --out a.png differ",
        ("curves", "--where", "nonsense"): "nonsense",
        ("paper:fig5c", "--where", "seed = 0"): "--where does not go with a figure of the paper",
        ("paper:table2",): "is a table: radfs table paper:table2",
        ("paper:fig5c", *SMALL[:-4], "--set", "seed=7,8"): r"none of its 16 runs\. Train them: .* --set cohort=mine",
    }.items():
        with pytest.raises((DataError, UnknownNameError), match=message):
            study("figure", *arguments)


def test_tables_of_encoders_need_no_store(run):
    assert (
        "| MRM | ViT-B/16 | 224 | yes | yes | yes | no | no |"
        in run("table", "paper:table1", "--format", "markdown").output
    )
    assert run("table", "paper:table8", "--format", "csv").output.splitlines()[1] == "RAD-DINO,yes,yes,yes,yes"
    with pytest.raises(UnknownNameError, match="--format 'word'"):
        run("table", "paper:table1", "--format", "word")
    with pytest.raises(DataError, match="is a figure: radfs figure paper:fig4a"):
        run("table", "paper:fig4a")


def test_a_preset_without_its_data_says_all_that_is_missing(study, run):
    for store in ("radfs-store", "not-there"):
        with pytest.raises(DataError) as error:
            run("train", "--grid", "paper:fig4a", "--store", store, "--dry-run")
        text = str(error.value)
        assert text.startswith(f"paper:fig4a cannot run: something is missing in {store}.\n")
        assert "radfs cohort build mimic-5x1200 --mimic-cxr-jpg DIR --mimic-cxr DIR --preset paper" in text
        assert "https://physionet.org/content/mimic-cxr-jpg/2.1.0" in text
        assert "radfs weights fetch rad-dino" in text
        assert "radfs weights add mrm MRM.pth" in text
        assert "--cohort mimic-5x1200 --views 4" in text
    with pytest.raises(DataError, match=r"could run now: --set cohort=mine --set backbone=tiny\n"):
        run("train", "--grid", "paper:fig4a", "--set", "backbone=tiny,mrm", "--set", "cohort=mine", *SMALL[6:])
