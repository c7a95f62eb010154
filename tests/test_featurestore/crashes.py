"""Crashes at every point of an operation, without waiting for chance.

`Disk` records an operation call by call and gives the store as it lies on disk after each: as a kill leaves it, and as
two kinds of power loss may. `failing` makes the n-th call fail, as on a full disk; `die_at` ends the process there.
"""

import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest

CALLS = ("open", "mkdir", "chmod", "fchmod", "writev", "fsync", "link", "rename", "replace", "unlink", "utime")
"""What changes files, or makes changes durable; `os.open` only where it is for writing."""

Before = Callable[[str, tuple], None]
After = Callable[[str, tuple, dict, object], None]


def _changes(name: str, arguments: tuple) -> bool:
    return name != "open" or bool(arguments[1] & (os.O_WRONLY | os.O_RDWR))


@contextmanager
def watched(before: Before, after: After = lambda *_: None) -> Iterator[None]:
    """Call `before(name, arguments)` before every call that changes files, and `after` then.

    A write is made in two halves, so that it can be torn.
    """
    real = {name: getattr(os, name) for name in CALLS}
    looking = [False]  # what `before` and `after` do themselves is no part of the operation

    def wrapper(name: str) -> Callable:
        def call(*arguments, **keywords):
            if looking[0] or not _changes(name, arguments):
                return real[name](*arguments, **keywords)
            if name == "writev" and sum(map(len, arguments[1])) > 1:
                fd, (first, *_) = arguments
                arguments = (fd, [memoryview(first)[: max(1, len(first) // 2)]])  # the caller writes the rest
            looking[0] = True
            try:
                before(name, arguments)
                result = real[name](*arguments, **keywords)
                after(name, arguments, keywords, result)
            finally:
                looking[0] = False
            return result

        return call

    with pytest.MonkeyPatch.context() as patch:
        for name in CALLS:
            patch.setattr(os, name, wrapper(name))
        yield


@contextmanager
def die_at(point: int) -> Iterator[None]:
    """End this process, as a kill would, right before the call of this number that changes files (from 1)."""
    seen = 0

    def before(*_: object) -> None:
        nonlocal seen
        seen += 1
        if seen == point:
            os._exit(9)

    with watched(before):
        yield


@contextmanager
def failing(point: int, error: int, calls: tuple[str, ...] = ("open", "mkdir", "writev", "fsync", "link")) -> Iterator:
    """Let the call of this number (from 1) fail with this `errno`, and all after it until the context is left.

    What is given is a list that gets the name of the call that failed first; it stays empty if there were fewer.
    """
    seen, failed = 0, []

    def before(name: str, arguments: tuple) -> None:
        nonlocal seen
        if name in calls:
            seen += 1
            if seen >= point:
                failed.append(name)
                where = [] if isinstance(arguments[0], int) else [str(arguments[0])]
                raise OSError(error, os.strerror(error), *where)

    with watched(before):
        yield failed


@dataclass
class _Change:
    """A change of names that is not durable yet: entries that go, entries that come with the number of their file."""

    gone: list[tuple[Path, str]]
    come: list[tuple[Path, str, int]]

    def touches(self, folder: Path) -> bool:
        return folder in {entry[0] for entry in (*self.gone, *self.come)}


@dataclass
class Disk:
    """What of a folder is durable, while an operation runs in this process.

    Names become durable when their folder is synced, bytes when their file is; a rename is one step, as every
    journalling file system has it. Files and folders are numbered here, since a file system uses inodes again.
    """

    root: Path
    names: dict[Path, dict[str, int]] = field(default_factory=dict)
    contents: dict[int, bytes] = field(default_factory=dict)
    folders: dict[int, Path] = field(default_factory=dict)
    changes: list[_Change] = field(default_factory=list)
    calls: list[str] = field(default_factory=list)
    _numbers: dict[int, int] = field(default_factory=dict)
    _count: int = 0

    def __post_init__(self) -> None:
        for folder, below, files in os.walk(self.root):
            path = Path(folder)
            self.names[path] = {name: self._new(path / name) for name in (*below, *files)}
            self.folders |= {self.names[path][name]: path / name for name in below}
            self.contents |= {self.names[path][name]: (path / name).read_bytes() for name in files}

    @contextmanager
    def recording(self, each: Callable[["Disk"], None]) -> Iterator[None]:
        """Call `each` with this disk after every call that changed files."""

        def after(name: str, arguments: tuple, keywords: dict, result: object) -> None:
            self._follow(name, arguments, keywords, result)
            self.calls.append(name)
            each(self)

        with watched(lambda *_: None, after):
            yield

    def killed(self, into: Path) -> None:
        """The folder as a kill leaves it now: the system has all that was written."""
        shutil.copytree(self.root, into)

    def lost_power(self, into: Path) -> None:
        """The folder after a power loss now, as the most forgetful disk has it: only what was synced."""
        self._restore(self.root, into)

    def lost_bytes(self, into: Path) -> None:
        """The folder after a power loss now, where names came to the disk before the bytes that were not synced."""
        shutil.copytree(self.root, into)
        for file in into.rglob("*"):
            if file.is_file():
                durable = self.contents.get(self._number(self.root / file.relative_to(into)), b"")
                if durable != file.read_bytes():
                    file.write_bytes(durable)

    def _restore(self, folder: Path, into: Path) -> None:
        into.mkdir()
        for name, number in self.names.get(folder, {}).items():
            if number in self.folders:
                self._restore(self.folders[number], into / name)
            else:
                (into / name).write_bytes(self.contents.get(number, b""))

    def _new(self, path: Path) -> int:
        self._count += 1
        self._numbers[path.stat().st_ino] = self._count
        return self._count

    def _number(self, path: Path) -> int:
        return self._numbers[path.stat().st_ino]

    def _follow(self, name: str, arguments: tuple, keywords: dict, result: object) -> None:
        if name == "fsync":
            self._sync(Path(f"/proc/self/fd/{arguments[0]}").resolve())
        elif name in ("open", "mkdir"):
            path = Path(arguments[0])
            number = self._new(path)
            if name == "mkdir":
                self.folders[number] = path
            self.changes.append(_Change([], [(path.parent, path.name, number)]))
        elif name == "unlink":
            folder = Path(f"/proc/self/fd/{keywords['dir_fd']}").resolve() if keywords.get("dir_fd") else Path()
            path = folder / arguments[0]
            self.changes.append(_Change([(path.parent, path.name)], []))
        elif name in ("link", "rename", "replace"):
            old, new = Path(arguments[0]), Path(arguments[1])
            gone = [] if name == "link" else [(old.parent, old.name)]
            self.changes.append(_Change(gone, [(new.parent, new.name, self._number(new))]))

    def _sync(self, path: Path) -> None:
        if not path.is_dir():
            self.contents[self._number(path)] = path.read_bytes()
            return
        self.names.setdefault(path, {})
        for change in [c for c in self.changes if c.touches(path)]:
            self.changes.remove(change)
            for folder, name in change.gone:
                self.names.get(folder, {}).pop(name, None)
            for folder, name, number in change.come:
                self.names.setdefault(folder, {})[name] = number
