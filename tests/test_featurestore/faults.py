"""Operations that are killed, and what must hold of the store then: for test_faults.py and benchmarks/faults.py.

A trial copies a store, starts an operation in processes of their own, kills them at random moments, looks at the store
as it lies, and starts them again, some times over. At the end the operation runs undisturbed and the store must hold
what an uninterrupted run gives: nothing lost, nothing twice, nothing else, and nothing left over.

Processes are forked from a server that has loaded torch already, so that one costs milliseconds.
"""

import multiprocessing
import os
import random
import shutil
import signal
import time
import traceback
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from multiprocessing.process import BaseProcess
from pathlib import Path

import numpy as np
import polars as pl

from featurestore import extract
from featurestore.featureset import FeatureSet, list_feature_sets
from featurestore.gc import collect
from featurestore.reader import open_features
from featurestore.store import Store, open_store
from featurestore.transfer import importing
from featurestore.verify import verify

from ..test_heads import stores
from .pictures import add_pictures, add_reports, write_pictures

_WARM = multiprocessing.get_context("forkserver")
_WARM.set_forkserver_preload(
    [
        "torch",
        "torchvision.transforms",
        "duckdb",
        "featurestore.extract",
        "featurestore.transfer.importing",
        "heads.train",
    ]
)

PICTURES, REPORTS, SHARD_ROWS = 48, 24, 4
NUMBERS = """
SELECT r.*, e.epoch, e.train_loss, e.test_loss, e.auroc AS epoch_auroc, p.sample, p.p_last, p.p_best
FROM results r JOIN epochs e USING (run) JOIN predictions p USING (run) ORDER BY run, epoch, sample
"""


def start(run: Callable[..., None], *arguments: object) -> BaseProcess:
    """A process that runs this."""
    process = _WARM.Process(target=_child, args=(run, *arguments), daemon=True)
    process.start()
    return process


def _child(run: Callable[..., None], *arguments: object) -> None:
    try:
        run(*arguments)
    except BaseException:
        traceback.print_exc()
        raise


def kill(process: BaseProcess) -> bool:
    """Kill a process with SIGKILL; False if it had come to its end before."""
    assert process.pid is not None
    if process.exitcode is None:
        os.kill(process.pid, signal.SIGKILL)
    process.join()
    return process.exitcode == -signal.SIGKILL


def finish(*processes: BaseProcess, timeout_s: float = 120.0) -> None:
    """Wait until these processes have come to a good end."""
    deadline = time.monotonic() + timeout_s
    for process in processes:
        process.join(max(0.0, deadline - time.monotonic()))
        assert process.exitcode == 0, f"exit code {process.exitcode}"


# What is killed. Each runs in a process of its own and takes the store's root.


def run_extract(root: str) -> None:
    extract.shard_rows_for = lambda **_: SHARD_ROWS
    for encoder in ("tiny", "tiny-text"):
        extract.extract_features(open_store(root), encoder, device="cpu", batch_size=4, workers=2)


def run_import(root: str) -> None:
    importing._SHARD_ROWS = SHARD_ROWS
    importing.import_features(open_store(root), Path(root).parent / "theirs.npz", encoder="theirs", modality="image")


def run_train(root: str) -> None:
    from heads import train

    train.PART_RUNS = 2
    train.train_grid(open_store(root), stores.toy_grid())


def run_collect(root: str) -> None:
    while True:
        collect(open_store(root), dry_run=False)


Held = dict[tuple[str, str], bytes | None]
"""All that a store gives: by set or table, and by item or run, its bytes; None for a known failure."""


def read_features(store: Store, view: int = 0) -> Held:
    """Every item of every feature set that readers are given."""
    held: Held = {}
    for feature_set in list_feature_sets(store):
        for item, value in read_set(store, feature_set, view).items():
            held[feature_set.name, item] = value
    return held


