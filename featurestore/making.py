"""Making what a feature set lacks: plan, claim, fill, commit, and again until nothing is missing.

What extraction, import and recoding share. Any number of processes may do so at once: each makes the shards that it
could claim and waits for the others', and takes over what a dead one leaves.
"""

from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Protocol

import polars as pl

from .claims import Claims
from .errors import StoreError
from .featureset import FeatureSet, ShardPlan
from .writer import ShardWriter

_ROUNDS = 5


class Maker(Protocol):
    """What fills the shards. All is called from the thread that called `make_missing`."""

    def begin(self, plans: Sequence[ShardPlan]) -> None:
        """These shards are to be made, here or by other processes."""

    def fill(self, writer: ShardWriter) -> None:
        """Put or fail every position of a shard, which this process has claimed."""

    def finish(self, writer: ShardWriter, *, committed: bool) -> None:
        """A filled shard is decided. Not committed: this process was so slow that another one took it over."""

    def skip(self, items: int) -> None:
        """So many items stood in shards that other processes made."""


def make_missing(
    feature_set: FeatureSet, items: pl.DataFrame, maker: Maker, *, view: int = 0, retry_failed: bool = False
) -> None:
    """Let every item have a row, or a recorded failure. What another process planned and gave up is planned anew.

    Args:
        feature_set: to be filled.
        items: columns of `items.STORED_SCHEMA`, of the set's modality.
        maker: fills the shards.
        view: 0 is the clean one.
        retry_failed: try recorded failures again, once.

    Raises:
        StoreError: items are still missing after several rounds, or the set was removed meanwhile.
    """
    for attempt in range(_ROUNDS):
        plans = feature_set.plan(items, view, retry_failed=retry_failed and attempt == 0)
        if not plans:
            return
        maker.begin(plans)
        make_shards(feature_set, plans, maker)
    left = int((feature_set.status(items, view)["state"] == "missing").sum())
    if left:
        raise StoreError(
            f"{feature_set.name}: {left} items are still missing after {_ROUNDS} rounds: their sources keep changing, "
            "or other processes keep giving their shards up. Run the same command again."
        )


def make_shards(feature_set: FeatureSet, plans: Sequence[ShardPlan], maker: Maker) -> None:
    """Make the planned shards that nobody else makes; one is made durable while the next is filled."""
    with Claims(feature_set) as claims, ThreadPoolExecutor(1) as disk:

        def commit(writer: ShardWriter) -> bool:
            committed = writer.commit()
            claims.release(writer.plan.view, writer.plan.shard)
            return committed

        claimed = 0
        under_way: tuple[ShardWriter, Future[bool]] | None = None
        for plan in claims.share(plans):
            writer = ShardWriter(feature_set, plan)
            maker.fill(writer)
            if under_way is not None:
                maker.finish(under_way[0], committed=under_way[1].result())
            under_way = writer, disk.submit(commit, writer)
            claimed += len(plan.items)
        if under_way is not None:
            maker.finish(under_way[0], committed=under_way[1].result())
    passed_over = sum(len(plan.items) for plan in plans) - claimed
    if passed_over:
        maker.skip(passed_over)
