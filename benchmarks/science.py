"""Does distillation help where it should, and only there? Token-level phantoms with known answers, paired by data set.

    python -m benchmarks.science [--sets 20] [--samples 60] [--head attention]

Each data set is drawn anew from a latent patient state S, as in Figure 3 of the paper:

    prognosis  the label is a noisy function of S; image and report say S, the image weakly. A teacher that reads the
               report knows S better than the label does, so its soft targets should help a student at small n.
    diagnosis  the label is S > 0, and the report states it outright. The teacher repeats the label: nothing to gain.

Printed: test AUROC of the last epoch, and its difference to a baseline on the same data set (mean, standard error). A
student of any teacher that knows the image learns from softer labels, which helps by itself where labels are noisy; so
what the *report* gives is the difference to `self-distill`, whose teacher saw the image alone. The control
`distill-shuffled`, whose teacher read the image and other samples' reports, must gain nothing over that.
"""

import argparse
from dataclasses import replace

import numpy as np

from heads.engine import HeadConfig, HeadData, HeadJob, HeadResult, TokenTable, teach, train_heads

STORIES = ("prognosis", "diagnosis")
TOKENS, DIM, N_TEST = 4, 16, 400
PAIRS = (
    ("distill", "image"),
    ("self-distill", "image"),
    ("distill", "self-distill"),
    ("distill-shuffled", "self-distill"),
)
LR = {"attention": 1e-3, "mean": 3e-3}


def draw(story: str, n_train: int, *, seed: int) -> tuple[HeadData, np.ndarray, np.ndarray]:
    """(data, train, test) of one data set: one direction of the image's tokens, and one of the report's, says S."""
    rng = np.random.default_rng([STORIES.index(story), seed])
    n = n_train + N_TEST
    state = rng.normal(size=n)
    directions = [v / np.linalg.norm(v) for v in rng.normal(size=(2, DIM))]
    labels = (rng.random(n) < 1 / (1 + np.exp(-1.5 * state)) if story == "prognosis" else state > 0).astype(np.int64)
    stated = state if story == "prognosis" else 1.5 * (2 * labels - 1)
    image = rng.normal(size=(n, TOKENS, DIM)) + 0.7 * state[:, None, None] * directions[0]
    report = 0.5 * rng.normal(size=(n, TOKENS, DIM)) + 1.5 * stated[:, None, None] * directions[1]
    tables = {"image": TokenTable.dense(image.astype(np.float32)), "text": TokenTable.dense(report.astype(np.float32))}
    return HeadData(tables, labels), np.arange(n_train), np.arange(n_train, n)


def study(story: str, n_train: int, *, seed: int, head: str, epochs: int = 40) -> dict[str, float]:
    """Test AUROC of the last epoch of each method on one data set; teachers are taken at their best epoch."""
    data, train, test = draw(story, n_train, seed=seed)
    seeds = dict.fromkeys(("init_seed", "batch_seed", "dropout_seed"), seed)
    config = HeadConfig(classes=2, epochs=epochs, form=head, lr=LR[head], batch_size=32, **seeds)
    both = replace(config, reads=("image", "text"))
    others = {"text": np.random.default_rng(seed).permutation(len(data.labels))}
    teachers = {
        "self-distill": HeadJob(config, train, test, keep=("best",)),
        "distill": HeadJob(both, train, test, keep=("best",)),
        "distill-shuffled": HeadJob(both, train, test, rows=others, keep=("best",)),
    }
    found = dict(zip(teachers, results(data, list(teachers.values())), strict=True))
    student, students = replace(config, objective="distill"), []
    for name, job in teachers.items():
        lesson = teach(found[name].states["best"], job.config, data, train, job.rows)
        students.append(HeadJob(student, train, test, lesson=lesson))
    taught = dict(zip(teachers, results(data, students), strict=True))
    all_methods = {"image": found["self-distill"], "teacher": found["distill"], **taught}
    return {name: result.epochs[-1].metrics["auroc"] for name, result in all_methods.items()}


def results(data: HeadData, jobs: list[HeadJob]) -> list[HeadResult]:
    """In the order of the jobs."""
    outcomes = dict(train_heads(data, jobs))
    return [outcome for _, outcome in sorted(outcomes.items()) if isinstance(outcome, HeadResult)]


Gain = tuple[float, float]
"""Mean of paired differences over data sets, and its standard error."""


def gains(story: str, sets: int, n_train: int, head: str) -> tuple[dict[str, float], dict[tuple[str, str], Gain]]:
    """Means over the data sets, and the gains of (method, baseline)."""
    found = [study(story, n_train, seed=seed, head=head) for seed in range(sets)]
    means = {name: float(np.mean([row[name] for row in found])) for name in found[0]}
    pairs = {pair: np.array([row[pair[0]] - row[pair[1]] for row in found]) for pair in PAIRS}
    return means, {pair: (float(d.mean()), float(d.std(ddof=1) / np.sqrt(sets))) for pair, d in pairs.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sets", type=int, default=20, help="data sets a story")
    parser.add_argument("--samples", type=int, default=60, help="training samples")
    parser.add_argument("--head", choices=tuple(LR), default="attention")
    arguments = parser.parse_args()
    print(f"{arguments.sets} data sets of {arguments.samples} training samples, head {arguments.head}")
    for story in STORIES:
        means, differences = gains(story, arguments.sets, arguments.samples, arguments.head)
        print(f"{story}: " + ", ".join(f"{name} {value:.3f}" for name, value in means.items()))
        for (name, baseline), (mean, error) in differences.items():
            print(f"    {name} - {baseline}: {mean:+.4f} (standard error {error:.4f})", flush=True)


if __name__ == "__main__":
    main()
