"""Where a run comes from: all that the store knows of it, from the catalog alone. No torch.

found = trace(catalog, find_run(catalog, "3f2a"))
"""

import json
from typing import Any

from featurestore.catalog import Catalog
from featurestore.errors import DataError, UnknownNameError

from .provenance import MACHINE, SOFTWARE
from .schema import METRICS

_SHOWN = 8
_TRAINED_ON = (
    *("cohort", "cohort_key", "task", "classes", "common_rows", "content", "split", "split_seed", "fraction"),
    *("n_train", "n_inner", "n_test"),
)
_WHAT = (
    *("method", "head", "serves", "stage", "seed", "epochs", "lr", "batch_size", "dropout", "views"),
    *("imitation", "temperature", "selected_by"),
)


def find_run(catalog: Catalog, written: str) -> str:
    """The id of the one run that an id, or its beginning, means.

    Raises:
        UnknownNameError: no run begins so.
        DataError: several do; names them.
    """
    found = catalog.query("SELECT run FROM runs WHERE starts_with(run, ?) ORDER BY run", [written.lower()])["run"]
    if found.is_empty() or not written:
        raise UnknownNameError(
            f"no run's id begins with {written!r}. List them with: radfs query \"SELECT run, method, fraction, seed "
            'FROM results"'
        )
    if len(found) > 1:
        shown = ", ".join(found.head(_SHOWN)) + (f" and {len(found) - _SHOWN} more" if len(found) > _SHOWN else "")
        raise DataError(f"{written!r} is the beginning of {len(found)} runs: {shown}. Write more digits.")
    return found[0]


def run_row(catalog: Catalog, run: str) -> dict[str, Any]:
    """The row of `runs` with this id.

    Raises:
        DataError: there is none.
    """
    found = catalog.query("SELECT * FROM runs WHERE run = ?", [run])
    if found.is_empty():
        raise DataError(f"the store has no results of run {run}. Its grid makes them: radfs train --grid GRID.")
    return found.row(0, named=True)


def trace(catalog: Catalog, run: str) -> dict[str, Any]:
    """All that is known of a run, by section: plain values, as JSON has them.

    Args:
        catalog: of the store, up to date.
        run: its id.

    Raises:
        DataError: there is no such run.
    """
    row = run_row(catalog, run)
    now = catalog.query("SELECT cohort_key FROM cohorts WHERE cohort = ?", [row["cohort"]])["cohort_key"].to_list()
    return {
        "run": run,
        "what": {name: row[name] for name in _WHAT if row[name] is not None},
        "trained_on": {name: row[name] for name in _TRAINED_ON} | {"replaced_since": now != [row["cohort_key"]]},
        "encoders": _encoders(catalog, row),
        "teacher": _teacher(catalog, row),
        "students": _students(catalog, run),
        "results": _results(catalog, row),
        "software": {name: row[name] for name in SOFTWARE},
        "machine": {name: row[name] for name in ("device", *MACHINE, "precision", "numerics")},
        "time": {
            "started_at": str(row["started_at"]),
            "finished_at": str(row["finished_at"]),
            "seconds": row["seconds"],
            "samples_per_second": row["samples_per_second"],
        },
        "failures": _failures(catalog, row),
        "config": json.loads(row["config"]),
    }


def _encoders(catalog: Catalog, row: dict[str, Any]) -> list[dict[str, Any]]:
    known = catalog.query("SELECT feature_set, stored_as, licence FROM feature_sets").rows_by_key(
        "feature_set", named=True, unique=True
    )
    found = []
    for modality, encoder in (("image", "backbone"), ("text", "text_encoder")):
        name = row[f"{modality}_features"]
        if name is not None:
            of_set = known.get(name)
            found.append(
                {
                    "modality": modality,
                    "encoder": row[encoder],
                    "feature_set": name,
                    "weights_sha256": row[f"{modality}_weights_sha256"],
                    "stored_as": of_set and of_set["stored_as"],
                    "licence": of_set and of_set["licence"],
                    "in_store": of_set is not None,
                }
            )
    return found


def _teacher(catalog: Catalog, row: dict[str, Any]) -> dict[str, Any] | None:
    if row["teacher_run"] is None:
        return None
    found = catalog.query("SELECT method, auroc FROM results WHERE run = ?", [row["teacher_run"]]).to_dicts()
    about = found[0] if found else {}
    return {
        "run": row["teacher_run"],
        "teaching_epoch": row["teacher_epoch"],
        "setting": row["teacher_setting"],
        "method": about.get("method"),
        "auroc": about.get("auroc"),
    }


def _students(catalog: Catalog, run: str) -> list[dict[str, Any]]:
    sql = "SELECT run, method, imitation, temperature FROM runs WHERE teacher_run = ? ORDER BY method, run"
    return catalog.query(sql, [run]).to_dicts()


def _results(catalog: Catalog, row: dict[str, Any]) -> list[dict[str, Any]]:
    """The metrics of the last, the best and the chosen epoch, one row an epoch."""
    of_epoch = {"last": row["epochs"], "best": row["best_epoch"], "chosen": row["chosen_epoch"]}
    rows = catalog.query(
        f"SELECT epoch, train_loss, test_loss, {', '.join(METRICS)}, inner_auroc FROM epochs WHERE run = ? "
        "AND epoch IN (SELECT unnest(?)) ORDER BY epoch",
        [row["run"], list(of_epoch.values())],
    ).to_dicts()
    return [{"which": [name for name, epoch in of_epoch.items() if epoch == each["epoch"]], **each} for each in rows]


def _failures(catalog: Catalog, row: dict[str, Any]) -> list[dict[str, Any]]:
    """Items of the cohort that the run's encoders could not encode, which its grid left out for that."""
    return catalog.query(
        "SELECT f.feature_set, f.view, count(DISTINCT item) AS items, min(item) AS first FROM failures f "
        "JOIN samples s ON s.cohort = ? AND s.cohort_key = ? AND f.item IN (s.image, s.text) "
        "WHERE feature_set IN (?, ?) GROUP BY ALL ORDER BY ALL",
        [row["cohort"], row["cohort_key"], row["image_features"], row["text_features"]],
    ).to_dicts()
