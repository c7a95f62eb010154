"""What less precision costs a head: test AUROC on real data, seed by seed, of int8 tokens and of bfloat16 products.

    python -m benchmarks.fidelity [--seeds 5] [--epochs 20]

The NIH radiographs and their reports from $RADFS_TEST_DATA or from shared/data beside the checkout, split by patient.
All heads of a seed have the same split, initial parameters, batches and dropout masks, and are compared with float16
tokens and float32 products. How much a difference means is shown by the last columns: the same head with other dropout
masks. Difference: minus the base; spread: its standard deviation over the seeds; worst: the largest of the seeds.
"""

import argparse
import csv
import os
from pathlib import Path

import numpy as np
import polars as pl
import torch

from cohorts import make_split
from cohorts.labels import as_classes
from featurestore.codecs import get_codec
from featurestore.encoders import build, get_spec
from featurestore.images import decode_image, read_file
from heads.engine import HeadConfig, HeadData, HeadJob, HeadResult, TokenTable, train_heads

TASKS = {"image": ("abnormal", "next_abnormal", "sex", "view"), "text": ("next_abnormal",)}
"""The reports say `abnormal` outright: every head reaches 1.0 there."""

SIDES = ("int8", "bf16", "masks")

BATCH = 32


def tables(rows: list[dict[str, str]], folder: Path, modality: str) -> dict[str, TokenTable]:
    """The tokens of all rows as they come back from the store, and how they are multiplied."""
    encoder = build(get_spec({"image": "efficientnet-lite0", "text": "minilm"}[modality]))
    items = []
    for start in range(0, len(rows), BATCH):
        batch = rows[start : start + BATCH]
        if modality == "image":
            pictures = [decode_image(read_file(folder / row["file"])) for row in batch]
            items += list(encoder.encode([encoder.prepare(picture) for picture in pictures]).patches.numpy())
        else:
            tokens = encoder.encode([encoder.prepare(row["rendered_text"]) for row in batch])
            items += [row[:n] for row, n in zip(tokens.tokens.numpy(), tokens.lengths.tolist(), strict=True)]
    offsets, flat = np.cumsum([0, *map(len, items)]), np.concatenate(items)
    whole, coarse = (get_codec(name).decode(get_codec(name).encode(flat)) for name in ("float16", "int8"))
    return {
        "base": TokenTable.ragged(whole, offsets),
        "int8": TokenTable.ragged(coarse, offsets),
        "bf16": TokenTable.ragged(whole, offsets, dtype=torch.bfloat16),
    }


def measure(made: dict[str, TokenTable], rows: list[dict[str, str]], task: str, seeds: int, epochs: int) -> np.ndarray:
    """AUROC of the last epoch [seeds, 4]: base, int8, bf16, and base with other dropout masks."""
    labelled = [i for i, row in enumerate(rows) if row[task]]
    codes = as_classes(pl.Series([rows[i][task] for i in labelled]), column=task).codes
    labels = np.zeros(len(rows), np.int64)
    labels[labelled] = codes
    samples = pl.DataFrame(
        {"sample": [f"{i}" for i in labelled], "subject": [rows[i]["patient_id"] for i in labelled], "label": codes}
    )
    splits = [make_split(samples, seed=seed, classes=2) for seed in range(seeds)]
    sides = [(np.array(split.train, np.int64), np.array(split.test, np.int64)) for split in splits]
    columns = [aurocs(made[name], labels, sides, epochs, masks=2) for name in ("base", "int8", "bf16")]
    return np.stack([*columns, aurocs(made["base"], labels, sides, epochs, masks=10**6)], axis=1)


def aurocs(
    table: TokenTable, labels: np.ndarray, sides: list[tuple[np.ndarray, np.ndarray]], epochs: int, *, masks: int
) -> list[float]:
    """Of the last epoch, on the test side, for every seed."""
    jobs = [
        HeadJob(
            HeadConfig(classes=2, epochs=epochs, init_seed=3 * s, batch_seed=3 * s + 1, dropout_seed=3 * s + masks),
            *sides[s],
        )
        for s in range(len(sides))
    ]
    outcomes = dict(train_heads(HeadData({"image": table}, labels), jobs))
    results = [outcome for _, outcome in sorted(outcomes.items()) if isinstance(outcome, HeadResult)]
    return [result.epochs[-1].metrics["auroc"] for result in results]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=5, help="of split, initialisation, batches and dropout")
    parser.add_argument("--epochs", type=int, default=20, help="of each training")
    arguments = parser.parse_args()
    data = Path(os.environ.get("RADFS_TEST_DATA", Path(__file__).parents[2] / "shared" / "data"))
    folder = data / "nih-cxr14-64px"
    if not (folder / "records.csv").is_file():
        print("no real data, nothing measured: set RADFS_TEST_DATA to the folder that holds nih-cxr14-64px")
        return
    with (folder / "records.csv").open(newline="") as lines:
        rows = list(csv.DictReader(lines))

    print(f"test AUROC after {arguments.epochs} epochs, {arguments.seeds} seeds")
    print(f"{'task':<24}{'base':>8}" + "".join(f"{name:>11}{'spread':>9}{'worst':>9}" for name in SIDES))
    everything = []
    for modality, tasks in TASKS.items():
        made = tables(rows, folder, modality)
        for task in tasks:
            scores = measure(made, rows, task, arguments.seeds, arguments.epochs)
            show(f"{modality}, {task}", scores)
            everything.append(scores)
    show("all", np.concatenate(everything))


def show(title: str, scores: np.ndarray) -> None:
    differences = scores[:, 1:] - scores[:, :1]
    cells = zip(differences.mean(axis=0), differences.std(axis=0, ddof=1), np.abs(differences).max(axis=0), strict=True)
    print(
        f"{title:<24}{scores[:, 0].mean():>8.4f}"
        + "".join(f"{mean:>+11.5f}{spread:>9.5f}{worst:>9.5f}" for mean, spread, worst in cells),
        flush=True,
    )


if __name__ == "__main__":
    main()
