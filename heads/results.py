"""Finished runs on disk: `results/<part>/` with runs, epochs and predictions as Parquet. No torch.

A part's `runs.parquet` is written last and is the commit: a run is there with all of its rows or not at all. Parts are
the truth; the catalog's tables are made from them.
"""

import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import polars as pl

from featurestore.catalog import Table
from featurestore.fsio import write_parquet
from featurestore.keys import canonical_json, content_key
from featurestore.store import Store

from .plan import PlannedRun
from .provenance import software
from .schema import COMMIT_FILE, EPOCHS, METRICS, PREDICTIONS, RUNS, polars_schema

if TYPE_CHECKING:
    from .engine import HeadResult


@dataclass(frozen=True)
class RunRows:
    """The rows of one finished run: one of `runs`, one an epoch, one a test sample."""

    run: dict[str, Any]
    epochs: pl.DataFrame
    predictions: pl.DataFrame


def make_rows(
    planned: PlannedRun, result: "HeadResult", *, started_at: datetime, seconds: float, device: str
) -> RunRows:
    """The rows of a run from what training gave.

    Args:
        planned: the run.
        result: what `heads.engine.train_head` returned, test samples in the order of the split.
        started_at: when training began, in any time zone.
        seconds: how long it took.
        device: where it ran.
    """
    run = {
        **_what_columns(planned),
        **software(),
        "best_epoch": result.chosen["best"],
        "device": device,
        "started_at": _utc(started_at),
        "finished_at": _utc(datetime.now(UTC)),
        "seconds": seconds,
        "samples_per_second": result.samples_per_second,
    }
    epochs = [(run["run"], e.epoch, e.train_loss, e.test_loss, *(e.metrics[m] for m in METRICS)) for e in result.epochs]
    test = pl.DataFrame({"sample": planned.split.test}).join(
        planned.rows.samples.select("sample", "subject", "label"), on="sample", how="left", maintain_order="left"
    )
    predictions = test.with_columns(
        pl.lit(run["run"]).alias("run"),
        pl.Series("p_last", result.probabilities["last"].tolist()),
        pl.Series("p_best", result.probabilities["best"].tolist()),
    )
    return RunRows(run, _frame(EPOCHS, epochs), _frame(PREDICTIONS, predictions))


def publish(store: Store, finished: Sequence[RunRows]) -> None:
    """Write these runs as one part; its `runs.parquet` comes last, and is the commit.

    Where two processes finish the same run in different parts, the catalog takes the first by name and skips the
    other (`Table.unique_by`).
    """
    runs = content_key(sorted(rows.run["run"] for rows in finished))
    part = store.results / f"{runs}-{uuid.uuid4().hex[:8]}"  # nobody else writes into it
    write_parquet(part / "epochs.parquet", pl.concat([rows.epochs for rows in finished]))
    write_parquet(part / "predictions.parquet", pl.concat([rows.predictions for rows in finished]))
    write_parquet(part / COMMIT_FILE, _frame(RUNS, [rows.run for rows in finished]))


def _what_columns(planned: PlannedRun) -> dict[str, Any]:
    """The columns of `runs` that say what the run is and on what."""
    spec = planned.spec
    columns: dict[str, Any] = {
        **{name: value for name, value in spec.what().items() if name in polars_schema(RUNS)},
        "run": spec.run_id,
        "cohort": planned.rows.cohort.name,
        "common_rows": planned.rows.key,
        "content": content_key(spec.content),
        "split": spec.split_key,
        "split_seed": planned.split_seed,
        "config": canonical_json(spec.what()),
    }
    for modality, encoder in (("image", "backbone"), ("text", "text_encoder")):
        feature_set = planned.features.get(modality)
        columns[encoder] = feature_set.encoder if feature_set else None
        columns[f"{modality}_features"] = feature_set.name if feature_set else None
        columns[f"{modality}_weights_sha256"] = _weights_sha256(feature_set.attrs) if feature_set else None
    return columns


def _weights_sha256(attrs: Mapping[str, Any]) -> str | None:
    return attrs["what"].get("weights_sha256")


def _frame(table: Table, rows: "pl.DataFrame | Sequence[Any]") -> pl.DataFrame:
    schema = polars_schema(table)
    if isinstance(rows, pl.DataFrame):
        return rows.select(schema.names()).cast(schema)
    return pl.DataFrame(rows, schema=schema, orient="row")


def _utc(moment: datetime) -> datetime:
    return moment.astimezone(UTC).replace(tzinfo=None)
