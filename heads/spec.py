"""What a run is: everything that changes its numbers, and the id that follows from it. No torch, no store.

How a run is computed (device, threads, order, paths) stands nowhere here, so it cannot change an id.
"""

from dataclasses import dataclass, fields
from functools import cached_property
from typing import Any

from featurestore.keys import content_key, stream_seed

NUMERICS_VERSION = 2
"""Raise it when a change of `heads.engine` moves results by more than rounding: old runs then count as other runs."""


@dataclass(frozen=True, kw_only=True)
class RunSpec:
    """One run: a head trained on one subset of one split with one seed.

    Attributes:
        cohort: name of the cohort: it changes no number, but results of one cohort must not pass for another's.
        cohort_key: content hash of the cohort.
        task: "binary", "multiclass" (classes exclude each other) or "multilabel" (each is present or absent).
        classes: names of the classes, or of the findings; label i is `classes[i]`.
        method: name of the method.
        head: name of the head.
        features: identities of the feature sets (`encoder@key`), in the order of the method's `reads`.
        content: for each feature set, content hash of the images or reports of the common rows.
        views: augmented views of an image that training draws from; 0: the clean one.
        split_key: content hash of the split, and with it of the common rows.
        fraction: of the training samples.
        seed: the run's seed, from which `streams` come.
        stage: "study", or "tuning" for a run that helps to choose a learning rate and stands in no result.
        n_train: samples trained on, after the fraction and without the inner validation part.
        n_inner: samples of the inner validation part; 0 without one.
        n_test: test samples.
        selected_by: "last", or "inner": the epoch whose numbers are the run's results.
        epochs: passes over the training samples.
        lr: learning rate of Adam; None where nothing is trained step by step.
        batch_size: samples a step.
        dropout: share of the attention weights dropped.
        imitation: lambda of equation 2; None where the method has none.
        temperature: tau of equation 2; None where the method has none.
        teacher_run: run id of the teacher; None where there is none.
        teacher_epoch: the teacher's epoch that teaches: best, last or inner; None where there is no teacher.
        precision: of matrix products: fp32 or bf16.
        numerics: version of the engine's arithmetic.
    """

    cohort: str
    cohort_key: str
    task: str
    classes: tuple[str, ...]
    method: str
    head: str
    features: tuple[str, ...]
    content: tuple[str, ...]
    views: int = 0
    split_key: str
    fraction: float
    seed: int
    stage: str = "study"
    n_train: int
    n_inner: int = 0
    n_test: int
    selected_by: str = "last"
    epochs: int
    lr: float | None
    batch_size: int
    dropout: float
    imitation: float | None = None
    temperature: float | None = None
    teacher_run: str | None = None
    teacher_epoch: str | None = None
    precision: str = "fp32"
    numerics: int = NUMERICS_VERSION

    def what(self) -> dict[str, Any]:
        """The run as plain JSON values: what the id is made of, and what is stored with the results."""
        return {field.name: getattr(self, field.name) for field in fields(self)}

    @classmethod
    def of(cls, config: dict[str, Any]) -> "RunSpec":
        """The run that `what` described.

        Raises:
            TypeError: it describes none of this version of radfs.
        """
        values: dict[str, Any] = {name: tuple(v) if isinstance(v, list) else v for name, v in config.items()}
        return cls(**values)

    @cached_property
    def run_id(self) -> str:
        """16 hexadecimal digits, equal for equal runs only."""
        return content_key(self.what())

    def streams(self) -> dict[str, int]:
        """Seeds of the independent random streams of this run: init, batches, dropout, views.

        They depend on the seed alone, so runs of one seed and subset see the same batches whatever their method.
        """
        return {name: stream_seed(self.seed, name) for name in ("init", "batches", "dropout", "views")}
