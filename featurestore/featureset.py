"""A feature set on disk: which items have which rows, and which shards are decided. Never sees an encoder.

Truth files (docs/format.md), every one created if its name is free and then never changed:

    zarr.json                    what the set is
    rows/<first shard>.parquet   an allocation: item and row, for shards from this one on
    commits/v0/<shard>.json      the decision on one shard of one view (`records`)
    dropped/<n>.parquet          rows that no longer count: damaged, or taken out
    stamps/<n>.parquet           newer stamps of rows whose image files were moved or touched

There is no lock. An allocation is a compare-and-swap: it begins where the last one ends and its name says where, so
of two processes that plan at once one finds the name taken, looks again, and takes what the other allocated.
"""

import json
import os
import re
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import PurePath
from typing import Any

import polars as pl

from .errors import DamageError, DataError, StoreError, unknown_name
from .fsio import names, parquet_bytes, read_whole, write_atomic, write_new
from .index import RowIndex
from .layout import LARGEST_METADATA, FeatureLayout
from .records import COMMIT_SCHEMA, Record, read_record, record_file
from .remote import ObjectPath, StorePath
from .sources import ABSENT_SOURCE, same_sources, source_stamp
from .store import Store
from .tables import append_table, numbered, read_log, read_table

ROW_SCHEMA = pl.Schema({"item": pl.String, "row": pl.Int64})
_ROWS_ALONE = pl.Schema({"row": pl.Int64})
STAMP_SCHEMA = pl.Schema({"row": pl.Int64, "content": pl.String, "stamp": pl.String})
"""The content belongs to it: two views of a row may have been made from different bytes."""

DROP_SCHEMA = pl.Schema({"row": pl.Int64, "view": pl.Int64, "item": pl.String, "reason": pl.String})

_FLAT = ("rows", "stamps", "dropped", "staged", "claims")
"""Folders of a set that hold files alone, of which there may be many."""

MOST_SHARDS = 10**8
"""Their numbers have eight digits."""

_VIEW = re.compile(r"[0-9]{1,4}")
_FEW_SHARDS = 8


@dataclass(frozen=True)
class ShardPlan:
    """A shard to be made: its number, its view, and its items, row `first_row + i` for item i."""

    view: int
    shard: int
    first_row: int
    items: tuple[str, ...]


@dataclass(frozen=True)
class Allocation:
    """Rows given to items at once: shards from `first` up to, not including, `end`."""

    path: StorePath
    first: int
    end: int


