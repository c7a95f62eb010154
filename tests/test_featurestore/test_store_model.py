"""The store against a plain dict: whatever is appended, changed, killed, damaged, repaired or collected, in any order.

The model knows, for each view, which row of an item was committed last and what was to be in it. After every step all
that `open_features` gives must be that, byte for byte, or be missing where the model says so; at the end everything
is made, verified, collected, and read once more, by zarr-python too. A kill is an exception that no clean-up sees.
"""

import hashlib
import os
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import zarr
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from featurestore import index as index_module
from featurestore import writer as writer_module
from featurestore.claims import Claims, list_claims
from featurestore.errors import DamageError
from featurestore.featureset import ShardPlan, create_feature_set
from featurestore.gc import collect
from featurestore.index import RowIndex
from featurestore.items import add_items, list_items, text_hash
from featurestore.process import identity
from featurestore.reader import open_features
from featurestore.records import record_file
from featurestore.sources import source_stamp
from featurestore.store import open_store
from featurestore.verify import verify
from featurestore.writer import ShardWriter

from .sets import DIM, IMAGE_TOKENS, image_layout, text_layout

VIEWS = (0, 1)
NAMES = [f"d/{k}" for k in ("0", "1", "two words", "../up", "ä ü", "'quoted\"", "6", "7", "8", "9", "10", "11")]
DEAD = identity().rpartition("_")[0] + "_1"


class Killed(BaseException):
    """What a kill is here."""


@dataclass(frozen=True)
class Made:
    """What the model holds of an item: in which row, of which version, and the values; None where it failed."""

    row: int
    version: int
    values: bytes | None


@dataclass
class Model:
    """The dict, and what decides what goes into it."""

    version: dict[str, int] = field(default_factory=dict)
    fails: set[str] = field(default_factory=set)
    made: dict[int, dict[str, Made]] = field(default_factory=lambda: {view: {} for view in VIEWS})
    decided: dict[int, set[int]] = field(default_factory=lambda: {view: set() for view in VIEWS})

    def commit(self, view: int, made: dict[str, Made], shard: int) -> None:
        assert shard not in self.decided[view]  # a shard is decided once
        self.decided[view].add(shard)
        for item, new in made.items():
            old = self.made[view].get(item)
            if old is None or new.row > old.row:
                self.made[view][item] = new

    def lose(self, view: int, items: set[str]) -> None:
        for item in items:
            old = self.made[view].get(item)
            if old is not None:
                self.made[view][item] = Made(old.row, -1, None)

    def expected(self, view: int) -> dict[str, bytes | None]:
        """What can be read, and None for known failures; everything else is missing."""
        held = self.made[view].items()
        return {item: made.values for item, made in held if made.version == self.version[item]}


def tokens_of(item: str, version: int, view: int, modality: str) -> np.ndarray:
    """Float16 [n, DIM]: what the encoder would give. Some are all zero."""
    seed = int.from_bytes(hashlib.sha256(f"{item} {version} {view}".encode()).digest()[:4], "big")
    rng = np.random.default_rng(seed)
    n = IMAGE_TOKENS if modality == "image" else int(rng.integers(1, 10))
    return ((seed % 7 != 0) * rng.standard_normal((n, DIM))).astype(np.float16)


def cls_of(tokens: np.ndarray) -> np.ndarray:
    return tokens[0] + np.float16(1)


@dataclass
class Filled:
    """A writer whose shard is filled, and what the model is to hold once it is committed."""

    writer: ShardWriter
    made: dict[str, Made]


def leave_staged(_path: Path, *_: bytes) -> bool:
    raise Killed


def publish_some(feature_set, record, *, files: int) -> None:
    for name in list(record.files)[:files]:
        (feature_set.path / name).parent.mkdir(parents=True, exist_ok=True)
        (feature_set.path / record.staged_file(name)).replace(feature_set.path / name)
    raise Killed


CRASHES: dict[str, dict[str, Callable]] = {
    "none": {},
    "staged": {"write_new": leave_staged, "discard": lambda *_: None},
    "record": {"publish": lambda *a: publish_some(*a, files=0)},
    "half": {"publish": lambda *a: publish_some(*a, files=1)},
}


