"""Files that are whole or absent: write under a temporary name, fsync, publish, fsync the folder.

Nothing here knows what the files mean. After a kill or a power loss a published name holds all of its bytes; what a
killed process leaves behind are names that start with a dot and end in `.partial`, which no reader looks at.
"""

import fcntl
import os
import shutil
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING

from .errors import StoreError

if TYPE_CHECKING:
    import polars as pl


def _partial(path: Path) -> Path:
    return path.with_name(f".{path.name}.{uuid.uuid4().hex[:12]}.partial")


def fsync_folder(folder: Path) -> None:
    """Make the names in `folder` durable (a rename alone is not)."""
    fd = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def _write_synced(path: Path, chunks: list[memoryview]) -> None:
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        for chunk in chunks:
            view = chunk.cast("B")
            while view:
                view = view[os.write(fd, view) :]
        os.fsync(fd)
    finally:
        os.close(fd)


@contextmanager
def _synced_partial(path: Path, chunks: list[memoryview]) -> Iterator[Path]:
    """A temporary neighbour of `path` with these bytes, durable, gone afterwards unless it was renamed."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = _partial(path)
    try:
        _write_synced(partial, chunks)
        yield partial
    finally:
        partial.unlink(missing_ok=True)
    fsync_folder(path.parent)


def write_atomic(path: Path, *chunks: bytes | memoryview) -> None:
    """Write `path`, replacing what stands there in one step."""
    with _synced_partial(path, [memoryview(c) for c in chunks]) as partial:
        partial.replace(path)


def write_new(path: Path, *chunks: bytes | memoryview) -> bool:
    """Write `path` only if the name is free: returns False, and changes nothing, where it exists."""
    with _synced_partial(path, [memoryview(c) for c in chunks]) as partial:
        try:
            # A link fails on an existing name, on NFS too, where a rename would replace it.
            path.hardlink_to(partial)
        except FileExistsError:
            return False
    return True


def parquet_bytes(frame: "pl.DataFrame") -> bytes:
    """`frame` as the bytes of a Parquet file."""
    buffer = BytesIO()
    frame.write_parquet(buffer)
    return buffer.getvalue()


def write_parquet(path: Path, frame: "pl.DataFrame") -> None:
    """`write_atomic` of a Parquet file."""
    write_atomic(path, parquet_bytes(frame))


def publish_folder(path: Path, fill: Callable[[Path], None]) -> bool:
    """Let `fill` write files into a temporary folder, then give it its name in one step.

    Returns False, and keeps what stands there, if `path` exists already.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = _partial(path)
    partial.mkdir(mode=0o700)
    try:
        fill(partial)
        for file in partial.iterdir():
            fsync_folder(file)  # opens and syncs a file just as well
        fsync_folder(partial)
        if path.exists():
            return False
        try:
            partial.rename(path)
        except OSError:  # another process was first: the name is a folder that is not empty
            if path.is_dir():
                return False
            raise
    finally:
        if partial.exists():
            shutil.rmtree(partial)
    fsync_folder(path.parent)
    return True


@contextmanager
def exclusive(path: Path, what: str) -> Iterator[None]:
    """Hold the lock file `path` while the block runs; the system frees it when the process dies, however it dies.

    Raises:
        StoreError: another process holds it; says `what` it is for and which process.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    fd = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.read(fd, 32).decode(errors="replace").strip() or "unknown"
            raise StoreError(f"{what} is held by another process (PID {holder}). Wait for it, or stop it.") from None
        os.ftruncate(fd, 0)
        os.pwrite(fd, str(os.getpid()).encode(), 0)
        yield
    finally:
        os.close(fd)
