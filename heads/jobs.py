"""From planned runs to jobs of the engine: configuration, samples, reports of others, lessons. Knows no store."""

from collections.abc import Mapping

import numpy as np

from .controls import frequency_logits, other_reports
from .engine import Choice, HeadConfig, HeadJob, Lesson
from .kinds import get_head
from .methods import get_method
from .plan import PlannedRun
from .spec import RunSpec


def head_config(spec: RunSpec) -> HeadConfig:
    """The engine's configuration of a run. (Baselines read modalities, classes and target of it alone.)"""
    method, kind, streams = get_method(spec.method), get_head(spec.head), spec.streams()
    given = {"lr": spec.lr, "imitation": spec.imitation, "temperature": spec.temperature}
    return HeadConfig(
        reads=method.reads,
        classes=len(spec.classes),
        epochs=spec.epochs,
        init_seed=streams["init"],
        batch_seed=streams["batches"],
        dropout_seed=streams["dropout"],
        view_seed=streams["views"],
        form=kind.form,
        objective=method.objective,
        target="findings" if spec.task == "multilabel" else "classes",
        batch_size=spec.batch_size,
        dropout=spec.dropout,
        **{name: value for name, value in given.items() if value is not None},
    )


class Jobs:
    """Makes jobs; what runs of one split and seed have in common is made once, so that the engine can share it."""

    def __init__(self) -> None:
        self._reports: dict[tuple[str, int], np.ndarray] = {}

    def make(self, run: PlannedRun, lesson: Lesson | None, keep: tuple[Choice, ...]) -> HeadJob:
        """The job of a run.

        Args:
            run: which.
            lesson: of its teacher, where it has one.
            keep: the epochs whose parameters are wanted.
        """
        parts = run.parts
        if run.method.frequencies:
            lesson = Lesson(frequency_logits(run.rows.labels[parts.train], len(run.spec.classes)))
        return HeadJob(
            config=head_config(run.spec),
            train=parts.train,
            test=parts.test,
            inner=parts.inner,
            lesson=lesson,
            rows=self.rows(run),
            keep=keep,
        )

    def rows(self, run: PlannedRun) -> Mapping[str, np.ndarray]:
        """Modality -> the item that each sample reads, where it is not its own."""
        if not run.method.other_reports:
            return {}
        key = (run.spec.split_key, run.spec.seed)
        if key not in self._reports:
            sides = [[run.rows.places[sample] for sample in side] for side in (run.split.train, run.split.test)]
            subjects = run.rows.samples["subject"].to_list()
            self._reports[key] = other_reports(subjects, sides, seed=run.spec.seed)
        return {"text": self._reports[key]}
