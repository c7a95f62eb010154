"""B3 of `benchmarks.heads`: kaiko-eva's offline training of the same head, by the Python of an environment of its own.

    python3 -m venv ENV && ENV/bin/pip install kaiko-eva
    python -m benchmarks.heads --eva ENV/bin/python

`benchmarks.heads` writes the tokens as eva keeps them, a `.pt` file an item and a manifest, and calls this file with
that environment. Printed last are seconds a run, of the wall and of the processor, with the files in the page cache.
It is done as eva does it: one run after the other, a file read for every item in every epoch, AUROC after each, a
checkpoint where it improves, one more evaluation at the end. Files are read in the process: workers would first have to
start.
"""

import argparse
import os
import time
from pathlib import Path

import torch
from eva import core
from eva.core.data.dataloaders import DataLoader
from eva.core.data.datamodules.schemas import DataloadersSchema, DatasetsSchema
from eva.core.data.datasets.classification import EmbeddingsClassificationDataset
from eva.core.metrics import MulticlassClassificationMetrics
from eva.core.metrics.structs import MetricsSchema
from lightning.pytorch.callbacks import ModelCheckpoint

from ..heads import BATCH, DIM


def seconds_a_run(folder: Path, runs: int, epochs: int, precision: str) -> tuple[float, float]:
    """By the wall's clock, and of the processor over its threads, of trainings on the manifest in `folder`."""
    sides = (EmbeddingsClassificationDataset(str(folder), "manifest.csv", split) for split in ("train", "val"))
    datasets = dict(zip(("train", "val"), sides, strict=True))
    loaders = DataloadersSchema(
        train=DataLoader(
            batch_size=BATCH,
            shuffle=True,
            num_workers=0,
            prefetch_factor=None,
            persistent_workers=False,
            pin_memory=False,
        ),
        val=DataLoader(
            batch_size=BATCH, num_workers=0, prefetch_factor=None, persistent_workers=False, pin_memory=False
        ),
    )
    data = core.DataModule(DatasetsSchema(**datasets), loaders)
    head = core.HeadModule(
        head={"class_path": "benchmarks.heads.PlainHead", "init_args": {"dim": DIM, "fused": True}},
        criterion=torch.nn.CrossEntropyLoss(),
        optimizer=lambda parameters: torch.optim.Adam(parameters, lr=1e-4),
        metrics=MetricsSchema(evaluation=MulticlassClassificationMetrics(num_classes=2)),
    )
    trainer = core.Trainer(
        default_root_dir=str(folder / "logs"),
        n_runs=runs,
        max_epochs=epochs,
        accelerator="cpu",
        precision=precision,
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        callbacks=[ModelCheckpoint(monitor="val/MulticlassAUROC", mode="max")],
    )
    wall, processor = time.perf_counter(), time.process_time()
    core.Interface().fit(trainer, head, data)
    used = (time.process_time() - processor) / torch.get_num_threads()
    return (time.perf_counter() - wall) / runs, used / runs


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--runs", type=int, default=1)
    parser.add_argument("--epochs", type=int, default=2)
    parser.add_argument("--precision", default="32-true", help="of lightning: 32-true or bf16-mixed")
    arguments = parser.parse_args()
    torch.set_num_threads(len(os.sched_getaffinity(0)))
    print(*seconds_a_run(arguments.folder, arguments.runs, arguments.epochs, arguments.precision))


if __name__ == "__main__":
    main()
