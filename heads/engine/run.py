"""What the engine takes and gives: how a head is trained, on what, and what came out. Nothing in here computes a head.

Words: a *sample* is a row of the caller's arrays (0..N-1); a *tower* reads the tokens of one modality and pools them to
one vector; a *head* is one or two towers and a linear classifier; a *job* is one head to train.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from .forms import FORMS
from .objectives import OBJECTIVES
from .tokens import TokenTable

Target = Literal["classes", "findings"]
Choice = Literal["last", "best", "inner"]

UNKNOWN = -1
"""In labels of findings: nobody knows. Such an entry has no loss and no part in any metric."""


@dataclass(frozen=True, kw_only=True)
class HeadConfig:
    """How one head is trained (the paper's section 3.2 and appendix A are the defaults).

    Attributes:
        reads: modalities of the towers, in the order in which their vectors are concatenated.
        classes: number of classes (at least 2; a binary task has two logits as well), or of findings (at least 1).
        epochs: passes over the training samples, at least 1.
        init_seed, batch_seed, dropout_seed, view_seed: seeds of the independent random streams, 63 bits.
        form: of the towers, a name of `FORMS`.
        objective: what training minimises, a name of `OBJECTIVES`.
        target: "classes" are mutually exclusive (softmax); "findings" are present or absent each (sigmoid).
        lr: Adam's learning rate.
        batch_size: samples a step; the last step of an epoch takes what is left.
        dropout: share of attention weights that a training step drops, in [0, 1), rounded to 1/256.
        imitation: lambda of equation 2, in [0, 1], where the objective has a teacher.
        temperature: tau of equation 2, above 0, likewise.
    """

    reads: tuple[str, ...] = ("image",)
    classes: int
    epochs: int
    init_seed: int
    batch_seed: int
    dropout_seed: int
    view_seed: int = 0
    form: str = "attention"
    objective: str = "supervised"
    target: Target = "classes"
    lr: float = 1e-4
    batch_size: int = 64
    dropout: float = 0.2
    imitation: float = 0.75
    temperature: float = 0.25

    def __post_init__(self) -> None:
        for name, low in (("classes", 2 if self.target == "classes" else 1), ("epochs", 1), ("batch_size", 1)):
            if getattr(self, name) < low:
                raise ValueError(f"{name} = {getattr(self, name)}: at least {low} is needed")
        for name in ("init_seed", "batch_seed", "dropout_seed", "view_seed"):
            if not 0 <= getattr(self, name) < 2**63:
                raise ValueError(f"{name} = {getattr(self, name)}: a seed lies in 0..2**63-1")
        if not (math.isfinite(self.lr) and self.lr > 0):
            raise ValueError(f"lr = {self.lr}: a learning rate is a positive number")
        if not 0 <= self.dropout < 1:
            raise ValueError(f"dropout = {self.dropout}: it lies in [0, 1)")
        if not 0 <= self.imitation <= 1:
            raise ValueError(f"imitation = {self.imitation}: lambda lies in [0, 1]")
        if not (math.isfinite(self.temperature) and self.temperature > 0):
            raise ValueError(f"temperature = {self.temperature}: tau is a positive number")
        for name, known in (("form", FORMS), ("objective", OBJECTIVES)):
            if getattr(self, name) not in known:
                raise ValueError(f"{name} = {getattr(self, name)!r}: known are {', '.join(known)}")
        if not self.reads or len(set(self.reads)) < len(self.reads):
            raise ValueError(f"reads = {self.reads}: one tower a modality, and at least one")


@dataclass(frozen=True)
class HeadData:
    """What jobs train and test on.

    Attributes:
        tokens: modality -> table of N items; sample i reads item i of each, unless a job's `rows` say otherwise.
        labels: int [N], classes 0..C-1; or int [N, C], findings 0, 1 or UNKNOWN.
    """

    tokens: Mapping[str, TokenTable]
    labels: np.ndarray


@dataclass(frozen=True)
class Lesson:
    """What a teacher tells its student about each training sample, in the order of the job's `train`.

    Attributes:
        logits: float32 [V, n_train, C]: for each view that the student draws from.
        features: float32 [V, n_train, F], the teacher's pooled representation; None where nobody asked.
    """

    logits: np.ndarray
    features: np.ndarray | None = None


@dataclass(frozen=True)
class HeadJob:
    """One head to train.

    Attributes:
        config: how.
        train: int indices of samples, none twice.
        test: int indices, disjoint from `train`; metrics and probabilities are reported on them.
        inner: int indices, disjoint from both: an inner validation part on which an epoch may be chosen.
        lesson: the teacher's, where the objective has one.
        rows: modality -> int [N], the item that each sample reads instead of its own (for controls).
        keep: the epochs whose parameters the result holds.
    """

    config: HeadConfig
    train: np.ndarray
    test: np.ndarray
    inner: np.ndarray | None = None
    lesson: Lesson | None = None
    rows: Mapping[str, np.ndarray] = field(default_factory=dict)
    keep: tuple[Choice, ...] = ("last",)


@dataclass(frozen=True)
class EpochRecord:
    """One epoch (counted from 1): mean training loss as trained, test loss (nats) and metrics after it.

    `inner_auroc` is the inner validation part's, None without one.
    """

    epoch: int
    train_loss: float
    test_loss: float
    metrics: dict[str, float]
    inner_auroc: float | None = None


@dataclass(frozen=True)
class HeadResult:
    """What training one head gave.

    Attributes:
        epochs: one record an epoch.
        chosen: choice -> epoch: "last"; "best", the first with the highest test AUROC (WARN: chosen on the reported
            set, hence optimistic); "inner", the first with the highest inner AUROC, where there is an inner part.
        probabilities: choice -> float32 [n_test, C] after that epoch, in the order of `test`.
        states: choice -> trained parameters, float32, for what the job keeps.
        samples_per_second: training samples a second of the fleet that the run was in, evaluation included.
    """

    epochs: tuple[EpochRecord, ...]
    chosen: dict[Choice, int]
    probabilities: dict[Choice, np.ndarray]
    states: dict[Choice, dict[str, np.ndarray]]
    samples_per_second: float


def check_job(data: HeadData, job: HeadJob) -> None:
    """Refuse what would fail, or mean nothing, after hours of training.

    Raises:
        ValueError: labels or tables that do not fit, an index outside, an empty or overlapping part, an item twice, a
            label that is no class, a class without a test sample (no metric then), a lesson of a wrong shape.
    """
    config, labels, samples = job.config, data.labels, len(data.labels)
    shape = (samples,) if config.target == "classes" else (samples, config.classes)
    if labels.shape != shape or labels.dtype.kind not in "iu":
        raise ValueError(f"labels of {config.target} are integers {list(shape)}; got {labels.dtype} {labels.shape}")
    for modality in config.reads:
        if modality not in data.tokens:
            raise ValueError(f"the head reads {modality} tokens, and there are none")
        _check_rows(modality, data.tokens[modality], job.rows.get(modality), samples)
    parts = {"train": job.train, "test": job.test} | ({} if job.inner is None else {"inner": job.inner})
    for name, items in parts.items():
        _check_part(name, items, samples)
        low = 0 if config.target == "classes" else UNKNOWN
        high = config.classes - 1 if config.target == "classes" else 1
        if labels[items].min() < low or labels[items].max() > high:
            raise ValueError(f"a label of {name} lies outside {low}..{high}")
    names = list(parts)
    for i, name in enumerate(names):
        for other in names[:i]:
            if len(shared := np.intersect1d(parts[name], parts[other])):
                raise ValueError(f"item {shared[0]} is in {other} and in {name} ({len(shared)} such items)")
        if name != "train":
            _check_classes(name, labels[parts[name]], config)
    objective = OBJECTIVES[config.objective]
    _check_lesson(job, needs_logits=objective.needs_lesson, needs_features=objective.needs_features)


def _check_rows(modality: str, table: TokenTable, rows: np.ndarray | None, samples: int) -> None:
    if rows is None:
        if table.n_items != samples:
            raise ValueError(f"the {modality} table has {table.n_items} items for {samples} samples")
    elif rows.shape != (samples,) or rows.dtype.kind not in "iu" or rows.min() < 0 or rows.max() >= table.n_items:
        raise ValueError(f"rows of {modality} are {samples} indices in 0..{table.n_items - 1}, one a sample")


def _check_part(name: str, items: np.ndarray, samples: int) -> None:
    if items.ndim != 1 or items.dtype.kind not in "iu" or not len(items):
        raise ValueError(f"{name} is a list of item indices, not empty; got {items.dtype} {items.shape}")
    if items.min() < 0 or items.max() >= samples:
        raise ValueError(f"{name} holds indices outside 0..{samples - 1}")
    if len(np.unique(items)) != len(items):
        raise ValueError(f"{name} holds an item twice")


def _check_classes(name: str, labels: np.ndarray, config: HeadConfig) -> None:
    """A metric must exist: every class has a sample; of findings, one at least is present here and absent there."""
    if config.target == "classes":
        if len(missing := np.setdiff1d(np.arange(config.classes), labels)):
            raise ValueError(f"no {name} sample of class {missing[0]}: its metrics do not exist; use another split")
    elif not (((labels == 1).any(axis=0)) & ((labels == 0).any(axis=0))).any():
        raise ValueError(f"no finding is both present and absent in {name}: no metric exists; use another split")


def _check_lesson(job: HeadJob, *, needs_logits: bool, needs_features: bool) -> None:
    if not needs_logits:
        return
    objective, n, classes = job.config.objective, len(job.train), job.config.classes
    if job.lesson is None:
        raise ValueError(f"objective {objective!r} learns from a teacher: the job needs its lesson")
    if job.lesson.logits.ndim != 3 or job.lesson.logits.shape[1:] != (n, classes):
        raise ValueError(f"a lesson's logits are [views, {n}, {classes}]; got {job.lesson.logits.shape}")
    features = job.lesson.features
    if needs_features and (features is None or features.shape[:2] != job.lesson.logits.shape[:2]):
        raise ValueError(f"objective {objective!r} learns from the teacher's features: the lesson needs them")
    for name, values in (("logits", job.lesson.logits), ("features", features)):
        if values is not None and not np.isfinite(values).all():
            raise ValueError(f"the lesson's {name} are not finite")


def check_finite(what: str, value: float, *, epoch: int) -> None:
    """Raise FloatingPointError, naming the epoch, if `value` is NaN or infinite."""
    if not math.isfinite(value):
        raise FloatingPointError(f"the {what} is {value} in epoch {epoch}: the run diverged; try a lower learning rate")
