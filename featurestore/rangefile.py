"""A shard file on object storage: a few rows of it are fetched alone, who wants more gets a copy of the whole.

Bytes that are expected (`expect`) are on their way while others are, so that a random batch takes about one answer of
the server. A read that goes on where the last one ended, or an eighth of the file in all, makes the copy (`copies`);
from then on the file is one of this machine. Both ways the rows are checked by who reads them.
"""

import threading
from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from functools import cache

import numpy as np

from .copies import has_copy
from .errors import StoreError
from .remote import ObjectPath
from .shardfile import ShardFile, _Handle

SMALL_BYTES = 2**22
"""A file that is copied at once: more than this passes in the time of an answer."""

COPIED_SHARE = 1 / 8
"""Of a file that is fetched in ranges before all of it is copied."""

_RANGES_AT_ONCE = 32
_COPIES_AT_ONCE = 4
"""Each holds some parts of `remote.PART_BYTES` in memory."""


class RangeFile(ShardFile):
    """A file of a committed shard of a remote store. May be shared by threads."""

    def __init__(self, paths: tuple[ObjectPath, ...], promised: Mapping[str, int], where: str, repair: str) -> None:
        """As `ShardFile`."""
        super().__init__(paths, promised, where, repair)
        self._objects = paths
        self._whole = self.size <= SMALL_BYTES or any(has_copy(path, promised) for path in paths)
        self._coming: dict[tuple[int, int], Future[bytes]] = {}
        self._ranged = 0
        self._end = -1
        self._guard_ranges = threading.Lock()
        self._guard_copy = threading.Lock()

    def read(self, at: int, into: np.ndarray, *, wait: bool = True) -> bool:
        """As `ShardFile.read`; what is not on this machine is not in memory."""
        if not wait and self._handle is None:
            return False
        with self._guard_ranges:
            coming = self._coming.pop((at, len(into)), None)
            if coming is None:
                self._whole = self._whole or at == self._end or self._wants_whole(len(into))
            self._end = at + len(into)
        if coming is None and self._whole:
            return super().read(at, into, wait=wait)
        data = self._fetch(at, len(into)) if coming is None else coming.result()
        into[:] = np.frombuffer(data, np.uint8)
        return True

    def expect(self, at: int, size: int) -> None:
        """As `ShardFile.expect`."""
        with self._guard_ranges:
            if (at, size) in self._coming:
                return
            self._whole = self._whole or self._wants_whole(size)
            if not self._whole:
                self._coming[at, size] = _pool("ranges", _RANGES_AT_ONCE).submit(self._fetch, at, size)
        if self._handle is not None:
            super().expect(at, size)
        elif self._whole:
            _pool("copies", _COPIES_AT_ONCE).submit(self._open_anew)  # what goes wrong, the read will say

    def _wants_whole(self, more: int) -> bool:
        self._ranged += more
        return self._ranged > self.size * COPIED_SHARE

    def _open_anew(self) -> _Handle:
        with self._guard_copy:  # one thread makes the copy, the others wait
            return self._handle or super()._open_anew()

    def _fetch(self, at: int, size: int) -> bytes:
        for path in (*self._objects, self._objects[-1]):  # renamed between two looks
            try:
                data = path.read_range(at, at + size)
            except FileNotFoundError:
                continue
            except StoreError:  # as of bytes beyond the end
                self._compare_size(path)
                raise
            if len(data) != size:
                self._compare_size(path)
                raise self.damage(f"ends after {at + len(data)} of {self.size} bytes")
            self._objects = (path, *self._objects[-1:])
            return data
        raise self.damage(f"is gone: the commit record promises {self.size} bytes, found 0")

    def _compare_size(self, path: ObjectPath) -> None:
        found = path.stat().st_size
        if found != self.size:
            raise self.damage(f"has another size: the commit record promises {self.size} bytes, found {found}")


@cache
def _pool(name: str, threads: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(threads, thread_name_prefix=name)
