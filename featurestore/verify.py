"""Looking for damage: what the records promise against what the disk holds, and queueing just the items that are hit.

Rows that no longer count (a newer row of the item does, or they were dropped) are not looked at. What is damaged is
never mended in place: its rows are dropped, so that the items are missing, and the next extraction gives them new rows.
"""

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import polars as pl

from .errors import DamageError, RadfsError, counted
from .featureset import FeatureSet, open_feature_set
from .fsio import read_parquet, read_range, remove, write_atomic
from .layout import ArrayLayout
from .lost import find_bad_stamps, find_gaps, find_lost_records, restore_allocation, views_with_files
from .openshard import Shard
from .records import Record, read_record, record_file
from .remote import StorePath
from .sealed import open_json
from .shards import crc32, decode_index, index_size
from .store import Store
from .writer import abandon, abandoned, publish

_READ_BYTES = 16 * 2**20


@dataclass(frozen=True)
class Finding:
    """One thing that is damaged.

    Attributes:
        feature_set: its name; empty for a file outside the feature sets.
        view: of the feature set; -1 where it concerns none.
        shard: number; -1 where it concerns none.
        kind: set, metadata, record, file, row or table.
        message: what was found and what was expected.
        items: ids whose tokens cannot be trusted.
        repaired: what was done about it; empty if nothing was.
    """

    feature_set: str
    view: int
    shard: int
    kind: str
    message: str
    items: tuple[str, ...] = ()
    repaired: str = ""


@dataclass
class VerifyReport:
    """What a verification found.

    Attributes:
        sets: feature sets looked at.
        shards: shards that hold rows that count, all of them looked at.
        bytes: of their files.
        rows: rows that count, and are done.
        findings: damage, in the order of sets and shards.
    """

    sets: int = 0
    shards: int = 0
    bytes: int = 0
    rows: int = 0
    findings: list[Finding] = field(default_factory=list)

    @property
    def clean(self) -> bool:
        """Whether nothing was found."""
        return not self.findings


def verify(
    store: Store, names: Sequence[str] | None = None, *, deep: bool = False, repair: bool = False
) -> VerifyReport:
    """Compare feature sets with their records; of a whole store, see that its tables can be read too.

    Args:
        store: an open store.
        names: feature sets; None for all of the store.
        deep: read every byte and compare checksums. Otherwise: metadata, records, sizes and the shards' indexes.
        repair: drop the rows that are hit, so that `radfs extract` makes them anew, and rewrite metadata.

    Raises:
        UnknownNameError: no such feature set.
    """
    report = VerifyReport()
    for name in sorted(p.name for p in store.features.glob("[!.]*")) if names is None else names:
        report.sets += 1
        try:
            for finding in _feature_set(store, name, report, deep=deep, repair=repair):
                report.findings.append(finding)
        except DamageError as error:  # a table of the set: what lies in its shards cannot be told without it
            report.findings.append(Finding(name, -1, -1, "set", str(error)))
    if names is None:
        report.findings.extend(_tables(store))
    return report


def _feature_set(store: Store, name: str, report: VerifyReport, *, deep: bool, repair: bool) -> Iterator[Finding]:
    folder = store.features / name
    if not (folder / "zarr.json").exists() and folder.is_dir():
        if any(folder.glob("commits/v*/*.json")):
            yield Finding(name, -1, -1, "set", "it has rows and no zarr.json. Restore that file from a copy.")
        return  # otherwise its making was broken off, or goes on
    feature_set = open_feature_set(store, name)
    for gap in find_gaps(feature_set):
        done = restore_allocation(feature_set, gap) if repair else ""
        yield Finding(name, -1, gap.first, "table", gap.message, (), done)
    for path in find_bad_stamps(feature_set):
        done = "removed" if repair and remove(path) else ""
        yield Finding(name, -1, -1, "table", f"stamps/{path.name} is damaged: files are hashed anew", (), done)
    yield from _metadata(feature_set, repair)
    for view in views_with_files(feature_set):
        yield from _view(feature_set, view, report, deep=deep, repair=repair)


def _metadata(feature_set: FeatureSet, repair: bool) -> Iterator[Finding]:
    """The arrays' zarr.json: what strangers' readers go by."""
    for view in sorted({0, *feature_set.views()}):
        shards = max(feature_set.decided(view), default=-1) + 1  # what is only planned is not there to be read
        for array in feature_set.layout.arrays(view):
            path = feature_set.path / array.path / "zarr.json"
            problem = _wrong_metadata(path.read_bytes() if path.exists() else None, array, shards)
            if problem:
                if repair:
                    write_atomic(path, array.metadata(shards))
                done = "written anew" if repair else ""
                yield Finding(feature_set.name, view, -1, "metadata", f"{array.path}/zarr.json {problem}", (), done)


