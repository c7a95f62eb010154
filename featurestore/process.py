"""Who is writing: an identity that tells whether the process behind a claim or a leftover file still lives."""

import os
import socket
from functools import cache
from pathlib import Path


@cache
def _place() -> str:
    """The machine, its boot and its PID namespace: within one place a PID means the same process to everybody."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip().replace("-", "")[:12]
        namespace = str(Path("/proc/self/ns/pid").readlink()).strip("pid:[]")
    except OSError:  # no Linux: then only the host tells
        boot, namespace = "0", "0"
    host = "".join(c if c.isalnum() else "-" for c in socket.gethostname())[:40]
    return f"{host}_{boot}_{namespace}"


def _started(pid: int) -> str | None:
    """When a process started, in ticks since boot: it tells a PID from the same PID used again. None if it is gone."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return None if fields[0] in "ZX" else fields[19]  # a zombie does nothing any more


def identity() -> str:
    """This process: `<host>_<boot>_<pid namespace>_<pid>_<start>`, of letters, digits, '-' and '_'."""
    return f"{_place()}_{os.getpid()}_{_started(os.getpid()) or 0}"


def is_alive(who: str) -> bool | None:
    """Whether the process of this `identity` lives: None where it cannot be told, as on another machine."""
    place, _, rest = who.strip().rpartition("_")
    place, _, pid = place.rpartition("_")
    if not pid.isdigit() or place != _place():
        # Another boot of the same machine ended every process of the one before.
        return False if _same_machine_other_boot(place) else None
    if not Path("/proc/self/stat").exists():
        return None
    return _started(int(pid)) == rest


def _same_machine_other_boot(place: str) -> bool:
    theirs, ours = place.split("_"), _place().split("_")
    return len(theirs) == 3 and theirs[0] == ours[0] and theirs[1] != ours[1] and "0" not in (theirs[1], ours[1])
