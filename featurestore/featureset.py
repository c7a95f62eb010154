"""A feature set on disk: which items have which rows, and which shards are committed. Never sees an encoder.

Truth files (design: the commit record is the commit):

    features/<name>/zarr.json             what the set is
    features/<name>/rows/<n>.parquet      an allocation: item, row, stamp of the source when it was allocated
    features/<name>/stamps/<n>.parquet    newer stamps of rows whose image files were moved or touched
    features/<name>/commits/<shard>.json  a committed shard: files with sizes and checksums, rows, failures

A shard file without a record does not exist for readers.
"""

import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl

from .errors import DamageError, StoreError, unknown_name
from .fsio import exclusive, parquet_bytes, write_atomic, write_new
from .items import text_hash
from .keys import content_key
from .layout import FeatureLayout
from .store import Store

ROW_SCHEMA = pl.Schema({"item": pl.String, "row": pl.Int64, "stamp": pl.String})
COMMIT_SCHEMA = pl.Schema(
    {
        "item": pl.String,
        "row": pl.Int64,
        "shard": pl.Int64,
        "state": pl.String,
        "content": pl.String,
        "tokens": pl.Int32,
        "truncated": pl.Boolean,
        "reason": pl.String,
    }
)
ABSENT_SOURCE = "absent"


@dataclass(frozen=True)
class ShardPlan:
    """A shard to be made: its number and its items, row `first_row + i` for item i."""

    shard: int
    first_row: int
    items: tuple[str, ...]


