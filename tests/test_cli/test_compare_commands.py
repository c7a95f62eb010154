"""`radfs compare`, `radfs metrics` and the prompt of `radfs query`, as a person types them."""

import json

import pytest

from cli.paper_table import latex_table, markdown_table, shared_and_lines
from cli.prompt import prompt, questions
from featurestore.errors import DataError, UnknownNameError
from featurestore.store import open_store
from heads.catalog import open_catalog


@pytest.fixture
def trained(study):
    study("train", "--grid", "grid.toml")
    return study


def test_a_comparison_is_printed_with_what_it_speaks_about(trained):
    text = trained("compare", "--method", "text", "--against", "image").output
    assert text.startswith("difference of auroc, method less baseline_method\n")
    assert "All lines: cohort mine; method text; baseline_method image;" in text
    assert "for this data set under other seeds" in text
    assert "WARNING: 2 seeds" in text
    assert trained("compare", "text-image").output == text


def test_programs_get_every_column(trained):
    rows = json.loads(trained("compare", "text-image", "--format", "json").output)
    assert [row["fraction"] for row in rows] == [0.5, 1.0]
    assert {"seeds_low", "patients_p_holm", "basis", "lr", "baseline_backbone"} <= set(rows[0])
    header = trained("compare", "text-image", "--format", "csv").output.splitlines()[0]
    assert header.split(",")[:4] == ["cohort", "fraction", "method", "baseline_method"]


def test_tables_for_a_paper(trained):
    assert "| --- |" in trained("compare", "text-image", "--format", "markdown").output
    text = trained("compare", "text-image", "--format", "latex").output
    assert r"\begin{tabular}" in text
    assert r"n\_seeds" in text
    assert all(line.startswith(("%", "\\")) or "&" in line for line in text.splitlines())


def test_metrics_have_a_line_a_setting_and_metric(trained):
    command = ("metrics", "--metric", "auroc,brier,auroc_class", "--where", "fraction = 1", "--format", "json")
    rows = json.loads(trained(*command).output)
    assert {(row["method"], row["metric"]) for row in rows} == {
        (method, metric)
        for method in ("image", "text")
        for metric in ("auroc", "brier", "auroc_class:0", "auroc_class:1")
    }
    assert "Lower is better: brier." in trained("metrics", "--metric", "auroc,brier").output


def test_what_is_asked_wrongly_is_said(trained):
    with pytest.raises(UnknownNameError, match=r"unknown comparison 'text-imag'\. Did you mean 'text-image'"):
        trained("compare", "text-imag")
    with pytest.raises(DataError, match="leave --by"):
        trained("compare", "text-image", "--against", "image")
    with pytest.raises(UnknownNameError, match="unknown format 'pdf'"):
        trained("compare", "text-image", "--format", "pdf")
    with pytest.raises(UnknownNameError, match="unknown epoch 'first'"):
        trained("metrics", "--epoch", "first")
    with pytest.raises(DataError, match="knows no sex"):
        trained("metrics", "--by", "sex")


def test_intervals_are_one_cell_and_what_is_shared_is_said_once():
    import polars as pl

    frame = pl.DataFrame(
        {
            "cohort": ["a", "a"],
            "backbone": ["x", "y"],
            "baseline_backbone": ["x", "y"],
            "value": [0.5, 0.75],
            "seeds_low": [0.4, None],
            "seeds_high": [0.6, None],
            "seeds_p": [0.0002, 0.5],
            "n_undefined": [0, 0],
            "fixed_split": [None, None],
        }
    )
    shared, headings, lines = shared_and_lines(frame)
    assert shared == {"cohort": "a"}
    assert headings == ["backbone", "value", "seeds", "seeds_p"]
    assert lines == [["x", "0.500", "0.400 to 0.600", "<0.001"], ["y", "0.750", "", "0.500"]]
    assert markdown_table(["a|b"], [["1"]]) == "| a\\|b |\n| --- |\n| 1 |"
    assert r"a\_b \\" in latex_table(["a_b"], [["<1 & 5%"]])
    assert r"$<$1 \& 5\% \\" in latex_table(["a_b"], [["<1 & 5%"]])


def test_a_hash_is_shown_only_where_nothing_else_tells_lines_apart():
    import polars as pl

    frame = pl.DataFrame({"fraction": [0.1, 1.0], "teacher_setting": ["a1", "b2"], "value": [0.5, 0.6]})
    assert shared_and_lines(frame)[1] == ["fraction", "value"]
    same = frame.with_columns(fraction=pl.lit(0.1))
    assert shared_and_lines(same)[1] == ["teacher_setting", "value"]


# The prompt


def typed(*lines):
    given = iter(lines)

    def read(prompt):
        line = next(given, None)
        if line is None:
            raise EOFError
        if line is KeyboardInterrupt:
            raise KeyboardInterrupt
        return line

    return read


def test_a_question_ends_with_a_semicolon_or_an_empty_line():
    read = typed("SELECT 1", "FROM t;", "SELECT 2", "", "", ".tables", "SELECT 3")
    assert list(questions(read)) == ["SELECT 1\nFROM t;", "SELECT 2", ".tables", "SELECT 3"]


def test_an_interrupt_begins_anew_and_quit_ends():
    assert list(questions(typed("SELECT 1", KeyboardInterrupt, "SELECT 2;", ".quit", "SELECT 3;"))) == ["SELECT 2;"]


def test_the_prompt_answers_and_survives_errors(trained, tmp_path, monkeypatch, capsys):
    catalog = open_catalog(open_store(tmp_path / "radfs-store"))
    lines = ("SELECT count(*) AS n", "FROM runs;", "SELECT nothing;", "DROP TABLE runs;", ".tables", ".columns paired")
    monkeypatch.setattr("builtins.input", typed(*lines, ".columns nowhere", ".help", ".sing", "FROM cohorts"))
    prompt(catalog)
    captured = capsys.readouterr()
    assert "8\n(1 row)" in captured.out
    assert "One row a finished run" in captured.out
    assert "auroc_difference" in captured.out
    assert "mine" in captured.out
    assert captured.err.count("error:") == 4
    assert "SQL refused" in captured.err


def test_without_a_terminal_the_question_comes_from_the_pipe(trained):
    from typer.testing import CliRunner

    from cli.main import app

    result = CliRunner().invoke(app, ["query", "--csv"], input="SELECT count(*) AS n FROM runs")
    assert result.output == "n\n8\n"
