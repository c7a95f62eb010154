"""Comparisons of runs that were trained and tested on the same samples: paired differences, with what they speak about.

    comparison = compare(open_catalog(store), method="distill", against="image")
    comparison.table    # one row a line; polars
    comparison.notes    # in words: what the table speaks about, and what it cannot show

Reads the catalog alone. No torch. What the intervals are worth was found by simulation: docs/statistics.md.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import polars as pl

from featurestore.catalog import Catalog
from featurestore.encoders import get_spec
from featurestore.errors import DamageError, DataError, UnknownNameError, unknown_name

from .measure import Group, Measured, check_metric, measure_runs, read_predictions, select_runs
from .replicates import split_families
from .stats import (
    Interval,
    delong,
    detectable_difference,
    holm,
    population_interval,
    resampled_interval,
    seeds_interval,
    sign_flip,
)
from .views import ENCODERS, OPTIONS, pairs_sql
from .wording import notes

FACTORS: dict[str, tuple[str, ...]] = {
    "method": (),
    "backbone": ("image_features",),
    "text_encoder": ("text_features",),
    "objective": ("backbone", "image_features"),
    **dict.fromkeys(OPTIONS, ()),
}
"""What runs can be compared by, and the columns that differ with it."""

OBJECTIVES = ("image-ssl", "text-supervised", "aligned", "supervised", "none")
"""How image encoders were trained, in the order in which they are compared: the first less the second."""

QUESTIONS: dict[str, dict[str, str]] = {
    "distill-image": {"level": "distill", "against": "image"},
    "distill-self": {"level": "distill", "against": "self-distill"},
    "distill-shuffled": {"level": "distill", "against": "distill-shuffled"},
    "student-teacher": {"level": "distill", "against": "teacher"},
    "teacher-image": {"level": "teacher", "against": "image"},
    "teacher-text": {"level": "teacher", "against": "text"},
    "text-image": {"level": "text", "against": "image"},
    "ssl-aligned": {"by": "objective", "level": "image-ssl", "against": "aligned"},
}
"""Ready-made comparisons."""

TABLE: dict[str, Any] = {
    "differs": pl.List(pl.String),
    "n_seeds": pl.Int64,
    "n_undefined": pl.Int64,
    "n_train": pl.Float64,
    "n_test": pl.Float64,
    "n_subjects": pl.Float64,
    "value": pl.Float64,
    "baseline_value": pl.Float64,
    "difference": pl.Float64,
    "higher": pl.Int64,
    "seeds_low": pl.Float64,
    "seeds_high": pl.Float64,
    "seeds_p": pl.Float64,
    "seeds_p_holm": pl.Float64,
    "patients_low": pl.Float64,
    "patients_high": pl.Float64,
    "patients_p": pl.Float64,
    "patients_p_holm": pl.Float64,
    "detectable": pl.Float64,
    "basis": pl.String,
}
"""The columns of a comparison's table that every comparison has; docs/statistics.md says what each means."""

_LINE = ("cohort", "cohort_key", "common_rows", "fraction")
_SIDE = ("method", *ENCODERS, *OPTIONS, "teacher_epoch", "teacher_setting")


@dataclass(frozen=True)
class Comparison:
    """A table of paired differences.

    Attributes:
        table: one row a line; columns of TABLE, then those that say which line it is.
        metric: what was compared.
        by: what the two sides differ in.
        level: confidence level of the intervals.
        notes: what the table speaks about and what it cannot show, in words.
    """

    table: pl.DataFrame
    metric: str
    by: str
    level: float
    notes: tuple[str, ...]


@dataclass(frozen=True)
class _Line:
    """Pairs that differ in their seed alone; `units` has for every seed the runs of both sides."""

    what: Mapping[str, Any]
    fixed_split: int | None
    units: tuple[Mapping[str, Any], ...]
    differs: tuple[str, ...]


