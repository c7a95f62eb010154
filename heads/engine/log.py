"""What is remembered of a run epoch after epoch: records, chosen epochs, their probabilities and parameters."""

from collections.abc import Callable

import numpy as np

from .run import Choice, EpochRecord, HeadJob, HeadResult, check_finite

State = dict[str, np.ndarray]


class RunLog:
    """The records of one run, the engine's or the reference's."""

    def __init__(self, job: HeadJob) -> None:
        self._job = job
        self._epochs: list[EpochRecord] = []
        self._chosen: dict[Choice, int] = {}
        self._probabilities: dict[Choice, np.ndarray] = {}
        self._states: dict[Choice, State] = {}

    @property
    def epoch(self) -> int:
        """Epochs that are recorded."""
        return len(self._epochs)

    def add_epoch(
        self,
        *,
        train_loss: float,
        test_loss: float,
        metrics: dict[str, float],
        probabilities: np.ndarray,
        inner_auroc: float | None,
        state: Callable[[], State],
    ) -> None:
        """Record an epoch; `state` is called where its parameters are to be kept.

        Raises:
            FloatingPointError: naming the epoch, if a loss is not finite.
        """
        epoch = self.epoch + 1
        check_finite("training loss", train_loss, epoch=epoch)
        check_finite("test loss", test_loss, epoch=epoch)
        self._epochs.append(EpochRecord(epoch, train_loss, test_loss, metrics, inner_auroc))
        for choice in self._improved():
            self._chosen[choice], self._probabilities[choice] = epoch, probabilities
            if choice in self._job.keep and (choice != "last" or epoch == self._job.config.epochs):
                self._states[choice] = state()

    def _improved(self) -> list[Choice]:
        """The choices that this epoch is, so far."""
        new = self._epochs[-1]
        improved: list[Choice] = ["last"]
        if "best" not in self._chosen or new.metrics["auroc"] > self._at("best").metrics["auroc"]:
            improved.append("best")
        if new.inner_auroc is not None:
            before = self._at("inner").inner_auroc if "inner" in self._chosen else None
            if before is None or new.inner_auroc > before:
                improved.append("inner")
        return improved

    def _at(self, choice: Choice) -> EpochRecord:
        return self._epochs[self._chosen[choice] - 1]

    def result(self, *, samples_per_second: float) -> HeadResult:
        """The run's result."""
        return HeadResult(tuple(self._epochs), self._chosen, self._probabilities, self._states, samples_per_second)
