"""A store on S3-compatible object storage: `ObjectPath` stands for `s3://bucket/key` where a `pathlib.Path` would.

It has the subset of pathlib that the truth files need, so that the modules which know them do not know where they lie.
What differs is said in `fsio`, whose primitives ask which of the two a path is. S3 has no folders: a folder is there
when a name begins with it. Reads, listings and put-if-absent are consistent there, so nothing waits or looks twice.

Credentials and the endpoint come from the environment (`AWS_ACCESS_KEY_ID`, `AWS_SECRET_ACCESS_KEY`,
`AWS_SESSION_TOKEN`, `AWS_REGION`, `AWS_ENDPOINT_URL`), never from files; what is not encrypted is refused unless the
endpoint itself says `http://`. Needs `radfs[s3]` (obstore), which is loaded when it is first used. A process that was
forked from one that has used it cannot use it: start workers by `spawn`.
"""

import errno
import os
import re
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from fnmatch import fnmatchcase
from functools import lru_cache, total_ordering
from hashlib import sha256
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any, TypeAlias, TypeVar

from .errors import DataError, StoreError

if TYPE_CHECKING:
    from obstore import ObjectMeta
    from obstore.store import S3Store

SCHEME = "s3://"
PART_BYTES = 16 * 2**20
"""Of one part of a large object: S3 takes 10,000 parts."""

_BUCKET = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{1,62}")
_PART = re.compile(r"(?!\.{1,2}$)[^\x00-\x1f\x7f/\\]+")
_WILD = re.compile(r"[*?\[]")
_AT_ONCE = 16
_ENDPOINTS = ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL", "AWS_ENDPOINT")
_OTHER_CREDENTIALS = (
    "AWS_WEB_IDENTITY_TOKEN_FILE",
    "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI",
    "AWS_CONTAINER_CREDENTIALS_FULL_URI",
    "AWS_SKIP_SIGNATURE",
)
_RETRIES: Any = {"max_retries": 8, "retry_timeout": timedelta(seconds=60)}

_A = TypeVar("_A")
_B = TypeVar("_B")


@dataclass(frozen=True)
class ObjectStat:
    """Of an object, what `os.stat_result` says of a file.

    Attributes:
        st_size: bytes.
        st_mtime_ns: when it was last put. S3 tells seconds; the digits below a second tell which bytes were put, so
            that two objects put within one second differ here as files do.
        etag: what S3 calls these bytes.
    """

    st_size: int
    st_mtime_ns: int
    etag: str

    @property
    def st_mtime(self) -> float:
        """Seconds since 1970."""
        return self.st_mtime_ns / 1e9


