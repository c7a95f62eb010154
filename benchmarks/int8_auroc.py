"""What storing tokens as int8 costs a head: test AUROC against float16, on real data, seed by seed.

    python benchmarks/int8_auroc.py [--seeds 5] [--epochs 20]

The NIH radiographs and their reports from $RADFS_TEST_DATA or from shared/data beside the checkout, split by patient.
Both heads of a pair have the same split, initial parameters, batches and dropout masks. How much a difference means is
shown by the last columns: float16 against float16 with other dropout masks. Difference: int8 (or the other masks) minus
float16; spread: its standard deviation over the seeds.
"""

import argparse
import csv
import os
from pathlib import Path

import numpy as np
import polars as pl

from cohorts import make_split
from cohorts.labels import as_classes
from featurestore.codecs import get_codec
from featurestore.encoders import build, get_spec
from featurestore.images import decode_image, read_file
from heads.engine import HeadConfig, HeadData, HeadJob, TokenTable, train_head

TASKS = {"image": ("abnormal", "next_abnormal", "sex", "view"), "text": ("next_abnormal",)}
"""The reports say `abnormal` outright: every head reaches 1.0 there."""

BATCH = 32


def tables(rows: list[dict[str, str]], folder: Path, modality: str) -> dict[str, TokenTable]:
    """The tokens of all rows by codec, as they come back from the store."""
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
    codecs = {name: get_codec(name) for name in ("float16", "int8")}
    return {name: TokenTable.ragged(codec.decode(codec.encode(flat)), offsets) for name, codec in codecs.items()}


def auroc(
    table: TokenTable, labels: np.ndarray, sides: tuple[np.ndarray, np.ndarray], seed: int, epochs: int, masks: int
) -> float:
    """Of the last epoch, on the test side."""
    config = HeadConfig(
        classes=2, epochs=epochs, init_seed=3 * seed, batch_seed=3 * seed + 1, dropout_seed=3 * seed + masks
    )
    result = train_head(HeadData({"image": table}, labels), HeadJob(config, *sides))
    return result.epochs[-1].metrics["auroc"]


def measure(made: dict[str, TokenTable], rows: list[dict[str, str]], task: str, seeds: int, epochs: int) -> np.ndarray:
    """AUROC [seeds, 3] of float16, int8, and float16 with other dropout masks."""
    labelled = [i for i, row in enumerate(rows) if row[task]]
    codes = as_classes(pl.Series([rows[i][task] for i in labelled]), column=task).codes
    labels = np.zeros(len(rows), np.int64)
    labels[labelled] = codes
    samples = pl.DataFrame(
        {"sample": [f"{i}" for i in labelled], "subject": [rows[i]["patient_id"] for i in labelled], "label": codes}
    )
    scores = []
    for seed in range(seeds):
        split = make_split(samples, seed=seed, classes=2)
        sides = np.array(split.train, np.int64), np.array(split.test, np.int64)
        runs = (("float16", 2), ("int8", 2), ("float16", 10**6))
        scores.append([auroc(made[name], labels, sides, seed, epochs, masks) for name, masks in runs])
    return np.array(scores)


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
    print(f"{'task':<24}{'float16':>9}{'int8':>9}{'difference':>12}{'spread':>9}{'masks':>12}{'spread':>9}")
    everything = []
    for modality, tasks in TASKS.items():
        made = tables(rows, folder, modality)
        for task in tasks:
            scores = measure(made, rows, task, arguments.seeds, arguments.epochs)
            show(f"{modality}, {task}", scores)
            everything.append(scores)
    show("all", np.concatenate(everything))


def show(title: str, scores: np.ndarray) -> None:
    means, (int8, masks) = scores.mean(axis=0), (scores[:, 1:] - scores[:, :1]).T
    print(
        f"{title:<24}{means[0]:>9.4f}{means[1]:>9.4f}{int8.mean():>+12.5f}{int8.std(ddof=1):>9.5f}"
        f"{masks.mean():>+12.5f}{masks.std(ddof=1):>9.5f}",
        flush=True,
    )


if __name__ == "__main__":
    main()
