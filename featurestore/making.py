"""Making what feature sets lack: plan, claim, fill, commit, and again until nothing is missing.

What extraction, import and recoding share. Any number of processes may do so at once: each makes the shards that it
could claim and waits for the others', and takes over what a dead one leaves. Sets that are filled from the same items
are filled together: shards that hold the same items are claimed at once.
"""

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from typing import NamedTuple, Protocol

import polars as pl

from .claims import Claims, share
from .errors import StoreError
from .featureset import FeatureSet, ShardPlan
from .writer import ShardWriter

_ROUNDS = 5


class Target(NamedTuple):
    """What is to be made: every item has a row in this view of this set, or a recorded failure.

    Attributes:
        feature_set: to be filled.
        items: columns of `items.STORED_SCHEMA`, of the set's modality.
        view: 0 is the clean one.
    """

    feature_set: FeatureSet
    items: pl.DataFrame
    view: int = 0


class Maker(Protocol):
    """What fills the shards. All is called from the thread that called `make_missing`."""

    def begin(self, plans: Sequence[ShardPlan]) -> None:
        """These shards are to be made, here or by other processes."""

    def fill(self, groups: Iterator[Sequence[ShardWriter]]) -> Iterator[ShardWriter]:
        """Put or fail every position of the shards that come, which this process has claimed; give each when full.

        The shards of a group hold the same items, some or all. The next group may be asked for before the last one is
        full. An empty group says that other processes make what is left: give everything before asking again, for they
        may wait for it.
        """
        ...

    def finish(self, writer: ShardWriter, *, committed: bool) -> None:
        """A filled shard is decided. Not committed: this process was so slow that another one took it over."""

    def skip(self, feature_set: FeatureSet, items: int) -> None:
        """So many items stood in shards of this set that other processes made."""


def one_by_one(groups: Iterator[Sequence[ShardWriter]], fill: Callable[[ShardWriter], None]) -> Iterator[ShardWriter]:
    """`Maker.fill` of shards that have nothing to do with each other."""
    for writers in groups:
        for writer in writers:
            fill(writer)
            yield writer


def make_missing(targets: Sequence[Target], maker: Maker, *, retry_failed: bool = False) -> None:
    """Let every item have a row, or a recorded failure. What another process planned and gave up is planned anew.

    Args:
        targets: what is to be made; all with the same items, or nearly so, where there are several.
        maker: fills the shards.
        retry_failed: try recorded failures again, once.

    Raises:
        StoreError: items are still missing after several rounds, or a set was removed meanwhile.
    """
    for attempt in range(_ROUNDS):
        plans = [(t, t.feature_set.plan(t.items, t.view, retry_failed=retry_failed and not attempt)) for t in targets]
        work = [(target.feature_set, plan) for target, some in plans for plan in some]
        if not work:
            return
        maker.begin([plan for _, plan in work])
        make_shards(work, maker)
    for feature_set, items, view in targets:
        left = int((feature_set.status(items, view)["state"] == "missing").sum())
        if left:
            raise StoreError(
                f"{feature_set.name}: {left} items are still missing after {_ROUNDS} rounds: their sources keep "
                "changing, or other processes keep giving their shards up. Run the same command again."
            )


def make_shards(work: Sequence[tuple[FeatureSet, ShardPlan]], maker: Maker) -> None:
    """Make the planned shards that nobody else makes; one is made durable while the next is filled."""
    passed_over = Counter[str]()
    for feature_set, plan in work:
        passed_over[feature_set.name] += len(plan.items)
    sets = {feature_set.name: feature_set for feature_set, _ in work}
    with ExitStack() as stack:
        claims = {name: stack.enter_context(Claims(feature_set)) for name, feature_set in sets.items()}
        disk = stack.enter_context(ThreadPoolExecutor(1))

        def commit(writer: ShardWriter) -> bool:
            committed = writer.commit()
            claims[writer.feature_set.name].release(writer.plan.view, writer.plan.shard)
            return committed

        groups = share([(claims[one.name], plan) for one, plan in work])
        under_way: tuple[ShardWriter, Future[bool]] | None = None
        for writer in maker.fill([ShardWriter(c.feature_set, plan) for c, plan in group] for group in groups):
            if under_way is not None:
                maker.finish(under_way[0], committed=under_way[1].result())
            under_way = writer, disk.submit(commit, writer)
            passed_over[writer.feature_set.name] -= len(writer.plan.items)
        if under_way is not None:
            maker.finish(under_way[0], committed=under_way[1].result())
    for name, items in passed_over.items():
        if items:
            maker.skip(sets[name], items)
