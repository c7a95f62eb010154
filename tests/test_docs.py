"""Documentation that can be checked is checked: examples run, the file map is whole, generated pages are new."""

import importlib.util
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from featurestore.encoders import get_spec, is_available

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()
PACKAGES = ("featurestore", "heads", "cohorts", "cli", "benchmarks")


def fenced(language: str, text: str = README) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", text, flags=re.DOTALL)


def write_records(folder: Path) -> None:
    """The table that README and docs/own-data.md speak of, of 20 patients."""
    (folder / "images").mkdir()
    lines = ["file,report,finding,age,sex,patient_id"]
    for i in range(40):
        positive = (i // 2) % 2
        pixels = np.random.default_rng(i).integers(0, 90, (64, 64)) + 150 * positive
        Image.fromarray(pixels.astype(np.uint8)).save(folder / "images" / f"{i:04d}.png")
        report, finding = ("Small left effusion.", "yes") if positive else ("Clear lungs.", "no")
        lines.append(f'images/{i:04d}.png,"{report}",{finding},{40 + i},{"FM"[positive]},p{i // 2:02d}')
    (folder / "records.csv").write_text("\n".join(lines) + "\n")
    (folder / "grid.toml").write_text(fenced("toml")[0].replace("epochs = 20", "epochs = 2"))


def environment() -> dict[str, str]:
    return os.environ | {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}", "PYTHONPATH": str(ROOT)}


needs_weights = pytest.mark.skipif(
    not all(is_available(get_spec(name)) for name in ("efficientnet-lite0", "minilm")), reason="needs radfs[demo]"
)


@needs_weights
@pytest.mark.weights
def test_the_walk_through_runs_as_written(tmp_path):
    write_records(tmp_path)
    script = "set -euo pipefail\n" + "\n".join(fenced("bash"))
    done = subprocess.run(["bash", "-c", script], cwd=tmp_path, env=environment(), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "40 runs: 0 done before, 40 trained, 0 failed" in done.stdout
    assert "predictions -> predictions.csv" in done.stdout
    assert "auroc_ci_high" in done.stdout


@needs_weights
@pytest.mark.weights
def test_the_python_example_runs_as_written(tmp_path):
    write_records(tmp_path)
    (example,) = fenced("python")
    assert len([line for line in example.splitlines() if line and "import" not in line]) <= 10
    code = example.replace("seed=5", "seed=5, epochs=2")
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, env=environment(), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "learning_curves.png").stat().st_size > 10_000


def test_the_page_on_own_data_runs_as_written(tmp_path):
    write_records(tmp_path)
    script = "set -euo pipefail\n" + "\n".join(fenced("bash", (ROOT / "docs" / "own-data.md").read_text()))
    done = subprocess.run(["bash", "-c", script], cwd=tmp_path, env=environment(), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "40 samples of 20 subjects" in done.stdout
    assert "3 classes" in done.stdout


@needs_weights
@pytest.mark.weights
def test_the_tutorial_runs_as_written(tmp_path):
    script = "set -euo pipefail\n" + "\n".join(fenced("bash", (ROOT / "docs" / "tutorial.md").read_text()))
    script = script.replace("epochs=10", "epochs=2").replace("--size 150 --image-px 128", "--size 150 --image-px 64")
    done = subprocess.run(["bash", "-c", script], cwd=tmp_path, env=environment(), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("40 runs: 0 done before, 40 trained, 0 failed") == 2
    assert "paper:fig5a -> fig5a.html" in done.stdout
    assert (tmp_path / "fig5c.svg").stat().st_size > 10_000
    assert (tmp_path / "fig13.svg").is_file()


def test_the_site_builds_strictly_and_has_every_page_in_its_navigation(tmp_path):
    import tomllib

    config = tomllib.loads((ROOT / "zensical.toml").read_text())["project"]
    listed = set(re.findall(r"[\w./-]+\.md", str(config["nav"])))
    pages = {p.relative_to(ROOT / "docs").as_posix() for p in (ROOT / "docs").rglob("*.md")}
    assert pages - listed == {"encoders.head.md"}, "the head of encoders.md is no page of its own"
    shutil.copytree(ROOT / "docs", tmp_path / "docs")
    shutil.copy(ROOT / "zensical.toml", tmp_path)
    command = [Path(sys.executable).parent / "zensical", "build", "--strict"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert (tmp_path / "site" / "statistics.html").stat().st_size > 10_000


def test_the_file_map_names_every_file_and_says_what_it_is(generate):
    assert generate.with_file_map(README) == README, "run `make docs`"
    rows = re.findall(r"^\| `([\w/]+\.py)` \| (.*) \|$", README, flags=re.MULTILINE)
    files = {p.relative_to(ROOT).as_posix() for name in PACKAGES for p in (ROOT / name).rglob("*.py")}
    assert {file for file, _ in rows} == {f for f in files if (ROOT / f).read_text().strip()}
    assert [file for file, purpose in rows if len(purpose) < 10] == []


def test_links_lead_somewhere():
    for page in (ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md", *(ROOT / "docs").rglob("*.md")):
        for target in re.findall(r"\]\(([^)#:]+)\)", page.read_text()):
            assert (page.parent / target).exists(), f"{page.name} links to {target}"


@pytest.fixture(scope="module")
def generate():
    spec = importlib.util.spec_from_file_location("generate", ROOT / "docs" / "generate.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_schema_page_is_what_the_code_says(generate):
    assert (ROOT / "docs" / "schema.md").read_text() == generate.schema_page(), "run `make docs`"


def test_the_page_and_the_table_of_encoders_are_what_the_specs_say(generate):
    assert (ROOT / "docs" / "encoders.md").read_text() == generate.encoders_page(), "run `make docs`"
    assert generate.with_encoders(README) == README, "run `make docs`"


def test_the_page_of_commands_is_what_the_code_says(generate):
    assert (ROOT / "docs" / "cli.md").read_text() == generate.cli_page(), "run `make docs`"


def test_every_command_has_an_example_in_its_help(generate):
    page = generate.cli_page()
    for section in page.split("\n## ")[1:]:
        if "Commands" not in section and "COMMAND" not in section:
            assert "Example:" in section, section.splitlines()[0]


def test_the_grid_page_is_a_valid_grid():
    from heads import parse_grid

    (text,) = re.findall(r"```toml\n(.*?)```", (ROOT / "docs" / "grid.md").read_text(), flags=re.DOTALL)
    import tomllib

    assert parse_grid(tomllib.loads(text)).seed == (0, 1, 2, 3, 4)
