"""From a grid and a store to the runs: common rows, splits, checks, and what is done already. No torch; writes nothing.

All that can be known to fail is found here, before anything runs.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product

from cohorts.splits import Split
from featurestore.featureset import FeatureSet
from featurestore.store import Store

from .checks import check_classes
from .finished import FinishedRuns
from .grid import Grid
from .methods import get_method
from .rows import CommonRows, find_common_rows
from .spec import RunSpec


@dataclass(frozen=True)
class PlannedRun:
    """A run of a plan: its spec, where it comes from, and whether the store has its results.

    Attributes:
        spec: what the run is.
        rows: the common rows of its cohort.
        split: the split it trains and tests on.
        split_seed: the seed of that split.
        features: the feature sets that it reads, by modality.
        done: its results are in the store.
    """

    spec: RunSpec
    rows: CommonRows
    split: Split
    split_seed: int
    features: dict[str, FeatureSet]
    done: bool

    @property
    def label(self) -> str:
        """One line that tells a person which run it is."""
        spec, encoders = self.spec, "+".join(s.encoder for s in self.features.values())
        return f"{self.rows.cohort.name} {spec.method} {encoders} fraction {spec.fraction:g} seed {spec.seed}"


@dataclass(frozen=True)
class Plan:
    """The runs of a grid, in a fixed order: cohort, method, feature sets, fraction, seed."""

    runs: tuple[PlannedRun, ...]

    @property
    def todo(self) -> tuple[PlannedRun, ...]:
        """The runs whose results are not in the store."""
        return tuple(run for run in self.runs if not run.done)

    def cohorts(self) -> tuple[CommonRows, ...]:
        """The common rows of each cohort, in the order of the grid."""
        return tuple({run.rows.cohort.name: run.rows for run in self.runs}.values())

    def lines(self) -> list[str]:
        """The plan for a person: common rows, a table of runs, what is done and what is to do."""
        lines = [line for rows in self.cohorts() for line in _rows_lines(rows)]
        lines += ["", *_align([_HEADINGS, *_table(self.runs)]), ""]
        n_done = len(self.runs) - len(self.todo)
        return [*lines, f"{len(self.runs)} runs: {n_done} done, {len(self.todo)} to do"]


def make_plan(store: Store, grid: Grid) -> Plan:
    """Plan every run of the grid.

    Raises:
        DataError: tokens are missing, or a class would be empty in a training subset or in a test part; names cohort,
            seed, fraction and class, and what would work.
        UnknownNameError: no such cohort.
    """
    done = FinishedRuns(store).refresh()
    runs = [run for name in grid.cohort for run in _cohort_runs(grid, find_common_rows(store, grid, name), done)]
    return Plan(tuple(runs))


def _cohort_runs(grid: Grid, rows: CommonRows, done: set[str]) -> Iterator[PlannedRun]:
    cohort = rows.cohort
    split_seeds = [seed if grid.split_seed is None else grid.split_seed for seed in grid.seed]
    splits = {seed: cohort.split(seed, rows.samples) for seed in sorted(set(split_seeds))}
    check_classes(rows, grid.fraction, splits)
    for method in map(get_method, grid.method):
        for sets in product(*(rows.features[modality] for modality in method.reads)):
            for fraction, (seed, split_seed) in product(grid.fraction, zip(grid.seed, split_seeds, strict=True)):
                split = splits[split_seed]
                spec = RunSpec(
                    cohort=cohort.name,
                    cohort_key=cohort.key,
                    classes=cohort.classes,
                    method=method.name,
                    features=tuple(s.identity for s in sets),
                    content=tuple(rows.content[s.name] for s in sets),
                    split_key=split.key,
                    fraction=fraction,
                    seed=seed,
                    n_train=len(split.subset(fraction)),
                    n_test=len(split.test),
                    epochs=grid.epochs_at(fraction),
                    lr=grid.lr,
                    batch_size=grid.batch_size,
                    dropout=grid.dropout,
                )
                yield PlannedRun(
                    spec=spec,
                    rows=rows,
                    split=split,
                    split_seed=split_seed,
                    features=dict(zip(method.reads, sets, strict=True)),
                    done=spec.run_id in done,
                )


_HEADINGS = ("cohort", "method", "encoder", "fraction", "epochs", "n_train", "n_test", "done", "todo")


def _table(runs: tuple[PlannedRun, ...]) -> Iterator[tuple[str, ...]]:
    """One row for the runs that differ in their seed alone."""
    groups: dict[tuple[str, ...], list[PlannedRun]] = {}
    for run in runs:
        encoders = "+".join(s.name for s in run.features.values())
        key = (run.rows.cohort.name, run.spec.method, encoders, f"{run.spec.fraction:g}", str(run.spec.epochs))
        groups.setdefault(key, []).append(run)
    for key, members in groups.items():
        n_done = sum(run.done for run in members)
        sizes = (_range([run.spec.n_train for run in members]), _range([run.spec.n_test for run in members]))
        yield (*key, *sizes, str(n_done), str(len(members) - n_done))


def _rows_lines(rows: CommonRows) -> Iterator[str]:
    cohort, subjects = rows.cohort, rows.samples["subject"].n_unique()
    yield (
        f"cohort {cohort.name}: {len(cohort.classes)} classes, {cohort.samples.height} samples; "
        f"{rows.samples.height} common rows of {subjects} subjects"
    )
    for reason, n in rows.lost:
        if n:
            yield f"  {n} {reason}"


def _range(values: list[int]) -> str:
    low, high = min(values), max(values)
    return str(low) if low == high else f"{low}-{high}"


def _align(rows: list[tuple[str, ...]]) -> list[str]:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