def _wrong_metadata(found: bytes | None, array: ArrayLayout, shards: int) -> str:
    if found is None:
        return "is missing"
    try:
        return _difference(json.loads(found), array, shards)
    except (ValueError, KeyError, TypeError, IndexError, AttributeError, RecursionError):
        return "cannot be read"


def _difference(document: dict[str, Any], array: ArrayLayout, shards: int) -> str:
    length = document["shape"][0]
    expected = json.loads(array.metadata(shards))
    if length < expected["shape"][0]:
        return f"covers {length} of {expected['shape'][0]} {array.dims[0]}s"
    expected["shape"][0] = length
    differing = sorted(k for k in {*expected, *document} if expected.get(k) != document.get(k))
    if "attributes" in differing:
        stored = document.get("attributes", {}).get("radfs", {}).get("weights_sha256")
        ours = expected["attributes"]["radfs"]["weights_sha256"]
        if stored != ours:
            return f"says that the weights' sha256 is {stored}; the set was made with {ours}"
    return f"differs from what radfs writes in {', '.join(differing)}" if differing else ""


def _view(feature_set: FeatureSet, view: int, report: VerifyReport, *, deep: bool, repair: bool) -> Iterator[Finding]:
    records, bad = {}, {}
    for shard in feature_set.decided(view):
        try:
            records[shard] = feature_set.record(view, shard)
        except DamageError as error:
            bad[shard] = str(error)
    for shard, message in bad.items():
        yield _bad_record(feature_set, view, shard, message, records, repair=repair)
    for shard, message in find_lost_records(feature_set, view).items():
        yield _lost_record(feature_set, view, shard, message, records, repair=repair)
    counting = _counting(feature_set, view, records)
    for shard, rows in counting.items():
        record = records[shard]
        report.shards += 1
        report.rows += len(rows)
        report.bytes += sum(file["bytes"] for file in record.files.values())
        if repair:
            publish(feature_set, record)
        for kind, message, hit in _shard(feature_set, record, deep=deep):
            items = tuple(record.items[row - record.first_row] for row in rows if hit is None or row in hit)
            if not items:
                continue  # what is hit does not count any more
            if repair:
                _drop(feature_set, view, record, items, message)
            done = f"{counted(len(items), 'item')} queued" if repair else ""
            yield Finding(feature_set.name, view, shard, kind, message, items, done)


def _counting(feature_set: FeatureSet, view: int, records: dict[int, Record]) -> dict[int, list[int]]:
    """By shard, the rows that are done and count: the newest of each item, unless that was dropped.

    Made from the records themselves, not from the index over them.
    """
    frames = [record.frame() for record in records.values() if record.items]
    if not frames:
        return {}
    newest = pl.concat(frames).sort("row").unique("item", keep="last", maintain_order=True)
    dropped = pl.col("row").is_in(feature_set.dropped(view).implode())
    by_shard: dict[int, list[int]] = {}
    for shard, row in newest.filter((pl.col("state") == "done") & ~dropped).select("shard", "row").iter_rows():
        by_shard.setdefault(shard, []).append(row)
    return dict(sorted(by_shard.items()))


def _shard(feature_set: FeatureSet, record: Record, *, deep: bool) -> Iterator[tuple[str, str, set[int] | None]]:
    """Damage of one shard: kind, message, and the rows that are hit (None for all)."""
    for array in feature_set.layout.arrays(record.view):
        name = array.shard_file(record.shard)
        if name not in record.files:
            yield "record", f"the commit record does not name {name}", None
            continue
        problem = ""
        for path in (feature_set.data_file(record, name), feature_set.path / name):  # it may be renamed to the second
            problem = _wrong_file(path, array, record.files[name], deep=deep)
            if not problem:
                break
        if not problem:
            continue
        bad = set(_bad_rows(feature_set, record, array)) if deep else set()
        # Damage outside all rows, as in the fill of the last chunk: then the shard is made anew as a whole.
        yield (
            ("row", f"{name} {problem}, in {counted(len(bad), 'row')}", bad)
            if bad
            else ("file", f"{name} {problem}", None)
        )


