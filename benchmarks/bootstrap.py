"""The crossed bootstrap of many runs against copying samples draw by draw, interleaved in one run.

python -m benchmarks.bootstrap
"""

import argparse
import time

import numpy as np

from heads.metrics.auroc import auroc
from heads.stats.bootstrap import Predicted, crossed_bootstrap


def make_runs(n_runs: int, subjects: int) -> list[Predicted]:
    """Runs of 20 seeds on one binary test set."""
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 2, subjects)
    runs = []
    for number in range(n_runs):
        score = rng.random(subjects) * 0.6 + 0.2 * labels
        p = np.stack([1 - score, score], axis=1).astype(np.float32)
        runs.append(Predicted(labels, p, np.arange(subjects), number % 20))
    return runs


def by_copies(runs: list[Predicted], draws: int) -> float:
    """Seconds of the plain way: draw subjects, copy their rows, compute."""
    rng, start = np.random.default_rng(0), time.perf_counter()
    for _ in range(draws):
        rows = rng.integers(0, len(runs[0].labels), len(runs[0].labels))
        for run in runs:
            auroc(run.labels[rows], run.probabilities[rows])
    return time.perf_counter() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=200)
    parser.add_argument("--subjects", type=int, default=1000)
    parser.add_argument("--draws", type=int, default=1000)
    given = parser.parse_args()
    runs = make_runs(given.runs, given.subjects)
    groups, share = np.arange(given.runs) // 20, 50
    weighted, copied = [], []
    for _ in range(3):
        start = time.perf_counter()
        crossed_bootstrap("auroc", runs, groups, draws=given.draws)
        weighted.append(time.perf_counter() - start)
        copied.append(by_copies(runs, max(1, given.draws // share)) * share)
    print(f"{given.draws} draws x {given.runs} runs x {given.subjects} subjects, median of 3")
    print(f"weights: {np.median(weighted):.2f} s")
    print(f"copies, from {1 / share:.0%} of the draws: {np.median(copied):.1f} s")
    print(f"ratio {np.median(copied) / np.median(weighted):.1f}")


if __name__ == "__main__":
    main()
