"""What a feature set must have had and has no more: allocations and commit records that are gone, or damaged.

The two speak of each other, so the loss of one shows in what is left. Shards are given without a gap, and records lie
within what was given; a file has its own name only after its record stands, and so has a shard its place in the index.
A shard that was lost with its record, its files and its place in the index is one to be made anew, and no damage.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import zip_longest

import polars as pl

from .errors import DamageError
from .featureset import ROW_SCHEMA, STAMP_SCHEMA, FeatureSet
from .fsio import names, parquet_bytes, remove, write_atomic
from .index import RowIndex
from .remote import StorePath
from .tables import numbered, read_table

_VIEW = re.compile(r"v([0-9]{1,4})")
_SHARD = re.compile(r"c\.([0-9]{1,8})(\.0)*")


_MOST_A_RECORD = 1000
"""Shards of an allocation for each record within it, up to which it is made anew."""


@dataclass(frozen=True)
class Gap:
    """Shards from `first` up to, not including, `end`, whose allocation is missing or damaged, as `message` says."""

    first: int
    end: int
    message: str


def find_gaps(feature_set: FeatureSet) -> Iterator[Gap]:
    """The allocations that are missing or damaged, in the order of shards."""
    decided = feature_set.all_decided()  # looked at before the allocations, which come before any record
    firsts, expected = numbered(feature_set.path / "rows", ".parquet"), 0
    for first, following in zip_longest(firsts, firsts[1:]):
        if expected < first:
            yield _missing(expected, first)
        path = _allocation(feature_set, first)
        try:
            expected = first + -(-len(feature_set.allocated(path)) // feature_set.layout.shard_rows)
        except DamageError as error:
            expected = feature_set.end_of(decided, first) if following is None else following
            yield Gap(first, expected, str(error))
    if expected < (end := feature_set.end_of(decided, expected)):
        yield _missing(expected, end)


def restore_allocation(feature_set: FeatureSet, gap: Gap) -> str:
    """Write an allocation anew from the records within it; says what was done.

    What it gave to shards that nobody had made yet is not known any more: those items get other rows.
    """
    size, path = feature_set.layout.shard_rows, _allocation(feature_set, gap.first)
    if gap.first == gap.end:
        remove(path)
        return "removed; nothing of it had been made"
    held = {s: view for s, view in feature_set.all_decided() if gap.first <= s < gap.end}
    if gap.end - gap.first > _MOST_A_RECORD * max(1, len(held)):
        return ""  # a stranger's: it would fill the memory
    items: list[str | None] = [None] * ((gap.end - gap.first) * size)
    for shard, view in held.items():
        at, known = (shard - gap.first) * size, _items(feature_set, view, shard)
        items[at : at + len(known)] = known
    first = gap.first * size
    frame = pl.DataFrame({"item": items, "row": range(first, first + len(items))}, schema=ROW_SCHEMA)
    write_atomic(path, parquet_bytes(frame))
    return "written anew from the commit records"


def find_lost_records(feature_set: FeatureSet, view: int) -> dict[int, str]:
    """Shards that have no record though they had one: what tells of it, by shard."""
    files = [
        (int(match[1]), f"{array.path}/{name}")
        for array in feature_set.layout.arrays(view)
        for name in names(feature_set.path / array.path)
        if (match := _SHARD.fullmatch(name))
    ]
    holes = [(shard, "its place in the index") for shard in RowIndex(feature_set.path, view).holes()]
    decided = set(feature_set.decided(view))  # looked at last: what comes meanwhile has a record
    found = {shard: what for shard, what in sorted([*holes, *files]) if shard not in decided}
    return {
        shard: f"the commit record is missing and {what} is there: the record was lost, or a copy of the store was "
        "made while it was written, or not to the end"
        for shard, what in found.items()
    }


def views_with_files(feature_set: FeatureSet) -> list[int]:
    """The views that have records or files."""
    matches = map(_VIEW.fullmatch, names(feature_set.path / "tokens"))
    return sorted({*feature_set.views(), *(int(match[1]) for match in matches if match)})


def find_bad_stamps(feature_set: FeatureSet) -> Iterator[StorePath]:
    """The damaged parts of the log of stamps, which nothing is lost without: files are hashed again."""
    for number in numbered(feature_set.path / "stamps", ".parquet"):
        path = feature_set.path / "stamps" / f"{number:08d}.parquet"
        try:
            read_table(path, STAMP_SCHEMA)
        except DamageError:
            yield path


def _missing(first: int, end: int) -> Gap:
    return Gap(first, end, f"rows/{first:08d}.parquet is missing: it gave rows to shards {first} to {end - 1}")


def _allocation(feature_set: FeatureSet, first: int) -> StorePath:
    return feature_set.path / "rows" / f"{first:08d}.parquet"


def _items(feature_set: FeatureSet, view: int, shard: int) -> list[str]:
    try:
        return list(feature_set.record(view, shard).items)
    except DamageError:
        return []  # found and mended by itself
