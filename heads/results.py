"""Finished runs on disk: `results/<part>/` with runs, epochs and predictions as Parquet. No torch.

A part's `runs.parquet` is written last and is the commit: a run is there with all of its rows or not at all. Parts are
the truth; the catalog's tables are made from them.
"""

import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl

from featurestore.catalog import Table
from featurestore.fsio import write_parquet
from featurestore.keys import canonical_json, content_key
from featurestore.store import Store

from .plan import PlannedRun
from .provenance import machine, software
from .schema import COMMIT_FILE, EPOCHS, METRICS, PREDICTIONS, RUNS, polars_schema

if TYPE_CHECKING:
    from .engine import Choice, HeadResult


_RUN_COLUMNS = frozenset(column.name for column in RUNS.columns)


@dataclass(frozen=True)
class RunRows:
    """What is kept of a finished run: its row of `runs`, its epochs, and what it says about the test samples.

    Attributes:
        planned: the run.
        run: columns of `runs`.
        epochs: rows of `epochs`.
        probabilities: "last", "best" and, where there is an inner part, "inner" -> float32 [n_test, C].
    """

    planned: PlannedRun
    run: dict[str, Any]
    epochs: list[tuple[Any, ...]]
    probabilities: "dict[Choice, np.ndarray]"


def make_rows(
    planned: PlannedRun, result: "HeadResult", *, started_at: datetime, seconds: float, device: str
) -> RunRows:
    """The rows of a run from what training gave.

    Args:
        planned: the run.
        result: what the engine returned, test samples in the order of the split.
        started_at: when training of its batch of runs began, in any time zone.
        seconds: from then to its end.
        device: where it ran.
    """
    inner = result.chosen.get("inner")
    run = {
        **_what_columns(planned),
        **software(),
        "best_epoch": result.chosen["best"],
        "chosen_epoch": inner if planned.spec.selected_by == "inner" else result.chosen["last"],
        "inner_auroc": None if inner is None else result.epochs[inner - 1].inner_auroc,
        "device": device,
        **machine(device),
        "started_at": _utc(started_at),
        "finished_at": _utc(datetime.now(UTC)),
        "seconds": seconds,
        "samples_per_second": result.samples_per_second,
    }
    epochs = [
        (run["run"], e.epoch, e.train_loss, e.test_loss, *(e.metrics[m] for m in METRICS), e.inner_auroc)
        for e in result.epochs
    ]
    return RunRows(planned, run, epochs, result.probabilities)


def publish(store: Store, finished: Sequence[RunRows]) -> None:
    """Write these runs as one part; its `runs.parquet` comes last, and is the commit.

    Where two processes finish the same run in different parts, the catalog takes the first by name and skips the
    other (`Table.unique_by`).
    """
    runs = content_key(sorted(rows.run["run"] for rows in finished))
    part = store.results / f"{runs}-{uuid.uuid4().hex[:8]}"  # nobody else writes into it
    epochs = [row for rows in finished for row in rows.epochs]
    write_parquet(part / "epochs.parquet", _frame(EPOCHS, epochs))
    write_parquet(part / "predictions.parquet", _frame(PREDICTIONS, _predictions(finished)))
    write_parquet(part / COMMIT_FILE, _frame(RUNS, [rows.run for rows in finished]))


def _predictions(finished: Sequence[RunRows]) -> pl.DataFrame:
    """The rows of `predictions`. Test samples are the same for many runs: each split's are looked up once."""
    tests: dict[tuple[str, str], pl.DataFrame] = {}
    frames = []
    for rows in finished:
        planned = rows.planned
        key = (planned.spec.cohort, planned.spec.split_key)
        if key not in tests:
            tests[key] = _test_samples(planned)
        said = {f"p_{choice}": _lists(rows.probabilities.get(choice)) for choice in ("last", "best", "inner")}
        frames.append(tests[key].with_columns(pl.lit(rows.run["run"]).alias("run"), **said))
    return pl.concat(frames)


def _test_samples(planned: PlannedRun) -> pl.DataFrame:
    known = pl.DataFrame({"place": planned.parts.test}).join(
        planned.rows.samples.with_row_index("place").cast({"place": pl.Int64}), on="place", maintain_order="left"
    )
    nothing = pl.lit(None, dtype=pl.List(pl.Int8)).alias("findings")
    if planned.spec.task == "multilabel":
        return known.select("sample", "subject", pl.lit(None, dtype=pl.Int32).alias("label"), "findings")
    return known.select("sample", "subject", "label", nothing)


def _lists(probabilities: "np.ndarray | None") -> pl.Expr | pl.Series:
    """float32 [n, C] as a column of lists; null where there are none."""
    if probabilities is None:
        return pl.lit(None, dtype=pl.List(pl.Float32))
    return pl.Series(np.ascontiguousarray(probabilities, dtype=np.float32)).arr.to_list()


def _what_columns(planned: PlannedRun) -> dict[str, Any]:
    """The columns of `runs` that say what the run is and on what."""
    spec = planned.spec
    columns: dict[str, Any] = {
        **{name: value for name, value in spec.what().items() if name in _RUN_COLUMNS},
        "run": spec.run_id,
        "cohort": planned.rows.cohort.name,
        "common_rows": planned.rows.key,
        "content": content_key(spec.content),
        "split": spec.split_key,
        "split_seed": planned.split_seed,
        "serves": list(planned.method.serves),
        "teacher_setting": None if planned.teacher is None else _setting(planned.teacher),
        "config": canonical_json(spec.what()),
    }
    for modality, encoder in (("image", "backbone"), ("text", "text_encoder")):
        feature_set = planned.features.get(modality)
        columns[encoder] = feature_set.encoder if feature_set else None
        columns[f"{modality}_features"] = feature_set.name if feature_set else None
        columns[f"{modality}_weights_sha256"] = _weights_sha256(feature_set.attrs) if feature_set else None
    return columns


def _setting(planned: PlannedRun) -> str:
    """Content hash of all that runs of one setting share: what they are but for seed and split."""
    drawn = ("seed", "split_key", "n_train", "n_inner", "n_test", "teacher_run")
    return content_key({name: value for name, value in planned.spec.what().items() if name not in drawn})


def _weights_sha256(attrs: Mapping[str, Any]) -> str | None:
    return attrs["what"].get("weights_sha256")


def _frame(table: Table, rows: "pl.DataFrame | Sequence[Any]") -> pl.DataFrame:
    schema = polars_schema(table)
    if isinstance(rows, pl.DataFrame):
        return rows.select(schema.names()).cast(schema)
    return pl.DataFrame(rows, schema=schema, orient="row")


def _utc(moment: datetime) -> datetime:
    return moment.astimezone(UTC).replace(tzinfo=None)
