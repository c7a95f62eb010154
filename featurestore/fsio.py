"""Files that are whole or absent: write under a temporary name, fsync, publish, fsync the folder.

Nothing here knows what the files mean. After a kill or a power loss a published name holds all of its bytes; what a
killed process leaves behind are names that start with a dot and end in `.partial`, which no reader looks at and
`radfs gc` removes. Files and folders take the permissions of the folder that they lie in, so that a store stays as
private, or as shared, as its root was made.

Of a store on object storage (`remote`) a put is what a rename is here, and put-if-absent what a link is.
"""

import errno
import mmap
import os
import shutil
import stat
import uuid
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import numpy as np

from . import memory
from .errors import ChecksumError
from .process import identity
from .remote import ObjectPath, StorePath, each
from .sealed import check_parquet, seal_parquet

if TYPE_CHECKING:
    import polars as pl


_IOV_MAX = 1024
"""Buffers that one writev takes."""

_LARGE_TABLE = 2**28
"""Bytes from which on it is asked whether there is memory for them."""

_MOST_ROWS_A_BYTE = 64
"""Of a table. Measured: 1.5 bytes a row and more, for ids that count up; a stranger's may claim any number."""


def partial_name(path: Path) -> Path:
    """A temporary neighbour; its name says who writes it (`partial_owner`)."""
    return path.with_name(f".{identity()}.{uuid.uuid4().hex[:12]}.partial")


def partial_owner(path: StorePath) -> str:
    """The `process.identity` of who writes, or wrote, this temporary file."""
    return path.name.removeprefix(".").partition(".")[0]


_P = TypeVar("_P", bound=StorePath)


def make_folder(folder: _P) -> _P:
    """Make a folder and its parents with the permissions of the nearest one that exists; gives the folder back."""
    if isinstance(folder, ObjectPath) or folder.is_dir():
        return folder
    make_folder(folder.parent)
    try:
        folder.mkdir()
    except FileExistsError:  # another process was first
        return folder
    folder.chmod(folder.parent.stat().st_mode & 0o2777)
    fsync_folder(folder.parent)
    return folder


def fsync_folder(folder: StorePath) -> None:
    """Make the names in `folder` durable (a rename alone is not)."""
    if isinstance(folder, ObjectPath):
        return
    fd = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


Chunks = Sequence[bytes | memoryview]
"""Go to the system as they are, many at a time: no copy is made to join them."""


def write_synced(files: Mapping[StorePath, Chunks]) -> None:
    """Write files under names that nobody else uses, and make their bytes (not their names) durable.

    All are written before the first is synced: what that takes along to the disk, the others need not wait for.
    """
    for path, chunks in files.items():
        if isinstance(path, ObjectPath):
            path.put(chunks)
    with ExitStack() as stack:
        opened = [stack.enter_context(_written(p, chunks)) for p, chunks in files.items() if isinstance(p, Path)]
        for fd in opened:
            os.fsync(fd)


@contextmanager
def _written(path: Path, chunks: Chunks) -> Iterator[int]:
    """A new file with these bytes, open."""
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        mode = path.parent.stat().st_mode & 0o666
        if mode != 0o600:
            os.fchmod(fd, mode)
        rest = deque(memoryview(c).cast("B") for c in chunks if len(c))
        while rest:
            written = os.writev(fd, list(islice(rest, _IOV_MAX)))
            while written:
                part = rest.popleft()
                if written < len(part):
                    rest.appendleft(part[written:])
                written -= min(written, len(part))
        yield fd
    except OSError as error:
        error.filename = error.filename or str(path)  # a full disk does not say where
        raise
    finally:
        os.close(fd)


@contextmanager
def _synced_partial(path: Path, chunks: Chunks) -> Iterator[Path]:
    """A temporary neighbour of `path` with these bytes, durable, gone afterwards unless it was renamed."""
    make_folder(path.parent)
    partial = partial_name(path)
    try:
        write_synced({partial: chunks})
        yield partial
    finally:
        partial.unlink(missing_ok=True)
    fsync_folder(path.parent)


def write_atomic(path: StorePath, *chunks: bytes | memoryview) -> None:
    """Write `path`, replacing what stands there in one step."""
    if isinstance(path, ObjectPath):
        path.put(chunks)
        return
    with _synced_partial(path, chunks) as partial:
        partial.replace(path)


def write_new(path: StorePath, *chunks: bytes | memoryview) -> bool:
    """Write `path` only if the name is free: returns False, and changes nothing, where it exists."""
    if isinstance(path, ObjectPath):
        return path.put_new(b"".join(chunks))
    with _synced_partial(path, chunks) as partial:
        try:
            # A link fails on an existing name, on NFS too, where a rename would replace it.
            path.hardlink_to(partial)
        except FileExistsError:
            # On NFS the reply may be lost and the call repeated: then the name is there, and it is ours.
            return partial.stat().st_nlink > 1
    return True


def map_file(path: StorePath) -> np.ndarray:
    """A file's bytes, uint8, mapped for reading. Compare the length before touching any: a file may have been cut.

    An object is read as it is now, past the cache (`copies.local_file` is the way through it).
    """
    if isinstance(path, ObjectPath):
        return np.frombuffer(path.read_bytes(), np.uint8)
    with os.fdopen(open_plain(path), "rb") as file:
        if os.fstat(file.fileno()).st_size == 0:
            return np.empty(0, np.uint8)
        return np.frombuffer(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ), dtype=np.uint8)


