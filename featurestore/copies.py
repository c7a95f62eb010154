"""The read-through cache of remote stores: copies of objects that never change, as files of this machine.

    <cache>/objects/<hash>            a copy, whole or absent; the hash is of the object's place and of what it holds
    <cache>/<name>-<hash>/            of one store: its catalog, and what else must lie on this machine

The folder is `$RADFS_CACHE`, else `$XDG_CACHE_HOME/radfs`, else `~/.cache/radfs` (`cache`). All of it may be deleted
while no radfs runs: nothing is lost but time. Copies make room for new ones, those first that were used least recently,
when together they exceed `RADFS_CACHE_BYTES` (50 GB). What a process has opened it keeps until it ends, so that a
cache too small for one run's sets grows beyond its limit rather than fetching them again and again.
"""

import os
from collections.abc import Mapping
from pathlib import Path

from .cache import cache_folder
from .errors import DataError, StoreError
from .fsio import map_file, partial_name, partial_owner, remove
from .keys import content_key
from .process import is_alive
from .remote import PART_BYTES, SCHEME, ObjectPath, StorePath, at_once, endpoint
from .shards import crc32

DEFAULT_BYTES = 50 * 10**9

_opened: set[str] = set()
"""Names of the copies that this process was given."""


def store_folder(root: StorePath) -> Path:
    """The folder of this machine for a store that cannot hold, or whose folder cannot be given, what it needs there."""
    place = [endpoint() if isinstance(root, ObjectPath) else None, str(root)]
    return cache_folder(f"{root.name.removeprefix(SCHEME)}-{content_key(place)}")


def local_file(path: StorePath, promised: Mapping[str, int] | None = None) -> Path:
    """A file of this machine with the bytes of a file of a store: itself, or a copy of the object, made if need be.

    For objects that never change. Open it at once: another process may make room.

    Args:
        path: of the store.
        promised: what a commit record says of the file: no copy that was made under it is compared with the object.

    Raises:
        FileNotFoundError: there is no copy, and no object to make it from.
        StoreError: a copy cannot be made; says why.
    """
    if not isinstance(path, ObjectPath):
        return path
    if promised is None:
        found = path.stat()
        promised = {"bytes": found.st_size, "etag": int.from_bytes(found.etag.encode(), "big")}
    copy = copy_of(path, promised)
    _opened.add(copy.name)
    if not has_copy(path, promised):
        _fetch(path, copy, promised.get("crc32"))
        _make_room(copy.parent)
    return copy


def has_copy(path: ObjectPath, promised: Mapping[str, int]) -> bool:
    """Whether there is a whole copy; it counts as used now."""
    copy = copy_of(path, promised)
    try:
        os.utime(copy)
        return copy.stat().st_size == promised["bytes"]
    except FileNotFoundError:
        return False


def copy_of(path: ObjectPath, promised: Mapping[str, int]) -> Path:
    """Where the copy of an object lies, or would."""
    return cache_folder("objects") / content_key([endpoint(), str(path), dict(promised)], 32)


def _fetch(path: ObjectPath, copy: Path, checksum: int | None) -> None:
    """Make a copy, in parts of which several are under way at a time; it gets its name when it is whole.

    An object may be replaced by another one between two parts: where its checksum is known, a torn copy is made again.
    """
    size = path.stat().st_size
    partial = partial_name(copy)
    fd = os.open(partial, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)

    def fetch_part(start: int) -> None:
        data = memoryview(path.read_range(start, min(start + PART_BYTES, size)))
        while data:  # a disk that is full takes less first, and refuses then
            written = os.pwrite(fd, data, start)
            data, start = data[written:], start + written

    try:
        for _ in range(2):
            at_once(fetch_part, range(0, size, PART_BYTES))
            if checksum is None or crc32(map_file(partial)) == checksum:
                break  # what fails twice is damaged, not torn: the rows' own checksums will say which
        os.fsync(fd)
        partial.replace(copy)
    except FileNotFoundError:
        raise
    except OSError as error:
        raise StoreError(
            f"{path} ({size:,} bytes) cannot be copied into the cache {copy.parent}: {error.strerror}. Make room "
            "there, or name another folder in RADFS_CACHE."
        ) from error
    finally:
        os.close(fd)
        partial.unlink(missing_ok=True)


def _make_room(objects: Path) -> None:
    """Remove the copies used least recently until the rest is within the limit; and what dead processes left."""
    limit = _limit()
    copies = []
    for path in objects.iterdir():
        if path.suffix == ".partial":
            if is_alive(partial_owner(path)) is False:
                remove(path)
            continue
        try:
            stat = path.stat()
        except FileNotFoundError:  # another process made room
            continue
        copies.append((stat.st_mtime_ns, stat.st_size, path))
    total = sum(size for _, size, _ in copies)
    for _, size, path in sorted(copies):
        if total > limit and path.name not in _opened:
            remove(path)
            total -= size


def _limit() -> int:
    text = os.environ.get("RADFS_CACHE_BYTES") or str(DEFAULT_BYTES)
    try:
        return int(float(text))
    except ValueError:
        raise DataError(f"RADFS_CACHE_BYTES is {text!r}: give a number of bytes, such as {DEFAULT_BYTES}.") from None
