"""Metrics of every setting as one table, with intervals, for the whole test side or for subgroups of it. No torch.

table, notes = metric_table(open_catalog(store), ["auroc", "brier"], by=["sex", "age_bin"], where="fraction = 1")
"""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import polars as pl

from featurestore.catalog import Catalog
from featurestore.errors import DataError

from .measure import Measured, check_metric, measure_runs, select_runs
from .metrics import LOWER_IS_BETTER
from .replicates import split_families
from .schema import SETTING
from .stats import population_interval, resampled_interval, seeds_interval

COLUMNS: dict[str, Any] = {
    "metric": pl.String,
    "n_seeds": pl.Int64,
    "n_undefined": pl.Int64,
    "n_train": pl.Float64,
    "n_test": pl.Float64,
    "n_subjects": pl.Float64,
    "prevalence": pl.Float64,
    "value": pl.Float64,
    "seeds_low": pl.Float64,
    "seeds_high": pl.Float64,
    "patients_low": pl.Float64,
    "patients_high": pl.Float64,
}
"""The columns of the table that every table has; docs/statistics.md says what each means."""

_SHOWN = ("cohort", "method", "head", "backbone", "text_encoder", "fraction", "epochs", "lr")


def metric_table(
    catalog: Catalog,
    metrics: Sequence[str],
    *,
    by: Sequence[str] = (),
    where: str | None = None,
    epoch: str = "chosen",
    confidence: float = 0.95,
) -> tuple[pl.DataFrame, tuple[str, ...]]:
    """One row a setting, subgroup and metric: the mean over seeds and its intervals.

    Args:
        catalog: of the store, up to date.
        metrics: names of `heads.metrics`; `auroc_class` and `auprc_class` without a number stand for every class.
        by: columns that divide the test samples (`heads.measure.subgroups`).
        where: an SQL condition on `results`.
        epoch: "chosen", or "best", which was chosen on the test samples.
        confidence: level of the intervals.

    Returns:
        (the table, notes in words).

    Raises:
        UnknownNameError: an unknown metric or subgroup, with the nearest names.
        DataError: no run, or a condition that is refused.
    """
    if not 0.5 <= confidence < 1:
        raise DataError(f"confidence {confidence} is not allowed: give a number from 0.5 up to, not including, 1.")
    runs = select_runs(catalog, where)
    rows: list[dict[str, Any]] = []
    for _, of_cohort in runs.group_by("cohort", "cohort_key", maintain_order=True):
        for metric in _each_class(metrics, of_cohort):
            check_metric(metric)
            measured = measure_runs(catalog, of_cohort, metric, by=by, epoch=epoch)
            groups = sorted({group for _, group in measured})
            for setting, fixed_split, members in _settings(of_cohort):
                for group in groups:
                    found = [(run, measured[run["run"], group]) for run in members if (run["run"], group) in measured]
                    row = {**setting, **dict(zip(by, group, strict=True)), "fixed_split": fixed_split}
                    bounded = metric.partition(":")[0] not in _UNBOUNDED
                    rows.append(row | {"metric": metric} | _statistics(found, confidence, bounded=bounded))
    shown = [name for name in _SHOWN if name in rows[0]]
    empty = dict.fromkeys(("fixed_split", *COLUMNS))
    table = pl.from_dicts([{**empty, **row} for row in rows], schema_overrides=COLUMNS, infer_schema_length=None)
    cleaned = (pl.col(name).fill_nan(None) if kind == pl.Float64 else name for name, kind in COLUMNS.items())
    table = table.select(*shown, "fixed_split", *by, *cleaned).sort(*shown[:1], "metric", *shown[1:], *by)
    return table, tuple(_notes(table, metrics, epoch, confidence))


def _each_class(metrics: Sequence[str], runs: pl.DataFrame) -> Iterator[str]:
    for metric in metrics:
        if metric in ("auroc_class", "auprc_class"):
            yield from (f"{metric}:{number}" for number in range(runs["classes"].list.len().max() or 0))  # pyright: ignore
        else:
            yield metric


