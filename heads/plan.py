"""From a grid and a store to the runs: common rows, splits, teachers, and what is done already. No torch.

All that can be known to fail is found here, before anything runs; nothing is written. A student needs its teacher: one
that the grid does not list is planned as well. Where the grid names several learning rates, the runs that choose among
them come first (`heads.tuning`), and what depends on their outcome waits for the next plan.
"""

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from functools import cached_property
from itertools import product

import numpy as np

from cohorts.splits import Split
from featurestore.featureset import FeatureSet
from featurestore.store import Store

from .checks import check_classes
from .finished import FinishedRuns
from .grid import Grid
from .hardware import resolve_device, resolve_precision
from .kinds import HeadKind, get_head
from .methods import Method, get_method
from .rows import CommonRows, find_common_rows
from .spec import RunSpec
from .tuning import Rate, Setting, Tuning, tuning_seed

_MODALITIES = ("image", "text")


@dataclass(frozen=True)
class Parts:
    """What a run trains, chooses and tests on: int64 places in the common rows. Shared by the runs of one subset."""

    train: np.ndarray
    inner: np.ndarray | None
    test: np.ndarray


@dataclass(frozen=True)
class PlannedRun:
    """A run of a plan: its spec, where it comes from, and whether the store has its results.

    Attributes:
        spec: what the run is.
        rows: the common rows of its cohort.
        split: the split it trains and tests on.
        split_seed: the seed of that split.
        parts: its samples.
        features: the feature sets whose tokens its training takes, its teacher's included, by modality.
        done: its results are in the store.
        teacher: the run that teaches it.
    """

    spec: RunSpec
    rows: CommonRows
    split: Split
    split_seed: int
    parts: Parts
    features: dict[str, FeatureSet]
    done: bool
    teacher: "PlannedRun | None" = None

    @property
    def method(self) -> Method:
        """Its method."""
        return get_method(self.spec.method)

    @property
    def kind(self) -> HeadKind:
        """Its kind of head."""
        return get_head(self.spec.head)

    @property
    def label(self) -> str:
        """One line that tells a person which run it is."""
        spec, encoders = self.spec, "+".join(s.encoder for s in self.features.values())
        head = "" if spec.head == "attention" else f" {spec.head}"
        tuning = f" lr {spec.lr:g} (tuning)" if spec.stage == "tuning" else ""
        name = self.rows.cohort.name
        return f"{name} {spec.method}{head} {encoders} fraction {spec.fraction:g} seed {spec.seed}{tuning}"


@dataclass(frozen=True)
class Plan:
    """The runs of a grid: cohort, method, feature sets, head, fraction, seed; a teacher before its students.

    Attributes:
        runs: the runs.
        needed: ids of the runs that are planned because students of the grid need them as teachers.
        waiting: how many runs of the grid cannot be named before learning rates are chosen.
        untunable: settings whose learning rates all failed: what depends on them is in no plan.
    """

    runs: tuple[PlannedRun, ...]
    needed: frozenset[str] = frozenset()
    waiting: int = 0
    untunable: tuple[str, ...] = ()

    @cached_property
    def todo(self) -> tuple[PlannedRun, ...]:
        """The runs whose results are not in the store."""
        return tuple(run for run in self.runs if not run.done)

    @cached_property
    def again(self) -> tuple[PlannedRun, ...]:
        """Teachers that are done, and whose lesson is wanted for students that are not."""
        teachers = {run.teacher.spec.run_id: run.teacher for run in self.todo if run.teacher and run.teacher.done}
        return tuple(teachers.values())

    def cohorts(self) -> tuple[CommonRows, ...]:
        """The common rows of each cohort, in the order of the grid."""
        return tuple({run.rows.cohort.name: run.rows for run in self.runs}.values())

    def lines(self) -> list[str]:
        """The plan for a person: common rows, a table of runs, what is done and what is to do."""
        from .plan_table import plan_lines

        return plan_lines(self)


def make_plan(
    store: Store,
    grid: Grid,
    *,
    device: str = "auto",
    finished: FinishedRuns | None = None,
    failed: Collection[str] = (),
) -> Plan:
    """Plan every run of the grid.

    Args:
        store: an open store with the cohorts and feature sets that the grid names.
        grid: which runs.
        device: auto, cpu or cuda: where precision "auto" is to be resolved for.
        finished: the runs that the store has; None: look.
        failed: ids of runs that gave no result: they choose no learning rate.

    Raises:
        DataError: tokens are missing, or a class would be empty in a training subset or in a test part; names cohort,
            seed, fraction and class, and what would work.
        UnknownNameError: no such cohort.
    """
    finished = finished or FinishedRuns(store)
    finished.refresh()
    precision = resolve_precision(grid.precision, resolve_device(device))
    runs: list[PlannedRun] = []
    needed: set[str] = set()
    waiting, untunable = 0, []
    for name in grid.cohort:
        planner = _Planner(grid, find_common_rows(store, grid, name), finished, frozenset(failed), precision)
        listed = planner.plan()
        runs += planner.runs.values()
        needed |= planner.runs.keys() - listed
        waiting += planner.waiting
        untunable += planner.tuning.failures
    return Plan(tuple(runs), frozenset(needed), waiting, tuple(untunable))


