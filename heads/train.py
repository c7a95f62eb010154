"""Run what a plan has to do: load tokens, train heads, publish results in parts. Knows no head's arithmetic.

    report = train_grid(store, read_grid("grid.toml"))

A kill loses the runs since the last part (ten seconds or one run); the same call again does only what is missing.
"""

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from itertools import groupby
from typing import Literal

import numpy as np

from cohorts.split_files import save_split
from featurestore.errors import DataError
from featurestore.keys import content_key
from featurestore.reader import open_features
from featurestore.store import Store

from .catalog import open_catalog
from .engine import HeadConfig, HeadData, HeadJob, TokenTable, train_head
from .finished import FinishedRuns
from .grid import Grid
from .plan import Plan, PlannedRun, make_plan
from .results import RunRows, make_rows, publish

PART_RUNS = 16
PART_SECONDS = 10.0
"""A part is published when it has this many runs, or its first run is this old."""


@dataclass(frozen=True)
class Progress:
    """One run that came to its end.

    Attributes:
        run: which.
        outcome: trained here; failed; or elsewhere, done by another process meanwhile.
        finished: runs of this call that came to their end, this one included.
        total: runs of this call.
        auroc: of the last epoch on the test samples, where it was trained here.
    """

    run: PlannedRun
    outcome: Literal["trained", "failed", "elsewhere"]
    finished: int
    total: int
    auroc: float | None = None


@dataclass
class TrainReport:
    """What a call of `train_grid` did.

    Attributes:
        planned: runs of the grid.
        already: of these, in the store before.
        trained: of these, trained by this call.
        elsewhere: of these, finished by another process while this call ran.
        failed: runs whose loss was not finite, with the reason; they have no results.
        seconds: duration.
    """

    planned: int
    already: int
    trained: int = 0
    elsewhere: int = 0
    failed: list[tuple[PlannedRun, str]] = field(default_factory=list)
    seconds: float = 0.0

    def lines(self) -> list[str]:
        """The report for a person; failed runs by name."""
        parts = [f"{self.already} done before", f"{self.trained} trained", f"{len(self.failed)} failed"]
        if self.elsewhere:
            parts.insert(2, f"{self.elsewhere} trained by another process")
        lines = [f"{self.planned} runs: {', '.join(parts)} ({self.seconds:.1f} s)"]
        return lines + [f"failed: {run.label} ({run.spec.run_id}): {reason}" for run, reason in self.failed]


def train_grid(store: Store, grid: Grid, *, on_progress: Callable[[Progress], None] | None = None) -> TrainReport:
    """Train every run of the grid that has no results yet, and bring the catalog up to date.

    A run whose loss is not finite is reported and the others go on.

    Args:
        store: an open store with the cohorts and feature sets that the grid names.
        grid: which runs.
        on_progress: told when a run came to its end.

    Raises:
        RadfsError: what `make_plan` refuses, before anything runs.
        DamageError: tokens or results on disk differ from what was written.
    """
    start = time.monotonic()
    plan = make_plan(store, grid)
    _save_splits(store, plan)
    trainer = _Trainer(store, len(plan.todo), TrainReport(len(plan.runs), len(plan.runs) - len(plan.todo)), on_progress)
    try:
        for _, runs in groupby(plan.todo, key=lambda run: (run.rows.cohort.name, run.spec.features)):
            trainer.train_group(list(runs))
    finally:
        # After an interrupt too, what was trained is kept and can be queried.
        trainer.publish_pending()
        open_catalog(store).fold()
    trainer.report.seconds = time.monotonic() - start
    return trainer.report


def _save_splits(store: Store, plan: Plan) -> None:
    """Keep the splits of the runs to do, so that results can be traced to their samples."""
    splits = {(run.rows.cohort.name, run.split_seed): run for run in plan.todo}
    for run in splits.values():
        save_split(store, run.rows.cohort, run.split, run.split_seed)


