"""With what a run was made: versions of radfs and its libraries, the commit of radfs, the machine. No torch.

Neither the machine's name nor its user's: results travel.
"""

import platform
import subprocess
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from .hardware import processor_name

SOFTWARE = ("radfs", "git_commit", "python", "torch", "numpy", "sklearn")
MACHINE = ("hardware", "threads")
"""Columns of the table `runs`."""


@cache
def software() -> dict[str, str | None]:
    """The columns SOFTWARE of the table `runs`, as of this process."""
    libraries = {name: _version(name) for name in ("radfs", "torch", "numpy")}
    return {
        **libraries,
        "sklearn": _version("scikit-learn"),
        "python": platform.python_version(),
        "git_commit": _git_commit(),
    }


def machine(device: str) -> dict[str, Any]:
    """The columns MACHINE of the table `runs`, of a process that trains."""
    import torch  # loaded by whoever trains; the versions above need none

    hardware = torch.cuda.get_device_name(device) if device.startswith("cuda") else processor_name()
    return {"hardware": hardware, "threads": torch.get_num_threads()}


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