class _Planner:
    """The runs of one cohort, each made once. `runs` is in the order of the plan."""

    def __init__(
        self, grid: Grid, rows: CommonRows, finished: FinishedRuns, failed: frozenset[str], precision: str
    ) -> None:
        self.runs: dict[str, PlannedRun] = {}
        self.waiting = 0
        self._grid, self._rows, self._finished, self._precision = grid, rows, finished, precision
        self._done = finished.refresh()
        self._inner = grid.select == "inner"
        self.tuning = Tuning(grid, finished, failed, self._candidate)
        self._tuning_seed = tuning_seed(grid.seed)
        seeds = [*grid.seed, self._tuning_seed] if self.tuning.is_needed else grid.seed
        self._split_seed = {seed: seed if grid.split_seed is None else grid.split_seed for seed in seeds}
        self._splits = {seed: rows.cohort.split(seed, rows.samples) for seed in sorted(set(self._split_seed.values()))}
        check_classes(rows, grid.fraction, self._splits, inner=self._inner)
        self._parts: dict[tuple[int, float], Parts] = {}
        self._test = {seed: self._places(split.test) for seed, split in self._splits.items()}

    def plan(self) -> set[str]:
        """Plan everything; the ids of the runs that the grid lists."""
        listed = set()
        for setting, seed, imitation, temperature in self._listed():
            run = self._run(setting, seed, imitation=imitation, temperature=temperature)
            if run is None:
                self.waiting += 1
            else:
                listed.add(run.spec.run_id)
        return listed | {run.spec.run_id for run in self.runs.values() if run.spec.stage == "tuning"}

    def _listed(self) -> Iterator[tuple[Setting, int, float | None, float | None]]:
        grid = self._grid
        for method in map(get_method, grid.method):
            heads = [name for name in grid.head if get_head(name).goes_with(method)]
            imitations = grid.imitation if method.uses_imitation else (None,)
            temperatures = grid.temperature if method.uses_temperature else (None,)
            settings = product(self._feature_sets(method), heads, grid.fraction)
            for (sets, head, fraction), seed in product(settings, grid.seed):
                for imitation, temperature in product(imitations, temperatures):
                    yield Setting(method.name, head, sets, fraction), seed, imitation, temperature

    def _feature_sets(self, method: Method) -> list[tuple[FeatureSet, ...]]:
        """Every choice of feature sets for training by this method, one a modality that it or its teacher reads."""
        reads = {*method.reads, *(get_method(method.teacher).reads if method.teacher else ())}
        return list(product(*(self._rows.features[modality] for modality in _MODALITIES if modality in reads)))

    def _run(
        self, setting: Setting, seed: int, *, imitation: float | None, temperature: float | None, stage: str = "study"
    ) -> PlannedRun | None:
        """The run of a setting and seed with its tuned learning rate, its teacher before it; None if that must wait."""
        lr = self.tuning.rate(setting)
        if lr is Rate.WAITING:
            return None
        return self._make(setting, seed, lr=lr, imitation=imitation, temperature=temperature, stage=stage)

    def _candidate(self, setting: Setting, lr: float) -> PlannedRun | None:
        """The run that tries a learning rate; None if its teacher must be tuned first."""
        method = get_method(setting.method)
        return self._make(
            setting,
            self._tuning_seed,
            lr=lr,
            imitation=self._grid.imitation[0] if method.uses_imitation else None,
            temperature=self._grid.temperature[0] if method.uses_temperature else None,
            stage="tuning",
        )

    def _make(
        self,
        setting: Setting,
        seed: int,
        *,
        lr: float | None,
        imitation: float | None,
        temperature: float | None,
        stage: str,
    ) -> PlannedRun | None:
        method, kind, grid, rows = get_method(setting.method), get_head(setting.head), self._grid, self._rows
        teacher = None
        if method.teacher is not None:
            taught_by = setting.of_teacher(get_method(method.teacher))
            teacher = self._run(taught_by, seed, imitation=None, temperature=None, stage=stage)
            if teacher is None:
                return None
        split_seed = self._split_seed[seed]
        parts = self._parts_of(split_seed, setting.fraction)
        sets = tuple(s for s in setting.features if s.modality in method.reads)
        spec = RunSpec(
            cohort=rows.cohort.name,
            cohort_key=rows.cohort.key,
            task=rows.cohort.task,
            classes=rows.cohort.classes,
            method=method.name,
            head=setting.head,
            features=tuple(s.identity for s in sets),
            content=tuple(rows.content[s.name] for s in sets),
            views=0 if kind.is_baseline else max(rows.views[s.name] for s in sets),
            split_key=self._splits[split_seed].key,
            fraction=setting.fraction,
            seed=seed,
            stage=stage,
            n_train=len(parts.train),
            n_inner=0 if parts.inner is None else len(parts.inner),
            n_test=len(parts.test),
            selected_by=grid.select,
            epochs=1 if kind.is_baseline else method.epochs_factor * grid.epochs_at(setting.fraction),
            lr=lr,
            batch_size=grid.batch_size,
            dropout=0.0 if kind.pools_means else grid.dropout,
            imitation=imitation,
            temperature=temperature,
            teacher_run=None if teacher is None else teacher.spec.run_id,
            teacher_epoch=None if teacher is None else grid.teacher_epoch,
            precision="fp32" if kind.pools_means else self._precision,
        )
        if spec.run_id not in self.runs:
            self.runs[spec.run_id] = PlannedRun(
                spec=spec,
                rows=rows,
                split=self._splits[split_seed],
                split_seed=split_seed,
                parts=parts,
                features={s.modality: s for s in setting.features},
                done=spec.run_id in self._done,
                teacher=teacher,
            )
        return self.runs[spec.run_id]

    def _parts_of(self, split_seed: int, fraction: float) -> Parts:
        if (split_seed, fraction) not in self._parts:
            split, inner = self._splits[split_seed], None
            train = split.subset(fraction)
            if self._inner:
                train, validation = split.inner(fraction)
                inner = self._places(validation)
            self._parts[split_seed, fraction] = Parts(self._places(train), inner, self._test[split_seed])
        return self._parts[split_seed, fraction]

    def _places(self, samples: tuple[str, ...]) -> np.ndarray:
        return np.array([self._rows.places[sample] for sample in samples], dtype=np.int64)
