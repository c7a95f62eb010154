"""Fast baselines on mean tokens: ridge regression and logistic regression, each fitted once. Uses scikit-learn.

What they see of a sample is the mean of each modality's normalised tokens (`TokenTable.means`), side by side, each
dimension standardised by the training samples.

- `ridge`: least squares on one column a class (1 or 0), the penalty chosen among seven by exact leave-one-out error, in
  closed form. Its probabilities are a softmax of the scores: right for ranking, not calibrated.
- `logistic`: scikit-learn's, with its default penalty.
"""

import time
from collections.abc import Callable

import numpy as np
import torch

from .engine import UNKNOWN, Choice, EpochRecord, HeadData, HeadResult
from .engine.run import HeadJob, check_finite
from .engine.scores import score_runs

_PENALTIES = tuple(10.0**k for k in range(-2, 5))
_TINY = 1e-7

Fit = Callable[[np.ndarray, np.ndarray, int], Callable[[np.ndarray], np.ndarray]]
"""(features [n, d], classes [n], C) -> a function from features [m, d] to probabilities [m, C]."""


def train_baseline(data: HeadData, job: HeadJob, name: str) -> HeadResult:
    """Fit a baseline and evaluate it once; the result reads like that of one epoch.

    Args:
        data: as of the engine.
        job: its config says modalities, classes and target; epochs, seeds and rates are not read.
        name: ridge or logistic.
    """
    started = time.perf_counter()
    config = job.config
    x = np.concatenate([data.tokens[modality].means[0].cpu().numpy() for modality in config.reads], axis=1)
    mean, scale = x[job.train].mean(axis=0), x[job.train].std(axis=0)
    x = (x - mean) / np.where(scale > 0, scale, 1.0)
    labels = data.labels
    if config.target == "classes":
        speak = _FITS[name](x[job.train], labels[job.train], config.classes)
        said = {part: speak(x[items]) for part, items in _parts(job).items()}
    else:
        said = {part: np.empty((len(items), config.classes)) for part, items in _parts(job).items()}
        for finding in range(config.classes):
            known = job.train[labels[job.train, finding] != UNKNOWN]
            speak = _fit_finding(name, x[known], labels[known, finding])
            for part, items in _parts(job).items():
                said[part][:, finding] = speak(x[items])[:, 1]
    losses = {part: _loss(said[part], labels[items]) for part, items in _parts(job).items()}
    for part, loss in losses.items():
        check_finite(f"{part} loss", loss, epoch=1)
    scores = {
        p: score_runs(labels[i], torch.from_numpy(said[p])[None], config.target)[0] for p, i in _tested(job).items()
    }
    inner = scores["inner"]["auroc"] if "inner" in scores else None
    record = EpochRecord(1, losses["train"], losses["test"], scores["test"], inner)
    choices: tuple[Choice, ...] = ("last", "best") if inner is None else ("last", "best", "inner")
    probabilities = said["test"].astype(np.float32)
    return HeadResult(
        epochs=(record,),
        chosen=dict.fromkeys(choices, 1),
        probabilities=dict.fromkeys(choices, probabilities),
        states={},
        samples_per_second=len(job.train) / (time.perf_counter() - started),
    )


def _tested(job: HeadJob) -> dict[str, np.ndarray]:
    return {"test": job.test} | ({} if job.inner is None else {"inner": job.inner})


def _parts(job: HeadJob) -> dict[str, np.ndarray]:
    return {"train": job.train, **_tested(job)}


def _fit_finding(name: str, x: np.ndarray, labels: np.ndarray) -> Callable[[np.ndarray], np.ndarray]:
    """Of one finding; where the training samples know but one answer, that answer's share is said of everybody."""
    if len(np.unique(labels)) == 2:
        return _FITS[name](x, labels, 2)
    share = (labels.sum() + 0.5) / (len(labels) + 1)
    return lambda asked: np.tile([1 - share, share], (len(asked), 1))


def _ridge(x: np.ndarray, labels: np.ndarray, classes: int) -> Callable[[np.ndarray], np.ndarray]:
    from sklearn.linear_model import RidgeCV

    targets = np.eye(classes)[labels]
    model = RidgeCV(alphas=_PENALTIES).fit(x.astype(np.float64), targets)

    def speak(asked: np.ndarray) -> np.ndarray:
        scores = model.predict(asked.astype(np.float64))
        odds = np.exp(scores - scores.max(axis=1, keepdims=True))
        return odds / odds.sum(axis=1, keepdims=True)

    return speak


def _logistic(x: np.ndarray, labels: np.ndarray, classes: int) -> Callable[[np.ndarray], np.ndarray]:
    from sklearn.linear_model import LogisticRegression

    model = LogisticRegression(max_iter=1000).fit(x, labels)

    def speak(asked: np.ndarray) -> np.ndarray:
        probabilities = np.zeros((len(asked), classes))
        probabilities[:, model.classes_] = model.predict_proba(asked)
        return probabilities

    return speak


_FITS: dict[str, Fit] = {"ridge": _ridge, "logistic": _logistic}


def _loss(probabilities: np.ndarray, labels: np.ndarray) -> float:
    """Mean cross-entropy in nats; of findings, over what is known."""
    p = np.clip(probabilities, _TINY, 1 - _TINY)
    if labels.ndim == 1:
        return float(-np.log(p[np.arange(len(labels)), labels]).mean())
    each = -np.where(labels == 1, np.log(p), np.log(1 - p))
    return float(each[labels != UNKNOWN].mean())
