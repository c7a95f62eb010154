"""Planning, bookkeeping and writing of a grid of thousands of tiny runs, a run: everything but the training of heads.

    python -m benchmarks.planning --runs 10000

A toy store (80 samples), one head; the engine is replaced by one that returns made-up results of five epochs at once.
One row a size, so that growth that is not linear shows.
"""

import argparse
import tempfile
import time
from pathlib import Path

import numpy as np

from heads import groups
from heads.catalog import open_catalog
from heads.engine import EpochRecord, HeadResult
from heads.grid import Grid
from heads.plan import make_plan
from heads.train import train_grid
from tests.test_heads.stores import make_store

EPOCHS = 5
METHODS = ("image", "text", "distill", "teacher", "tram")


def made_up(data, jobs):
    """Results without training."""
    rng = np.random.default_rng(0)
    state = {"x": np.zeros(1, np.float32)}
    for number, job in enumerate(jobs):
        said = rng.random((len(job.test), job.config.classes), dtype=np.float32)
        epochs = tuple(
            EpochRecord(e + 1, 0.5, 0.5, dict.fromkeys(("auroc", "auroc_macro", "auprc", "auprc_macro"), rng.random()))
            for e in range(EPOCHS)
        )
        states = dict.fromkeys(job.keep, state)
        yield number, HeadResult(epochs, {"last": EPOCHS, "best": 1}, {"last": said, "best": said}, states, 1e5)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=10_000)
    most = parser.parse_args().runs
    groups.train_heads = made_up
    groups.GroupTrainer._teach = lambda self, run, state, students, data: groups.Lesson(
        np.zeros((1, run.spec.n_train, 2), np.float32)
    )
    print("| runs | plan | plan, all done | train, write, fold | all, a run |\n|---|---|---|---|---|")
    for runs in (most // 16, most // 4, most):
        with tempfile.TemporaryDirectory() as folder:
            store = make_store(Path(folder) / "store")
            keys = {"cohort": "toy", "backbone": "tiny", "text_encoder": "tiny-text", "precision": "fp32"}
            seeds = runs // (2 * len(METHODS))
            grid = Grid(**keys, method=METHODS, fraction=[0.5, 1.0], seed=seeds, epochs=EPOCHS)
            started = time.perf_counter()
            count = len(make_plan(store, grid).runs)
            planned = time.perf_counter() - started
            report = train_grid(store, grid)
            assert report.trained == count, report.lines()
            trained = time.perf_counter() - started - planned
            started = time.perf_counter()
            assert not make_plan(store, grid).todo
            again = time.perf_counter() - started
            (rows,) = open_catalog(store).query("SELECT count(*) AS n FROM results").rows()
            assert rows == (count,)
            total = 1000 * (planned + trained) / count
            print(f"| {count:,} | {planned:.2f} s | {again:.2f} s | {trained:.2f} s | {total:.2f} ms |", flush=True)


if __name__ == "__main__":
    main()
