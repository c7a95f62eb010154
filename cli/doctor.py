"""`radfs doctor`: is this machine and this installation fit for radfs?"""

import os
import shutil
import sys
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, packages_distributions, version
from pathlib import Path

import typer

from .options import DEFAULT_STORE, StoreOption

OWN_PACKAGES = ("featurestore", "heads", "cohorts", "cli")
_LIBRARIES = ("torch", "torchvision", "transformers", "timm", "zarr", "duckdb", "polars", "numpy", "pillow")

Finding = tuple[str, str]
"""(ok, warn or FAIL; what was found and what to do)."""


def doctor(*, store: StoreOption = DEFAULT_STORE) -> None:
    """Check the installation, the machine and the store. Exit code 1 if something must be mended.

    Example: `radfs doctor`
    """
    findings = [*check_python(), *check_names(), *check_libraries(), *check_weights(), *check_torch()]
    findings += check_store(store)
    for state, text in findings:
        typer.echo(f"{state:4}  {text}")
    if any(state == "FAIL" for state, _ in findings):
        raise typer.Exit(1)


def check_python() -> Iterator[Finding]:
    """Python's version."""
    found = ".".join(map(str, sys.version_info[:3]))
    yield ("ok" if sys.version_info >= (3, 11) else "FAIL", f"Python {found} (3.11 or newer is needed)")


def check_names(owners: dict[str, list[str]] | None = None) -> Iterator[Finding]:
    """Whether another distribution owns one of our general package names.

    Args:
        owners: distributions by top-level name; None to ask the environment.
    """
    # An editable install is listed twice by some installers; a name is shared only by different distributions.
    found = packages_distributions() if owners is None else owners
    clean = True
    for name in OWN_PACKAGES:
        others = sorted({owner for owner in found.get(name, []) if owner != "radfs"})
        if others:
            clean = False
            yield (
                "FAIL",
                f"package {name} is also installed by {', '.join(others)}: give radfs an environment of its own",
            )
    if clean:
        yield ("ok", f"no other distribution owns {', '.join(OWN_PACKAGES)}")


def check_libraries() -> Iterator[Finding]:
    """Versions of what radfs stands on."""
    found = []
    for name in _LIBRARIES:
        try:
            found.append(f"{name} {version(name)}")
        except PackageNotFoundError:
            yield ("FAIL", f"{name} is not installed: pip install radfs")
    yield ("ok", ", ".join(found))


def check_weights() -> Iterator[Finding]:
    """Which encoders could run."""
    from featurestore.encoders import is_available, list_specs

    here = [spec.name for spec in list_specs() if is_available(spec)]
    missing = [spec.name for spec in list_specs() if not is_available(spec)]
    yield ("ok", f"encoders with weights: {', '.join(here)}")
    if missing:
        yield (
            "warn",
            f"encoders without weights: {', '.join(missing)} (radfs backbones show NAME says how to get them)",
        )


def check_torch() -> Iterator[Finding]:
    """The device, and whether it multiplies bfloat16 fast."""
    import torch

    if torch.cuda.is_available():
        yield ("ok", f"device: {torch.cuda.get_device_name()}")
    else:
        amx = "with AMX" if torch.cpu._is_amx_tile_supported() else "without AMX"
        yield ("ok", f"device: CPU, {torch.get_num_threads()} threads, {amx}; no GPU")


def check_store(path: str | Path) -> Iterator[Finding]:
    """The store, if there is one: its format, room on its disk or for its cache, who can read it."""
    from featurestore.errors import RadfsError
    from featurestore.remote import SCHEME, ObjectPath
    from featurestore.store import open_store
    from heads.catalog import open_catalog

    if not str(path).startswith(SCHEME) and not Path(path).exists():
        yield ("ok", f"no store at {path} yet")
        return
    try:
        opened = open_store(path)
        open_catalog(opened).fold()
    except RadfsError as error:
        yield ("FAIL", str(error))
        return
    free = shutil.disk_usage(opened.catalog.parent).free / 1e9
    where = f"for its cache in {opened.catalog.parent}" if isinstance(opened.root, ObjectPath) else "on its disk"
    yield ("ok" if free > 10 else "warn", f"store {opened.root}: {free:.0f} GB free {where}")
    if isinstance(opened.root, ObjectPath):
        return
    mode = opened.root.stat().st_mode & 0o077
    if mode:
        yield ("warn", f"the store can be read by others on this machine: chmod 700 {opened.root}")
    if not os.access(opened.root, os.W_OK):
        yield ("warn", f"the store is read-only for you: {opened.root}")
