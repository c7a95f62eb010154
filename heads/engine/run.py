"""What a run of one head takes and gives: its configuration, its inputs' checks, its record of epochs, its result.

Shared by the engine and the reference; nothing in here computes a head.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ..metrics import compute_metrics
from .tokens import TokenTable


@dataclass(frozen=True)
class HeadConfig:
    """How one head is trained (the paper's section 3.2 and appendix A are the defaults).

    Attributes:
        classes: number of classes, at least 2; a binary task has two logits as well.
        epochs: passes over the training items, at least 1.
        init_seed: seed of the initial parameters; like the two below, a non-negative 63-bit number.
        batch_seed: seed of the order of the batches.
        dropout_seed: seed of the dropout masks.
        lr: Adam's learning rate.
        batch_size: items a step; the last step of an epoch takes what is left.
        dropout: share of attention weights that a training step drops, in [0, 1).
    """

    classes: int
    epochs: int
    init_seed: int
    batch_seed: int
    dropout_seed: int
    lr: float = 1e-4
    batch_size: int = 64
    dropout: float = 0.2

    def __post_init__(self) -> None:
        for name, low in (("classes", 2), ("epochs", 1), ("batch_size", 1)):
            if getattr(self, name) < low:
                raise ValueError(f"{name} = {getattr(self, name)}: at least {low} is needed")
        for name in ("init_seed", "batch_seed", "dropout_seed"):
            if not 0 <= getattr(self, name) < 2**63:
                raise ValueError(f"{name} = {getattr(self, name)}: a seed lies in 0..2**63-1")
        if not (math.isfinite(self.lr) and self.lr > 0):
            raise ValueError(f"lr = {self.lr}: a learning rate is a positive number")
        if not 0 <= self.dropout < 1:
            raise ValueError(f"dropout = {self.dropout}: it lies in [0, 1)")


@dataclass(frozen=True)
class EpochRecord:
    """One epoch (counted from 1): mean training loss as trained, and test loss and metrics after it."""

    epoch: int
    train_loss: float
    test_loss: float
    metrics: dict[str, float]


@dataclass(frozen=True)
class HeadResult:
    """What training one head gave.

    Attributes:
        epochs: one record an epoch.
        probabilities_last: float32 [n_test, C] after the last epoch, in the order of `test`.
        probabilities_best: the same after `best_epoch`.
        best_epoch: the first epoch with the highest test AUROC. WARN: chosen on the reported set, hence optimistic.
        state: trained parameters, float32, under the reference head's names.
        samples_per_second: training items seen per second, evaluation after every epoch included.
    """

    epochs: tuple[EpochRecord, ...]
    probabilities_last: np.ndarray
    probabilities_best: np.ndarray
    best_epoch: int
    state: dict[str, np.ndarray]
    samples_per_second: float


def check_inputs(
    tokens: TokenTable, labels: np.ndarray, train: np.ndarray, test: np.ndarray, config: HeadConfig
) -> None:
    """Refuse what would fail, or mean nothing, after hours of training.

    Raises:
        ValueError: if labels do not match the table, an index lies outside it, train or test is empty or repeats an
            item, they share an item, a used label is not a class, or a class has no test sample (no metric then).
    """
    if labels.shape != (tokens.n_items,) or labels.dtype.kind not in "iu":
        raise ValueError(f"labels are {tokens.n_items} integers, one an item; got {labels.dtype} {labels.shape}")
    for name, items in (("train", train), ("test", test)):
        if items.ndim != 1 or items.dtype.kind not in "iu" or not len(items):
            raise ValueError(f"{name} is a list of item indices, not empty; got {items.dtype} {items.shape}")
        if items.min() < 0 or items.max() >= tokens.n_items:
            raise ValueError(f"{name} holds indices outside 0..{tokens.n_items - 1}")
        if len(np.unique(items)) != len(items):
            raise ValueError(f"{name} holds an item twice")
        used = labels[items]
        if used.min() < 0 or used.max() >= config.classes:
            raise ValueError(f"a label of {name} lies outside 0..{config.classes - 1}")
    if len(shared := np.intersect1d(train, test)):
        raise ValueError(f"item {shared[0]} is in train and in test ({len(shared)} such items)")
    if len(missing := np.setdiff1d(np.arange(config.classes), labels[test])):
        raise ValueError(f"no test sample of class {missing[0]}: its metrics do not exist; use another split")


class RunLog:
    """Epoch after epoch of one run: checks the losses, computes the metrics, remembers the best epoch."""

    def __init__(self, test_labels: np.ndarray) -> None:
        self._labels = test_labels
        self._targets = torch.from_numpy(test_labels.astype(np.int64))
        self._epochs: list[EpochRecord] = []
        self._last = self._best = np.empty(0, np.float32)
        self._best_epoch = 0

    def add_epoch(self, train_loss: float, test_logits: Tensor) -> None:
        """Record an epoch from its training loss and the test logits [n_test, C] after it.

        Raises:
            FloatingPointError: naming the epoch, if a loss is not finite.
        """
        epoch = len(self._epochs) + 1
        test_loss = torch.nn.functional.cross_entropy(test_logits, self._targets).item()
        check_finite("training loss", train_loss, epoch=epoch)
        check_finite("test loss", test_loss, epoch=epoch)
        self._last = test_logits.softmax(dim=1).numpy()
        metrics = compute_metrics(self._labels, self._last)
        if not self._epochs or metrics["auroc"] > self._epochs[self._best_epoch - 1].metrics["auroc"]:
            self._best, self._best_epoch = self._last, epoch
        self._epochs.append(EpochRecord(epoch, train_loss, test_loss, metrics))

    def result(self, state: Mapping[str, Tensor], *, samples_per_second: float) -> HeadResult:
        """The run's result with the trained parameters."""
        return HeadResult(
            epochs=tuple(self._epochs),
            probabilities_last=self._last,
            probabilities_best=self._best,
            best_epoch=self._best_epoch,
            state={name: value.detach().numpy().copy() for name, value in state.items()},
            samples_per_second=samples_per_second,
        )


def check_finite(what: str, value: float, *, epoch: int) -> None:
    """Raise FloatingPointError, naming the epoch, if `value` is NaN or infinite."""
    if not math.isfinite(value):
        raise FloatingPointError(f"the {what} is {value} in epoch {epoch}: the run diverged; try a lower learning rate")
