"""Run what a plan has to do: load tokens, train heads in fleets, publish results in parts. Knows no head's arithmetic.

    report = train_grid(store, read_grid("grid.toml"))

Runs that read the same tokens are trained together, teachers before their students; a teacher's lesson is made as soon
as it is trained, once for all of its students. A kill loses the runs since the last part (ten seconds); the same call
again does only what is missing. A teacher whose results are in the store and whose students are not is trained again
for its lesson, or its kept head is used.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Literal

from cohorts.split_files import save_split
from featurestore.store import Store

from .catalog import open_catalog
from .finished import FinishedRuns
from .grid import Grid
from .groups import GroupTrainer, Trained, table_groups
from .hardware import resolve_device
from .kept import kept_runs
from .plan import Plan, PlannedRun, make_plan
from .results import RunRows, make_rows, publish

PART_RUNS = 1024
PART_SECONDS = 10.0
"""A part is published when it has this many runs, or its first run is this old."""


@dataclass(frozen=True)
class Progress:
    """One run that came to its end.

    Attributes:
        run: which.
        outcome: trained here; failed; or elsewhere, done by another process meanwhile.
        finished: runs of this call that came to their end, this one included.
        total: runs of this call, as far as they are known.
        samples, samples_total: the same in training samples times epochs.
        auroc: of the chosen epoch on the test samples, where it was trained here.
    """

    run: PlannedRun
    outcome: Literal["trained", "failed", "elsewhere"]
    finished: int
    total: int
    samples: int
    samples_total: int
    auroc: float | None = None


@dataclass
class TrainReport:
    """What a call of `train_grid` did.

    Attributes:
        planned: runs of the grid.
        already: of these, in the store before.
        trained: of these, trained by this call.
        elsewhere: of these, finished by another process while this call ran.
        failed: runs that came to no result, with the reason.
        again: runs that were done before and were trained once more, for their lessons or heads alone.
        unplanned: runs that could not be planned, for no learning rate of theirs works.
        seconds: duration.
    """

    planned: int = 0
    already: int = 0
    trained: int = 0
    elsewhere: int = 0
    failed: list[tuple[PlannedRun, str]] = field(default_factory=list)
    again: int = 0
    unplanned: int = 0
    seconds: float = 0.0

    def lines(self) -> list[str]:
        """The report for a person; failed runs by name."""
        parts = [f"{self.already} done before", f"{self.trained} trained", f"{len(self.failed)} failed"]
        if self.elsewhere:
            parts.insert(2, f"{self.elsewhere} trained by another process")
        if self.unplanned:
            parts.append(f"{self.unplanned} not planned, for none of their learning rates works")
        lines = [f"{self.planned} runs: {', '.join(parts)} ({self.seconds:.1f} s)"]
        if self.again:
            lines.append(
                f"{self.again} of the runs done before were trained again, for their lessons or to keep their heads"
            )
        return lines + [f"failed: {run.label} ({run.spec.run_id}): {reason}" for run, reason in self.failed]


def train_grid(
    store: Store,
    grid: Grid,
    *,
    device: str = "auto",
    keep_heads: bool = False,
    on_progress: Callable[[Progress], None] | None = None,
) -> TrainReport:
    """Train every run of the grid that has no results yet, and bring the catalog up to date.

    A run that comes to no result (its loss is not finite, it finds no memory) is reported and the others go on.

    Args:
        store: an open store with the cohorts and feature sets that the grid names.
        grid: which runs.
        device: auto, cpu or cuda; auto takes a GPU where there is one.
        keep_heads: keep the parameters of the heads (`heads.kept`); runs that are done are trained again for theirs.
        on_progress: told when a run came to its end.

    Raises:
        RadfsError: what `make_plan` refuses, before anything runs.
        DamageError: tokens or results on disk differ from what was written.
    """
    start = time.monotonic()
    call = _Call(store, resolve_device(device), keep_heads=keep_heads, on_progress=on_progress)
    try:
        # Once, unless learning rates are tuned: then the outcome of one plan makes the next.
        while call.work(make_plan(store, grid, device=device, finished=call.stored, failed=call.failed_ids)):
            pass
    finally:
        # After an interrupt too, what was trained is kept and can be queried.
        call.publish_pending()
        open_catalog(store).fold()
    call.report.seconds = time.monotonic() - start
    return call.report


class _Call:
    """The runs of one call, and their results that are not published yet."""

    def __init__(
        self, store: Store, device: str, *, keep_heads: bool, on_progress: Callable[[Progress], None] | None
    ) -> None:
        self.stored = FinishedRuns(store)
        self.report = TrainReport()
        self.failed_ids: set[str] = set()
        self._store, self._device, self._keep, self._on_progress = store, device, keep_heads, on_progress
        self._pending: list[RunRows] = []
        self._oldest_pending = 0.0
        self._total = self._samples = self._samples_total = 0
        self._seen: set[str] = set()

    def work(self, plan: Plan) -> bool:
        """Do what the plan has to do; whether another plan may have more."""
        new = [run for run in plan.runs if run.spec.run_id not in self._seen]
        self._seen |= {run.spec.run_id for run in new}
        todo = [run for run in new if not run.done]
        self.report.planned += len(new)
        self.report.already += len(new) - len(todo)
        self._total += len(todo)
        self._samples_total += sum(map(_samples, todo))
        _save_splits(self._store, todo)
        precision = max((run.spec.precision for run in plan.runs), default="fp32", key=lambda name: name == "bf16")
        kept = kept_runs(self._store) if self._keep else set()
        unkept = [run for run in new if run.done and not run.kind.is_baseline and run.spec.run_id not in kept]
        trainer = GroupTrainer(self._store, self._device, precision, keep_heads=self._keep, is_stored=self._is_stored)
        for group in table_groups([*todo, *(unkept if self._keep else ())]):
            for trained in trainer.train(group):
                self._take(trained)
        self.publish_pending()
        self.report.unplanned = plan.waiting
        return bool(todo) and plan.waiting > 0

    def publish_pending(self) -> None:
        """Write the pending results as a part, less those that another process has written meanwhile."""
        if not self._pending:
            return
        stored = self.stored.refresh()
        fresh = [rows for rows in self._pending if rows.run["run"] not in stored]
        if fresh:
            publish(self._store, fresh)
        self._pending = []

    def _is_stored(self, runs: Sequence[PlannedRun]) -> set[str]:
        stored = self.stored.refresh()
        return {run.spec.run_id for run in runs if run.spec.run_id in stored}

    def _take(self, trained: Trained) -> None:
        run = trained.run
        if trained.failure is not None:
            self.report.failed.append((run, trained.failure))
            self.failed_ids.add(run.spec.run_id)
            self._tell(run, "failed")
        elif trained.result is None:
            self._tell(run, "elsewhere")
        elif trained.is_again:
            self.report.again += 1
        else:
            now = time.monotonic()
            if not self._pending:
                self._oldest_pending = now
            rows = make_rows(
                run, trained.result, started_at=trained.started_at, seconds=trained.seconds, device=self._device
            )
            self._pending.append(rows)
            if len(self._pending) >= PART_RUNS or now - self._oldest_pending >= PART_SECONDS:
                self.publish_pending()
            chosen = trained.result.epochs[rows.run["chosen_epoch"] - 1]
            self._tell(run, "trained", auroc=chosen.metrics["auroc"])

    def _tell(
        self, run: PlannedRun, outcome: Literal["trained", "failed", "elsewhere"], *, auroc: float | None = None
    ) -> None:
        report = self.report
        self._samples += _samples(run)
        report.trained += outcome == "trained"
        report.elsewhere += outcome == "elsewhere"
        finished = report.trained + report.elsewhere + len(report.failed)
        if self._on_progress is not None:
            self._on_progress(Progress(run, outcome, finished, self._total, self._samples, self._samples_total, auroc))


def _samples(run: PlannedRun) -> int:
    return run.spec.n_train * run.spec.epochs


def _save_splits(store: Store, runs: Sequence[PlannedRun]) -> None:
    """Keep the splits of the runs to do, so that results can be traced to their samples."""
    splits = {(run.rows.cohort.name, run.split_seed): run for run in runs}
    for run in splits.values():
        save_split(store, run.rows.cohort, run.split, run.split_seed)