@total_ordering
@dataclass(frozen=True)
class ObjectPath:
    """An object, or a folder of objects, by its bucket and key. Made by `object_path` and `/`; may be pickled.

    A path that came from a listing answers `stat` with what the listing said; everything else asks anew.
    """

    bucket: str
    key: str
    listed: ObjectStat | None = field(default=None, compare=False, repr=False)

    def __truediv__(self, more: str) -> "ObjectPath":
        parts = [part for part in more.split("/") if part]
        if not all(map(_PART.fullmatch, parts)):
            raise ValueError(f"{more!r} is no name below {self}")
        return ObjectPath(self.bucket, "/".join([*self._parts, *parts]))

    def __str__(self) -> str:
        return f"{SCHEME}{self.bucket}/{self.key}".rstrip("/")

    def __lt__(self, other: "ObjectPath") -> bool:
        return self.parts < other.parts

    @property
    def _parts(self) -> tuple[str, ...]:
        return tuple(self.key.split("/")) if self.key else ()

    @property
    def parts(self) -> tuple[str, ...]:
        """The bucket, with the scheme, and what the slashes part."""
        return (SCHEME + self.bucket, *self._parts)

    @property
    def name(self) -> str:
        """The last part."""
        return self.parts[-1]

    @property
    def stem(self) -> str:
        """The name without its suffix."""
        return PurePosixPath(self.name).stem

    @property
    def suffix(self) -> str:
        """The name's ending, with its dot."""
        return PurePosixPath(self.name).suffix

    @property
    def parent(self) -> "ObjectPath":
        """The folder that it is in; the bucket's is the bucket."""
        return ObjectPath(self.bucket, "/".join(self._parts[:-1]))

    @property
    def parents(self) -> Sequence["ObjectPath"]:
        """The folders that it is in, the nearest first."""
        return [ObjectPath(self.bucket, "/".join(self._parts[:n])) for n in range(len(self._parts) - 1, -1, -1)]

    def with_name(self, name: str) -> "ObjectPath":
        """Its neighbour of this name."""
        return self.parent / name

    def relative_to(self, other: "ObjectPath") -> PurePosixPath:
        """What follows `other` in it."""
        if self.parts[: len(other.parts)] != other.parts:
            raise ValueError(f"{self} is not below {other}")
        return PurePosixPath(*self.parts[len(other.parts) :])

    def as_posix(self) -> str:
        """As a text."""
        return str(self)

    def exists(self) -> bool:
        """Whether there is an object of this name, which folders are not."""
        try:
            self._stat()
        except FileNotFoundError:
            return False
        return True

    is_file = exists

    def is_dir(self) -> bool:
        """Whether anything is below it."""
        return next(self._below(), None) is not None

    def iterdir(self) -> Iterator["ObjectPath"]:
        """The objects and folders in it."""
        with _asking(self, "list") as (obstore, client):
            found = obstore.list_with_delimiter(client, self.key or None)
        for prefix in found["common_prefixes"]:
            yield ObjectPath(self.bucket, prefix.rstrip("/"))
        yield from map(self._listed, found["objects"])

    def glob(self, pattern: str) -> Iterator["ObjectPath"]:
        """What matches a relative pattern. Folders are asked at once; a wildcard stands for no slash."""
        found = [self]
        *folders, last = pattern.split("/")
        for part in folders:
            found = [p for f in at_once(lambda f, part=part: f._matching(part), found) for p in f if p.listed is None]
        if _WILD.search(last):
            yield from (p for f in at_once(lambda f: f._matching(last), found) for p in f)
        else:
            paths = [f / last for f in found]
            yield from (p for p, there in zip(paths, at_once(ObjectPath.exists, paths), strict=True) if there)

    def _matching(self, part: str) -> list["ObjectPath"]:
        if not _WILD.search(part):
            return [self / part]
        return [p for p in self.iterdir() if fnmatchcase(p.name, part)]

    def rglob(self, pattern: str) -> Iterator["ObjectPath"]:
        """The objects below it whose name matches."""
        return (p for p in self._below() if fnmatchcase(p.name, pattern))

    def _below(self) -> Iterator["ObjectPath"]:
        with _asking(self, "list") as (obstore, client):
            for chunk in obstore.list(client, self.key or None, chunk_size=1000):
                # The object `prefix/` of no bytes, with which consoles show a folder, is not in it.
                yield from (p for p in map(self._listed, chunk) if p != self)

    def _listed(self, meta: "ObjectMeta") -> "ObjectPath":
        return ObjectPath(self.bucket, meta["path"], _stat_of(meta))

    def stat(self) -> ObjectStat:
        """Its size and time of change.

        Raises:
            FileNotFoundError: there is no such object.
        """
        return self.listed or self._stat()

    def _stat(self) -> ObjectStat:
        with _asking(self, "look at") as (obstore, client):
            return _stat_of(obstore.head(client, self.key))

    def read_bytes(self) -> bytes:
        """All of it.

        Raises:
            FileNotFoundError: there is no such object.
        """
        with _asking(self, "read") as (obstore, client):
            return bytes(obstore.get(client, self.key).bytes())

    def read_text(self) -> str:
        """All of it, as UTF-8."""
        return self.read_bytes().decode()

    def read_range(self, start: int, end: int) -> bytes:
        """The bytes from `start` up to, not including, `end`."""
        with _asking(self, "read") as (obstore, client):
            return bytes(obstore.get_range(client, self.key, start=start, end=end))

    def put(self, chunks: Sequence[bytes | memoryview]) -> None:
        """Write it whole, whatever stood there; in parts where it is large, and nobody sees some of them."""
        with _asking(self, "write") as (obstore, client):
            if sum(map(len, chunks)) > PART_BYTES:
                pieces = (memoryview(c).cast("B") for c in chunks if len(c))
                obstore.put(client, self.key, pieces, chunk_size=PART_BYTES, max_concurrency=4)
            else:
                obstore.put(client, self.key, b"".join(chunks), use_multipart=False)

    def put_new(self, data: bytes) -> bool:
        """Write it if the name is free: whether these bytes stand there now."""
        with _asking(self, "write") as (obstore, client):
            try:
                obstore.put(client, self.key, data, mode="create", use_multipart=False)
            except obstore.exceptions.AlreadyExistsError:
                # A try that came through, but whose answer was lost, is repeated and then finds its own bytes.
                return self.read_bytes() == data
        return True

    def replace(self, target: "ObjectPath") -> "ObjectPath":
        """Give it another name. Both names hold it for a moment; `target` is never seen in part.

        Raises:
            FileNotFoundError: there is no such object.
        """
        with _asking(self, "copy") as (obstore, client):
            obstore.copy(client, self.key, target.key)
        self.unlink(missing_ok=True)
        return target

    def unlink(self, missing_ok: bool = False) -> None:
        """Remove it.

        Raises:
            FileNotFoundError: there is no such object, and `missing_ok` is off.
        """
        if not missing_ok:
            self._stat()  # S3 itself does not say
        with _asking(self, "remove") as (obstore, client):
            obstore.delete(client, self.key)

    def remove_below(self) -> None:
        """Remove every object below it, those directly in it first."""
        at_once(lambda path: path.unlink(missing_ok=True), [path for path in self.iterdir() if path.listed])
        at_once(lambda path: path.unlink(missing_ok=True), list(self._below()))


