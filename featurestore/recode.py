"""Keeping a feature set's numbers in another precision: `radfs recode SET --preset int8`.

The new set stands beside the old one under its own name. Where the numbers are not those that the encoder itself
would have given in that precision (int8 from float16, not from float32), its key says what they were made from.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import polars as pl

from .codecs import get_codec
from .errors import DataError
from .featureset import FeatureSet, ShardPlan, create_feature_set
from .items import list_items
from .layout import FeatureLayout
from .making import Target, make_missing, one_by_one
from .openshard import Shard
from .store import Store
from .writer import ShardWriter


@dataclass(frozen=True)
class RecodeReport:
    """What a recoding did: names of both sets, rows written, rows that were there, and bytes of both sets' files.

    `is_exact`: the numbers are the same, so that the target can be recoded back, and the source is not needed.
    """

    source: str
    target: str
    written: int
    already: int
    source_bytes: int
    target_bytes: int
    is_exact: bool


def recode(
    store: Store, source: FeatureSet, preset: str, *, on_progress: Callable[[int, int, int], None] | None = None
) -> RecodeReport:
    """Write the rows of a feature set that count today with another codec, in every view. It can be resumed.

    Args:
        store: the store of the set.
        source: the set.
        preset: name of the codec, one of `CODECS`.
        on_progress: told (rows done, rows to do, 0) after every shard.

    Raises:
        UnknownNameError: no such codec.
        DataError: the set is kept with it already.
        DamageError: a row of the set is damaged; names the item.
        StoreError: items are still missing after several rounds, or a set was removed meanwhile.
    """
    if get_codec(preset).name == source.layout.dtype:
        raise DataError(f"feature set {source.name} is kept as {preset} already.")
    target = create_feature_set(store, recoded_layout(source.layout, preset))
    known = list_items(store, modality=source.modality)
    written = already = 0
    for view in source.views():
        rows = source.status(known, view).filter(pl.col("state") != "missing")
        items = known.join(rows.select("item"), on="item", how="semi")
        already += int((target.status(items, view)["state"] != "missing").sum())
        run = _Run(source, target, rows, on_progress)
        make_missing([Target(target, items, view)], run)
        written += run.written
    exact = target.identity == source.identity or preset == "float32"
    sizes = stored_bytes(source), stored_bytes(target)
    return RecodeReport(source.name, target.name, written, already, *sizes, exact)


def recoded_layout(layout: FeatureLayout, preset: str) -> FeatureLayout:
    """The layout of a set with these numbers in another precision.

    `recoded_from` lists the precisions that the numbers went through on the way. Straight from float32 there are
    none: that is what the encoder's own numbers would have become.
    """
    old, new = layout.codec.numbers, get_codec(preset).numbers
    through = list(layout.what.get("recoded_from", []))
    if old != new and (through or old != "float32"):
        through.append(old)
    what = {**layout.what, "recoded_from": through} if through else layout.what
    return replace(layout, what=what, dtype=preset)


def stored_bytes(feature_set: FeatureSet) -> int:
    """Bytes of the files of all committed shards."""
    records = [record for view in feature_set.views() for record in feature_set.records(view)]
    return sum(file["bytes"] for record in records for file in record.files.values())


@dataclass
class _Run:
    """The recoding of one view under way; `rows` are those of the source that count (columns of `COMMIT_SCHEMA`)."""

    source: FeatureSet
    target: FeatureSet
    rows: pl.DataFrame
    on_progress: Callable[[int, int, int], None] | None
    total: int = 0
    seen: int = 0
    written: int = 0

    def begin(self, plans: Sequence[ShardPlan]) -> None:
        self.total += sum(len(plan.items) for plan in plans)

    def fill(self, groups: Iterator[Sequence[ShardWriter]]) -> Iterator[ShardWriter]:
        return one_by_one(groups, self._fill)

    def _fill(self, writer: ShardWriter) -> None:
        plan = writer.plan
        place = self.rows.filter(pl.col("item").is_in(plan.items)).rows_by_key("item", named=True, unique=True)
        shards: dict[int, Shard] = {}
        for position, item in enumerate(plan.items):
            row = place.get(item)
            if row is None:  # another process planned it, and its source has changed since
                writer.fail(position, "its tokens were replaced while the set was recoded")
                continue
            if row["state"] == "failed":
                writer.fail(position, row["reason"], content=row["content"], stamp=row["stamp"])
                continue
            shard = shards.setdefault(row["shard"], Shard(self.source, plan.view, row["shard"]))
            tokens, *cls = _decoded(self.source, shard, row["row"] - row["shard"] * self.source.layout.shard_rows)
            writer.put(
                position,
                tokens,
                content=row["content"],
                stamp=row["stamp"],
                cls=cls[0] if cls else None,
                truncated=row["truncated"],
            )

    def finish(self, writer: ShardWriter, *, committed: bool) -> None:
        if committed:
            self.written += len(writer.plan.items)
        self.skip(self.target, len(writer.plan.items))

    def skip(self, feature_set: FeatureSet, items: int) -> None:
        self.seen += items
        if self.on_progress is not None:
            self.on_progress(self.seen, self.total, 0)


def _decoded(source: FeatureSet, shard: Shard, position: int) -> Iterator[np.ndarray]:
    """Tokens [n, d], and where there is one the class token [d], of one row."""
    layout = source.layout
    for base in ("tokens", "cls") if layout.has_cls else ("tokens",):
        parts = [shard.row(a, position) for a in layout.arrays(shard.view) if a.base == base]
        values = layout.codec.decode(parts)
        yield values if layout.modality == "text" else values[0]
