"""A run as experiment trackers have it: a name, settings, tags, and a metric for every epoch. Knows no tracker."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from featurestore.catalog import Catalog

from ..measure import select_runs
from ..provenance import MACHINE, SOFTWARE
from ..schema import METRICS

SETTINGS = (
    *("cohort", "task", "method", "head", "backbone", "image_features", "text_encoder", "text_features", "views"),
    *("fraction", "seed", "split_seed", "n_train", "n_inner", "n_test", "epochs", "lr", "batch_size", "dropout"),
    *("imitation", "temperature", "teacher_epoch", "precision", "selected_by"),
)
TAGS = (
    *("run", "teacher_run", "numerics", "image_weights_sha256", "text_weights_sha256"),
    *("device", *MACHINE, *SOFTWARE),
)
"""Without hashes that were made from patients' ids: trackers are often others' machines. `run` leads to them all."""

PREFIX = "radfs."
_PER_EPOCH = ("train_loss", "test_loss", *METRICS, "inner_auroc")


@dataclass(frozen=True)
class TrackedRun:
    """One run.

    Attributes:
        run: its id.
        cohort: the cohort's name.
        name: what a person calls it.
        settings: SETTINGS that it has.
        tags: TAGS that it has, names with PREFIX.
        metrics: of the chosen epoch, `auroc_best` and `best_epoch` beside them.
        epochs: number of the epoch -> metric -> value.
        started_at, finished_at: UTC.
    """

    run: str
    cohort: str
    name: str
    settings: dict[str, Any]
    tags: dict[str, str]
    metrics: dict[str, float]
    epochs: dict[int, dict[str, float]]
    started_at: datetime
    finished_at: datetime


def tracked_runs(catalog: Catalog, where: str | None) -> Iterator[TrackedRun]:
    """The runs of `results` for which an SQL condition holds, cohort by cohort."""
    results = select_runs(catalog, where)
    rows = catalog.query("SELECT * FROM runs WHERE run IN (SELECT unnest(?))", [results["run"].to_list()])
    of_run = rows.rows_by_key("run", named=True, unique=True, include_key=True)
    for result in results.sort("cohort", "method", "fraction", "seed", "run").iter_rows(named=True):
        row = of_run[result["run"]]
        epochs = catalog.query(
            f"SELECT epoch, {', '.join(_PER_EPOCH)} FROM epochs WHERE run = ? ORDER BY epoch", [row["run"]]
        )
        named = [row["method"], row["backbone"] or row["text_encoder"], f"fraction {row['fraction']:g}"]
        yield TrackedRun(
            run=row["run"],
            cohort=row["cohort"],
            name=" ".join([*named, f"seed {row['seed']}"]),
            settings={name: row[name] for name in SETTINGS if row[name] is not None},
            tags={PREFIX + name: str(row[name]) for name in TAGS if row[name] is not None},
            metrics={**{name: result[name] for name in METRICS}, "auroc_best": result["auroc_best"]},
            epochs={each.pop("epoch"): _known(each) for each in epochs.to_dicts()},
            started_at=row["started_at"].replace(tzinfo=UTC),
            finished_at=row["finished_at"].replace(tzinfo=UTC),
        )


def _known(values: dict[str, float | None]) -> dict[str, float]:
    return {name: value for name, value in values.items() if value is not None}
