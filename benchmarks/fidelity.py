"""What less precision costs a head: test AUROC, seed by seed, of int8 tokens and of bfloat16 products.

    python -m benchmarks.fidelity [--seeds 5] [--epochs 20] [--tasks "nih image sex,nih image view"]
        [--sides base,bf16,masks] [--keep scores.csv]

The NIH radiographs and their reports from $RADFS_TEST_DATA or from shared/data beside the checkout, and a phantom
cohort, split by patient. All heads of a seed have the same split, initial parameters, batches and dropout masks, and
are compared with float16 tokens and float32 products. How much a difference means is shown by the last columns: the
same head with other dropout masks. Difference: minus the base; spread: its standard deviation over the seeds; worst:
the largest of the seeds. With `--keep`, scores go to a file as they come, and those in it are not measured again.
"""

import argparse
import csv
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import polars as pl
import torch

from cohorts import build_phantom, make_split
from cohorts.labels import as_classes
from cohorts.phantom import PhantomSpec, simulate
from featurestore.codecs import get_codec
from featurestore.encoders import build, get_spec
from featurestore.images import decode_image, read_file
from featurestore.store import open_store
from heads.engine import HeadConfig, HeadData, HeadJob, HeadResult, TokenTable, train_heads

TASKS = (
    "nih image abnormal",
    "nih image next_abnormal",
    "nih image sex",
    "nih image view",
    "nih text next_abnormal",
    "phantom image label",
    "phantom text label",
)
"""Data set, modality, label. The NIH reports say `abnormal` outright: every head reaches 1.0 there."""

SIDES = ("base", "int8", "bf16", "masks")

PHANTOM = PhantomSpec(subjects=600)

BATCH = 32

Score = tuple[str, str, int]
"""Task, side, seed."""


@dataclass(frozen=True)
class Studies:
    """One data set: an image, a report and a subject a study; the labels of each task, empty where there is none."""

    files: list[Path]
    texts: list[str]
    subjects: list[str]
    labels: dict[str, list[str]]


def nih() -> Studies | None:
    """The radiographs of the test data; None where it is absent."""
    data = Path(os.environ.get("RADFS_TEST_DATA", Path(__file__).parents[2] / "shared" / "data"))
    folder = data / "nih-cxr14-64px"
    if not (folder / "records.csv").is_file():
        print("no NIH radiographs, so nothing is measured on them: set RADFS_TEST_DATA to what holds nih-cxr14-64px")
        return None
    with (folder / "records.csv").open(newline="") as lines:
        rows = list(csv.DictReader(lines))
    return Studies(
        [folder / row["file"] for row in rows],
        [row["rendered_text"] for row in rows],
        [row["patient_id"] for row in rows],
        {task: [row[task] for row in rows] for task in ("abnormal", "next_abnormal", "sex", "view")},
    )


def phantom(folder: Path) -> Studies:
    """A phantom cohort, drawn into `folder`."""
    patients = simulate(PHANTOM)
    build_phantom(open_store(folder / "store", create=True), "p", subjects=PHANTOM.subjects)
    drawn = {path.stem: path for path in (folder / "store" / "phantom" / "p").rglob("*.png")}
    return Studies(
        [drawn[name] for name in patients["id"]],
        patients["text"].to_list(),
        patients["subject"].to_list(),
        {"label": [f"{label}" for label in patients["label"]]},
    )


def tables(studies: Studies, modality: str) -> dict[str, TokenTable]:
    """The tokens of all studies as they come back from the store, and how they are multiplied."""
    encoder = build(get_spec({"image": "efficientnet-lite0", "text": "minilm"}[modality]))
    items: list[np.ndarray] = []
    for start in range(0, len(studies.files), BATCH):
        batch = slice(start, start + BATCH)
        if modality == "image":
            pictures = [decode_image(read_file(file)) for file in studies.files[batch]]
            items += list(encoder.encode([encoder.prepare(picture) for picture in pictures]).patches.numpy())
        else:
            tokens = encoder.encode([encoder.prepare(text) for text in studies.texts[batch]])
            items += [row[:n] for row, n in zip(tokens.tokens.numpy(), tokens.lengths.tolist(), strict=True)]
    offsets, flat = np.cumsum([0, *map(len, items)]), np.concatenate(items)
    whole, coarse = (get_codec(name).decode(get_codec(name).encode(flat)) for name in ("float16", "int8"))
    exact = TokenTable.ragged(whole, offsets)
    return {
        "base": exact,
        "int8": TokenTable.ragged(coarse, offsets),
        "bf16": TokenTable.ragged(whole, offsets, dtype=torch.bfloat16),
        "masks": exact,
    }