@dataclass(frozen=True)
class FeatureSet:
    """One encoder's tokens in a store; `name` is `encoder@key`."""

    path: StorePath
    layout: FeatureLayout

    @property
    def name(self) -> str:
        """Name of its folder: `encoder@key`, or `encoder@key-archive`."""
        return self.path.name

    @property
    def identity(self) -> str:
        """`encoder@key`: the same for sets that hold the same numbers, plain and as an archive."""
        return self.layout.identity

    @property
    def is_imported(self) -> bool:
        """Whether its tokens were made elsewhere, so that `radfs extract` cannot make them."""
        return "imported" in self.layout.what

    def how_to_fill(self, cohort: str | None = None) -> str:
        """What to do so that items which it lacks (of a cohort) come in: one or two sentences."""
        preset = "" if self.layout.dtype == "float16" else f" --preset {self.layout.dtype}"
        if "recoded_from" in self.layout.what:
            return (
                f"It was recoded: add them to the set that it was made from, and run `radfs recode` of that{preset} "
                "again. Where that set is gone, make it anew."
            )
        if self.is_imported:
            return "Run `radfs import` with a source that has them."
        return f"Run `radfs extract --backbone {self.encoder}{preset}{f' --cohort {cohort}' if cohort else ''}`."

    @property
    def encoder(self) -> str:
        """The encoder's name."""
        return self.layout.encoder

    @property
    def modality(self) -> str:
        """image or text."""
        return self.layout.modality

    @property
    def dim(self) -> int:
        """Width of a token."""
        return self.layout.dim

    @property
    def attrs(self) -> dict[str, Any]:
        """What the encoder was (`what`) and its licence and source (`about`)."""
        return {"what": self.layout.what, "about": self.layout.about}

    def views(self) -> list[int]:
        """The views that have decided shards."""
        names = [p.name[1:] for p in (self.path / "commits").glob("v*")]
        return sorted(int(name) for name in names if _VIEW.fullmatch(name))

    def is_decided(self, view: int, shard: int) -> bool:
        """Whether a shard has its record."""
        return (self.path / record_file(view, shard)).exists()

    def decided(self, view: int) -> list[int]:
        """The shards that have a record, sorted."""
        return numbered(self.path / "commits" / f"v{view}", ".json")

    def all_decided(self) -> list[tuple[int, int]]:
        """Shard and view of every record, the last shard first."""
        return sorted(((shard, view) for view in self.views() for shard in self.decided(view)), reverse=True)

    def end_of(self, decided: Sequence[tuple[int, int]], least: int) -> int:
        """The number after that of the last of these shards (`all_decided`) with a sound record, but `least` at least.

        Decided shards lie within what was allocated; those beyond tell of an allocation that was lost.
        """
        for shard, view in decided:
            if shard < least:
                break
            with suppress(DamageError):
                self.record(view, shard)
                return shard + 1
        return least

    def record(self, view: int, shard: int) -> Record:
        """The record of a shard.

        Raises:
            DamageError: it cannot be read, or does not fit the set.
        """
        record = read_record(self.path / record_file(view, shard))
        arrays = self.layout.arrays(view)
        holds = (set(record.files), set(record.crc32), record.first_row)
        fits = ({a.shard_file(shard) for a in arrays}, {a.path for a in arrays}, shard * self.layout.shard_rows)
        if record.state == "committed" and (holds != fits or not self._can_hold(record)):
            raise DamageError(
                f"feature set {self.name}: the commit record of shard {shard}, view {view} names other files or rows "
                "than the set can have, though its checksum holds: it is of another set, or of another radfs. Restore "
                "the set from a copy."
            )
        return record

    def _can_hold(self, record: Record) -> bool:
        largest = {a.shard_file(record.shard): a.most_bytes for a in self.layout.arrays(record.view)}
        if any(file["bytes"] > largest[name] for name, file in record.files.items()):
            return False
        tokens = {n for n in record.tokens if n is not None}
        least = 1 if self.modality == "text" else self.layout.tokens
        return len(record.items) <= self.layout.shard_rows and all(least <= n <= self.layout.tokens for n in tokens)

    def records(self, view: int = 0) -> Iterator[Record]:
        """The records of a view, in the order of shards."""
        for shard in self.decided(view):
            yield self.record(view, shard)

    def data_file(self, record: Record, name: str) -> StorePath:
        """Where a file of a committed shard lies: under its own name, or still where its maker staged it.

        As long as it is staged, what stands under its own name is nobody's. It is renamed from the one to the other
        at any time: who finds nothing looks again. A staged file of another size came with a copy that was made while
        the shard was written.
        """
        staged = self.path / record.staged_file(name)
        try:
            whole = staged.stat().st_size == record.files[name]["bytes"]
        except FileNotFoundError:
            whole = False
        return staged if whole else self.path / name

    def has_file(self, record: Record, name: str) -> bool:
        """Whether a file of a committed shard is there. Its own name is looked at last: it is renamed to that."""
        path = self.data_file(record, name)
        return path != self.path / name or path.exists()

    def committed(self, view: int = 0, items: pl.Series | None = None) -> pl.DataFrame:
        """The newest committed row of every item (of these): columns of `COMMIT_SCHEMA`, state done or failed."""
        # A row that was dropped is not made good by an older one: that had failed, or is of what the item was before.
        return self._newest(view, items).filter(~pl.col("row").is_in(self.dropped(view).implode()))

    def _newest(self, view: int, items: pl.Series | None) -> pl.DataFrame:
        """`committed`, dropped rows included."""
        rows = RowIndex(self.path, view).lookup(items)
        if rows.select((pl.col("row") // self.layout.shard_rows != pl.col("shard")).any()).item():
            raise DamageError(
                f"feature set {self.name}: a row stands outside its shard. Run `radfs verify {self.name}`."
            )
        return rows.sort("row").unique("item", keep="last", maintain_order=True)

    def dropped(self, view: int) -> pl.Series:
        """Rows of a view that no longer count."""
        frame = read_log(self.path / "dropped", DROP_SCHEMA)
        return frame.filter(pl.col("view").is_null() | (pl.col("view") == view))["row"].unique()

    def drop(self, rows: pl.DataFrame) -> None:
        """Let rows no longer count; the items are missing from now on. Columns of `DROP_SCHEMA`; view null for all."""
        if not rows.is_empty():
            append_table(self.path / "dropped", rows.select(DROP_SCHEMA.names()).cast(DROP_SCHEMA))

    def allocations(self) -> list[Allocation]:
        """All allocations, in the order of shards."""
        firsts = numbered(self.path / "rows", ".parquet")
        paths = [self.path / "rows" / f"{first:08d}.parquet" for first in firsts]
        ends = [*firsts[1:], self._end(paths[-1])] if paths else []
        return [Allocation(path, first, end) for path, first, end in zip(paths, firsts, ends, strict=True)]

    def allocated_items(self, shard: int) -> list[str]:
        """The items of an allocated shard, in the order of rows."""
        for allocation in self.allocations():
            if allocation.first <= shard < allocation.end:
                rows = self.allocated(allocation.path).drop_nulls()
                return rows.filter(pl.col("row") // self.layout.shard_rows == shard)["item"].to_list()
        return []

    def allocated(self, path: StorePath) -> pl.DataFrame:
        """The rows that an allocation gave: columns of `ROW_SCHEMA`. Items that nobody knows any more are null.

        Raises:
            DamageError: it cannot be read, or gives other rows than its name says.
        """
        rows = read_table(path, ROW_SCHEMA)
        first = int(path.stem) * self.layout.shard_rows
        if not (rows["row"] == pl.Series(range(first, first + len(rows)), dtype=pl.Int64)).all():
            raise DamageError(
                f"feature set {self.name}: its table rows/{path.name} gives other rows than {first} and on. "
                f"Run `radfs verify {self.name}`."
            )
        return rows

    def _end(self, last: StorePath) -> int:
        return int(last.stem) + -(-len(read_table(last, _ROWS_ALONE)) // self.layout.shard_rows)

    def status(self, items: pl.DataFrame, view: int = 0) -> pl.DataFrame:
        """What the set holds of these items.

        A row counts only while its item is what it was: a report with another text, or an image file with other
        bytes, is missing again. An image file that is gone cannot be compared; its row stands. A row whose shard has
        lost its files is missing too.

        Args:
            items: columns of `items.STORED_SCHEMA`, of this set's modality.
            view: 0 is the clean one.

        Returns:
            columns of `COMMIT_SCHEMA` in the order of `items`; state is done, failed or missing.
        """
        return self._compare(items, view).select(COMMIT_SCHEMA.names())

    def _compare(self, items: pl.DataFrame, view: int) -> pl.DataFrame:
        """`status`, with the stamp of every source as it is now (`stamp_now`)."""
        committed = self.committed(view, items["item"]).join(self._newer_stamps(), on=["row", "content"], how="left")
        committed = committed.with_columns(stamp=pl.coalesce("stamp_newer", "stamp")).drop("stamp_newer")
        frame = items.join(committed, on="item", how="left", maintain_order="left").with_columns(
            pl.Series("stamp_now", [source_stamp(path) for path in items["path"]], dtype=pl.String)
        )
        lost = self._lost(view, frame["shard"].unique().drop_nulls().to_list())
        # A failure needs no file to be known.
        counts = same_sources(frame) & ~(frame["shard"].is_in(lost) & (frame["state"] == "done").fill_null(False))
        return frame.with_columns(state=pl.when(counts).then("state").otherwise(pl.lit("missing")))

    def _lost(self, view: int, shards: list[int]) -> list[int]:
        """Those of these committed shards that have lost a file."""
        arrays = self.layout.arrays(view)
        if len(shards) < _FEW_SHARDS:
            files = {s: [self.path / array.shard_file(s) for array in arrays] for s in shards}
            doubtful = [s for s in shards if not all(path.exists() for path in files[s])]
        else:  # one look at each folder is quicker than one at each file
            held = {array.path: set(names(self.path / array.path)) for array in arrays}
            doubtful = [s for s in shards if any(PurePath(a.shard_file(s)).name not in held[a.path] for a in arrays)]
        records = (self.record(view, shard) for shard in doubtful)
        return [r.shard for r in records if not all(self.has_file(r, name) for name in r.files)]

    def _newer_stamps(self) -> pl.DataFrame:
        stamps = read_log(self.path / "stamps", STAMP_SCHEMA)
        return stamps.unique(["row", "content"], keep="last", maintain_order=True).rename({"stamp": "stamp_newer"})

    def _restamp(self, compared: pl.DataFrame) -> None:
        """Keep the stamps of files that were moved or touched and found the same, so that nobody hashes them again."""
        moved = compared.filter(
            (pl.col("state") != "missing")
            & pl.col("stamp").ne_missing(pl.col("stamp_now"))
            & (pl.col("stamp_now") != ABSENT_SOURCE)
        ).select("row", "content", stamp="stamp_now")
        if not moved.is_empty():
            append_table(self.path / "stamps", moved)

    def plan(self, items: pl.DataFrame, view: int = 0, *, retry_failed: bool = False) -> list[ShardPlan]:
        """The shards to be made so that none of `items` is missing; rows are allocated where they have none.

        Shards that were allocated before and are not decided come first, whole and in the same rows; new rows follow
        in whole shards, so that no shard is ever written twice. Any number of processes may plan at once.
        """
        RowIndex(self.path, view).compact()
        wanted = fresh = items["item"]
        while True:
            # What is open comes before what is missing: a shard that is decided between the two looks is then still
            # open here, where the other way round its items would be neither, and get other rows.
            decided = self.all_decided()
            allocations = self.allocations()
            pending = self._undecided(allocations, view)
            counting = self._counting(pending, view)
            missing = self._wanted(items.filter(items["item"].is_in(fresh.implode())), view, retry_failed=retry_failed)
            wanted = wanted.filter(~wanted.is_in(fresh.implode()) | wanted.is_in(missing.implode()))
            counting = counting.filter(pl.col("item").is_in(wanted.implode()))
            fresh = wanted.filter(~wanted.is_in(counting["item"].implode()))
            if fresh.is_empty():
                break
            self._allocate(fresh, self.end_of(decided, allocations[-1].end if allocations else 0))
        self._grow(view)
        shards = pending.filter(pl.col("shard").is_in(counting["shard"].unique().implode())).sort("row")
        return [
            ShardPlan(view, shard, shard * self.layout.shard_rows, tuple(part["item"]))
            for (shard,), part in shards.group_by("shard", maintain_order=True)
            if isinstance(shard, int)
        ]

    def _wanted(self, items: pl.DataFrame, view: int, *, retry_failed: bool) -> pl.Series:
        """Those of `items` that are missing, or failed and are to be tried again."""
        status = self._compare(items, view)
        self._restamp(status)
        return status.filter(pl.col("state").is_in(["missing", "failed"] if retry_failed else ["missing"]))["item"]

    def _counting(self, pending: pl.DataFrame, view: int) -> pl.DataFrame:
        """The open rows that will count once they are made. Of the rows of an item the newest does: no older helps."""
        rows = pending.filter(~pl.col("row").is_in(self.dropped(view).implode())).sort("row")
        rows = rows.unique("item", keep="last", maintain_order=True)
        done = self._newest(view, rows["item"]).select("item", newest="row")
        newest = pl.col("newest")  # equal to the row where that was committed this moment
        return rows.join(done, on="item", how="left").filter(newest.is_null() | (pl.col("row") >= newest))

    def is_unfinished(self, view: int = 0) -> bool:
        """Whether shards were planned that are not decided: they are being made, or their making was broken off."""
        return not self._undecided(self.allocations(), view).is_empty()

    def _undecided(self, allocations: list[Allocation], view: int) -> pl.DataFrame:
        """Rows of allocated shards without a record: columns of `ROW_SCHEMA` and `shard`. Reads only what has some."""
        done = set(self.decided(view))
        frames = [ROW_SCHEMA.to_frame().with_columns(shard=pl.lit(0, pl.Int64))]
        for allocation in allocations:
            open_shards = [s for s in range(allocation.first, allocation.end) if s not in done]
            if open_shards:
                rows = (
                    self.allocated(allocation.path)
                    .drop_nulls()
                    .with_columns(shard=pl.col("row") // self.layout.shard_rows)
                )
                frames.append(rows.filter(pl.col("shard").is_in(open_shards)))
        return pl.concat(frames)

    def _allocate(self, fresh: pl.Series, first_shard: int) -> None:
        """Give rows to items, from this shard on; nothing happens if another process took the place meanwhile."""
        if first_shard + len(fresh) // self.layout.shard_rows >= MOST_SHARDS:
            raise StoreError(
                f"feature set {self.name} has a shard {first_shard - 1}, and at most {MOST_SHARDS} can be: it is of "
                "another radfs, or was damaged. Restore it from a copy."
            )
        first = first_shard * self.layout.shard_rows
        frame = pl.DataFrame({"item": fresh, "row": range(first, first + len(fresh))}, schema=ROW_SCHEMA)
        write_new(self.path / "rows" / f"{first_shard:08d}.parquet", parquet_bytes(frame))

    def _grow(self, view: int) -> None:
        """Let the arrays reach over every allocated shard; they never shrink.

        Who grows an array to an older length than another process just did sees the newer allocation when it looks
        again; if it is killed before, the next plan mends it. Our own readers do not look at shapes.
        """
        while True:
            shards = max((a.end for a in self.allocations()), default=0)
            for array in self.layout.arrays(view):
                path = self.path / array.path / "zarr.json"
                if _length(path) < shards * array.shard_shape[0]:
                    write_atomic(path, array.metadata(shards))
            if max((a.end for a in self.allocations()), default=0) == shards:
                return


def create_feature_set(store: Store, layout: FeatureLayout) -> FeatureSet:
    """The feature set of this layout, made if the store has none of its name."""
    path = store.features / layout.name
    if not (path / "zarr.json").exists():
        for array in layout.arrays():
            write_new(path / array.path / "zarr.json", array.metadata(0))
        write_new(path / "zarr.json", layout.metadata())  # last: a set without it does not exist
    return open_feature_set(store, layout.name)


def open_feature_set(store: Store, name: str) -> FeatureSet:
    """The feature set called `encoder@key`.

    Raises:
        UnknownNameError: the store has none of this name.
        DamageError: its metadata cannot be read, or is not what its name says.
    """
    path = store.features / name
    known = _set_names(store)
    if name not in known:
        raise unknown_name("feature set", name, known)
    try:
        layout = FeatureLayout.from_metadata(read_whole(path / "zarr.json", LARGEST_METADATA))
        described = layout.name
    except (OSError, ValueError, RecursionError) as error:
        raise DamageError(f"feature set {name}: its zarr.json is not one that this radfs wrote: {error}.") from error
    if described != name:
        raise DamageError(
            f"feature set {name}: its zarr.json describes {described} (encoder, weights' sha256 or preprocessing "
            "differ from what its name was made from). Restore the file or the folder's name from a copy."
        )
    _refuse_links(path)
    return FeatureSet(path, layout)


def _refuse_links(path: StorePath) -> None:
    """Refuse a set whose folders are links: what a stranger's store points to would be read, or collected as garbage.

    The folder of the whole set may be one, to another disk. Files are looked at when they are opened.
    """
    if isinstance(path, ObjectPath):
        return
    for folder in (path, *(path / name for name in names(path) if name not in _FLAT)):
        links = [entry.path for entry in os.scandir(folder) if entry.is_symlink()] if folder.is_dir() else []
        if links:
            raise DamageError(
                f"feature set {path.name}: {links[0]} is a symbolic link. Put in its place what it means."
            )


def list_feature_sets(store: Store) -> list[FeatureSet]:
    """All feature sets of the store, by name."""
    return [open_feature_set(store, name) for name in _set_names(store)]


def _set_names(store: Store) -> list[str]:
    return sorted(p.parent.name for p in store.features.glob("*/zarr.json"))


def find_feature_sets(store: Store, encoder: str) -> list[FeatureSet]:
    """The sets that an encoder made, complete or not: several if its weights, preprocessing or codec changed.

    Where the same numbers are kept twice, plain and as an archive, the fuller set comes alone; of equals the plain one.
    """
    names = [n for n in _set_names(store) if encoder in (n, n.partition("@")[0])]  # a damaged other set is no obstacle
    found = [open_feature_set(store, name) for name in names]
    fullest: dict[str, FeatureSet] = {}
    for one in sorted(found, key=lambda s: s.layout.codec.compressed):
        if one.identity not in fullest or len(one.decided(0)) > len(fullest[one.identity].decided(0)):
            fullest[one.identity] = one
    return [s for s in found if s.name == encoder or fullest[s.identity] is s]


def find_one_feature_set(store: Store, name: str) -> FeatureSet:
    """The one feature set that `name`, an encoder or `encoder@key`, means in this store.

    Raises:
        UnknownNameError: there is none.
        DataError: there are several; names them.
    """
    found = find_feature_sets(store, name)
    if len(found) > 1:
        raise several_sets(name, found)
    return found[0] if found else open_feature_set(store, name)


def several_sets(name: str, found: Sequence[FeatureSet]) -> DataError:
    """The error that `name`, an encoder, means several feature sets."""
    sets = ", ".join(f"{one.name} ({one.layout.dtype})" for one in found)
    return DataError(f"the store has several feature sets of {name}: {sets}. Name one of them in its place.")


def _length(path: StorePath) -> int:
    try:
        return int(json.loads(read_whole(path, LARGEST_METADATA))["shape"][0])
    except (OSError, ValueError, KeyError, TypeError, IndexError, OverflowError, RecursionError):
        return -1  # gone, or not ours: it is written anew
