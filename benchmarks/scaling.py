"""Cost of training grows linearly: 1x, 4x and 16x as many runs, training samples, epochs, one at a time.

    python -m benchmarks.scaling [--head attention]

Seconds, and the ratio to what linear growth from 1x would take (below 1: what is fixed is shared by more).
"""

import argparse
import time

import numpy as np

from heads.engine import HeadConfig, HeadData, HeadJob, TokenTable, train_heads

TOKENS, DIM, N_TEST = 16, 64, 128
BASE = {"runs": 4, "samples": 128, "epochs": 2}
FACTORS = (1, 4, 16)


def seconds(head: str, runs: int, samples: int, epochs: int) -> float:
    """One call of the engine; the test set is the same for all sizes."""
    rng = np.random.default_rng(0)
    tokens = rng.standard_normal((samples + N_TEST, TOKENS, DIM), dtype=np.float32)
    data = HeadData({"image": TokenTable.dense(tokens)}, np.arange(samples + N_TEST) % 2)
    train, test = np.arange(samples), np.arange(samples, samples + N_TEST)
    seeds = [dict.fromkeys(("init_seed", "batch_seed", "dropout_seed"), s) for s in range(runs)]
    jobs = [HeadJob(HeadConfig(classes=2, epochs=epochs, form=head, **s), train, test) for s in seeds]
    started = time.perf_counter()
    for _ in train_heads(data, jobs):
        pass
    return time.perf_counter() - started


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--head", default="attention", choices=("attention", "multihead", "query", "mean"))
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    seconds(arguments.head, **BASE)
    print(f"{'what grows':<12}" + "".join(f"{f'{factor}x s':>10}{'linear':>8}" for factor in FACTORS))
    for what in BASE:
        taken = []
        for factor in FACTORS:
            size = {**BASE, what: factor * BASE[what]}
            taken.append(min(seconds(arguments.head, **size) for _ in range(arguments.rounds)))
        cells = (f"{t:>10.3f}{t / (f * taken[0]):>8.2f}" for t, f in zip(taken, FACTORS, strict=True))
        print(f"{what:<12}" + "".join(cells), flush=True)


if __name__ == "__main__":
    main()
