"""What a store keeps on this machine outside itself: the read-through cache of a remote store, and catalogs.

    $RADFS_CACHE, else $XDG_CACHE_HOME/radfs, else ~/.cache/radfs     0700
        objects/<hash>                  copies of shards and of other objects that never change, whole or absent
        stores/<name>-<hash>/           of one store: its catalog, where the store itself cannot hold it

All of it may be deleted at any time while no radfs runs; nothing is lost but time (and the pictures of phantom cohorts
of remote stores, which are then drawn anew). Copies make room for new ones, least recently used first, when they come
to more than `RADFS_CACHE_BYTES` (50 GB). What a process has opened it keeps until it ends: give the cache the size of
the sets that are read at once.
"""

import os
from collections.abc import Mapping
from pathlib import Path

from .errors import DataError, StoreError
from .fsio import make_folder, partial_name, partial_owner, remove
from .keys import content_key
from .process import is_alive
from .remote import PART_BYTES, ObjectPath, StorePath, at_once, endpoint

DEFAULT_BYTES = 50 * 10**9

_opened: set[str] = set()
"""Names of the copies that this process reads."""


def cache_base() -> Path:
    """The cache's folder, made if it is not there."""
    named = os.environ.get("RADFS_CACHE")
    if named:
        base = Path(named).expanduser().absolute()
    else:
        base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache").expanduser().absolute() / "radfs"
    if not base.is_dir():
        base.parent.mkdir(parents=True, exist_ok=True)
        base.mkdir(mode=0o700, exist_ok=True)  # copies of what a store keeps private
    return base


def cache_folder(root: StorePath) -> Path:
    """The folder of this machine for a store whose own folder cannot be written, or is none. Made if need be."""
    place = (endpoint(), str(root)) if isinstance(root, ObjectPath) else str(root)
    return make_folder(cache_base() / "stores" / f"{root.name.removeprefix('s3://')}-{content_key(place)}")


def local_file(path: StorePath, promised: Mapping[str, int] | None = None) -> Path:
    """A file of this machine with the bytes of a file of a store: itself, or the cached copy of an object.

    Only for objects that never change, and to be opened at once.

    Args:
        path: of the store.
        promised: what a commit record says of the file: a copy that was made under it needs no look at the object.

    Raises:
        FileNotFoundError: there is no copy and no such object.
        StoreError: the copy cannot be made; says why.
    """
    if not isinstance(path, ObjectPath):
        return path
    if promised is None:
        found = path.stat()
        version: object = (found.st_size, found.etag)
        size = found.st_size
    else:
        version, size = dict(promised), promised["bytes"]
    objects = make_folder(cache_base() / "objects")
    copy = objects / content_key([endpoint(), str(path), version], 32)
    _opened.add(copy.name)
    if not _is_whole(copy, size):
        _fetch(path, copy)
        _make_room(objects)
    return copy


def forget(path: StorePath, promised: Mapping[str, int]) -> None:
    """Remove the copy of an object, which does not hold what was promised: the next look fetches it anew."""
    if isinstance(path, ObjectPath):
        remove(cache_base() / "objects" / content_key([endpoint(), str(path), dict(promised)], 32))


def _is_whole(copy: Path, size: int) -> bool:
    try:
        os.utime(copy)  # the least recently used goes first
        return copy.stat().st_size == size
    except FileNotFoundError:
        return False


def _fetch(path: ObjectPath, copy: Path) -> None:
    """Make the copy of an object in parts, several under way at a time; it has its name when it is whole."""
    size = path.stat().st_size
    partial = partial_name(copy)
    fd = os.open(partial, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)

    def fetch_part(start: int) -> None:
        data = memoryview(path.read_range(start, min(start + PART_BYTES, size)))
        while data:  # a disk that is full takes less first, and refuses then
            written = os.pwrite(fd, data, start)
            data, start = data[written:], start + written

    try:
        at_once(fetch_part, range(0, size, PART_BYTES))
        os.fsync(fd)
        partial.replace(copy)
    except FileNotFoundError:
        raise
    except OSError as error:
        raise StoreError(
            f"{path} ({size:,} bytes) cannot be copied into the cache {copy.parent}: {error.strerror}. Make room "
            "there, or name another folder with RADFS_CACHE."
        ) from error
    finally:
        os.close(fd)
        partial.unlink(missing_ok=True)


def _make_room(objects: Path) -> None:
    """Remove copies, least recently used first, until the rest is within the limit; and what dead processes left."""
    limit = _limit()
    copies = []
    with os.scandir(objects) as entries:
        for entry in entries:
            if entry.name.endswith(".partial"):
                if is_alive(partial_owner(Path(entry.path))) is False:
                    remove(Path(entry.path))
                continue
            try:
                stat = entry.stat()
            except FileNotFoundError:  # another process made room
                continue
            copies.append((stat.st_mtime_ns, stat.st_size, entry))
    total = sum(size for _, size, _ in copies)
    for _, size, entry in sorted(copies, key=lambda c: c[0]):
        if total <= limit:
            return
        if entry.name not in _opened:
            remove(Path(entry.path))
            total -= size


def _limit() -> int:
    text = os.environ.get("RADFS_CACHE_BYTES", str(DEFAULT_BYTES))
    try:
        return int(float(text))
    except ValueError:
        raise DataError(f"RADFS_CACHE_BYTES is {text!r}: give a number of bytes, such as {DEFAULT_BYTES}.") from None
