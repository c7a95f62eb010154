"""A file of a committed shard, open for reading.

It is read by offset: a file that shrinks or a disk that fails is an error then, where touching a map of it would kill
the process. It is mapped for rows that were read before and are still in memory: that saves the system's copy.
"""

import mmap
import os
import resource
import threading
import weakref
from collections import deque
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from .copies import local_file
from .errors import DamageError
from .fsio import open_plain
from .remote import StorePath

_CACHED_ONLY = getattr(os, "RWF_NOWAIT", 0)
_FEWEST_OPEN = 16


class _Handle:
    """An open file, closed when nobody reads from it any more, so that no thread meets another file's number."""

    def __init__(self, path: Path) -> None:
        self.fd = open_plain(path)
        self.mapped: np.ndarray | None = None

    def __del__(self) -> None:
        if hasattr(self, "fd"):
            os.close(self.fd)


class ShardFile:
    """A file whose size is known from its record. Opened when it is read; a process keeps the newest ones open."""

    _opened: ClassVar[deque["weakref.ref[ShardFile]"]] = deque()
    _guard: ClassVar[threading.Lock] = threading.Lock()

    def __init__(self, paths: tuple[StorePath, ...], promised: Mapping[str, int], where: str, repair: str) -> None:
        """
        Args:
            paths: where it may lie, looked at in this order.
            promised: what the record says of it.
            where: what to name in an error.
            repair: what to do about damage.
        """
        self.size, self.where = promised["bytes"], where
        self._paths, self._promised, self._repair = paths, promised, repair
        self._handle: _Handle | None = None

    def read(self, at: int, into: Any, *, wait: bool = True) -> bool:
        """Fill `into`, a buffer of bytes, from byte `at`. Without `wait` only from memory: False where it is not there.

        Raises:
            DamageError: the file is gone, has another size, or cannot be read.
        """
        handle = self._handle or self._open_anew()
        try:
            while (got := os.preadv(handle.fd, [into], at, 0 if wait else _CACHED_ONLY)) < len(into):
                if not wait:
                    return False
                if not got:
                    raise self.damage(f"ends after {at} of {self.size} bytes")
                at, into = at + got, into[got:]
        except OSError as error:
            if not wait:  # not in memory; or a file system that cannot tell
                return False
            raise self.damage(f"cannot be read ({error.strerror})") from error
        return True

    def expect(self, at: int, size: int) -> None:
        """Let the system fetch these bytes while we do something else."""
        handle = self._handle or self._open_anew()
        if hasattr(os, "posix_fadvise"):
            os.posix_fadvise(handle.fd, at, size, os.POSIX_FADV_WILLNEED)

    def view(self, at: int, size: int) -> np.ndarray:
        """Bytes of the file, mapped: uint8 [size]."""
        handle = self._handle or self._open_anew()
        if handle.mapped is None:
            try:
                handle.mapped = np.frombuffer(mmap.mmap(handle.fd, self.size, access=mmap.ACCESS_READ), np.uint8)
            except (OSError, ValueError) as error:
                raise self.damage(f"cannot be mapped ({error})") from error
        return handle.mapped[at : at + size]

    def damage(self, found: str) -> DamageError:
        """The error that says what was found in this file."""
        return DamageError(f"{self.where}: the file {found}. {self._repair}")

    def _open_anew(self) -> _Handle:
        for path in self._paths:
            try:
                handle = _Handle(local_file(path, self._promised))
                break
            except FileNotFoundError:  # renamed between two looks
                continue
            except OSError as error:
                raise self.damage(f"cannot be opened ({error.strerror})") from error
        else:
            raise self.damage(f"is gone: the commit record promises {self.size} bytes, found 0")
        found = os.fstat(handle.fd).st_size
        if found != self.size:
            raise self.damage(f"has another size: the commit record promises {self.size} bytes, found {found}")
        self._handle = handle
        with ShardFile._guard:
            ShardFile._opened.append(weakref.ref(self))
            # A map holds a second descriptor. What another thread reads from now stays open until it is done.
            while len(ShardFile._opened) > max(_FEWEST_OPEN, resource.getrlimit(resource.RLIMIT_NOFILE)[0] // 4):
                oldest = ShardFile._opened.popleft()()
                if oldest is not None:
                    oldest._handle = None
        return handle
