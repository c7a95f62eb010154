"""A store: one folder with truth files and a catalog that can be rebuilt from them.

Where things lie is said here and in `docs/format.md`; what they hold is known to the modules that write them.
"""

import json
import os
import uuid
from dataclasses import dataclass
from pathlib import Path

from .copies import store_folder
from .errors import DataError, StoreError
from .fsio import remove, write_new
from .remote import SCHEME, ObjectPath, StorePath, object_path

FORMAT = 3
"""Version of everything on disk. A store of another version is refused, never guessed at."""

_MARKER = "radfs.json"
_PRIVATE, _GROUP = 0o700, 0o2770


@dataclass(frozen=True)
class Store:
    """An open store. Only a path: it holds no file open, so it may be shared by threads and sent to processes."""

    root: StorePath

    @property
    def catalog(self) -> Path:
        """The DuckDB file: a cache for queries, never the truth. Of a remote store every machine has its own."""
        folder = store_folder(self.root) if isinstance(self.root, ObjectPath) else self.root
        return folder / "catalog.duckdb"

    @property
    def items(self) -> StorePath:
        """Images and reports that the store knows: `items/<dataset>/<part>.parquet`."""
        return self.root / "items"

    @property
    def features(self) -> StorePath:
        """Feature sets, one Zarr group each: `features/<encoder>@<key>`."""
        return self.root / "features"

    @property
    def cohorts(self) -> StorePath:
        """Cohorts: `cohorts/<name>`."""
        return self.root / "cohorts"

    @property
    def results(self) -> StorePath:
        """Finished runs, in parts: `results/<part>`."""
        return self.root / "results"

    @property
    def heads(self) -> StorePath:
        """Heads that were kept: `heads/<run>.safetensors`."""
        return self.root / "heads"

    @property
    def peers(self) -> StorePath:
        """Results that others report: `peers/<name>.parquet`."""
        return self.root / "peers"


def open_store(path: str | os.PathLike[str], *, create: bool = False, group: bool = False) -> Store:
    """Open the store at `path`; with `create`, make one where there is none.

    Args:
        path: its folder, or `s3://bucket/prefix` (see `remote`).
        create: make the store where there is none.
        group: of a store that is made, let the folder's group read and write it too. Otherwise its owner alone may.

    Raises:
        StoreError: there is no store, the folder holds something else, or the store has another format version.
        DataError: `group` is asked of a store that is there already and private, or of a remote one.
    """
    root = _root(path)
    if group and isinstance(root, ObjectPath):
        raise DataError(f"--group is for folders: who may read {root} is for the bucket's policy to say.")
    marker = root / _MARKER
    if not marker.is_file():
        taken = any(map(_is_strange, root.iterdir())) if root.is_dir() else root.exists()
        if not create:
            raise StoreError(
                f"no radfs store at {root}. Build a cohort first (`radfs cohort build --help`; it makes the store), "
                "or name another store with --store or RADFS_STORE."
            )
        if taken:
            raise StoreError(f"{root} exists and is not a radfs store. Name a new or an empty folder with --store.")
        if isinstance(root, Path):
            _make_root(root, _GROUP if group else _PRIVATE)
        else:
            _require_put_if_absent(root)
        write_new(marker, json.dumps({"format": FORMAT}).encode())
    elif group and isinstance(root, Path) and root.stat().st_mode & 0o070 != 0o070:
        raise DataError(
            f"the store at {root} is private, and files of it exist: --group decides when a store is made. Its owner "
            "can open it with: chgrp -R GROUP STORE && chmod -R g+rwX STORE && find STORE -type d -exec chmod g+s {} +"
        )
    _check_format(root, marker)
    return Store(root)


def _root(path: str | os.PathLike[str]) -> StorePath:
    text = os.fspath(path)
    if text.startswith(SCHEME):
        return object_path(text)
    if text.startswith(SCHEME[:-1]):
        raise DataError(f"{text!r}: give the address of a remote store as a text, not as a pathlib.Path.")
    return Path(path).expanduser().absolute()


def _make_root(root: Path, mode: int) -> None:
    # What comes to lie here derives from patients: nobody else reads it unless its owner says so. Everything that is
    # made below takes the permissions of its folder (`fsio`).
    root.mkdir(parents=True, exist_ok=True)
    root.chmod(mode)


def _require_put_if_absent(root: ObjectPath) -> None:
    """Refuse a server that replaces what it is asked to write only where nothing is: each decision would be undone by
    the next."""
    probe = root / f".{uuid.uuid4().hex}.partial"
    try:
        if not write_new(probe, b"1") or write_new(probe, b"2"):
            raise StoreError(
                f"the server of {root} ignores `If-None-Match: *`: two processes would undo each other's work there. "
                "Use a store in a folder, or a server with conditional writes."
            )
    finally:
        remove(probe)


def _is_strange(path: StorePath) -> bool:
    return path.name != _MARKER and not path.name.endswith(".partial")  # another process may be making it right now


def _check_format(root: StorePath, marker: StorePath) -> None:
    try:
        found = json.loads(marker.read_text())["format"]
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise StoreError(
            f"{marker} cannot be read ({type(error).__name__}): the store at {root} is damaged."
        ) from error
    if found != FORMAT:
        raise StoreError(
            f"the store at {root} has format {found!r}; this radfs reads format {FORMAT}. "
            "Use the radfs that made it, or build a new store."
        )
