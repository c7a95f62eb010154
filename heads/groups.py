"""Training the runs that read the same tokens: batches of them through the engine, teachers before their students.

Knows what a run is and how it is trained; not where results go.
"""

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime

from featurestore.store import Store

from .baselines import train_baseline
from .engine import Choice, Failure, HeadData, HeadJob, HeadResult, Lesson, teach, train_heads
from .engine.run import check_job
from .jobs import Jobs, head_config
from .kept import load_kept, save_kept
from .plan import PlannedRun
from .tables import TableKey, Tables, table_keys

_BATCH_RUNS = 1024
_BATCH_LESSON_BYTES = 2**30


@dataclass(frozen=True)
class Trained:
    """A run that came to its end.

    Attributes:
        run: which.
        result: what training gave; None where it failed, or another process was first.
        failure: why there is no result; None where there is one, or another process was first.
        is_again: its results are in the store; it was trained for its lesson or its head.
        started_at: when its batch of runs began, UTC.
        seconds: from then to its end.
    """

    run: PlannedRun
    result: HeadResult | None = None
    failure: str | None = None
    is_again: bool = False
    started_at: datetime = field(default_factory=lambda: datetime.now(UTC))
    seconds: float = 0.0


@dataclass
class _Family:
    """A run, and the students that it teaches."""

    root: PlannedRun
    is_todo: bool = False
    students: list[PlannedRun] = field(default_factory=list)

    def runs(self) -> list[PlannedRun]:
        return [*([self.root] if self.is_todo else []), *self.students]

    @property
    def lesson_bytes(self) -> int:
        """Of the lesson, as long as its students wait for it."""
        if not any(run.method.objective == "feature-distill" for run in self.students):
            return 0
        dims = sum(s.dim for s in self.root.features.values())
        return 4 * (self.root.spec.views + 1) * self.root.spec.n_train * dims


def table_groups(runs: Sequence[PlannedRun]) -> list[list[PlannedRun]]:
    """Runs by the tables that their training takes; groups that share the images' table are neighbours."""
    groups: dict[tuple[TableKey, ...], list[PlannedRun]] = {}
    for run in runs:
        groups.setdefault(tuple(table_keys(run).values()), []).append(run)
    order: dict[TableKey, int] = {}
    for key in groups:
        order.setdefault(key[0], len(order))
    return [groups[key] for key in sorted(groups, key=lambda key: order[key[0]])]