def compare(
    catalog: Catalog,
    *,
    by: str = "method",
    level: str | None = None,
    against: str | None = None,
    metric: str = "auroc",
    where: str | None = None,
    subgroups: Sequence[str] = (),
    epoch: str = "chosen",
    confidence: float = 0.95,
) -> Comparison:
    """Paired differences of a metric between two values of `by`, for every cohort, fraction and setting.

    Args:
        catalog: of the store, up to date.
        by: a name of FACTORS.
        level: the value of the first side; None for every one.
        against: the value of the second side, the baseline; None for every other one ("image" for methods).
        metric: a name of `heads.metrics`.
        where: an SQL condition on `results` that the runs of both sides must meet.
        subgroups: columns that divide the test samples (`heads.measure.subgroups`): one line a subgroup.
        epoch: "chosen", or "best", which was chosen on the test samples.
        confidence: level of the intervals; 1 - confidence is the level of the tests.

    Raises:
        UnknownNameError: an unknown factor, value, metric or subgroup, with the nearest names.
        DataError: no pair, or a condition that is refused.
    """
    if by not in FACTORS:
        raise unknown_name("thing to compare by", by, FACTORS)
    if not 0.5 <= confidence < 1:
        raise DataError(f"confidence {confidence} is not allowed: give a number from 0.5 up to, not including, 1.")
    check_metric(metric)
    runs = _with_objective(select_runs(catalog, where)) if by == "objective" else select_runs(catalog, where)
    pairs = _pairs(catalog, runs, by, level, against)
    rows = []
    for _, of_cohort in pairs.group_by("cohort", "cohort_key", "common_rows", maintain_order=True):
        lines = list(_lines(of_cohort, by))
        used = {run for line in lines for unit in line.units for run in (*unit["runs"], *unit["baseline_runs"])}
        measured = measure_runs(
            catalog, runs.filter(pl.col("run").is_in(list(used))), metric, by=subgroups, epoch=epoch
        )
        groups = sorted({group for _, group in measured})
        for line in lines:
            found = [_row(line, group, subgroups, measured, confidence) for group in groups]
            rows += [
                row | _delong(catalog, line, row, confidence, epoch) if metric == "auroc" else row for row in found
            ]
    return _finished(rows, metric=metric, by=by, level=confidence, epoch=epoch, subgroups=subgroups)


def _with_objective(runs: pl.DataFrame) -> pl.DataFrame:
    """`runs` that read images, with the column objective: how their image encoder was trained."""
    return runs.filter(pl.col("backbone").is_not_null()).with_columns(
        objective=pl.col("backbone").map_elements(_objective, return_dtype=pl.String)
    )


def _objective(backbone: str) -> str:
    try:
        return get_spec(backbone).objective
    except UnknownNameError:
        return "unknown"  # imported embeddings: radfs does not know how their encoder was trained


def _pairs(catalog: Catalog, runs: pl.DataFrame, by: str, level: str | None, against: str | None) -> pl.DataFrame:
    """One row a pair: the columns of `results` of its run, those of its baseline as `baseline_*`, and `differs`."""
    levels = sorted(runs[by].drop_nulls().cast(pl.String).unique().to_list())
    for value in (level, against):
        if value is not None and value not in levels:
            raise unknown_name(f"{by} among the runs selected,", value, levels)
    if against is None and level is None and by == "method" and "image" in levels:
        against = "image"
    # Objectives are compared through their backbones: every one of the first against every one of the second.
    sql = pairs_sql("backbone", apart=("image_features",)) if by == "objective" else pairs_sql(by, apart=FACTORS[by])
    sides = runs.rename({name: f"baseline_{name}" for name in runs.columns})
    pairs = catalog.query(sql).join(runs, on="run").join(sides, on="baseline_run", how="inner")
    first, second = pl.col(by).cast(pl.String), pl.col(f"baseline_{by}").cast(pl.String)
    pairs = pairs.filter(first != second)
    if level is not None:
        pairs = pairs.filter(first == level)
    if against is not None:
        pairs = pairs.filter(second == against)
    if level is None and against is None:
        order = {value: i for i, value in enumerate([*OBJECTIVES, "unknown"] if by == "objective" else levels)}
        pairs = pairs.filter(
            first.replace_strict(order, return_dtype=pl.Int64) < second.replace_strict(order, return_dtype=pl.Int64)
        )
    if pairs.is_empty():
        sides_asked = f"{level or 'any'} against {against or 'any other'}"
        raise DataError(
            f"no two runs can be paired by {by}: {sides_asked}. Known: {', '.join(levels) or 'none'}. A pair has "
            "the same cohort, common rows, split, seed and fraction, and the same encoders where both sides read them."
        )
    return pairs.sort("cohort", "common_rows", "fraction", by, f"baseline_{by}", "seed", maintain_order=True)


