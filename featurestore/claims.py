"""Claims: which shard is being made by whom, so that many processes share the work.

    claims/v0-00000005.g0001    created exclusively; its text says who, its time of change is the heartbeat

A claim saves work; it is not what keeps shards whole: the commit record is created once, and a worker that was
stalled, lost its claim and woke finds the record taken and drops its own files. So a wrong guess about who is alive
costs a shard's work at most.

A claim is taken over at once where its process is known to be dead, else when it has not been touched for
`LEASE_SECONDS` as the waiting process itself counts them: clocks of other machines, or set back, play no part.
"""

import contextlib
import threading
import time
import uuid
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Self

from .errors import StoreError
from .featureset import FeatureSet, ShardPlan
from .fsio import read_whole, remove, touch, write_new
from .process import identity, is_alive
from .remote import ObjectPath, StorePath

LEASE_SECONDS = 60.0
_POLL_SECONDS = 0.2
_LONGEST = 4096
_REMOTE_POLL_SECONDS = 2.0
"""Every look at a remote store costs."""


class Claims:
    """The claims that one worker holds on shards of one feature set. Use as a context: leaving it gives them back."""

    def __init__(
        self,
        feature_set: FeatureSet,
        *,
        lease_s: float = LEASE_SECONDS,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._clock = clock
        self.feature_set = feature_set
        self._lease_s = lease_s
        self._me = f"{identity()}/{uuid.uuid4().hex[:8]}"
        self._held: dict[tuple[int, int], StorePath] = {}
        self._seen: dict[StorePath, tuple[int, float]] = {}
        self._guard = threading.Lock()
        self._stop = threading.Event()
        self._heart = threading.Thread(target=self._beat, name="claims", daemon=True)

    def __enter__(self) -> Self:
        self._heart.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        self._heart.join()
        for view, shard in list(self._held):
            self.release(view, shard)

    def share(self, plans: Sequence[ShardPlan]) -> Iterator[ShardPlan]:
        """The planned shards that are this worker's to make, as the function `share` gives them, one by one."""
        for group in share([(self, plan) for plan in plans]):
            yield from (plan for _, plan in group)

    def take(self, view: int, shard: int) -> bool:
        """Try to claim an undecided shard."""
        holders = claims_of(self.feature_set, view, shard)
        if holders and not self._is_over(holders[-1]):
            return False
        generation = holders[-1].generation + 1 if holders else 1
        path = self.feature_set.path / "claims" / f"v{view}-{shard:08d}.g{generation:04d}"
        try:
            if not write_new(path, self._me.encode()):
                return False
        except BaseException:
            # Made perhaps, and its folder could not be synced: as long as this process lives, all would wait for it.
            with contextlib.suppress(OSError, StoreError):
                if read_whole(path, _LONGEST) == self._me.encode():
                    remove(path)
            raise
        with self._guard:
            self._held[view, shard] = path
        if self.feature_set.is_decided(view, shard):  # committed and given back between the two looks
            self.release(view, shard)
            return False
        return True

    def release(self, view: int, shard: int) -> None:
        """Give a claim back: the shard is decided, or somebody else may make it."""
        with self._guard:
            path = self._held.pop((view, shard), None)
        if path is not None:
            for claim in claims_of(self.feature_set, view, shard):
                if claim.path.name <= path.name:
                    remove(claim.path)

    def _is_over(self, claim: "Claim") -> bool:
        """Whether a claim's holder is dead, or has been still for a lease on this process's own clock."""
        if claim.is_alive() is False:
            return True
        now = self._clock()
        beat, since = self._seen.get(claim.path, (None, now))
        if beat != claim.beat:
            since = now
        self._seen[claim.path] = (claim.beat, since)
        return now - since > self._lease_s

    def _beat(self) -> None:
        while not self._stop.wait(self._lease_s / 6):
            with self._guard:
                held = list(self._held.values())
            for path in held:
                # Taken over and removed, or a server out of reach: the record will decide.
                with contextlib.suppress(OSError, StoreError):
                    touch(path)


def share(work: Sequence[tuple[Claims, ShardPlan]]) -> Iterator[list[tuple[Claims, ShardPlan]]]:
    """The planned shards that are this worker's to make, claimed in groups that hold the same items.

    Ends when all of them are decided. The consumer commits a shard, or has it committed, and calls `release`. While
    others hold what is left an empty group comes; then they are waited for, and what they hold is taken over if they
    die.
    """
    # Of those that begin with the same item the largest leads: where sets are made together the others lie within it.
    waiting = deque(sorted(work, key=lambda one: (one[1].items[0], -len(one[1].items))))
    while waiting:
        held, made = deque[tuple[Claims, ShardPlan]](), 0
        while waiting:
            leader = waiting.popleft()
            if _is_mine(leader, held):
                made += 1
                yield [leader, *_companions(leader, waiting, held)]
        waiting = held
        if waiting and not made:
            yield []
            remote = isinstance(waiting[0][0].feature_set.path, ObjectPath)
            time.sleep(_REMOTE_POLL_SECONDS if remote else _POLL_SECONDS)


def _is_mine(one: tuple[Claims, ShardPlan], held: deque[tuple[Claims, ShardPlan]]) -> bool:
    """Try to claim a shard. One that somebody else holds is added to `held`."""
    claims, plan = one
    if claims.feature_set.is_decided(plan.view, plan.shard):
        return False
    if claims.take(plan.view, plan.shard):
        return True
    held.append(one)
    return False


def _companions(
    leader: tuple[Claims, ShardPlan], waiting: deque[tuple[Claims, ShardPlan]], held: deque[tuple[Claims, ShardPlan]]
) -> list[tuple[Claims, ShardPlan]]:
    """Claim shards of other arrays that begin among the leader's items: of each array no more items than it has."""
    found, left = [], deque[tuple[Claims, ShardPlan]]()
    room: Counter[tuple[str, int]] = Counter({(leader[0].feature_set.name, leader[1].view): len(leader[1].items)})
    while waiting and waiting[0][1].items[0] <= leader[1].items[-1]:
        one = waiting.popleft()
        array = one[0].feature_set.name, one[1].view
        if room[array] >= len(leader[1].items):
            left.append(one)
        elif _is_mine(one, held):
            room[array] += len(one[1].items)
            found.append(one)
    waiting.extendleft(reversed(left))
    return found


@dataclass(frozen=True)
class Claim:
    """One claim file: shard, generation, and the time of change that its holder moves on."""

    path: StorePath
    view: int
    shard: int
    generation: int
    beat: int

    def is_alive(self) -> bool | None:
        """Whether its process lives; None where that cannot be told from here."""
        try:
            return is_alive(read_whole(self.path, _LONGEST).decode().partition("/")[0])
        except (OSError, ValueError):
            return None  # given back this moment: look again. Or it is not one of ours.


def claims_of(feature_set: FeatureSet, view: int, shard: int) -> list[Claim]:
    """The claims on one shard, the newest generation last."""
    return list_claims(feature_set, f"v{view}-{shard:08d}.g*")


def list_claims(feature_set: FeatureSet, pattern: str = "v*-*.g*") -> list[Claim]:
    """All claims of a set, in the order of shards and generations."""
    found = []
    for path in sorted((feature_set.path / "claims").glob(pattern)):
        view, _, rest = path.name.removeprefix("v").partition("-")
        shard, _, generation = rest.partition(".g")
        with contextlib.suppress(FileNotFoundError, ValueError):
            found.append(Claim(path, int(view), int(shard), int(generation), path.stat().st_mtime_ns))
    return found
