"""Which intervals cover what they promise and how often tests cry wolf, under redraws of the whole data set.

python -m benchmarks.coverage --data-sets 1000    # the tables of docs/statistics.md
"""

import argparse
import os
import time
from collections import defaultdict
from typing import NamedTuple

os.environ.setdefault("OMP_NUM_THREADS", "1")  # many small products: threads only wait for each other

import numpy as np

from heads.stats import (
    Interval,
    crossed_bootstrap,
    delong,
    population_interval,
    resampled_interval,
    seeds_interval,
    sign_flip,
    subjects_interval,
)
from heads.stats.bootstrap import Predicted
from tests.test_heads.simulation import Population, Study, draw_study

SEEDS = (5, 10, 20)
OWN = [(300, 0.25, 1.0), (300, 0.25, 0.3), (300, 0.25, 0.1), (300, 0.1, 1.0), (300, 0.1, 0.1), (1000, 0.25, 1.0)]
SHARED = [("split", 300, 1.0), ("split", 300, 0.1), ("test", 300, 0.3), ("split", 1000, 1.0)]
"""Patients, share of the test side, fraction; design, patients, fraction."""


class _Ends(NamedTuple):
    low: float
    high: float


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data-sets", type=int, default=200, help="of each design")
    parser.add_argument("--draws", type=int, default=400, help="of a bootstrap, on every tenth data set")
    parser.add_argument("--shared", action="store_true", help="only the designs in which seeds share a test side")
    given = parser.parse_args()
    population = Population()
    for patients, share, fraction in () if given.shared else OWN:
        title = f"A split for each seed: {patients} patients, test share {share:g}, fraction {fraction:g}"
        design = {"design": "redrawn", "subjects": patients, "test_share": share, "fraction": fraction}
        report(title, simulate(population, given.data_sets, given.draws, design))
    for kind, patients, fraction in SHARED:
        what = "One split for all seeds" if kind == "split" else "One test side, training samples drawn by each seed"
        design = {"design": kind, "subjects": patients, "fraction": fraction}
        report(
            f"{what}: {patients} patients, fraction {fraction:g}",
            simulate(population, given.data_sets, given.draws, design),
        )
    report("One seed, one sample a patient: 300 patients", single(given.data_sets))


def simulate(population: Population, data_sets: int, draws: int, design: dict) -> dict:
    """Whether each interval held its truth, [data sets], by (claim, interval) and number of seeds."""
    rng = np.random.default_rng([ord(c) for c in str(sorted(design.items()))])
    mean = np.mean([draw_study(population, rng, seeds=4, **design).truths for _ in range(max(400, data_sets))])
    held: dict = defaultdict(lambda: defaultdict(list))
    for number in range(data_sets):
        untested = 0 if design["design"] == "redrawn" else 200
        study = draw_study(population, rng, seeds=max(SEEDS), untested=untested, **design)
        for n in SEEDS:
            for (claim, name), interval, truth in claims(study, n, float(mean), design):
                held[claim, name][n].append(interval.low <= truth <= interval.high)
            twins = study.values[:n, 0] - study.values[:n, 2]
            blocks = study.values[:n, 0] - study.values[:n, 1]
            held["this data set, difference", "sign-flip test at 0.05"][n].append(sign_flip(twins) > 0.05)
            held["other data sets, difference", "sign-flip test at 0.05"][n].append(sign_flip(blocks) > 0.05)
            if number % 10 == 0:
                low, high = np.quantile(bootstrap(study, n, draws), [0.025, 0.975])
                held["other data sets, difference", "crossed bootstrap, percentiles"][n].append(low <= 0 <= high)
    return held


