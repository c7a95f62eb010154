"""What reaches somebody's site-packages: the four packages and nothing else."""

import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

ROOT = Path(__file__).parents[1]
PACKAGES = {"featurestore", "heads", "cohorts", "cli"}


def test_the_wheel_holds_the_four_packages_alone(tmp_path):
    source = tmp_path / "source"
    for name in (*PACKAGES, "tests", "benchmarks"):
        shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source / name)
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation", "--no-index"]
    subprocess.run([*command, "--wheel-dir", str(tmp_path), str(source)], check=True)
    (wheel,) = tmp_path.glob("radfs-*.whl")
    files = zipfile.ZipFile(wheel).namelist()
    assert {name.split("/")[0] for name in files if not name.split("/")[0].endswith(".dist-info")} == PACKAGES
    sources = {p.relative_to(ROOT).as_posix() for name in PACKAGES for p in (ROOT / name).rglob("*.py")}
    presets = {p.relative_to(ROOT).as_posix() for p in (ROOT / "heads" / "presets").glob("*.toml")}
    assert len(presets) == 40
    assert sources | presets <= set(files)
    templates = {p.relative_to(ROOT).as_posix() for p in (ROOT / "heads" / "report" / "templates").iterdir()}
    assert len(templates) == 3
    assert templates <= set(files)
    assert any(name.endswith("licenses/LICENSE") for name in files)