def _lines(pairs: pl.DataFrame, by: str) -> Iterator[_Line]:
    """The pairs that differ in their seed alone, together."""
    averaged = {"backbone", "image_features", *OPTIONS} if by == "objective" else set()
    side = [name for name in _SIDE if name not in averaged]
    key = [*_LINE, *side, *(f"baseline_{name}" for name in side)]
    key += [by, f"baseline_{by}"] if by not in key else []
    for values, members in pairs.group_by(key, maintain_order=True):
        units = members.group_by(
            "seed", "split_seed", "split", "fraction", "n_train", "n_test", maintain_order=True
        ).agg(
            runs=pl.col("run").unique().sort(),
            baseline_runs=pl.col("baseline_run").unique().sort(),
            encoders=pl.struct("backbone", "baseline_backbone").unique().sort(),
        )
        differs = tuple(sorted({name for names in members["differs"].to_list() for name in names}))
        for fixed_split, rows in split_families(units.to_dicts()):
            full = max(len(row["encoders"]) for row in rows)
            whole = tuple(row for row in rows if len(row["encoders"]) == full)
            yield _Line(dict(zip(key, values, strict=True)), fixed_split, whole, differs)


def _row(
    line: _Line,
    group: Group,
    subgroups: Sequence[str],
    measured: Mapping[tuple[str, Group], Measured],
    confidence: float,
) -> dict[str, Any]:
    """One row of the table: the line's settings, the values of both sides, intervals and tests."""
    units, firsts, seconds = [], [], []
    for unit in line.units:
        sides = [[measured.get((run, group)) for run in unit[name]] for name in ("runs", "baseline_runs")]
        if all(run is not None and run.value is not None for side in sides for run in side):
            units.append(unit)
            firsts.append(_mean([run for run in sides[0] if run is not None]))
            seconds.append(_mean([run for run in sides[1] if run is not None]))
    what = {name: value for name, value in line.what.items() if name not in ("cohort_key", "common_rows")}
    row = {**what, **dict(zip(subgroups, group, strict=True)), "fixed_split": line.fixed_split}
    row |= {"differs": list(line.differs), "n_seeds": len(units), "n_undefined": len(line.units) - len(units)}
    if not units:
        return row
    first, second = (np.array([side.value for side in sides]) for sides in (firsts, seconds))
    differences = first - second
    over_seeds = seeds_interval(differences, level=confidence)
    patients, basis = _patients(differences, firsts, seconds, units, confidence)
    row |= {
        "n_train": float(np.mean([unit["n_train"] for unit in units])),
        "n_test": float(np.mean([side.n_test for side in firsts])),
        "n_subjects": float(np.mean([side.n_subjects for side in firsts])),
        "value": float(first.mean()),
        "baseline_value": float(second.mean()),
        "difference": float(differences.mean()),
        "higher": int((differences > 0).sum()),
        "seeds_low": over_seeds.low,
        "seeds_high": over_seeds.high,
        "seeds_p": sign_flip(differences) if len(units) > 1 else None,
        "basis": basis,
    }
    return row | (_patient_columns(patients, confidence) if patients else {})


def _mean(runs: Sequence[Measured]) -> Measured:
    """The mean of the metric, and of its influences, over runs of one seed on the same test samples."""
    if len({run.samples for run in runs}) > 1:
        raise DamageError("runs of one split and seed hold predictions of different samples: the results are damaged.")
    influences = [run.influences for run in runs if run.influences is not None]
    return replace(
        runs[0],
        value=float(np.mean([run.value for run in runs if run.value is not None])),
        influences=np.mean(influences, axis=0) if influences else None,
    )