class GroupTrainer:
    """Trains groups of runs on one device."""

    def __init__(
        self,
        store: Store,
        device: str,
        precision: str,
        *,
        keep_heads: bool,
        is_stored: Callable[[Sequence[PlannedRun]], set[str]],
    ) -> None:
        """`is_stored` tells which of some runs another process has finished meanwhile."""
        self._store, self._keep_heads, self._is_stored = store, keep_heads, is_stored
        self._tables = Tables(store, device, precision)
        self._jobs = Jobs()

    def train(self, group: Sequence[PlannedRun]) -> Iterator[Trained]:
        """Train runs that read the same tables, and yield them as they finish.

        A run that is done is trained all the same: its head is wanted.
        """
        for families in _batches(group):
            stored = self._is_stored([run for family in families for run in family.runs() if not run.done])
            for family in families:
                if family.is_todo and family.root.spec.run_id in stored:
                    yield Trained(family.root)
                    family.is_todo = False
                yield from (Trained(run) for run in family.students if run.spec.run_id in stored)
                family.students = [run for run in family.students if run.spec.run_id not in stored]
            families = [family for family in families if family.runs()]
            if families:
                rows = group[0].rows
                data = HeadData(self._tables.get(rows, table_keys(group[0])), rows.labels)
                yield from self._train_families(families, data)

    def _train_families(self, families: Sequence[_Family], data: HeadData) -> Iterator[Trained]:
        lessons: dict[str, Lesson | str] = {}
        roots = []
        for family in families:
            kept = None if family.is_todo else self._kept_lesson(family, data)
            if kept is None:
                roots.append(family)
            else:
                lessons[family.root.spec.run_id] = kept
        lesson_alone = {family.root.spec.run_id for family in roots if not family.is_todo}
        students_of = {family.root.spec.run_id: family.students for family in roots}
        for trained in self._train_runs([f.root for f in roots], data, students_of, {}):
            run_id = trained.run.spec.run_id
            if students_of[run_id]:
                lessons[run_id] = self._lesson(trained, students_of[run_id], data)
            yield replace(trained, is_again=trained.run.done or run_id in lesson_alone)
        taught = [run for family in families for run in family.students]
        yield from self._train_runs(taught, data, {}, lessons)

    def _train_runs(
        self,
        runs: Sequence[PlannedRun],
        data: HeadData,
        students_of: dict[str, list[PlannedRun]],
        lessons: dict[str, Lesson | str],
    ) -> Iterator[Trained]:
        """Train runs, those of baselines one by one, the others as fleets."""
        started_at, start = datetime.now(UTC), time.monotonic()

        def ended(run: PlannedRun, outcome: HeadResult | Failure | str) -> Trained:
            seconds = time.monotonic() - start
            if isinstance(outcome, HeadResult):
                if self._keep_heads and outcome.states:
                    save_kept(self._store, run, outcome)
                return Trained(run, outcome, is_again=run.done, started_at=started_at, seconds=seconds)
            reason = outcome.reason if isinstance(outcome, Failure) else outcome
            return Trained(run, failure=reason, started_at=started_at, seconds=seconds)

        ready: list[tuple[PlannedRun, HeadJob]] = []
        for run in runs:
            lesson = None if run.teacher is None else lessons[run.teacher.spec.run_id]
            if isinstance(lesson, str):
                yield ended(run, f"its teacher {run.teacher.spec.run_id if run.teacher else ''} failed: {lesson}")
                continue
            job = self._jobs.make(run, lesson, self._choices(run, students_of.get(run.spec.run_id, [])))
            try:
                check_job(data, job)
                if not run.kind.is_baseline:
                    ready.append((run, job))
                    continue
                outcome = train_baseline(data, job, run.spec.head)
            except (ValueError, FloatingPointError) as error:
                outcome = Failure(str(error))
            yield ended(run, outcome)
        for number, outcome in train_heads(data, [job for _, job in ready]):
            yield ended(ready[number][0], outcome)

    def _choices(self, run: PlannedRun, students: Sequence[PlannedRun]) -> tuple[Choice, ...]:
        """The epochs of a run whose parameters are wanted: those that teach, and those that are kept."""
        wanted = {student.spec.teacher_epoch for student in students}
        if self._keep_heads:
            wanted |= {run.spec.selected_by, "last", "best"}
        return tuple(choice for choice in ("last", "best", "inner") if choice in wanted)

    def _lesson(self, trained: Trained, students: Sequence[PlannedRun], data: HeadData) -> Lesson | str:
        """What a teacher tells its students; a reason where it came to no result."""
        if trained.result is None:
            return trained.failure or "no result"
        choice = students[0].spec.teacher_epoch
        return self._teach(trained.run, trained.result.states[choice], students, data)  # pyright: ignore[reportArgumentType]

    def _kept_lesson(self, family: _Family, data: HeadData) -> Lesson | None:
        """The lesson of a teacher that was kept, if it was."""
        kept = load_kept(self._store, family.root.spec.run_id)
        choice = family.students[0].spec.teacher_epoch
        if kept is None or choice not in kept.states:
            return None
        return self._teach(family.root, kept.states[choice], family.students, data)

    def _teach(self, run: PlannedRun, state: dict, students: Sequence[PlannedRun], data: HeadData) -> Lesson:
        lesson = teach(state, head_config(run.spec), data, run.parts.train, self._jobs.rows(run))
        wants_features = any(student.method.objective == "feature-distill" for student in students)
        return lesson if wants_features else Lesson(lesson.logits)


def _batches(group: Sequence[PlannedRun]) -> Iterator[list[_Family]]:
    """Families in the order of the plan, as many at a time as bounded memory for their results and lessons allows."""
    families: dict[str, _Family] = {}
    for run in group:
        root = run.teacher or run
        family = families.setdefault(root.spec.run_id, _Family(root))
        if run.teacher is None:
            family.is_todo = True
        else:
            family.students.append(run)
    batch: list[_Family] = []
    runs = lessons = 0
    for family in families.values():
        if batch and (runs >= _BATCH_RUNS or lessons + family.lesson_bytes > _BATCH_LESSON_BYTES):
            yield batch
            batch, runs, lessons = [], 0, 0
        batch.append(family)
        runs += len(family.runs())
        lessons += family.lesson_bytes
    if batch:
        yield batch
