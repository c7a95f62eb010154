"""Removing leftovers: what killed processes left behind, and shards none of whose rows counts any more.

Nothing that a live worker is writing is touched. Where a shard is not decided, its leftovers go only after an
`abandoned` record has made it impossible for anybody to commit it: from then on they are nobody's.
"""

import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from .claims import list_claims
from .errors import DamageError
from .featureset import FeatureSet, open_feature_set
from .fsio import partial_owner, remove, remove_folder
from .process import is_alive
from .records import staged_owner
from .remote import ObjectPath, StorePath
from .store import Store
from .writer import abandon, publish

STALE_SECONDS = 24 * 3600.0
"""What carries no sign of a live process, nor of a dead one, is a leftover when it is this old."""


@dataclass(frozen=True)
class Leftover:
    """A file or folder that nobody needs: its path, its size, and why."""

    path: StorePath
    bytes: int
    why: str


@dataclass
class GcReport:
    """What was removed, or with `dry_run` would be."""

    dry_run: bool
    removed: list[Leftover] = field(default_factory=list)

    @property
    def bytes(self) -> int:
        """Of all that was removed."""
        return sum(leftover.bytes for leftover in self.removed)


def collect(store: Store, *, dry_run: bool, stale_s: float = STALE_SECONDS) -> GcReport:
    """Find leftovers and remove them.

    Args:
        store: an open store.
        dry_run: only say what would be removed.
        stale_s: age at which files that carry no sign of who wrote them count as left behind.
    """
    report = GcReport(dry_run)
    for leftover in _store_leftovers(store, stale_s):
        _remove(leftover, report)
    for feature_set in _readable_sets(store):
        for view in sorted({0, *feature_set.views()}):
            if not dry_run:
                _publish_all(feature_set, view)
            for leftover in _orphans(feature_set, view, dry_run=dry_run):
                _remove(leftover, report)
            for leftover in _dead_shards(feature_set, view):
                _remove(leftover, report)
        for leftover in _staged(feature_set, stale_s, dry_run=dry_run):
            _remove(leftover, report)
        for leftover in _claims(feature_set, stale_s):
            _remove(leftover, report)
    return report


def _readable_sets(store: Store) -> Iterator[FeatureSet]:
    """What is damaged is left alone: `verify` tells of it."""
    for path in sorted(store.features.glob("*/zarr.json")):
        with suppress(DamageError):
            yield open_feature_set(store, path.parent.name)


def _remove(leftover: Leftover, report: GcReport) -> None:
    report.removed.append(leftover)
    if report.dry_run:
        return
    if leftover.path.is_dir():
        with suppress(FileNotFoundError):  # another process removed it
            remove_folder(leftover.path)
    else:
        remove(leftover.path)


def _store_leftovers(store: Store, stale_s: float) -> Iterator[Leftover]:
    """Temporary files of dead processes, and results and feature sets whose making was broken off."""
    for path in sorted(store.root.rglob(".*.partial")):
        alive = is_alive(partial_owner(path))
        if alive is False or (alive is None and _age(path) > stale_s):
            yield Leftover(path, _size(path), "temporary file of a process that is gone")
    for parent, commit in ((store.results, "runs.parquet"), (store.features, "zarr.json")):
        for folder in sorted(parent.glob("[!.]*")):
            if isinstance(folder, Path) and folder.is_symlink():
                continue  # what it means is not of this store
            if any(folder.glob("commits/v*/*.json")):
                continue  # it has rows, and has lost its zarr.json: `verify` tells of it
            if folder.is_dir() and not (folder / commit).exists() and _age(folder) > stale_s:
                yield Leftover(folder, _size(folder), f"has no {commit}: its making was broken off")


def _publish_all(feature_set: FeatureSet, view: int) -> None:
    """Finish the renaming of committed shards whose makers were killed."""
    owners = [staged_owner(path.name) for path in (feature_set.path / "staged").glob(f"v{view}-*")]
    waiting = {owner[1] for owner in owners if owner is not None}
    for shard in sorted(waiting):
        if feature_set.is_decided(view, shard):
            publish(feature_set, feature_set.record(view, shard))