def claims(study: Study, n: int, mean: float, design: dict):
    """((claim, name), interval, its truth) for the first n seeds of a study."""
    values, influences = study.values[:n], study.influences[:n]
    twins, blocks = values[:, 0] - values[:, 2], values[:, 0] - values[:, 1]
    between = influences[:, 0] - influences[:, 1]
    heads = float((study.truths[:n, 0] - study.truths[:n, 1]).mean())
    yield ("this data set, difference", "seeds_interval"), seeds_interval(twins), 0.0
    yield ("other data sets, difference", "seeds_interval"), seeds_interval(blocks), 0.0
    yield ("other data sets, mean", "seeds_interval"), seeds_interval(values[:, 0]), mean
    if design["design"] == "redrawn":
        ratio = design["test_share"] / (1 - design["test_share"])
        of_pair = resampled_interval(blocks, ratio, fraction=design["fraction"], influences=between)
        of_mean = resampled_interval(values[:, 0], ratio, fraction=design["fraction"], influences=influences[:, 0])
        yield ("other data sets, difference", "resampled_interval"), of_pair, 0.0
        yield ("other data sets, mean", "resampled_interval"), _Ends(*of_mean.between_0_and_1()), mean
        alone = resampled_interval(blocks, ratio)
        yield ("other data sets, difference", "Nadeau-Bengio with n_pool"), alone, 0.0
        if design["fraction"] < 1:
            with_train = resampled_interval(blocks, study.test_to_train)
            yield ("other data sets, difference", "Nadeau-Bengio with n_train"), with_train, 0.0
    else:
        of_pair = population_interval(blocks, between)
        of_mean = _Ends(*population_interval(values[:, 0], influences[:, 0]).between_0_and_1())
        yield ("these training patients, difference", "population_interval"), of_pair, study.expected @ [1, -1, 0]
        yield ("these training patients, mean", "population_interval"), of_mean, study.expected[0]
        yield ("other data sets, difference", "population_interval"), of_pair, 0.0
        yield ("other data sets, mean", "population_interval"), of_mean, mean
    yield ("these heads, difference", "subjects_interval"), subjects_interval(between, float(blocks.mean())), heads


def bootstrap(study: Study, n: int, draws: int) -> np.ndarray:
    """Draws of the mean difference of the two blocks."""
    runs = [
        Predicted(labels, np.stack([-scores, scores], axis=1), subjects, seed)
        for seed in range(n)
        for labels, scores, subjects in study.tested[seed][:2]
    ]
    means = crossed_bootstrap("auroc", runs, np.arange(len(runs)) % 2, draws=draws)
    difference = means[:, 0] - means[:, 1]
    return difference[~np.isnan(difference)]


def single(data_sets: int) -> dict:
    """DeLong's test and the jackknife by subject on the heads of one seed."""
    population, rng = Population(most_samples=1), np.random.default_rng(1)
    held: dict = defaultdict(lambda: defaultdict(list))
    for _ in range(data_sets):
        study = draw_study(population, rng, seeds=1, design="split", subjects=300)
        truth = float(study.truths[0, 0] - study.truths[0, 1])
        (labels, first, subjects), (_, second, _), _ = study.tested[0]
        difference, se, _ = delong(labels, first, second, subjects)
        jackknife = subjects_interval(study.influences[:, 0] - study.influences[:, 1], difference)
        for name, interval in (("DeLong", Interval(difference, se, np.inf)), ("subjects_interval", jackknife)):
            held["these heads, difference", name][1].append(interval.low <= truth <= interval.high)
    return held


def report(title: str, held: dict) -> None:
    """Print a Markdown table of the shares; of tests the share of false alarms."""
    numbers = sorted({n for by_seeds in held.values() for n in by_seeds})
    print(f"\n{title}\n\n| speaks about | interval or test | {' | '.join(f'{n} seeds' for n in numbers)} |")
    print("|---|---|" + "---|" * len(numbers))
    for (claim, name), by_seeds in sorted(held.items()):
        shares = [np.mean(by_seeds[n]) for n in numbers]
        shown = [f"{1 - s:.3f} false alarms" if "test" in name else f"{s:.3f}" for s in shares]
        print(f"| {claim} | {name} | {' | '.join(shown)} |", flush=True)


if __name__ == "__main__":
    start = time.monotonic()
    main()
    print(f"\n{time.monotonic() - start:.0f} s")