class StoreMachine(RuleBasedStateMachine):
    """One feature set in a store of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp(prefix="radfs-model-"))
        self.patch = pytest.MonkeyPatch()
        self.patch.setattr(index_module, "SIZES", (4, 2))  # segments over few shards
        self.store = open_store(self.folder / "store", create=True)
        self.model = Model()
        self.stalled: list[Filled] = []
        self.time = 10**9

    @initialize(modality=st.sampled_from(["image", "text"]), codec=st.sampled_from(["float16", "int8", "archive"]))
    def start(self, modality: str, codec: str) -> None:
        self.modality = modality
        layout = image_layout if modality == "image" else text_layout
        self.set = create_feature_set(self.store, layout(dtype=codec, shard_rows=3))
        self.put([0, 1, 2, 3], [0] * 4)

    def teardown(self) -> None:
        try:
            if hasattr(self, "set"):
                self.finish()
        finally:
            self.patch.undo()
            shutil.rmtree(self.folder)

    # What a user does.

    @rule(items=st.lists(st.integers(0, len(NAMES) - 1), min_size=1, max_size=5, unique=True), back=st.booleans())
    def sources(self, items: list[int], back: bool) -> None:
        """New items come, known ones change; some change back to what they were."""
        now = [self.model.version.get(NAMES[i], -1) for i in items]
        self.put(items, [max(0, v - 1) if back else v + 1 for v in now])

    @precondition(lambda self: self.modality == "image")
    @rule()
    def touch(self) -> None:
        """The same bytes, at another time."""
        self.time += 1
        for path in self.folder.glob("*.bin"):
            os.utime(path, (self.time, self.time))

    @rule(items=st.lists(st.integers(0, 3), max_size=2))
    def encoder(self, items: list[int]) -> None:
        """The encoder fails on these items from now on, and on no others any more."""
        self.model.fails = {NAMES[i] for i in items}

    @rule(
        view=st.sampled_from(VIEWS),
        some=st.lists(st.integers(0, len(NAMES) - 1), max_size=5, unique=True),
        shards=st.integers(0, 3),
        retry=st.booleans(),
        crash=st.sampled_from([*CRASHES]),
    )
    def extract(self, view: int, some: list[int], shards: int, retry: bool, crash: str) -> None:
        """Make what is missing of all items, or of these; killed while committing its last shard, or after it."""
        plans = self.plan(view, [NAMES[i] for i in some], retry=retry)[:shards]
        for plan in plans:
            filled = self.fill(plan)
            if plan is not plans[-1] or crash == "none":
                assert filled.writer.commit()
                self.model.commit(view, filled.made, plan.shard)
            else:
                self.crash(filled, crash)

    @rule(view=st.sampled_from(VIEWS), which=st.integers(0, 3))
    def stall(self, view: int, which: int) -> None:
        """A writer fills a shard and is stopped before it commits."""
        plans = self.plan(view, [])
        if plans and len(self.stalled) < 3:
            self.stalled.append(self.fill(plans[which % len(plans)]))

    @precondition(lambda self: self.stalled)
    @rule(which=st.integers(0, 2))
    def wake(self, which: int) -> None:
        """The stopped writer goes on: nothing that was decided meanwhile may change."""
        filled = self.stalled.pop(which % len(self.stalled))
        plan = filled.writer.plan
        decided = self.set.is_decided(plan.view, plan.shard)
        assert decided == (plan.shard in self.model.decided[plan.view])
        before = self.files()
        assert filled.writer.commit() is not decided
        if decided:
            assert self.files() == before
        else:
            self.model.commit(plan.view, filled.made, plan.shard)

    # What goes wrong.

    @rule(view=st.sampled_from(VIEWS), which=st.integers(0, 10), at=st.integers(0, 10_000), deep=st.booleans())
    def flip(self, view: int, which: int, at: int, deep: bool) -> None:
        """A byte of a shard file flips: the items that are hit give an error until they are repaired, no others do."""
        record = self.a_record(view, which)
        if record is None:
            return
        name = sorted(record.files)[at % len(record.files)]
        path = self.set.data_file(record, name)
        if not path.exists():
            return
        data = bytearray(path.read_bytes())
        data[at % len(data)] ^= 1 << at % 8
        self.overwrite(path, bytes(data))
        shallow = verify(self.store, deep=False)
        report = verify(self.store, deep=True)
        assert {f.items for f in shallow.findings} <= {f.items for f in report.findings}
        hit = {item for finding in report.findings for item in finding.items}
        served = self.read(view, but=hit)
        expected = {item: v for item, v in self.model.expected(view).items() if item not in hit}
        assert served == expected
        live = {m.row for m in self.model.made[view].values() if m.values is not None}
        assert report.clean <= live.isdisjoint(range(record.first_row, record.first_row + len(record.items)))
        self.repair(deep=deep or not shallow.findings)

    @rule(view=st.sampled_from(VIEWS), which=st.integers(0, 10), how=st.sampled_from(["gone", "cut", "longer"]))
    def lose_file(self, view: int, which: int, how: str) -> None:
        """A shard file is gone, or has another length; nothing but its items is hit."""
        record = self.a_record(view, which)
        if record is None:
            return
        path = self.set.data_file(record, sorted(record.files)[which % len(record.files)])
        if not path.exists():
            return
        data = path.read_bytes()
        path.unlink()
        if how != "gone":
            path.write_bytes(data[:-1] if how == "cut" else data + b"x")
        self.repair(deep=False)

    @rule(view=st.sampled_from(VIEWS), which=st.integers(0, 10), at=st.integers(0, 10_000))
    def flip_record(self, view: int, which: int, at: int) -> None:
        """A byte of a commit record flips: it is never believed."""
        shards = sorted(self.model.decided[view])
        if not shards:
            return
        path = self.set.path / record_file(view, shards[which % len(shards)])
        data = bytearray(path.read_bytes())
        data[at % len(data)] ^= 1 << at % 8
        self.overwrite(path, bytes(data))
        with pytest.raises(DamageError):
            self.set.record(view, shards[which % len(shards)])
        self.repair(deep=False)

    @rule(stale=st.booleans())
    def collect(self, stale: bool) -> None:
        """Leftovers go, and nothing else; what a dry run names is what a run removes."""
        stale_s = -1.0 if stale else 3600.0
        foretold = {leftover.path for leftover in collect(self.store, dry_run=True, stale_s=stale_s).removed}
        removed = {leftover.path for leftover in collect(self.store, dry_run=False, stale_s=stale_s).removed}
        assert removed == foretold
        assert not any(path.exists() for path in removed)
        self.look_for_abandoned()

    @rule()
    def verify_is_clean(self) -> None:
        """Whatever was killed: no finding, as long as nothing was damaged."""
        report = verify(self.store, deep=True)
        assert report.clean, report.findings

    @rule(view=st.sampled_from(VIEWS))
    def compact(self, view: int) -> None:
        """The index over the records is made; or thrown away."""
        if RowIndex(self.set.path, view).compact() == 0:
            shutil.rmtree(self.set.path / "index", ignore_errors=True)

    @invariant()
    def everything_is_as_the_model_says(self) -> None:
        if hasattr(self, "set"):
            for view in VIEWS:
                assert self.read(view) == self.model.expected(view)

    # How.

    def path_of(self, item: str) -> Path:
        return self.folder / f"{NAMES.index(item)}.bin"

    def put(self, items: list[int], versions: list[int]) -> None:
        names = [NAMES[i] for i in items]
        self.model.version.update(zip(names, versions, strict=True))
        texts = [f"{name} {version}" for name, version in zip(names, versions, strict=True)]
        image = self.modality == "image"
        for name, text in zip(names, texts, strict=True):
            if image:
                self.time += 1
                self.path_of(name).write_text(text)
                os.utime(self.path_of(name), (self.time, self.time))
        paths = [str(self.path_of(name)) if image else None for name in names]
        frame = {"item": names, "modality": self.modality, "path": paths, "text": [None] * len(names)}
        if not image:
            frame["text"] = texts
        add_items(self.store, pl.DataFrame(frame, schema_overrides={"path": pl.String, "text": pl.String}))

    def plan(self, view: int, some: list[str], *, retry: bool = False) -> list[ShardPlan]:
        items = list_items(self.store, modality=self.modality)
        asked = set(some) & set(items["item"]) or set(items["item"])
        plans = self.set.plan(items.filter(pl.col("item").is_in(list(asked))), view, retry_failed=retry)
        planned = {item for plan in plans for item in plan.items}
        expected = self.model.expected(view)
        missing = {i for i in asked if i not in expected or (retry and expected[i] is None)}
        assert missing <= planned
        if not missing:
            assert not plans
        assert not self.model.decided[view] & {plan.shard for plan in plans}
        return plans

    def fill(self, plan: ShardPlan) -> Filled:
        writer, made, model = ShardWriter(self.set, plan), {}, self.model
        layout = self.set.layout
        for position, item in enumerate(plan.items):
            version = model.version[item]
            image = self.modality == "image"
            stamp = source_stamp(str(self.path_of(item))) if image else None
            content = text_hash(f"{item} {version}")
            row, values = plan.first_row + position, None
            if item in model.fails:
                writer.fail(position, "told to fail", content=content, stamp=stamp)
            else:
                tokens = tokens_of(item, version, plan.view, self.modality)
                cls = cls_of(tokens) if layout.has_cls else None
                writer.put(position, tokens, content=content, stamp=stamp, cls=cls)
                parts = [tokens] if cls is None else [tokens, cls]
                values = b"".join(layout.codec.decode(layout.codec.encode(part)).tobytes() for part in parts)
            made[item] = Made(row, version, values)
        return Filled(writer, made)

    def crash(self, filled: Filled, crash: str) -> None:
        plan = filled.writer.plan
        with pytest.MonkeyPatch.context() as patch, Claims(self.set) as claims:
            assert claims.take(plan.view, plan.shard)
            for name, replacement in CRASHES[crash].items():
                patch.setattr(writer_module, name, replacement)
            with pytest.raises(Killed):
                filled.writer.commit()
            path = claims._held.pop((plan.view, plan.shard))
            path.write_text(f"{DEAD}/00000000")
        if crash != "staged":
            self.model.commit(plan.view, filled.made, plan.shard)

    def a_record(self, view: int, which: int):
        shards = [s for s in sorted(self.model.decided[view]) if self.set.record(view, s).state == "committed"]
        return self.set.record(view, shards[which % len(shards)]) if shards else None

    def overwrite(self, path: Path, data: bytes) -> None:
        with path.open("r+b") as file:
            file.write(data)

    def repair(self, *, deep: bool) -> None:
        """Repair must leave nothing to find, and lose only what it names."""
        found = verify(self.store, deep=deep).findings
        for finding in verify(self.store, deep=deep, repair=True).findings:
            self.model.lose(finding.view, set(finding.items))
            if finding.kind == "record":
                self.forget_undecided()
        assert len(found) == 0 or verify(self.store, deep=deep).clean
        self.look_for_abandoned()

    def forget_undecided(self) -> None:
        for view in VIEWS:
            self.model.decided[view] &= set(self.set.decided(view))

    def look_for_abandoned(self) -> None:
        """A collection decides shards that nobody can be making."""
        for view in VIEWS:
            for shard in set(self.set.decided(view)) - self.model.decided[view]:
                assert self.set.record(view, shard).state == "abandoned"
                self.model.decided[view].add(shard)

    def files(self) -> dict[Path, bytes]:
        return {p: p.read_bytes() for p in self.set.path.rglob("*") if p.is_file() and p.parent.name != "index"}

    def read(self, view: int, but: set[str] = frozenset()) -> dict[str, bytes | None]:  # type: ignore[assignment]
        """All that readers are given: values by item, None for a known failure."""
        features = open_features(self.store, self.set.name, view=view)
        known = list(self.model.version)
        served: dict[str, bytes | None] = {
            item: None for item, f in zip(known, features.failed(known), strict=True) if f and item not in but
        }
        items = [item for item in features.items if item not in but]
        if self.modality == "text":
            flat, bounds = features.text_tokens(items)
            return served | {
                item: flat[a:b].tobytes() for item, a, b in zip(items, bounds[:-1], bounds[1:], strict=True)
            }
        rows = zip(features.image_tokens(items), features.cls_tokens(items), strict=True)
        return served | {
            item: tokens.tobytes() + cls.tobytes() for item, (tokens, cls) in zip(items, rows, strict=True)
        }

    def finish(self) -> None:
        """Resume until nothing is missing: then everything is there once, and nothing is left over."""
        for view in VIEWS:
            for _ in range(5):
                plans = self.plan(view, [])
                for plan in plans:
                    filled = self.fill(plan)
                    assert filled.writer.commit()
                    self.model.commit(view, filled.made, plan.shard)
            assert not self.plan(view, [])
            expected = self.model.expected(view)
            assert set(expected) == set(self.model.version)
            assert self.read(view) == expected
        self.verify_is_clean()
        collect(self.store, dry_run=False, stale_s=-1.0)
        for view in VIEWS:
            assert self.read(view) == self.model.expected(view)
        self.verify_is_clean()
        assert not list((self.set.path / "staged").glob("*"))
        assert not list_claims(self.set)
        assert not list(self.store.root.rglob("*.partial"))
        assert not collect(self.store, dry_run=True, stale_s=-1.0).removed
        self.compare_with_zarr()

    def compare_with_zarr(self) -> None:
        if self.set.layout.dtype != "float16":
            return
        group = zarr.open_group(self.set.path, mode="r")
        for view in VIEWS:
            features = open_features(self.store, self.set.name, view=view)
            tokens = group[f"tokens/v{view}"]
            for item in features.items:
                row = self.model.made[view][item].row
                if self.modality == "text":
                    first, last = group[f"offsets/v{view}"][row]
                    assert tokens[int(first) : int(last)].tobytes() == features.text_tokens([item])[0].tobytes()
                else:
                    assert tokens[row].tobytes() == features.image_tokens([item]).tobytes()


TestStore = pytest.mark.filterwarnings("error")(StoreMachine.TestCase)
TestStore.settings = settings(
    max_examples=16,
    phases=(Phase.explicit, Phase.generate),  # a failure is shown as it was found: shrinking takes minutes
    stateful_step_count=25,
    derandomize=True,
    deadline=None,
    database=None,
    suppress_health_check=list(HealthCheck),
)
