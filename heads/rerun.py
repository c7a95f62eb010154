"""A run trained once more from the store, and held against what is stored of it. Writes nothing.

    report = rerun(store, catalog, run_id)
    report.is_equal      # within the tolerance of its precision
    report.metrics       # metric -> (stored, again)

A run of a fleet and the same run alone add numbers up in another order, so equality is to rounding: `TOLERANCE`. On the
same machine most runs come out bit-equal.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl

from featurestore.catalog import Catalog
from featurestore.errors import DamageError, DataError
from featurestore.store import Store

from .hardware import resolve_device
from .plan import PlannedRun
from .provenance import MACHINE, SOFTWARE, software
from .rebuild import rebuild_run
from .schema import METRICS
from .spec import NUMERICS_VERSION
from .trace import run_row

if TYPE_CHECKING:
    from .engine import Choice, HeadResult

TOLERANCE = {"fp32": 1e-4, "bf16": 0.02}
"""Largest difference of a test sample's probability that counts as equal, by precision of the products.

Measured: docs/LOG.md. bfloat16 keeps 8 bits, so another order of additions moves a trained head visibly.
"""


@dataclass(frozen=True)
class Rerun:
    """A run beside its repetition.

    Attributes:
        run: which.
        metrics: metric of the chosen epoch -> (stored, again).
        epochs: "chosen" and "best" -> (stored, again).
        n_test: test samples.
        largest: largest absolute difference of a probability after the chosen epoch.
        tolerance: what still counts as equal.
        warnings: what differs from when it was made, in words.
        teacher: the same for its teacher; None where none taught.
    """

    run: PlannedRun
    metrics: Mapping[str, tuple[float, float]]
    epochs: Mapping[str, tuple[int, int]]
    n_test: int
    largest: float
    tolerance: float
    warnings: tuple[str, ...]
    teacher: "Rerun | None" = None

    @property
    def is_equal(self) -> bool:
        """The same chosen epoch, and every probability within the tolerance."""
        return self.largest <= self.tolerance and self.epochs["chosen"][0] == self.epochs["chosen"][1]

    def verdict(self) -> str:
        """One sentence."""
        of = f"probabilities of {self.n_test:,} test samples"
        if self.largest == 0 and self.is_equal:
            return f"bit-equal: {of}"
        within = "within" if self.is_equal else "NOT EQUAL: beyond"
        if self.epochs["chosen"][0] != self.epochs["chosen"][1]:
            return f"NOT EQUAL: another epoch was chosen; {of} differ by up to {self.largest:.3g}"
        return f"{within} the tolerance of {self.tolerance:g}: {of} differ by up to {self.largest:.3g}"


def changes(run: PlannedRun, row: Mapping[str, Any], device: str) -> tuple[str, ...]:
    """What differs between then and now in software and device, in words; machine details come after training."""
    now = {**software(), "device": device, "numerics": NUMERICS_VERSION}
    then = {name: row[name] for name in (*SOFTWARE, "device", "numerics")}
    found = [f"{name} is {now[name]}, was {then[name]}" for name in then if now[name] != then[name]]
    if str(row["git_commit"]).endswith("-dirty"):
        found.append("radfs had changes that were not committed when the run was made")
    if now["numerics"] != then["numerics"]:
        found.append("the engine's arithmetic changed on purpose between the two (numerics): other numbers are right")
    return tuple(found)


def rerun(
    store: Store, catalog: Catalog, run_id: str, *, device: str = "auto", tolerance: float | None = None
) -> Rerun:
    """Train a run again, its teacher first, and compare it with what the store says. Nothing is written.

    Args:
        store: an open store.
        catalog: of the store, up to date.
        run_id: of a run in the table `runs`.
        device: auto, cpu or cuda.
        tolerance: of a probability; None: that of TOLERANCE.

    Raises:
        RadfsError: what `rebuild_run` refuses, or training failed.
    """
    run, device = rebuild_run(store, catalog, run_id), resolve_device(device)
    results = _train(store, run, device)
    teacher = None
    if run.teacher is not None:
        teacher = _compared(catalog, run.teacher, results, device, tolerance, None)
    return _compared(catalog, run, results, device, tolerance, teacher)


def _train(store: Store, run: PlannedRun, device: str) -> "dict[str, HeadResult]":
    from .groups import GroupTrainer

    trainer = GroupTrainer(store, device, run.spec.precision, keep_heads=False, is_stored=lambda _: set())
    results = {}
    for trained in trainer.train([run] if run.teacher is None else [run.teacher, run]):
        if trained.result is None:
            raise DataError(f"run {trained.run.spec.run_id} failed when trained again: {trained.failure}.")
        results[trained.run.spec.run_id] = trained.result
    return results


def _compared(
    catalog: Catalog,
    run: PlannedRun,
    results: "Mapping[str, HeadResult]",
    device: str,
    tolerance: float | None,
    teacher: Rerun | None,
) -> Rerun:
    from .provenance import machine

    row, result, spec = run_row(catalog, run.spec.run_id), results[run.spec.run_id], run.spec
    choice: Choice = "inner" if spec.selected_by == "inner" else "last"
    chosen = result.chosen[choice]
    stored = _stored(catalog, run)
    epoch = catalog.query("SELECT * FROM epochs WHERE run = ? AND epoch = ?", [spec.run_id, row["chosen_epoch"]])
    again = result.epochs[chosen - 1].metrics
    now = machine(device)
    moved = tuple(f"{name} is {now[name]}, was {row[name]}" for name in MACHINE if now[name] != row[name])
    return Rerun(
        run=run,
        metrics={name: (epoch[name][0], again[name]) for name in METRICS},
        epochs={"chosen": (row["chosen_epoch"], chosen), "best": (row["best_epoch"], result.chosen["best"])},
        n_test=spec.n_test,
        largest=float(np.abs(result.probabilities[choice] - stored).max()),
        tolerance=TOLERANCE[spec.precision] if tolerance is None else tolerance,
        warnings=(*changes(run, row, device), *moved),
        teacher=teacher,
    )


def _stored(catalog: Catalog, run: PlannedRun) -> np.ndarray:
    """Probabilities of the test samples after the chosen epoch, in the order of the split: float32 [n_test, C]."""
    column = f"p_{run.spec.selected_by}"
    found = catalog.query(f"SELECT sample, {column} AS p FROM predictions WHERE run = ?", [run.spec.run_id])
    order = pl.DataFrame({"sample": run.split.test})
    said = order.join(found, on="sample", how="left", maintain_order="left")
    if found.height != order.height or said["p"].null_count():
        raise DamageError(
            f"run {run.spec.run_id}: its predictions are not those of its split's test samples: damaged results."
        )
    return np.array(said["p"].to_list(), dtype=np.float32)
