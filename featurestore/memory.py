"""How much memory there is, so that an array too large for it is refused before the machine swaps."""

import os
import resource
from collections.abc import Callable, Iterator
from pathlib import Path

from .errors import DataError

_KEPT_SHARE = 0.05
"""Of the available memory: left to everything else."""


def available_bytes(proc: Path = Path("/proc"), groups: Path = Path("/sys/fs/cgroup")) -> int | None:
    """Memory that this process can still take: the least of what the system, its control groups (as containers and
    Slurm set them) and `ulimit -v` leave. None if unknown.

    Args:
        proc: where the system says what it has.
        groups: where it says what the control groups may have.
    """
    return min((*_system(proc), *_control_groups(proc, groups), *_address_space(proc)), default=None)


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


def _system(proc: Path) -> Iterator[int]:
    try:
        lines = (proc / "meminfo").read_text().splitlines()
    except OSError:
        return
    yield from (int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:"))


def _control_groups(proc: Path, groups: Path) -> Iterator[int]:
    """What each group that this process is in leaves, of version 2 and 1; a limit is often that of a parent."""
    try:
        lines = (proc / "self" / "cgroup").read_text().splitlines()
    except OSError:
        return
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if not controllers:
            names = ("memory.max", "memory.current", "")
            roots = (groups, groups / "unified")
        elif "memory" in controllers.split(","):
            names = ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_")
            roots = (groups / "memory",)
        else:
            continue
        inside = Path(path.lstrip("/"))
        for root in roots:
            for folder in (inside, *inside.parents):
                yield from _left(root / folder, *names)


def _left(folder: Path, limit: str, used: str, prefix: str) -> Iterator[int]:
    """What one control group leaves. Cached files count as free: the system drops them when memory is wanted."""
    try:
        most, taken = int((folder / limit).read_text()), int((folder / used).read_text())
        counts = dict(line.split() for line in (folder / "memory.stat").read_text().splitlines())
        cached = int(counts[f"{prefix}inactive_file"]) + int(counts[f"{prefix}active_file"])
    except (OSError, ValueError, KeyError):  # no such group seen from here, or no limit ("max")
        return
    yield max(0, most - taken + cached)


def _address_space(proc: Path) -> Iterator[int]:
    most = resource.getrlimit(resource.RLIMIT_AS)[0]
    if most != resource.RLIM_INFINITY:
        try:
            pages = int((proc / "self" / "statm").read_text().split()[0])
        except OSError:
            return
        yield max(0, most - pages * os.sysconf("SC_PAGE_SIZE"))
