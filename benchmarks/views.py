"""What cached views cost: the clean view alone, K cached augmented views, and online augmentation, on real radiographs.

    python -m benchmarks.views [--images 600] [--epochs 20] [--seeds 10] [--keep tokens.npy]

NIH radiographs from $RADFS_TEST_DATA or shared/data beside the checkout, efficientnet-lite0, split by patient. Online
augmentation is a fresh crop of every image in every epoch: as many cached views as epochs, each used once. Test AUROC
of the last epoch, and the paired difference to the clean view (mean, standard error over the seeds).
"""

import argparse
import csv
import os
from collections.abc import Iterator
from itertools import count
from pathlib import Path
from unittest.mock import patch

import numpy as np
import polars as pl
import torch
from torch import Tensor

from cohorts import make_split
from cohorts.labels import as_classes
from featurestore.encoders import build, get_spec
from featurestore.images import decode_image, read_file
from featurestore.views import crop_of
from heads.engine import HeadConfig, HeadData, HeadJob, HeadResult, TokenTable, train_heads

TASKS = ("abnormal", "sex", "view")
CACHED = (1, 4)
BATCH = 50


def encode(files: list[Path], views: int) -> np.ndarray:
    """Tokens float16 [1 + views, images, n, d]: the clean view first."""
    encoder = build(get_spec("efficientnet-lite0"))
    made = []
    for start in range(0, len(files), BATCH):
        pictures = [(path.name, decode_image(read_file(path))) for path in files[start : start + BATCH]]
        of_view = []
        for view in range(views + 1):
            crops = [
                crop_of(name, view, width=image.width, height=image.height) if view else None
                for name, image in pictures
            ]
            prepared = [encoder.prepare(image, crop) for (_, image), crop in zip(pictures, crops, strict=True)]
            of_view.append(encoder.encode(prepared).patches.numpy().astype(np.float16))
        made.append(np.stack(of_view))
        print(f"\r{start + len(pictures)} images of {len(files)}", end="", flush=True)
    print()
    return np.concatenate(made, axis=1)


def every_epoch_its_own(n_items: int, n_views: int, *, seed: int) -> Iterator[Tensor]:
    """In place of `epoch_views`: epoch e reads view e, so no crop is seen twice."""
    for epoch in count():
        yield torch.full((n_items,), epoch % n_views)  # the fleet asks once more than there are epochs


def aurocs(tables: list[np.ndarray], rows: list[dict[str, str]], task: str, seeds: int, epochs: int) -> np.ndarray:
    """Of the last epoch, for every seed."""
    codes = as_classes(pl.Series([row[task] for row in rows]), column=task).codes
    samples = pl.DataFrame(
        {"sample": [str(i) for i in range(len(rows))], "subject": [row["patient_id"] for row in rows], "label": codes}
    )
    jobs = []
    for seed in range(seeds):
        split = make_split(samples, seed=seed, classes=2)
        streams = dict.fromkeys(("init_seed", "batch_seed", "dropout_seed", "view_seed"), seed)
        sides = (np.array(side, np.int64) for side in (split.train, split.test))
        jobs.append(HeadJob(HeadConfig(classes=2, epochs=epochs, **streams), *sides))
    outcomes = dict(train_heads(HeadData({"image": TokenTable.dense(*tables)}, np.array(codes)), jobs))
    results = [outcome for _, outcome in sorted(outcomes.items()) if isinstance(outcome, HeadResult)]
    return np.array([result.epochs[-1].metrics["auroc"] for result in results])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=600)
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--keep", type=Path, help="a .npy file: tokens are taken from it, or written to it")
    arguments = parser.parse_args()
    data = Path(os.environ.get("RADFS_TEST_DATA", Path(__file__).parents[2] / "shared" / "data")) / "nih-cxr14-64px"
    if not (data / "records.csv").is_file():
        print("no real data, nothing measured: set RADFS_TEST_DATA to the folder that holds nih-cxr14-64px")
        return
    with (data / "records.csv").open(newline="") as lines:
        rows = list(csv.DictReader(lines))[: arguments.images]
    if arguments.keep is not None and arguments.keep.is_file():
        tokens = np.load(arguments.keep)
    else:
        tokens = encode([data / row["file"] for row in rows], arguments.epochs)
        if arguments.keep is not None:
            np.save(arguments.keep, tokens)
    views = list(tokens)
    print(f"{len(rows)} images, {arguments.epochs} epochs, {arguments.seeds} seeds")
    for task in TASKS:
        rest = (rows, task, arguments.seeds, arguments.epochs)
        clean = aurocs(views[:1], *rest)
        line = f"{task:<10} clean {clean.mean():.4f}"
        ways = {f"{k} cached": aurocs(views[: k + 1], *rest) for k in CACHED}
        with patch("heads.engine.fleet.epoch_views", every_epoch_its_own):
            ways["online"] = aurocs(views, *rest)
        for name, found in ways.items():
            difference = found - clean
            error = difference.std(ddof=1) / np.sqrt(len(difference))
            line += f"   {name} {difference.mean():+.4f} ({error:.4f})"
        print(line, flush=True)


if __name__ == "__main__":
    main()
