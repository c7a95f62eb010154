"""Results of runs that never ran: rows of `runs`, `epochs` and `predictions` with chosen numbers, as truth files."""

from collections.abc import Sequence
from itertools import count

import numpy as np
import polars as pl

from featurestore.fsio import write_parquet
from featurestore.store import Store
from heads import schema

_NUMBERS = count()

DEFAULTS = {
    **{"cohort": "toy", "cohort_key": "k", "common_rows": "r", "content": "c", "classes": ["no", "yes"]},
    **{"method": "image", "head": "attention", "backbone": "mrm", "image_features": "mrm@1", "precision": "float32"},
    **{"seed": 0, "split_seed": 0, "split": "s0", "fraction": 1.0, "n_train": 75, "n_test": 25},
    **{"stage": "study", "task": "binary", "chosen_epoch": 1, "selected_by": "last", "views": 0},
    **{"epochs": 1, "best_epoch": 1, "lr": 1e-4, "batch_size": 64, "dropout": 0.2, "numerics": 1},
}
TEXT = {"method": "text", "backbone": None, "image_features": None, "text_encoder": "bert", "text_features": "bert@1"}
"""What a text run has in place of the defaults."""


def invent_run(
    store: Store,
    predictions: Sequence[tuple[str, int | list[int], float | list[float]]] = (),
    *,
    auroc: float = 0.5,
    **changes,
) -> str:
    """Write one run as a part of its own; returns its id.

    `predictions` are (sample, label, probability of class 1, or of every class); the subject of sample "p3/a" is "p3".
    A list for a label are findings.
    """
    run = f"{next(_NUMBERS):016x}"
    row = {**DEFAULTS, **changes, "run": run}
    metrics = dict.fromkeys(schema.METRICS, auroc)
    tested = []
    for sample, label, p in predictions:
        each = p if isinstance(p, list) else [1 - p, p]
        what = {"findings": label} if isinstance(label, list) else {"label": label}
        of = {"run": run, "sample": sample, "subject": sample.partition("/")[0], **what}
        tested.append({**of, "p_last": each, "p_best": each})
    frames = {
        schema.RUNS: [row],
        schema.EPOCHS: [{"run": run, "epoch": e + 1, **metrics} for e in range(row["epochs"])],
        schema.PREDICTIONS: tested,
    }
    for table, rows in frames.items():
        frame = pl.DataFrame(rows, schema=schema.polars_schema(table))
        write_parquet(store.results / run / f"{table.name}.parquet", frame)
    return run


def invent_seeds(
    store: Store, n: int, *, quality: float, own_split: bool = True, subjects: int = 20, **changes
) -> None:
    """`n` seeds of a method: 20 subjects with two samples each, scores that tell the classes apart by `quality`.

    The noise of a sample is the same for all methods, so methods of equal quality have equal predictions.
    """
    for seed in range(n):
        split = seed if own_split else 7
        rng = np.random.default_rng(split)
        tested = rng.permutation(3 * subjects)[:subjects] if own_split else np.arange(subjects)
        noise = np.random.default_rng([seed, 1]).normal(size=2 * subjects)
        rows = []
        for i, subject in enumerate(sorted(tested)):
            label = int(subject % 2)
            for j, part in enumerate("ab"):
                rows.append(
                    (f"p{subject:02d}/{part}", label, float(1 / (1 + np.exp(-noise[2 * i + j] - quality * label))))
                )
        invent_run(store, rows, seed=seed, split_seed=split, split=f"s{split}", **changes)