def read_set(store: Store, feature_set: FeatureSet, view: int = 0) -> dict[str, bytes | None]:
    """Every item of one feature set that readers are given."""
    features = open_features(store, feature_set.name, view=view)
    held: dict[str, bytes | None] = dict.fromkeys(sorted(features._failed))
    if feature_set.modality == "text":
        flat, bounds = features.text_tokens(features.items)
        parts = np.split(flat, bounds[1:-1]) if features.items else []
        return held | {item: part.tobytes() for item, part in zip(features.items, parts, strict=True)}
    tokens = features.image_tokens(features.items)
    cls = features.cls_tokens(features.items) if feature_set.layout.has_cls else tokens[:, :0]
    rows = zip(features.items, tokens, cls, strict=True)
    return held | {item: row.tobytes() + one.tobytes() for item, row, one in rows}


def read_results(store: Store) -> Held:
    """Every run that has results, with all of its numbers."""
    from heads.catalog import open_catalog

    catalog = open_catalog(store)
    catalog.fold()
    return {("runs", rows["run"][0]): str(rows.rows()).encode() for rows in catalog.query(NUMBERS).partition_by("run")}


def times_made(store: Store) -> Counter[tuple[str, str]]:
    """How often each item stands in commit records, and each run in parts of the results."""
    made: Counter[tuple[str, str]] = Counter()
    for feature_set in list_feature_sets(store):
        for record in feature_set.records():
            made.update((feature_set.name, item) for item in record.items)
    for part in store.results.glob("*/runs.parquet"):
        made.update(("runs", run) for run in pl.read_parquet(part)["run"])
    return made


@dataclass(frozen=True)
class Operation:
    """What is killed.

    Attributes:
        name: of it.
        run: in a process, with the store's root.
        read: what the store holds of its work.
        processes: how many run at once.
        beside: what runs beside them and never ends.
        store: makes the store to begin with, in a folder.
    """

    name: str
    run: Callable[[str], None]
    read: Callable[[Store], Held]
    processes: int = 1
    beside: tuple[Callable[[str], None], ...] = ()
    store: Callable[[Path], Store] = field(default=lambda folder: study(folder))


def study(folder: Path) -> Store:
    """A store of images and reports, and tokens of the images to import."""
    store = open_store(folder / "store", create=True)
    items = add_pictures(store, write_pictures(folder / "in", PICTURES))
    add_reports(store, {f"r{i}": "left effusion " * (i % 5 + 1) + str(i) for i in range(REPORTS)})
    tokens = np.random.default_rng(7).standard_normal((PICTURES, 3, 8)).astype(np.float16)
    np.savez(folder / "theirs.npz", embeddings=tokens, ids=np.array(items))
    return store


def cohort(folder: Path) -> Store:
    """A store with a cohort and tokens to train on."""
    return stores.make_store(folder / "store")


OPERATIONS = (
    Operation("extract", run_extract, read_features),
    Operation("extract x3", run_extract, read_features, processes=3),
    Operation("import", run_import, read_features),
    Operation("import x2", run_import, read_features, processes=2),
    Operation("train", run_train, read_results, store=cohort),
    Operation("extract | gc", run_extract, read_features, beside=(run_collect,)),
    Operation("extract x2 | gc x2", run_extract, read_features, processes=2, beside=(run_collect, run_collect)),
)


@dataclass
class Tally:
    """What was done to an operation, and what was found. All but the first two must be none."""

    kills: int = 0
    resumed: int = 0
    lost: int = 0
    duplicated: int = 0
    wrong: int = 0
    findings: list[str] = field(default_factory=list)

    @property
    def clean(self) -> bool:
        """Whether nothing was lost, made twice, wrong or left over."""
        return not (self.lost or self.duplicated or self.wrong or self.findings)