def _wrong_file(path: StorePath, array: ArrayLayout, stored: dict[str, int], *, deep: bool) -> str:
    """What is wrong with a shard file: empty if nothing is."""
    tail = index_size(array.chunks_per_shard)
    try:
        length = path.stat().st_size
        if length != stored["bytes"] or length < tail:
            return f"has {length} bytes in place of {stored['bytes']}"
        index = read_range(path, length - tail, length)
        chunk_bytes = None if array.compressed else array.chunk_bytes
        decode_index(index, payload_bytes=length - tail, chunk_bytes=chunk_bytes, where=path.name)
        found = _file_crc32(path, length) if deep else stored["crc32"]
    except FileNotFoundError:
        return "is missing"
    except OSError as error:
        return f"cannot be read: {error.strerror}"
    except DamageError as error:
        return f"is damaged: {error}"
    if found != stored["crc32"]:
        return f"fails its checksum (stored {stored['crc32']:08x}, found {found:08x})"
    return ""


def _file_crc32(path: StorePath, length: int) -> int:
    """Read, not mapped: a sector that cannot be read is an error then, and not the end of the process."""
    crc = 0
    for start in range(0, length, _READ_BYTES):
        crc = crc32(read_range(path, start, min(start + _READ_BYTES, length)), crc)
    return crc


def _bad_rows(feature_set: FeatureSet, record: Record, array: ArrayLayout) -> Iterator[int]:
    shard = Shard(feature_set, record.view, record.shard)
    for position, tokens in enumerate(record.tokens):
        if tokens is not None:
            try:
                shard.row(array, position)
            except DamageError:
                yield record.first_row + position


def _bad_record(
    feature_set: FeatureSet, view: int, shard: int, message: str, sound: dict[int, Record], *, repair: bool
) -> Finding:
    """A record that cannot be read: its items stand in the allocation.

    It is replaced by one that says that the shard was abandoned, and its rows are dropped, which holds against an
    index made from the record as it was. Both may be done twice, and a shard's number is never used again.
    """
    path = feature_set.path / record_file(view, shard)
    try:
        read_record(path)
        return Finding(feature_set.name, view, shard, "set", message)  # whole, and of another set: not ours to mend
    except DamageError:
        pass
    allocated = feature_set.allocated_items(shard)
    items = _without_newer(allocated, shard, sound)
    if repair:
        first = shard * feature_set.layout.shard_rows
        rows = pl.DataFrame({"row": range(first, first + len(allocated)), "item": allocated})
        feature_set.drop(rows.with_columns(view=pl.lit(view, pl.Int64), reason=pl.lit("its commit record was damaged")))
        write_atomic(path, abandoned(feature_set, view, shard).encode())
    done = f"abandoned; {counted(len(items), 'item')} queued" if repair else ""
    return Finding(feature_set.name, view, shard, "record", message, items, done)


def _lost_record(
    feature_set: FeatureSet, view: int, shard: int, message: str, sound: dict[int, Record], *, repair: bool
) -> Finding:
    """A record that is gone: its items are missing, and are made anew whether this is repaired or not."""
    items = _without_newer(feature_set.allocated_items(shard), shard, sound)
    done = f"abandoned; {counted(len(items), 'item')} queued" if repair and abandon(feature_set, view, shard) else ""
    return Finding(feature_set.name, view, shard, "record", message, items, done)


def _without_newer(items: Sequence[str], shard: int, sound: dict[int, Record]) -> tuple[str, ...]:
    """Those items of a shard that have no newer row."""
    newer = {item for number, record in sound.items() if number > shard for item in record.items}
    return tuple(item for item in items if item not in newer)


def _drop(feature_set: FeatureSet, view: int, record: Record, items: Sequence[str], reason: str) -> None:
    place = {item: record.first_row + i for i, item in enumerate(record.items)}
    feature_set.drop(
        pl.DataFrame({"row": [place[item] for item in items], "item": list(items)}).with_columns(
            view=pl.lit(view, pl.Int64), reason=pl.lit(reason)
        )
    )


def _tables(store: Store) -> Iterator[Finding]:
    """Truth files outside the feature sets: each must be what was written, by its own checksum."""
    for pattern in ("items/*/*.parquet", "cohorts/[!.]*/[!.]*/*.parquet", "results/[!.]*/*.parquet"):
        for path in sorted(store.root.glob(pattern)):
            yield from _unreadable(path, lambda path: read_parquet(path, []))
    for path in sorted(store.cohorts.glob("*/cohort.json")):
        yield from _unreadable(path, lambda path: open_json(path.read_bytes()))


def _unreadable(path: StorePath, read: Callable[[StorePath], object]) -> Iterator[Finding]:
    try:
        read(path)
    except (OSError, ValueError, RecursionError, RadfsError, pl.exceptions.PolarsError) as error:
        how = f"{path} is damaged ({type(error).__name__}). Restore it from a copy, or make it anew as it was made"
        yield Finding("", -1, -1, "table", how)