def measure(studies: Studies, task: str, wanted: list[Score], epochs: int) -> Iterator[tuple[Score, float]]:
    """Test AUROC of the last epoch of these scores of one task, as they come."""
    _, modality, label = task.split()
    words = studies.labels[label]
    labelled = [i for i, word in enumerate(words) if word]
    codes = as_classes(pl.Series([words[i] for i in labelled]), column=label).codes
    labels = np.zeros(len(words), np.int64)
    labels[labelled] = codes
    samples = pl.DataFrame(
        {"sample": [f"{i}" for i in labelled], "subject": [studies.subjects[i] for i in labelled], "label": codes}
    )
    made = tables(studies, modality)
    for side in dict.fromkeys(side for _, side, _ in wanted):
        scores = [score for score in wanted if score[1] == side]
        jobs = [_job(samples, seed, epochs, masks=10**6 if side == "masks" else 2) for _, _, seed in scores]
        for number, outcome in train_heads(HeadData({"image": made[side]}, labels), jobs):
            assert isinstance(outcome, HeadResult), outcome
            yield scores[number], outcome.epochs[-1].metrics["auroc"]


def _job(samples: pl.DataFrame, seed: int, epochs: int, *, masks: int) -> HeadJob:
    split = make_split(samples, seed=seed, classes=2)
    config = HeadConfig(
        classes=2, epochs=epochs, init_seed=3 * seed, batch_seed=3 * seed + 1, dropout_seed=3 * seed + masks
    )
    return HeadJob(config, np.array(split.train, np.int64), np.array(split.test, np.int64))


def read_scores(file: Path | None) -> dict[Score, float]:
    """What is in the file already."""
    if file is None or not file.is_file():
        return {}
    with file.open(newline="") as lines:
        return {(task, side, int(seed)): float(auroc) for task, side, seed, auroc in csv.reader(lines)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=5, help="of split, initialisation, batches and dropout")
    parser.add_argument("--epochs", type=int, default=20, help="of each training")
    parser.add_argument("--tasks", default=",".join(TASKS), help="comma-separated")
    parser.add_argument("--sides", default=",".join(SIDES), help="comma-separated: what is measured in this call")
    parser.add_argument("--keep", type=Path, help="a CSV of scores: read, and added to")
    arguments = parser.parse_args()
    tasks, sides, known = arguments.tasks.split(","), arguments.sides.split(","), read_scores(arguments.keep)
    with TemporaryDirectory() as folder:
        found: dict[str, Studies | None] = {}
        for task in tasks:
            wanted = [(task, side, seed) for side in sides for seed in range(arguments.seeds)]
            wanted = [score for score in wanted if score not in known]
            name = task.split()[0]
            if wanted and name not in found:
                found[name] = nih() if name == "nih" else phantom(Path(folder))
            if not wanted or (studies := found[name]) is None:
                continue
            for score, auroc in measure(studies, task, wanted, arguments.epochs):
                known[score] = auroc
                if arguments.keep is not None:
                    with arguments.keep.open("a", newline="") as lines:
                        csv.writer(lines).writerow([*score, auroc])
    show(known, tasks, arguments.seeds, arguments.epochs)


def show(scores: dict[Score, float], tasks: list[str], seeds: int, epochs: int) -> None:
    """A line a task that is measured whole, and one of all of them."""
    print(f"test AUROC after {epochs} epochs, {seeds} seeds")
    print(f"{'task':<26}{'base':>8}" + "".join(f"{name:>11}{'spread':>9}{'worst':>9}" for name in SIDES[1:]))
    rows = {}
    for task in tasks:
        keys = [[(task, side, seed) for side in SIDES] for seed in range(seeds)]
        if all(key in scores for row in keys for key in row):
            rows[task] = np.array([[scores[key] for key in row] for row in keys])
    if len(rows) > 1:
        rows["all"] = np.concatenate(list(rows.values()))
    for title, aurocs in rows.items():
        differences = aurocs[:, 1:] - aurocs[:, :1]
        largest = np.abs(differences).max(axis=0)
        cells = zip(differences.mean(axis=0), differences.std(axis=0, ddof=1), largest, strict=True)
        print(
            f"{title:<26}{aurocs[:, 0].mean():>8.4f}"
            + "".join(f"{mean:>+11.5f}{spread:>9.5f}{worst:>9.5f}" for mean, spread, worst in cells)
        )


if __name__ == "__main__":
    main()
