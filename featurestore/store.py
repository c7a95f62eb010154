"""A store: one folder with truth files and a catalog that can be rebuilt from them.

Where things lie is said here and in `docs/format.md`; what they hold is known to the modules that write them.
"""

import json
import os
from dataclasses import dataclass
from pathlib import Path

from .errors import DataError, StoreError
from .fsio import write_new

FORMAT = 2
"""Version of everything on disk. A store of another version is refused, never guessed at."""

_MARKER = "radfs.json"
_PRIVATE, _GROUP = 0o700, 0o2770


@dataclass(frozen=True)
class Store:
    """An open store. Only a path: it holds no file open, so it may be shared by threads and sent to processes."""

    root: Path

    @property
    def catalog(self) -> Path:
        """The DuckDB file: a cache for queries, never the truth."""
        return self.root / "catalog.duckdb"

    @property
    def items(self) -> Path:
        """Images and reports that the store knows: `items/<dataset>/<part>.parquet`."""
        return self.root / "items"

    @property
    def features(self) -> Path:
        """Feature sets, one Zarr group each: `features/<encoder>@<key>`."""
        return self.root / "features"

    @property
    def cohorts(self) -> Path:
        """Cohorts: `cohorts/<name>`."""
        return self.root / "cohorts"

    @property
    def results(self) -> Path:
        """Finished runs, in parts: `results/<part>`."""
        return self.root / "results"


def open_store(path: str | os.PathLike[str], *, create: bool = False, group: bool = False) -> Store:
    """Open the store at `path`; with `create`, make one where there is none.

    Args:
        path: its folder.
        create: make the store where there is none.
        group: of a store that is made, let the folder's group read and write it too. Otherwise its owner alone may.

    Raises:
        StoreError: there is no store, the folder holds something else, or the store has another format version.
        DataError: `group` is asked of a store that is there already and private.
    """
    root = Path(path).expanduser().absolute()
    marker = root / _MARKER
    if not marker.is_file():
        if not create:
            raise StoreError(
                f"no radfs store at {root}. Build a cohort first (`radfs cohort build --help`; it makes the store), "
                "or name another store with --store or RADFS_STORE."
            )
        _create(root, marker, _GROUP if group else _PRIVATE)
    elif group and root.stat().st_mode & 0o070 != 0o070:
        raise DataError(
            f"the store at {root} is private, and files of it exist: --group decides when a store is made. Its owner "
            "can open it with: chgrp -R GROUP STORE && chmod -R g+rwX STORE && find STORE -type d -exec chmod g+s {} +"
        )
    _check_format(root, marker)
    return Store(root)


def _create(root: Path, marker: Path, mode: int) -> None:
    if root.exists() and (not root.is_dir() or any(_is_strange(p) for p in root.iterdir())):
        raise StoreError(f"{root} exists and is not a radfs store. Name a new or an empty folder with --store.")
    # What comes to lie here derives from patients: nobody else reads it unless its owner says so. Everything that is
    # made below takes the permissions of its folder (`fsio`).
    root.mkdir(parents=True, exist_ok=True)
    root.chmod(mode)
    write_new(marker, json.dumps({"format": FORMAT}).encode())


def _is_strange(path: Path) -> bool:
    return path.name != _MARKER and not path.name.endswith(".partial")  # another process may be making it right now


def _check_format(root: Path, marker: Path) -> None:
    try:
        found = json.loads(marker.read_text())["format"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise StoreError(
            f"{marker} cannot be read ({type(error).__name__}): the store at {root} is damaged."
        ) from error
    if found != FORMAT:
        raise StoreError(
            f"the store at {root} has format {found!r}; this radfs reads format {FORMAT}. "
            "Use the radfs that made it, or build a new store."
        )
