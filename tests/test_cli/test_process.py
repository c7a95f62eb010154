"""What only a process of its own can show: what is loaded, exit codes, and kills."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from featurestore.store import open_store
from heads import open_catalog

from .study import BUILD, write_study

HEAVY = ("torch", "transformers", "timm", "sklearn", "altair", "vl_convert")


def radfs(*arguments: str, cwd: Path, **kwargs) -> subprocess.CompletedProcess:
    command = [sys.executable, "-m", "cli.main", *arguments]
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[2]), "COLUMNS": "200"}
    return subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, check=False, **kwargs)


@pytest.fixture
def study(tmp_path):
    write_study(tmp_path)
    assert radfs(*BUILD, cwd=tmp_path).returncode == 0
    return tmp_path


@pytest.mark.parametrize(
    "arguments",
    [
        ("--help",),
        ("--version",),
        ("cohort", "list"),
        ("cohort", "show", "mine"),
        ("query", "SELECT 1"),
        ("info",),
        ("backbones",),
        ("verify", "--deep"),
        ("gc",),
        ("reindex",),
        ("rm", "--texts", "mine", "--yes"),
    ],
)
def test_light_commands_load_nothing_heavy(study, arguments):
    code = (
        "import sys, atexit\n"
        f"atexit.register(lambda: print('loaded:', [m for m in {HEAVY!r} if m in sys.modules], file=sys.stderr))\n"
        "from cli.main import main\n"
        f"sys.argv = ['radfs', *{list(arguments)!r}]\n"
        "main()"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=study, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "loaded: []" in done.stderr


def test_help_needs_no_data_libraries_either(tmp_path):
    code = "import sys, cli.main; print([m for m in ('duckdb', 'polars', 'numpy', 'torch') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_a_mistake_is_one_line_and_exit_code_1(tmp_path):
    done = radfs("info", cwd=tmp_path)
    assert done.returncode == 1
    assert done.stdout == ""
    assert done.stderr.startswith("error: no radfs store at ")
    assert len(done.stderr.splitlines()) == 1
    assert "Traceback" in radfs("--debug", "info", cwd=tmp_path).stderr


def test_a_path_that_cannot_be_is_one_line_too(tmp_path):
    (tmp_path / "file").write_text("")
    done = radfs("cohort", "build", "phantom", "p", "--subjects", "12", "--store", "file/below", cwd=tmp_path)
    assert done.returncode == 1
    assert done.stderr.startswith("error: ")
    assert "Traceback" not in done.stderr


SLOW_TRAINING = """
import sys, time
from featurestore.store import open_store
from heads import read_grid, train
train.PART_RUNS = 1
pause_s = float(sys.argv[1])
train.train_grid(open_store("radfs-store"), read_grid("grid.toml"), on_progress=lambda _: time.sleep(pause_s))
"""


def results(folder: Path) -> list[tuple]:
    catalog = open_catalog(open_store(folder / "radfs-store"))
    catalog.fold()
    sql = """
        SELECT r.run, r.auroc, r.best_epoch, e.train_loss, p.sample, p.p_last
        FROM results r JOIN epochs e ON e.run = r.run JOIN predictions p ON p.run = r.run
        ORDER BY r.run, e.epoch, p.sample"""
    return catalog.query(sql).rows()


def test_a_killed_grid_resumes_and_equals_an_uninterrupted_one(study):
    for encoder in ("tiny", "tiny-text"):
        assert radfs("extract", "--backbone", encoder, cwd=study).returncode == 0
    parts = study / "radfs-store" / "results"
    for delay_s in (0.0, 0.2, 0.4):
        before = len(list(parts.glob("*/runs.parquet")))
        process = subprocess.Popen([sys.executable, "-c", SLOW_TRAINING, "0.15"], cwd=study)
        _wait_for(lambda before=before: len(list(parts.glob("*/runs.parquet"))) > before)
        time.sleep(delay_s)
        os.kill(process.pid, signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL
    killed_at = len(list(parts.glob("*/runs.parquet")))
    assert 0 < killed_at < 8
    done = radfs("train", "--grid", "grid.toml", cwd=study)
    assert f"8 runs: {killed_at} done before, {8 - killed_at} trained" in done.stdout, done.stderr
    resumed = results(study)
    for part in parts.iterdir():
        part.rename(study / part.name)
    assert radfs("train", "--grid", "grid.toml", cwd=study).returncode == 0
    assert results(study) == resumed
    assert len({row[0] for row in resumed}) == 8


def test_query_and_info_answer_while_a_grid_is_running(study):
    for encoder in ("tiny", "tiny-text"):
        assert radfs("extract", "--backbone", encoder, cwd=study).returncode == 0
    process = subprocess.Popen([sys.executable, "-c", SLOW_TRAINING, "5"], cwd=study)
    try:
        _wait_for(lambda: any((study / "radfs-store" / "results").glob("*/runs.parquet")))
        answer = radfs("query", "SELECT count(*) AS n FROM runs", "--csv", cwd=study)
        assert process.poll() is None
        assert answer.returncode == 0, answer.stderr
        assert int(answer.stdout.split()[1]) >= 1
        shown = radfs("info", cwd=study)
        assert process.poll() is None
        assert shown.returncode == 0, shown.stderr
        assert "mine" in shown.stdout
    finally:
        process.kill()
        process.wait()


def _wait_for(condition, timeout_s: float = 120.0) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)