@dataclass(frozen=True)
class FeatureSet:
    """One encoder's tokens in a store; `name` is `encoder@key`."""

    path: Path
    layout: FeatureLayout

    @property
    def name(self) -> str:
        """`encoder@key`."""
        return self.path.name

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

    def record_path(self, shard: int) -> Path:
        """The commit record of a shard."""
        return self.path / "commits" / f"{shard:06d}.json"

    @contextmanager
    def writing(self) -> Iterator[None]:
        """Hold the set's lock: one process plans and writes at a time, and dies without leaving the lock behind.

        Temporary files of a process that was killed here are removed: nobody else can be writing them.
        """
        with exclusive(self.path / ".lock", f"feature set {self.name}"):
            for leftover in self.path.rglob(".*.partial"):
                leftover.unlink()
            yield

    def records(self) -> Iterator[dict[str, Any]]:
        """The commit records, in the order of shards."""
        for path in sorted((self.path / "commits").glob("[0-9]*.json")):
            yield read_record(path)

    def committed(self) -> pl.DataFrame:
        """The newest committed row of every item: columns of `COMMIT_SCHEMA`, state done or failed."""
        frames = [rows_of_record(record) for record in self.records()]
        frame = pl.concat(frames) if frames else COMMIT_SCHEMA.to_frame()
        return frame.sort("row").unique("item", keep="last", maintain_order=True)

    def allocated(self) -> pl.DataFrame:
        """Every row that was ever allocated: columns of `ROW_SCHEMA`."""
        parts = sorted((self.path / "rows").glob("[0-9]*.parquet"))
        return pl.concat([pl.read_parquet(p) for p in parts]) if parts else ROW_SCHEMA.to_frame()

    def status(self, items: pl.DataFrame) -> pl.DataFrame:
        """What the set holds of these items.

        A row counts only while its item is what it was: a report with another text, or an image file with other
        bytes, is missing again. An image file that is gone cannot be compared; its row stands.

        Args:
            items: columns of `items.ITEM_SCHEMA`, of this set's modality.

        Returns:
            columns of `COMMIT_SCHEMA` in the order of `items`; state is done, failed or missing.
        """
        return self._compare(items).select(COMMIT_SCHEMA.names())

    def _compare(self, items: pl.DataFrame) -> pl.DataFrame:
        """`status`, with the stamp of every row as stored (`stamp`) and as it is now (`stamp_now`)."""
        committed = self.committed().join(self._stamps(), on="row", how="left")
        frame = items.join(committed, on="item", how="left").with_columns(
            pl.Series("stamp_now", [source_stamp(path) for path in items["path"]], dtype=pl.String)
        )
        same = [_same_source(row) for row in frame.iter_rows(named=True)]
        state = pl.when(pl.Series(same, dtype=pl.Boolean)).then("state").otherwise(pl.lit("missing"))
        return frame.with_columns(state=state)

    def _stamps(self) -> pl.DataFrame:
        """The newest stamp of every row."""
        newer = [pl.read_parquet(p) for p in sorted((self.path / "stamps").glob("[0-9]*.parquet"))]
        stamps = pl.concat([self.allocated().select("row", "stamp"), *newer])
        return stamps.unique("row", keep="last", maintain_order=True)

    def _restamp(self, compared: pl.DataFrame) -> None:
        """Keep the stamps of files that were moved or touched and found the same, so that nobody hashes them again."""
        moved = compared.filter(
            (pl.col("state") != "missing")
            & (pl.col("stamp") != pl.col("stamp_now"))
            & (pl.col("stamp_now") != ABSENT_SOURCE)
        ).select("row", stamp="stamp_now")
        if not moved.is_empty():
            number = len(list((self.path / "stamps").glob("[0-9]*.parquet")))
            write_new(self.path / "stamps" / f"{number:06d}.parquet", parquet_bytes(moved))

    def plan(self, items: pl.DataFrame, *, retry_failed: bool = False) -> list[ShardPlan]:
        """Allocate rows for what is missing of `items`; call it under `writing()`.

        Shards that an earlier call allocated and did not finish come first, whole and in the same rows; new rows
        follow in whole shards, so that no shard is ever written twice.
        """
        status = self._compare(items)
        self._restamp(status)
        again = ["missing", "failed"] if retry_failed else ["missing"]
        wanted = status.filter(pl.col("state").is_in(again))["item"]
        rows = self.allocated().with_columns(shard=pl.col("row") // self.layout.shard_rows)
        done = {int(path.stem) for path in (self.path / "commits").glob("[0-9]*.json")}
        open_rows = rows.filter(~pl.col("shard").is_in(list(done)))
        resumed = open_rows.filter(pl.col("item").is_in(wanted.implode()))["shard"].unique().sort().to_list()
        pending = open_rows.filter(pl.col("shard").is_in(resumed))
        fresh = items.filter(pl.col("item").is_in(wanted.implode()) & ~pl.col("item").is_in(pending["item"].implode()))
        if not fresh.is_empty():
            pending = pl.concat([pending, self._allocate(fresh, rows)])
        self._grow(max(pending["shard"].to_list(), default=-1) + 1)
        return [
            ShardPlan(shard, shard * self.layout.shard_rows, tuple(part["item"]))
            for (shard,), part in pending.sort("row").group_by("shard", maintain_order=True)
            if isinstance(shard, int)
        ]

    def _allocate(self, fresh: pl.DataFrame, rows: pl.DataFrame) -> pl.DataFrame:
        first = (max(rows["shard"].to_list()) + 1) * self.layout.shard_rows if len(rows) else 0
        frame = fresh.select(
            "item",
            pl.int_range(first, first + len(fresh), dtype=pl.Int64).alias("row"),
            pl.Series("stamp", [source_stamp(path) for path in fresh["path"]], dtype=pl.String),
        )
        number = len(list((self.path / "rows").glob("[0-9]*.parquet")))
        if not write_new(self.path / "rows" / f"{number:06d}.parquet", parquet_bytes(frame)):
            raise StoreError(f"{self.name}: allocation {number} exists already; run the same command again.")
        return frame.with_columns(shard=pl.col("row") // self.layout.shard_rows)

    def _grow(self, shards: int) -> None:
        """Let the arrays reach over `shards` shards; they never shrink."""
        for array in self.layout.arrays:
            path = self.path / array.path / "zarr.json"
            if json.loads(path.read_bytes())["shape"][0] < shards * array.shard_shape[0]:
                write_atomic(path, array.metadata(shards))


def create_feature_set(store: Store, layout: FeatureLayout) -> FeatureSet:
    """The feature set of this layout, made if the store has none of its name."""
    path = store.features / layout.name
    if not (path / "zarr.json").exists():
        with exclusive(path / ".lock", f"feature set {layout.name}"):
            if not (path / "zarr.json").exists():  # nobody made it while this process came to the lock
                for array in layout.arrays:
                    write_atomic(path / array.path / "zarr.json", array.metadata(0))
                write_new(path / "zarr.json", layout.metadata())  # last: a set without it does not exist
    return open_feature_set(store, layout.name)


def open_feature_set(store: Store, name: str) -> FeatureSet:
    """The feature set called `encoder@key`.

    Raises:
        UnknownNameError: the store has none of this name.
        DamageError: its metadata cannot be read.
    """
    path = store.features / name
    known = [p.parent.name for p in store.features.glob("*/zarr.json")]
    if name not in known:
        raise unknown_name("feature set", name, known)
    try:
        return FeatureSet(path, FeatureLayout.from_metadata((path / "zarr.json").read_bytes()))
    except (KeyError, TypeError, ValueError) as error:
        raise DamageError(f"feature set {name}: its zarr.json is not one that this radfs wrote ({error}).") from error


def list_feature_sets(store: Store) -> list[FeatureSet]:
    """All feature sets of the store, by name."""
    return [open_feature_set(store, p.parent.name) for p in sorted(store.features.glob("*/zarr.json"))]


def find_feature_sets(store: Store, encoder: str) -> list[FeatureSet]:
    """The sets that an encoder made, complete or not: several if its weights or preprocessing changed."""
    return [s for s in list_feature_sets(store) if encoder in (s.encoder, s.name)]


def read_record(path: Path) -> dict[str, Any]:
    """A commit record.

    Raises:
        DamageError: it cannot be read.
    """
    try:
        return json.loads(path.read_bytes())
    except (OSError, ValueError) as error:
        raise DamageError(
            f"commit record {path.parent.parent.name}/commits/{path.name} cannot be read ({error}). "
            "Delete it and run the same `radfs extract` again: only this shard is made anew."
        ) from error


def rows_of_record(record: dict[str, Any]) -> pl.DataFrame:
    """The rows of a committed shard: columns of `COMMIT_SCHEMA`."""
    n = len(record["items"])
    failed = {int(k): v for k, v in record["failed"].items()}
    truncated = set(record["truncated"])
    return pl.DataFrame(
        {
            "item": record["items"],
            "row": [record["first_row"] + i for i in range(n)],
            "shard": [record["shard"]] * n,
            "state": ["failed" if i in failed else "done" for i in range(n)],
            "content": record["content"],
            "tokens": record["tokens"],
            "truncated": [i in truncated for i in range(n)],
            "reason": [failed.get(i) for i in range(n)],
        },
        schema=COMMIT_SCHEMA,
    )


def source_stamp(path: str | None) -> str | None:
    """What tells quickly whether an image may have changed: its file's place, size and time of change."""
    if path is None:
        return None
    try:
        stat = Path(path).stat()
    except OSError:
        return ABSENT_SOURCE
    return f"{stat.st_size}:{stat.st_mtime_ns}:{content_key(path, 8)}"


def _same_source(row: dict[str, Any]) -> bool:
    """Whether a committed row still speaks of what its item is now."""
    if row["state"] is None:
        return False
    if row["modality"] == "text":
        return row["content"] == text_hash(row["text"])
    if row["stamp_now"] == row["stamp"]:
        return True
    if row["stamp_now"] == ABSENT_SOURCE:
        return row["state"] == "done"
    # Copied or touched: only the bytes can tell, and reading them costs less than encoding them again.
    try:
        return hashlib.sha256(Path(row["path"]).read_bytes()).hexdigest() == row["content"]
    except OSError:
        return False
