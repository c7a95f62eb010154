"""How much memory there is, so that an array too large for it is refused before the machine swaps."""

from collections.abc import Callable
from pathlib import Path

from .errors import DataError

_KEPT_SHARE = 0.05
"""Of the available memory: left to everything else."""


def available_bytes() -> int | None:
    """Memory that this process can still take: the least of the system's and its control group's. None if unknown."""
    found = [value for look in (_system, _control_group) if (value := look()) is not None]
    return min(found, default=None)


def require(nbytes: int, what: str, instead: str, *, available: Callable[[], int | None] = available_bytes) -> None:
    """Refuse an allocation that would make the machine swap.

    Args:
        nbytes: what is to be allocated.
        what: names it.
        instead: what to do about it.
        available: for tests.

    Raises:
        DataError: there is less memory than that.
    """
    free = available()
    if free is not None and nbytes > free * (1 - _KEPT_SHARE):
        raise DataError(f"{what} takes {nbytes / 1e9:.1f} GB and {free / 1e9:.1f} GB of memory are free. {instead}")


def _system() -> int | None:
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
    except OSError:
        return None
    fields = {line.split(":")[0]: int(line.split()[1]) * 1024 for line in lines if line.endswith("kB")}
    return fields.get("MemAvailable")


def _control_group() -> int | None:
    """What is left of the limit of this process's control group (version 2), as containers and Slurm set it."""
    try:
        group = Path("/proc/self/cgroup").read_text().strip().rpartition("::")[2]
        folder = Path("/sys/fs/cgroup") / group.lstrip("/")
        limit = (folder / "memory.max").read_text().strip()
        used = int((folder / "memory.current").read_text())
        cached = int(dict(line.split() for line in (folder / "memory.stat").read_text().splitlines())["inactive_file"])
    except (OSError, ValueError, KeyError):
        return None
    return None if limit == "max" else max(0, int(limit) - used + cached)