def _settings(runs: pl.DataFrame) -> Iterator[tuple[dict[str, Any], int | None, list[dict[str, Any]]]]:
    """(settings, the one split of all seeds or None, runs in the order of seeds)."""
    names = [name for name in SETTING if name != "classes"]
    for values, members in runs.group_by(names, maintain_order=True):
        for fixed_split, rows in split_families(members.to_dicts()):
            yield dict(zip(names, values, strict=True)), fixed_split, rows


def _statistics(
    found: Sequence[tuple[dict[str, Any], Measured]], confidence: float, *, bounded: bool
) -> dict[str, Any]:
    defined = [(run, one) for run, one in found if one.value is not None]
    row: dict[str, Any] = {"n_seeds": len(defined), "n_undefined": len(found) - len(defined)}
    if found:
        row |= {name: float(np.mean([getattr(one, name) for _, one in found])) for name in _COUNTS}
    if not defined:
        return row
    values = np.array([one.value for _, one in defined])
    over_seeds = seeds_interval(values, level=confidence)
    row |= {
        "n_train": float(np.mean([run["n_train"] for run, _ in defined])),
        "value": float(values.mean()),
        "seeds_low": over_seeds.low,
        "seeds_high": over_seeds.high,
    }
    found_influences = [one.influences for _, one in defined if one.influences is not None]
    influences = np.array(found_influences) if found_influences else None
    if len({one.samples for _, one in defined}) > 1:
        ratio = float(np.mean([run["n_test"] * run["fraction"] / run["n_train"] for run, _ in defined]))
        fraction = float(np.mean([run["fraction"] for run, _ in defined]))
        patients = resampled_interval(values, ratio, fraction=fraction, influences=influences, level=confidence)
    elif influences is not None:
        patients = population_interval(values, influences, level=confidence)
    else:
        return row
    low, high = patients.between_0_and_1() if bounded else (patients.low, patients.high)
    return row | {"patients_low": low, "patients_high": high}


_FEW_SEEDS = 3
"""Of so few the t interval is so wide that it rarely excludes anything."""

_UNBOUNDED = ("log_loss", "brier")
"""Metrics that may pass 1; all others lie between 0 and 1."""


def _beyond(table: pl.DataFrame) -> bool:
    """Whether an interval over seeds of a metric that lies in 0 to 1 goes beyond it."""
    rows = table.filter(~pl.col("metric").is_in(_UNBOUNDED))
    return not rows.filter((pl.col("seeds_low") < 0) | (pl.col("seeds_high") > 1)).is_empty()


_COUNTS = ("n_test", "n_subjects", "prevalence")


def _notes(table: pl.DataFrame, metrics: Sequence[str], epoch: str, confidence: float) -> Iterator[str]:
    yield (
        f"seeds_low to seeds_high: {confidence:.0%} interval of the mean for this data set under other seeds (Student "
        "t). It says nothing about other patients."
    )
    yield (
        "patients_low to patients_high: the same for other patients. Where every seed has a split of its own: other "
        "data sets of this size. Where all seeds share one test side: other seeds and other test patients."
    )
    few = table.filter(pl.col("n_seeds").is_between(2, _FEW_SEEDS))
    if not few.is_empty():
        yield (
            f"WARNING: an interval over {_FEW_SEEDS} seeds or fewer says little: Student's t makes it 4 to 13 standard "
            "errors wide on either side. Train more seeds."
        )
    if _beyond(table):
        yield (
            "WARNING: an interval over seeds goes beyond what its metric can be (0 to 1): too few seeds, or values too "
            "near an end, for Student's t. It is shown as it is, not cut."
        )
    if (table["n_undefined"] > 0).any():
        yield "WARNING: n_undefined seeds of a line lack a class among their test samples and are left out."
    if (table["n_seeds"] == 0).any():
        yield "WARNING: lines without a value: no seed has all the classes that the metric needs in this subgroup."
    if epoch == "best":
        yield "WARNING: the best epoch was chosen on the very test samples: all values are too good."
    lower = [name for name in metrics if name.partition(":")[0] in LOWER_IS_BETTER]
    if lower:
        yield f"Lower is better: {', '.join(lower)}."
    if any(name.startswith("auprc") for name in metrics):
        yield "auprc depends on the prevalence, which stands beside it: do not compare it across subgroups or cohorts."