class _Trainer:
    """The runs of one call, one after the other, and their results that are not published yet."""

    def __init__(
        self, store: Store, total: int, report: TrainReport, on_progress: Callable[[Progress], None] | None
    ) -> None:
        self._store, self._total, self._on_progress = store, total, on_progress
        self.report = report
        self._stored = FinishedRuns(store)
        self._pending: list[RunRows] = []
        self._oldest_pending = 0.0

    def train_group(self, runs: list[PlannedRun]) -> None:
        """Train runs that read the same tokens: those are loaded once, and only if some run needs them."""
        tokens, labels, place = None, np.empty(0, np.int64), {}
        for run in runs:
            if run.spec.run_id in self._stored.refresh():
                self._tell(run, "elsewhere")
                continue
            if tokens is None:
                tokens = _load_tokens(self._store, run)
                labels = run.rows.samples["label"].to_numpy().astype(np.int64)
                place = {sample: i for i, sample in enumerate(run.rows.samples["sample"])}
            self._train(run, tokens, labels, place)

    def publish_pending(self) -> None:
        """Write the pending results as a part, less those that another process has written meanwhile."""
        stored = self._stored.refresh()
        fresh = [rows for rows in self._pending if rows.run["run"] not in stored]
        if fresh:
            publish(self._store, fresh)
        self._pending = []

    def _train(self, run: PlannedRun, tokens: TokenTable, labels: np.ndarray, place: dict[str, int]) -> None:
        started_at, start = datetime.now(UTC), time.monotonic()
        train, test = (_places(ids, place) for ids in (run.split.subset(run.spec.fraction), run.split.test))
        try:
            (modality,) = run.features
            data = HeadData({modality: tokens}, labels)
            result = train_head(data, HeadJob(_config(run), train, test))
        except FloatingPointError as error:
            self.report.failed.append((run, str(error)))
            self._tell(run, "failed")
            return
        seconds = time.monotonic() - start
        if not self._pending:
            self._oldest_pending = start
        self._pending.append(make_rows(run, result, started_at=started_at, seconds=seconds, device="cpu"))
        if len(self._pending) >= PART_RUNS or time.monotonic() - self._oldest_pending >= PART_SECONDS:
            self.publish_pending()
        self._tell(run, "trained", auroc=result.epochs[-1].metrics["auroc"])

    def _tell(
        self, run: PlannedRun, outcome: Literal["trained", "failed", "elsewhere"], *, auroc: float | None = None
    ) -> None:
        report = self.report
        report.trained += outcome == "trained"
        report.elsewhere += outcome == "elsewhere"
        finished = report.trained + report.elsewhere + len(report.failed)
        if self._on_progress is not None:
            self._on_progress(Progress(run, outcome, finished, self._total, auroc))


def _load_tokens(store: Store, run: PlannedRun) -> TokenTable:
    """The tokens of the common rows, in their order, from the one feature set that the run reads."""
    ((modality, feature_set),) = run.features.items()
    items = run.rows.samples[modality].to_list()
    features = open_features(store, feature_set.name, only=items)
    if (content_key(features.content(items)),) != run.spec.content:
        raise DataError(
            f"cohort {run.rows.cohort.name}: {modality}s were replaced while the grid was running. Run the same "
            "command again: it plans anew."
        )
    if modality == "image":
        return TokenTable.dense(features.image_tokens(items))
    return TokenTable.ragged(*features.text_tokens(items))


def _config(run: PlannedRun) -> HeadConfig:
    spec, streams = run.spec, run.spec.streams()
    return HeadConfig(
        reads=tuple(run.features),
        classes=len(spec.classes),
        epochs=spec.epochs,
        init_seed=streams["init"],
        batch_seed=streams["batches"],
        dropout_seed=streams["dropout"],
        view_seed=streams["views"],
        lr=spec.lr,
        batch_size=spec.batch_size,
        dropout=spec.dropout,
    )


def _places(ids: Iterable[str], place: dict[str, int]) -> np.ndarray:
    return np.array([place[sample] for sample in ids], dtype=np.int64)