def _dead_shards(feature_set: FeatureSet, view: int) -> Iterator[Leftover]:
    """Files of committed shards none of whose rows counts: newer rows do, or they were dropped."""
    decided = feature_set.decided(view)  # before the rows: a shard that is committed meanwhile must not look dead
    live = set(feature_set.committed(view)["shard"].unique())
    for shard in decided:
        if shard not in live:
            for array in feature_set.layout.arrays(view):
                path = feature_set.path / array.shard_file(shard)
                if path.exists():
                    yield Leftover(path, _size(path), "none of its rows counts any more")


def _staged(feature_set: FeatureSet, stale_s: float, *, dry_run: bool) -> Iterator[Leftover]:
    """Files of attempts that did not become a shard."""
    for path in sorted((feature_set.path / "staged").glob("*")):
        owner = staged_owner(path.name)
        if owner is None:
            continue
        view, shard, attempt = owner
        if not feature_set.is_decided(view, shard):
            if not _is_deserted(feature_set, view, shard, path, stale_s):
                continue
            if not dry_run:
                abandon(feature_set, view, shard)
        if not feature_set.is_decided(view, shard) or _other_attempt(feature_set, view, shard, attempt):
            yield Leftover(path, _size(path), "of an attempt that was not committed")


def _orphans(feature_set: FeatureSet, view: int, *, dry_run: bool) -> Iterator[Leftover]:
    """Shard files without a record, such as a copy that was broken off leaves. No live worker has made them: it
    renames a file to such a name after its record stands."""
    for array in feature_set.layout.arrays(view):
        for path in sorted((feature_set.path / array.path).glob("c.[0-9]*")):
            number = path.name.split(".")[1]
            if not number.isdigit() or feature_set.is_decided(view, int(number)):
                continue
            claims = [c for c in list_claims(feature_set) if (c.view, c.shard) == (view, int(number))]
            if any(claim.is_alive() is not False for claim in claims):
                continue  # who is making the shard replaces the file
            if dry_run or abandon(feature_set, view, int(number)):
                yield Leftover(path, _size(path), "shard file without a commit record")


def _other_attempt(feature_set: FeatureSet, view: int, shard: int, attempt: str) -> bool:
    try:
        return feature_set.record(view, shard).attempt != attempt
    except DamageError:
        return False  # what cannot be told stays


def _is_deserted(feature_set: FeatureSet, view: int, shard: int, path: StorePath, stale_s: float) -> bool:
    """Whether nobody can be at work on an undecided shard: every sign of its makers is dead, or old."""
    signs = [c for c in list_claims(feature_set) if (c.view, c.shard) == (view, shard)]
    alive = [claim.is_alive() for claim in signs]
    if signs and all(a is False for a in alive):
        return True
    return not any(alive) and _age(path) > stale_s and all(_age(claim.path) > stale_s for claim in signs)


def _claims(feature_set: FeatureSet, stale_s: float) -> Iterator[Leftover]:
    for claim in list_claims(feature_set):
        alive = claim.is_alive()
        if alive is False or (alive is None and _age(claim.path) > stale_s):
            yield Leftover(claim.path, _size(claim.path), "claim of a process that is gone")


def _age(path: StorePath) -> float:
    """Seconds since the last change of a file, or of the newest file below a folder."""
    try:
        below = [p.stat().st_mtime for p in path.rglob("*")]
        # Folders of objects have no time of their own.
        newest = max(below) if below and isinstance(path, ObjectPath) else max([path.stat().st_mtime, *below])
    except FileNotFoundError:
        return 0.0  # it is just being moved
    return time.time() - newest


def _size(path: StorePath) -> int:
    try:
        return sum(p.stat().st_size for p in path.rglob("*") if p.is_file()) if path.is_dir() else path.stat().st_size
    except FileNotFoundError:
        return 0
