"""What a run is: everything that changes its numbers, and the id that follows from it. No torch, no store.

How a run is computed (device, threads, order, paths) stands nowhere here, so it cannot change an id.
"""

from dataclasses import asdict, dataclass
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
        classes: names of the classes; label i is `classes[i]`.
        method: name of the method.
        head: name of the head's form.
        features: names of the feature sets (`encoder@key`), in the order of the method's `reads`.
        content: for each feature set, content hash of the images or reports of the common rows.
        split_key: content hash of the split, and with it of the common rows.
        fraction: of the training samples.
        seed: the run's seed, from which `streams` come.
        n_train: training samples, after the fraction.
        n_test: test samples.
        epochs: passes over the training samples.
        lr: learning rate of Adam.
        batch_size: samples a step.
        dropout: share of the attention weights dropped.
        precision: of the arithmetic.
        numerics: version of the engine's arithmetic.
    """

    cohort: str
    cohort_key: str
    classes: tuple[str, ...]
    method: str
    head: str = "attention"
    features: tuple[str, ...]
    content: tuple[str, ...]
    split_key: str
    fraction: float
    seed: int
    n_train: int
    n_test: int
    epochs: int
    lr: float
    batch_size: int
    dropout: float
    precision: str = "float32"
    numerics: int = NUMERICS_VERSION

    def what(self) -> dict[str, Any]:
        """The run as plain JSON values: what the id is made of, and what is stored with the results."""
        return asdict(self)

    @property
    def run_id(self) -> str:
        """16 hexadecimal digits, equal for equal runs only."""
        return content_key(self.what())

    def streams(self) -> dict[str, int]:
        """Seeds of the independent random streams of this run: init, batches, dropout, views.

        They depend on the seed alone, so runs of one seed and subset see the same batches whatever their method.
        """
        return {name: stream_seed(self.seed, name) for name in ("init", "batches", "dropout", "views")}