StorePath: TypeAlias = Path | ObjectPath
"""Where a truth file lies."""


def object_path(url: str) -> ObjectPath:
    """The path of `s3://bucket/prefix`.

    Raises:
        DataError: it is no such address.
    """
    bucket, _, key = url.removeprefix(SCHEME).partition("/")
    parts = [part for part in key.split("/") if part]
    if not url.startswith(SCHEME) or not _BUCKET.fullmatch(bucket) or not all(map(_PART.fullmatch, parts)):
        raise DataError(
            f"{url!r} is no address of a store: give s3://bucket/prefix, without backslashes, control characters and "
            "parts of dots alone."
        )
    return ObjectPath(bucket, "/".join(parts))


def at_once(function: Callable[[_A], _B], arguments: Sequence[_A]) -> list[_B]:
    """`function` of each, in order, several under way at a time: an answer of a server takes long, not much work."""
    if len(arguments) < 2:
        return [function(a) for a in arguments]
    with ThreadPoolExecutor(min(_AT_ONCE, len(arguments))) as pool:
        return list(pool.map(function, arguments))


def each(function: Callable[[StorePath], _B], paths: Sequence[StorePath]) -> list[_B]:
    """`function` of each path, in order; of objects several are under way at a time."""
    return at_once(function, paths) if any(isinstance(p, ObjectPath) for p in paths) else list(map(function, paths))


def endpoint() -> str | None:
    """The server's address as the environment gives it; None for Amazon's own."""
    return next((os.environ[name] for name in _ENDPOINTS if os.environ.get(name)), None)


def _client(bucket: str) -> "S3Store":
    """The connections to a bucket, kept for as long as the environment says the same."""
    return _connect(bucket, tuple(sorted(item for item in os.environ.items() if item[0].startswith("AWS_"))))


@lru_cache(maxsize=8)
def _connect(bucket: str, environment: tuple[tuple[str, str], ...]) -> "S3Store":
    try:
        from obstore.store import S3Store
    except ImportError as error:
        raise StoreError(
            f'a store at {SCHEME}{bucket} needs obstore, which is not installed: pip install "radfs[s3]".'
        ) from error
    given = dict(environment)
    keys = given.get("AWS_ACCESS_KEY_ID") and given.get("AWS_SECRET_ACCESS_KEY")
    if not keys and not any(given.get(name) for name in _OTHER_CREDENTIALS):
        raise StoreError(
            f"no credentials for {SCHEME}{bucket}: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY (and "
            "AWS_SESSION_TOKEN, AWS_REGION and AWS_ENDPOINT_URL where they are needed)."
        )
    server = endpoint()
    # A single DELETE is known to every server that speaks S3, the one for many objects is not.
    config: Any = {"disable_bulk_delete": True, **({"endpoint": server} if server else {})}
    allow_http = server is not None and server.lower().startswith("http://")
    options: Any = {"allow_http": allow_http, "timeout": "10m", "read_timeout": "60s", "connect_timeout": "10s"}
    return S3Store(bucket, config=config, client_options=options, retry_config=_RETRIES)


def _stat_of(meta: "ObjectMeta") -> ObjectStat:
    etag = meta["e_tag"] or ""
    seconds = (meta["last_modified"] - datetime.fromtimestamp(0, UTC)) // timedelta(seconds=1)
    digits = int.from_bytes(sha256(etag.encode()).digest()[:8], "big") % 10**9
    return ObjectStat(meta["size"], seconds * 10**9 + digits, etag)


@contextmanager
def _asking(path: ObjectPath, what: str) -> Iterator[tuple[Any, "S3Store"]]:
    """obstore and a connection; what the server refuses becomes an error of ours, with the path and the next step."""
    client = _client(path.bucket)
    import obstore
    from obstore.exceptions import BaseError, PermissionDeniedError, UnauthenticatedError

    try:
        yield obstore, client
    except (BaseError, FileNotFoundError) as error:
        if "NoSuchBucket" in str(error):
            raise StoreError(
                f"bucket {path.bucket!r} does not exist at {endpoint() or 'Amazon S3'}. Make it, or name another one."
            ) from error
        if isinstance(error, FileNotFoundError):
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(path)) from error
        if isinstance(error, PermissionDeniedError | UnauthenticatedError):
            raise StoreError(
                f"{path}: the server does not allow to {what} it. Check AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, "
                "AWS_SESSION_TOKEN and AWS_REGION, and that they may list, read, write and delete below the prefix."
            ) from error
        raise StoreError(
            f"cannot {what} {path}: {str(error).splitlines()[0][:300]}. Check AWS_ENDPOINT_URL, AWS_REGION and the "
            "network; what was done so far is kept, so the same command goes on."
        ) from error
