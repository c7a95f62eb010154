"""Keeping a feature set's numbers in another precision: `radfs recode SET --preset int8`.

The new set stands beside the old one under its own name. Where the numbers are not those that the encoder itself
would have given in that precision (int8 from float16, not from float32), its key says what they were made from.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import numpy as np
import polars as pl

from .claims import Claims
from .codecs import get_codec
from .errors import DataError, StoreError
from .featureset import FeatureSet, ShardPlan, create_feature_set
from .items import list_items
from .layout import FeatureLayout
from .shardfile import Shard
from .store import Store
from .writer import ShardWriter


@dataclass(frozen=True)
class RecodeReport:
    """What a recoding did: names of both sets, rows written, rows that were there, and bytes of both sets' files."""

    source: str
    target: str
    written: int
    already: int
    source_bytes: int
    target_bytes: int


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
        StoreError: items are still missing at the end.
    """
    if get_codec(preset).name == source.layout.dtype:
        raise DataError(f"feature set {source.name} is kept as {preset} already.")
    target = create_feature_set(store, recoded_layout(source.layout, preset))
    known = list_items(store, modality=source.modality)
    written = already = 0
    for view in source.views():
        rows = source.status(known, view).filter(pl.col("state") != "missing")
        items = known.join(rows.select("item"), on="item", how="semi")
        plans = target.plan(items, view)
        total = sum(len(plan.items) for plan in plans)
        already += len(items) - total
        done = 0
        with Claims(target) as claims:
            for plan in claims.share(plans):
                if _fill(source, target, plan, rows).commit():
                    done += len(plan.items)
                claims.release(plan.view, plan.shard)
                if on_progress is not None:
                    on_progress(done, total, 0)
        written += done
        left = int((target.status(items, view)["state"] == "missing").sum())
        if left:
            raise StoreError(
                f"{target.name}: {left} items are still missing: their sources changed, or another process gave their "
                "shards up. Run the same command again."
            )
    return RecodeReport(source.name, target.name, written, already, stored_bytes(source), stored_bytes(target))


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


def _fill(source: FeatureSet, target: FeatureSet, plan: ShardPlan, rows: pl.DataFrame) -> ShardWriter:
    place = {row["item"]: row for row in rows.filter(pl.col("item").is_in(plan.items)).iter_rows(named=True)}
    writer = ShardWriter(target, plan)
    shards: dict[int, Shard] = {}
    for position, item in enumerate(plan.items):
        row = place.get(item)
        if row is None:  # another process planned it, and its source has changed since
            writer.fail(position, "its tokens were replaced while the set was recoded")
            continue
        if row["state"] == "failed":
            writer.fail(position, row["reason"], content=row["content"], stamp=row["stamp"])
            continue
        shard = shards.setdefault(row["shard"], Shard(source, plan.view, row["shard"]))
        tokens, *cls = _decoded(source, shard, row["row"] - row["shard"] * source.layout.shard_rows)
        writer.put(
            position,
            tokens,
            content=row["content"],
            stamp=row["stamp"],
            cls=cls[0] if cls else None,
            truncated=row["truncated"],
        )
    return writer


def _decoded(source: FeatureSet, shard: Shard, position: int) -> Iterator[np.ndarray]:
    """Tokens [n, d], and where there is one the class token [d], of one row."""
    layout = source.layout
    for base in ("tokens", "cls") if layout.has_cls else ("tokens",):
        parts = [shard.row(a, position) for a in layout.arrays(shard.view) if a.base == base]
        values = layout.codec.decode(parts)
        yield values if layout.modality == "text" else values[0]
