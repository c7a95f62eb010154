"""Metrics of stored predictions: any metric, for any subgroup of the test samples, without training anything again.

    table = measure(open_catalog(store), ["auroc", "brier"], by=["sex", "age_bin"], where="fraction = 1")

Reads the catalog alone. No torch.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl

from featurestore.catalog import Catalog
from featurestore.errors import DataError, unknown_name

from .metrics import ARGUMENTS, FROM_PREDICTIONS, METRICS, get_metric
from .stats import INFLUENCES, by_subject, influence

EPOCHS = {"chosen": "CASE WHEN r.selected_by = 'inner' THEN p.p_inner ELSE p.p_last END", "best": "p.p_best"}
"""Of which epoch the predictions are: the one that `results` reports, or the best, chosen on the test samples."""

AGE_BINS = ((18, "0-17"), (40, "18-39"), (60, "40-59"), (80, "60-79"))
"""Of the subgroup `age_bin`: ages below the number, in years; from 80 on `80+`."""

_NO_SUBGROUPS = frozenset(
    {"cohort", "cohort_key", "sample", "subject", "study", "admission", "image", "text", "text_sha256"}
    | {"label", "findings"}
)
OF_FINDINGS = ("auroc", "auroc_macro", "auroc_class", "auprc", "auprc_macro", "auprc_class")
"""The metrics of findings (a multi-label task): `auroc` pools all that are known, `auroc_class:K` is of one."""

_RUNS_AT_A_TIME = 200


@dataclass(frozen=True)
class Measured:
    """A metric of one run on its test samples, or on those of a subgroup.

    Attributes:
        value: the metric; None where it has no value there.
        influences: its influences by subject, [S] over all subjects of the cohort's runs; None where it has none.
        n_test: samples.
        n_subjects: subjects.
        prevalence: share of the samples that are of the last class, which is the positive one of two; of findings, how
            often they are present where they are known.
        samples: a number that is equal for equal sets of samples.
        reason: why there is no value.
    """

    value: float | None
    influences: np.ndarray | None
    n_test: int
    n_subjects: int
    prevalence: float
    samples: int
    reason: str | None = None


Group = tuple[str, ...]
"""The values of the subgroup columns, () where the samples are not divided."""


def measure_runs(
    catalog: Catalog, runs: pl.DataFrame, metric: str, *, by: Sequence[str] = (), epoch: str = "chosen"
) -> dict[tuple[str, Group], Measured]:
    """A metric of every run, on each subgroup of its test samples.

    Args:
        catalog: of the store.
        runs: columns run, cohort, cohort_key; of one cohort, so that the subjects' numbers agree.
        metric: a name of `heads.metrics`, with its argument where it takes one.
        by: columns that divide the samples; see `subgroups`.
        epoch: "chosen" or "best".

    Raises:
        DataError: a metric that findings do not have, or what `subgroups` refuses.
    """
    check_metric(metric)
    groups = subgroups(catalog, runs, by) if by else None
    numbers: dict[str, int] = {}
    parts = list(read_predictions(catalog, runs["run"].to_list(), epoch))
    for part in parts:
        for subject in part["subject"].unique(maintain_order=True):
            numbers.setdefault(subject, len(numbers))
    result = {}
    for part in parts:
        divided = part if groups is None else part.join(groups, on="sample", how="left")
        subjects = divided["subject"].replace_strict(numbers, return_dtype=pl.Int64)
        for key, rows in divided.with_columns(subject=subjects).partition_by("run", *by, as_dict=True).items():
            result[key[0], key[1:]] = _measure(metric, rows, len(numbers))
    return result


def check_metric(metric: str) -> None:
    """Refuse an unknown metric, with the nearest names.

    Raises:
        UnknownNameError: an unknown name.
        DataError: an argument that the metric does not take.
    """
    base = metric.partition(":")[0]
    known = (*METRICS, *FROM_PREDICTIONS)
    if base not in known:
        raise unknown_name("metric", base, known)
    try:
        get_metric(metric)
    except KeyError as error:
        example = {"sensitivity": "sensitivity:0.9", "auroc_class": "auroc_class:0", "auprc_class": "auprc_class:0"}
        hint = f" Write {example[base]}." if base in ARGUMENTS else ""
        raise DataError(f"{error.args[0]}.{hint}") from None


def subgroups(catalog: Catalog, runs: pl.DataFrame, by: Sequence[str]) -> pl.DataFrame:
    """The subgroup of every sample of a cohort: the column `sample` and one column of texts for each name of `by`.

    Args:
        catalog: of the store.
        runs: columns cohort and cohort_key, of one cohort.
        by: columns of the table `samples` that describe a sample (sex, view, label_name, ...), or `age_bin`.

    Raises:
        UnknownNameError: no such column.
        DataError: the cohort has no value in that column.
    """
    columns = [c for c in catalog.query("DESCRIBE samples")["column_name"] if c not in _NO_SUBGROUPS]
    known = [*columns, "age_bin"] if "age" in columns else columns
    for name in by:
        if name not in known:
            raise unknown_name("subgroup", name, known)
    bins = " ".join(f"WHEN age < {below} THEN '{name}'" for below, name in AGE_BINS)
    of = {"age_bin": f"CASE WHEN age IS NULL THEN NULL {bins} ELSE '80+' END"}
    selected = ", ".join(f"CAST({of.get(name, name)} AS VARCHAR) AS {name}" for name in by)
    cohort, key = runs.select("cohort", "cohort_key").row(0)
    frame = catalog.query(f"SELECT sample, {selected} FROM samples WHERE cohort = ? AND cohort_key = ?", [cohort, key])
    for name in by:
        if frame[name].null_count() == frame.height:
            raise DataError(
                f"cohort {cohort!r} knows no {name} of its samples: build it from a source that has the column, "
                "or divide by another."
            )
    return frame.with_columns(pl.col(by).fill_null("unknown"))


def select_runs(catalog: Catalog, where: str | None) -> pl.DataFrame:
    """The rows of `results` for which an SQL condition holds; all without one.

    Raises:
        DataError: SQL that is refused, or no such run.
    """
    runs = catalog.query(f"SELECT * FROM results WHERE {where}" if where else "SELECT * FROM results")
    if runs.is_empty():
        held = f" for which {where}" if where else ""
        raise DataError(f'there is no run{held}. See what there is: radfs query "FROM summary".')
    return runs


def read_predictions(catalog: Catalog, runs: Sequence[str], epoch: str) -> Iterator[pl.DataFrame]:
    """The predictions of runs, some at a time: columns run, sample, subject, label, findings, p; ordered by sample."""
    column = EPOCHS[epoch]
    for start in range(0, len(runs), _RUNS_AT_A_TIME):
        some = list(runs[start : start + _RUNS_AT_A_TIME])
        yield catalog.query(
            f"SELECT run, sample, subject, label, findings, {column} AS p FROM predictions p JOIN runs r USING (run) "
            "WHERE run IN (SELECT unnest(?)) ORDER BY run, sample",
            [some],
        )


def _measure(metric: str, rows: pl.DataFrame, n_subjects: int) -> Measured:
    base, _, argument = metric.partition(":")
    labels, probabilities = _labels(base, rows), np.array(rows["p"].to_list(), dtype=np.float32)
    subjects = rows["subject"].to_numpy()
    value, influences, reason = None, None, None
    try:
        if base in INFLUENCES:
            value, each = influence(metric, labels, probabilities)
            influences = by_subject(each, subjects, n_subjects)
        else:
            value = get_metric(metric)(labels, probabilities)
    except ValueError as error:
        reason = str(error)
    return Measured(
        value=value,
        influences=influences,
        n_test=len(labels),
        n_subjects=len(np.unique(subjects)),
        prevalence=_prevalence(labels, probabilities.shape[1], argument),
        samples=int(rows["sample"].hash().sum()),
        reason=reason,
    )


def _labels(base: str, rows: pl.DataFrame) -> np.ndarray:
    """Classes, int [n]; or findings, int [n, C]."""
    if not rows["label"].null_count():
        return rows["label"].to_numpy()
    if base not in OF_FINDINGS:
        raise DataError(f"findings have no {base}: it takes one label a sample. They have {', '.join(OF_FINDINGS)}.")
    return np.array(rows["findings"].to_list(), dtype=np.int64)


def _prevalence(labels: np.ndarray, classes: int, argument: str) -> float:
    """The share of the last class; of findings, how often those that are measured are present where they are known."""
    if labels.ndim == 1:
        return float(np.mean(labels == classes - 1))
    measured = labels[:, int(argument)] if argument else labels
    return float(np.mean(measured[measured >= 0] == 1)) if (measured >= 0).any() else np.nan