@dataclass
class Campaign:
    """Trials of one operation, in a folder."""

    operation: Operation
    folder: Path
    random: random.Random
    tally: Tally = field(default_factory=Tally)

    def __post_init__(self) -> None:
        """Make the store to begin with, and the truth: what an uninterrupted run gives."""
        self.folder.mkdir(parents=True, exist_ok=True)
        self.template = self.operation.store(self.folder).root
        finish(start(str))  # the server is there
        whole, begin = self._copy("whole"), time.monotonic()
        finish(start(self.operation.run, str(whole.root)))
        self.seconds = time.monotonic() - begin
        self.truth = self.operation.read(whole)
        assert self.truth
        self.files = shard_files(whole)

    def run(self, kills: int) -> Tally:
        """Trials until so many processes were killed at work."""
        goal = self.tally.kills + kills
        while self.tally.kills < goal:
            self.trial(min(3, goal - self.tally.kills))
        return self.tally

    def trial(self, kills: int) -> None:
        """Kill the operation up to so many times, then let it come to its end."""
        store, held = self._copy("trial"), Held()
        for _ in range(kills):
            complete = self._kill_some(store)
            held = self._examine(store, held)
            if complete:
                break
        finish(start(self.operation.run, str(store.root)))
        self.tally.resumed += 1
        self._settle(store, held)
        shutil.rmtree(store.root)

    def _kill_some(self, store: Store) -> bool:
        """Start the processes and kill one or more of them; those left over come to their end. True if some did."""
        op = self.operation
        workers = [start(op.run, str(store.root)) for _ in range(op.processes)]
        others = [start(run, str(store.root)) for run in op.beside]
        time.sleep(self.random.uniform(0, 0.9 * self.seconds))
        victims = self.random.sample([*workers, *others], self.random.randint(1, len(workers) + len(others)))
        for victim in victims:
            self.tally.kills += kill(victim)
            time.sleep(self.random.choice([0.0, 0.0, self.random.uniform(0, 0.1)]))
        survivors = [worker for worker in workers if worker not in victims]
        finish(*survivors)
        for other in others:
            kill(other)
        return bool(survivors) or all(worker.exitcode == 0 for worker in workers)

    def _examine(self, store: Store, before: Held) -> Held:
        """What must hold of the store as the dead left it. Gives what it holds."""
        held = self.operation.read(store)
        self.tally.wrong += sum(self.truth.get(key, b"") != value for key, value in held.items())
        self.tally.lost += len(before.keys() - held.keys())
        self.tally.duplicated += sum(n - 1 for n in times_made(store).values())
        self.tally.findings += [f"{f.kind}: {f.message}" for f in verify(store, deep=True).findings]
        return held

    def _settle(self, store: Store, before: Held) -> None:
        """What must hold at the end: all of it, once, and nothing left over, before a collection and after."""
        held = self._examine(store, before)
        self.tally.lost += len(self.truth.keys() - held.keys())
        collect(store, dry_run=False)
        self.tally.lost += len(held.keys() - self._examine(store, held).keys())
        self.tally.findings += [f"left over: {name}" for name in leftovers(store)]
        self.tally.findings += [f"collected: {left.path}" for left in collect(store, dry_run=True).removed]
        if not self.operation.beside and shard_files(store) != self.files:
            self.tally.findings.append("other bytes than an uninterrupted run")

    def _copy(self, name: str) -> Store:
        root = self.template.parent / name
        shutil.copytree(self.template, root)
        return open_store(root)


def leftovers(store: Store) -> list[str]:
    """Files that only a process at work has."""
    found: list[Path] = [*store.root.rglob("*.partial"), *store.features.glob("*/staged/*")]
    return sorted(str(p.relative_to(store.root)) for p in (*found, *store.features.glob("*/claims/*")))


def shard_files(store: Store) -> dict[str, bytes]:
    """The bytes of every shard file and array's metadata, by place."""
    paths: Sequence[Path] = sorted(store.features.glob("*/*/v*/*"))
    kept = [p for p in paths if p.parts[-3] not in ("commits", "index")]
    return {str(p.relative_to(store.features)): p.read_bytes() for p in kept}
