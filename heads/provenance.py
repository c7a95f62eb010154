"""With what a run was made: versions of radfs and its libraries, and the commit of radfs. No torch."""

import platform
import subprocess
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path


@cache
def software() -> dict[str, str | None]:
    """Columns `radfs`, `python`, `torch`, `numpy` and `git_commit` of the table `runs`."""
    libraries = {name: _version(name) for name in ("radfs", "torch", "numpy")}
    return {**libraries, "python": platform.python_version(), "git_commit": _git_commit()}


def _version(distribution: str) -> str | None:
    try:
        return version(distribution)
    except PackageNotFoundError:  # a checkout that was never installed
        return None


def _git_commit() -> str | None:
    """The commit of the checkout that this file lies in, with `-dirty` where files differ; None if it is none."""
    root = Path(__file__).resolve().parents[1]
    if not (root / ".git").exists():  # installed: a repository further up is somebody else's
        return None
    command = ["git", "-C", str(root), "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=10, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip() or None
