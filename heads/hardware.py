"""What "auto" means on this machine: the device, and the precision of its matrix products. Planning asks, so no torch.

A run's precision changes its numbers and is in its id, so it is settled before the id is made.
"""

import platform
import shutil
import subprocess
from functools import cache
from pathlib import Path

from featurestore.errors import DataError

PRECISIONS = ("auto", "fp32", "bf16")
_CPU_FLAGS = {"amx_bf16", "avx512_bf16"}
_AMPERE = 8.0
"""Compute capability from which a GPU multiplies bf16 at full speed."""


def resolve_device(name: str) -> str:
    """The device that a name means here: cpu or cuda.

    Raises:
        DataError: another name, or no GPU where one is asked for.
    """
    if name not in ("auto", "cpu", "cuda"):
        raise DataError(f"device {name!r} is unknown: use auto, cpu or cuda.")
    if name == "cuda" and _compute_capability() is None:
        raise DataError("device 'cuda' asks for an NVIDIA GPU and nvidia-smi finds none here: use auto or cpu.")
    if name == "auto":
        return "cpu" if _compute_capability() is None else "cuda"
    return name


def resolve_precision(name: str, device: str) -> str:
    """fp32 or bf16: "auto" takes bf16 where `device` (cpu or cuda) has instructions for its matrix products."""
    if name != "auto":
        return name
    if device == "cuda":
        return "bf16" if (_compute_capability() or 0.0) >= _AMPERE else "fp32"
    return "bf16" if _cpu_has_bf16() else "fp32"


@cache
def processor_name(cpuinfo: Path = Path("/proc/cpuinfo")) -> str | None:
    """The model of the processor; None where the system does not tell."""
    if platform.system() == "Darwin":
        return _answer(["sysctl", "-n", "machdep.cpu.brand_string"])
    try:
        lines = cpuinfo.read_text().splitlines()
    except OSError:
        return platform.processor() or None
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), None)


@cache
def _compute_capability() -> float | None:
    """Of the weakest NVIDIA GPU here; None where there is none."""
    command = shutil.which("nvidia-smi")
    if command is None:
        return None
    question = [command, "--query-gpu=compute_cap", "--format=csv,noheader"]
    try:
        done = subprocess.run(question, capture_output=True, text=True, timeout=30, check=True)
        return min(float(line) for line in done.stdout.split())
    except (OSError, ValueError, subprocess.SubprocessError):
        return None


@cache
def _cpu_has_bf16(cpuinfo: Path = Path("/proc/cpuinfo")) -> bool:
    if platform.system() == "Darwin":
        return _answer(["sysctl", "-n", "hw.optional.arm.FEAT_BF16"]) == "1"
    try:
        lines = cpuinfo.read_text().splitlines()
    except OSError:
        return False
    flags = next((set(line.split()) for line in lines if line.startswith("flags")), set())
    return bool(flags & _CPU_FLAGS)


def _answer(question: list[str]) -> str | None:
    try:
        done = subprocess.run(question, capture_output=True, text=True, timeout=10, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()
