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
    return f"{host}-{_machine()}_{boot}_{namespace}"


def _machine() -> str:
    """What tells this machine from another one of the same host name, as containers have; 0 if unknown."""
    try:
        return Path("/etc/machine-id").read_text().strip()[:12] or "0"
    except OSError:
        return "0"


def _started(pid: int) -> str | None:
    """When a process started, in ticks since boot: it tells a PID from the same PID used again. None if it is gone.

    Raises:
        OSError: it is there and may not be looked at: /proc is mounted with hidepid, and it is another user's.
    """
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        try:
            os.kill(pid, 0)  # sends nothing
        except ProcessLookupError:
            return None
        raise
    return None if fields[0] in "ZX" else fields[19]  # a zombie does nothing any more


def identity() -> str:
    """This process: `<host>_<boot>_<pid namespace>_<pid>_<start>`, of letters, digits, '-' and '_'."""
    try:
        started = _started(os.getpid())
    except OSError:  # no Linux
        started = None
    return f"{_place()}_{os.getpid()}_{started or 0}"


def is_alive(who: str) -> bool | None:
    """Whether the process of this `identity` lives: None where it cannot be told, as on another machine."""
    place, _, rest = who.strip().rpartition("_")
    place, _, pid = place.rpartition("_")
    if not pid.isdecimal() or place != _place():
        # Another boot of the same machine ended every process of the one before.
        return False if _same_machine_other_boot(place) else None
    if not Path("/proc/self/stat").exists():
        return None
    try:
        return _started(int(pid)) == rest
    except (OSError, OverflowError):
        return None


def _same_machine_other_boot(place: str) -> bool:
    if place.count("_") != 2:
        return False
    (machine, boot, _), (ours, our_boot, _) = place.split("_"), _place().split("_")
    return machine == ours and not ours.endswith("-0") and boot != our_boot and "0" not in (boot, our_boot)