def _patients(
    differences: np.ndarray,
    firsts: Sequence[Measured],
    seconds: Sequence[Measured],
    units: Sequence[Mapping[str, Any]],
    confidence: float,
) -> tuple[Interval | None, str]:
    """The interval that speaks about more than this data set, and its basis: a name of `wording.BASES`."""
    if any(a.samples != b.samples for a, b in zip(firsts, seconds, strict=True)):
        raise DamageError(
            "two runs of one split and seed hold predictions of different samples: the results are damaged."
        )
    influences = None
    if firsts[0].influences is not None:
        pairs = zip(firsts, seconds, strict=True)
        influences = np.array([a.influences - b.influences for a, b in pairs if a.influences is not None])
    if len({side.samples for side in firsts}) > 1:
        ratio = float(np.mean([unit["n_test"] * unit["fraction"] / unit["n_train"] for unit in units]))
        fraction = float(np.mean([unit["fraction"] for unit in units]))
        patients = resampled_interval(differences, ratio, fraction=fraction, influences=influences, level=confidence)
        return patients, "resampled"
    if influences is None:
        return None, "none"
    return population_interval(differences, influences, level=confidence), "components" if len(
        units
    ) > 1 else "one seed"


def _delong(catalog: Catalog, line: _Line, row: Mapping[str, Any], confidence: float, epoch: str) -> dict[str, Any]:
    """The columns of DeLong's test where it may stand: one pair of runs, two classes, a sample a subject; else none."""
    ((run, *more), (baseline, *others)) = (line.units[0][name] for name in ("runs", "baseline_runs"))
    if row["basis"] != "one seed" or row["n_test"] != row["n_subjects"] or more or others:
        return {}
    (both,) = read_predictions(catalog, [run, baseline], epoch)
    first, second = (both.filter(pl.col("run") == which) for which in (run, baseline))
    if first.height != row["n_test"] or first["p"].list.len().max() != 2 or first["label"].null_count():
        return {}
    scores = [side["p"].list.last().to_numpy() for side in (first, second)]
    difference, se, _ = delong(first["label"].to_numpy(), scores[0], scores[1], first["subject"].to_numpy())
    return _patient_columns(Interval(difference, se, math.inf, confidence), confidence) | {"basis": "delong"}


def _patient_columns(interval: Interval, confidence: float) -> dict[str, Any]:
    return {
        "patients_low": interval.low,
        "patients_high": interval.high,
        "patients_p": interval.p,
        "detectable": detectable_difference(interval.se, interval.df, alpha=1 - confidence),
    }


def _finished(
    rows: list[dict[str, Any]], *, metric: str, by: str, level: float, epoch: str, subgroups: Sequence[str]
) -> Comparison:
    """The table with Holm's correction over all of its lines, and the notes."""
    sides = [name for side in _SIDE for name in (side, f"baseline_{side}") if name in rows[0]]
    first = ["cohort", "fraction", *subgroups, by, f"baseline_{by}"]
    head = [*first, *(name for name in sides if name not in first), "fixed_split"]
    empty = {**dict.fromkeys(head), **dict.fromkeys(TABLE)}
    table = pl.from_dicts([{**empty, **row} for row in rows], schema_overrides=TABLE, infer_schema_length=None)
    table = table.with_columns(
        _holm(table["seeds_p"]).alias("seeds_p_holm"), _holm(table["patients_p"]).alias("patients_p_holm")
    )
    table = table.select(*head, *(pl.col(n).fill_nan(None) if t == pl.Float64 else n for n, t in TABLE.items()))
    return Comparison(table, metric, by, level, notes(table, metric=metric, by=by, level=level, epoch=epoch))


def _holm(p_values: pl.Series) -> pl.Series:
    """Holm's adjusted p of a column; null stays null, and does not count."""
    return pl.Series(holm(p_values.cast(pl.Float64).fill_null(math.nan).to_numpy()), dtype=pl.Float64)