def open_plain(path: Path) -> int:
    """A descriptor for reading a file, which must be a plain one: no link that leads out of the store, and no pipe or
    device, which might never end.

    Raises:
        OSError: it is none (ELOOP, EINVAL), or cannot be opened.
    """
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
    if not stat.S_ISREG(os.fstat(fd).st_mode):
        os.close(fd)
        raise OSError(errno.EINVAL, "is no plain file", str(path))
    return fd


def read_whole(path: StorePath, most: int) -> bytes:
    """The bytes of a file that a stranger may have made.

    Raises:
        ValueError: it is larger than `most` bytes.
        OSError: it is no plain file (`open_plain`), or cannot be read.
    """
    if isinstance(path, ObjectPath):
        size = path.stat().st_size
        data = path.read_bytes() if size <= most else b""
    else:
        with os.fdopen(open_plain(path), "rb") as file:
            size = os.fstat(file.fileno()).st_size
            data = file.read(size) if size <= most else b""  # it takes as much memory as it is told to
    if size > most:
        raise ValueError(f"{size} bytes long; at most {most} are allowed")
    return data


def read_range(path: StorePath, start: int, end: int) -> bytes:
    """The bytes of a file from `start` up to, not including, `end`; fewer where it ends before."""
    if isinstance(path, ObjectPath):
        return path.read_range(start, end)
    with os.fdopen(open_plain(path), "rb") as file:
        file.seek(start)
        return file.read(end - start)


def names(folder: StorePath) -> list[str]:
    """The names in a folder; none where there is no such folder."""
    if isinstance(folder, ObjectPath):
        return [path.name for path in folder.iterdir()]
    try:
        return os.listdir(folder)  # noqa: PTH208 (a third of the time of Path.iterdir, for 40,000 names)
    except FileNotFoundError:
        return []


def remove(path: StorePath) -> bool:
    """Remove a file if it is there: whether it was."""
    try:
        path.unlink()
    except FileNotFoundError:
        return False
    return True


def move(path: StorePath, target: StorePath) -> None:
    """Give a file another name in the same store, replacing what stands there.

    Raises:
        FileNotFoundError: it is gone.
    """
    if isinstance(path, ObjectPath):
        assert isinstance(target, ObjectPath)
        path.replace(target)
    else:
        assert isinstance(target, Path)
        path.replace(target)


def touch(path: StorePath) -> None:
    """Move a file's time of change on.

    Raises:
        FileNotFoundError: it is gone.
    """
    if isinstance(path, ObjectPath):
        path.put([path.read_bytes()])
    else:
        os.utime(path)


def read_parquet(path: StorePath, columns: Sequence[str] | None = None) -> "pl.DataFrame":
    """The rows of a table that `parquet_bytes` made; with `columns` these alone.

    Raises:
        ChecksumError: it is not what was written.
        OSError: it cannot be read.
        DataError: there is not enough memory for its bytes.
    """
    import polars as pl

    return pl.read_parquet(_read_table(path), columns=None if columns is None else list(columns))


def scan_parquet(paths: Sequence[StorePath]) -> "pl.LazyFrame":
    """The rows of tables of one schema, one after the other; errors as in `read_parquet`, at once."""
    import polars as pl

    return pl.scan_parquet(each(_read_table, paths))


def _read_table(path: StorePath) -> bytes:
    """The bytes of a table, checked: a flipped bit in an id or a label would be believed otherwise."""
    import polars as pl

    size = path.stat().st_size
    if size > _LARGE_TABLE:
        memory.require(size, f"reading the table {path.name}", "Read it on a machine with more.")
    raw = path.read_bytes() if isinstance(path, ObjectPath) else read_whole(path, size)
    try:
        check_parquet(raw)
    except ValueError as error:
        raise ChecksumError(f"the table {path} is damaged: {error}. Restore it from a copy.") from error
    rows = pl.scan_parquet(raw).select(pl.len()).collect().item()
    if rows > len(raw) * _MOST_ROWS_A_BYTE:
        raise ChecksumError(f"the table {path} claims {rows} rows in {len(raw)} bytes: it would fill the memory.")
    return raw


def parquet_bytes(frame: "pl.DataFrame") -> bytes:
    """`frame` as the bytes of a Parquet file that carries its checksum."""
    return seal_parquet(frame)


def write_parquet(path: StorePath, frame: "pl.DataFrame") -> None:
    """`write_atomic` of a table."""
    write_atomic(path, parquet_bytes(frame))


def remove_folder(folder: StorePath) -> None:
    """Remove a folder: first its name, in one step, then what lies in it. A kill leaves work for `radfs gc`.

    Of objects, those that stand in it directly go first: without them the rest means nothing to anybody.
    """
    if isinstance(folder, ObjectPath):
        folder.remove_below()
        return
    hidden = partial_name(folder)
    folder.rename(hidden)
    fsync_folder(folder.parent)
    shutil.rmtree(hidden)


def publish_folder(path: Path, fill: Callable[[Path], None]) -> bool:
    """Let `fill` write files into a temporary folder, then give it its name in one step.

    Returns False, and keeps what stands there, if `path` exists already.
    """
    make_folder(path.parent)
    partial = partial_name(path)
    make_folder(partial)
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
