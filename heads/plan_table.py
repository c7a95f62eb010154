"""A plan for a person: common rows, a table of runs, what is done and what is to do. No torch."""

from collections.abc import Iterator
from typing import TYPE_CHECKING

from .rows import CommonRows

if TYPE_CHECKING:
    from .plan import Plan, PlannedRun

_HEADINGS = ("cohort", "method", "head", "encoder", "fraction", "epochs", "lr", "n_train", "n_test", "done", "todo")


def plan_lines(plan: "Plan") -> list[str]:
    """The plan as lines of text."""
    lines = [line for rows in plan.cohorts() for line in _rows_lines(rows)]
    lines += ["", *_align([_HEADINGS, *_table(plan)]), ""]
    lines += _seed_lines(plan)
    n_done = len(plan.runs) - len(plan.todo)
    lines.append(f"{len(plan.runs)} runs: {n_done} done, {len(plan.todo)} to do")
    if plan.needed:
        lines.append(
            f"  of these {len(plan.needed)} are marked *: not listed, but students of the grid need their teachers"
        )
    if plan.again:
        lines.append(f"  {len(plan.again)} teachers are done; their lessons are made again for students that are not")
    if plan.waiting:
        lines.append(
            f"  {plan.waiting} runs of the grid, and trials of students, follow when the rows (tuning) are done"
        )
    return lines + [f"  no learning rate works for {setting}" for setting in plan.untunable]


_LEVEL = 0.05


def _seed_lines(plan: "Plan") -> Iterator[str]:
    """What so few seeds cannot show, said before they are trained."""
    from .stats.significance import least_sign_flip_p, seeds_needed

    n = len({run.spec.seed for run in plan.runs if run.spec.stage != "tuning"})
    if 1 < n < seeds_needed(_LEVEL):
        yield (
            f"{n} seeds: no comparison of two methods over seeds can have a two-sided p below "
            f"{least_sign_flip_p(n):g}; {seeds_needed(_LEVEL)} seeds can reach {_LEVEL}"
        )


def _table(plan: "Plan") -> Iterator[tuple[str, ...]]:
    """One row for the runs that differ in their seed and teacher alone."""
    groups: dict[tuple[str, ...], list[PlannedRun]] = {}
    for run in plan.runs:
        spec = run.spec
        marks = "*" if spec.run_id in plan.needed else " (tuning)" if spec.stage == "tuning" else ""
        options = ((" λ", spec.imitation), (" τ", spec.temperature))
        told = "".join(f"{name}={value:g}" for name, value in options if value is not None)
        encoders = "+".join(s.name for s in run.features.values())
        rate = "" if spec.lr is None else f"{spec.lr:g}"
        name = f"{spec.method}{told}{marks}"
        key = (run.rows.cohort.name, name, spec.head, encoders, f"{spec.fraction:g}", str(spec.epochs), rate)
        groups.setdefault(key, []).append(run)
    for key, members in groups.items():
        n_done = sum(run.done for run in members)
        sizes = (_range([run.spec.n_train for run in members]), _range([run.spec.n_test for run in members]))
        yield (*key, *sizes, str(n_done), str(len(members) - n_done))


def _rows_lines(rows: CommonRows) -> Iterator[str]:
    cohort, subjects = rows.cohort, rows.samples["subject"].n_unique()
    what = "findings" if cohort.task == "multilabel" else "classes"
    yield (
        f"cohort {cohort.name}: {len(cohort.classes)} {what}, {cohort.samples.height} samples; "
        f"{rows.samples.height} common rows of {subjects} subjects"
    )
    for reason, n in rows.lost:
        if n:
            yield f"  {n} {reason}"
    if cohort.scheme.n_train and rows.samples.height < cohort.samples.height:
        yield f"  n_train is declared for all {cohort.samples.height} samples: of these rows a fraction is the floor"


def _range(values: list[int]) -> str:
    low, high = min(values), max(values)
    return str(low) if low == high else f"{low}-{high}"


def _align(rows: list[tuple[str, ...]]) -> list[str]:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
