"""Training many heads: jobs are sorted into kinds, each kind is trained as a fleet, and results come as runs finish.

    for number, outcome in train_heads(HeadData({"image": table}, labels), jobs):
        ...

All that is random comes from `streams.py`: a run depends on nothing but its job, so a run of a fleet equals the same
run alone but for float rounding.
"""

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from .evaluate import Spoken, predict, speak
from .fleet import Fleet, items_of
from .memory import kept_memory
from .objectives import OBJECTIVES
from .run import HeadData, HeadJob, HeadResult, check_job
from .scores import score_runs

_CPU_ROWS = 16_384
"""Tokens of a step, over a fleet, beyond which the CPU gains nothing from more runs."""

_CPU_NUMBERS = 1 << 21
"""Numbers of a stacked batch of pooled vectors beyond which a CPU's caches gain nothing from more runs."""

_LARGEST = 512
"""Runs of a fleet."""


@dataclass(frozen=True)
class Failure:
    """A run that came to no result: its loss was not finite, or it found no memory even alone.

    `error` is what `train_head` raises for it.
    """

    reason: str
    error: type[FloatingPointError] | type[MemoryError] = FloatingPointError


Outcome = HeadResult | Failure


def train_head(data: HeadData, job: HeadJob) -> HeadResult:
    """Train one head; see `train_heads`.

    Raises:
        ValueError: for inputs that do not fit together (`check_job`).
        FloatingPointError: naming the epoch, if a loss is not finite.
        MemoryError: there is not enough memory for it.
    """
    ((_, outcome),) = train_heads(data, [job])
    if isinstance(outcome, Failure):
        raise outcome.error(outcome.reason)
    return outcome


def train_heads(
    data: HeadData, jobs: Sequence[HeadJob], *, fleet_size: int | None = None
) -> Iterator[tuple[int, Outcome]]:
    """Train heads and report on their test samples after every epoch.

    Equal to `heads.reference.train_reference`, run by run, but for float rounding.

    Args:
        data: tokens and labels.
        jobs: which heads.
        fleet_size: runs that train together, at most; None: as many as speed and memory ask for.

    Yields:
        (number of the job, its result or why there is none), in the order of finishing.

    Raises:
        ValueError: for inputs that do not fit together (`check_job`), before anything is trained.
    """
    for job in jobs:
        check_job(data, job)
    kinds: dict[object, list[int]] = {}
    for number, job in enumerate(jobs):
        kinds.setdefault(kind_of(job), []).append(number)
    for numbers in kinds.values():
        # The longest first, so that no place idles long; equals side by side, so that they share what they can.
        numbers.sort(key=lambda i: (-jobs[i].config.epochs * len(jobs[i].train), i))
        size = fleet_size or best_size(data, jobs[numbers[0]])
        yield from _train_kind(data, jobs, numbers, min(size, len(numbers)))


def kind_of(job: HeadJob) -> object:
    """What runs of a fleet have in common: all of the config that has a shape, and the teacher's dimensions."""
    config = job.config
    features = None if job.lesson is None or job.lesson.features is None else job.lesson.features.shape[2]
    free = {"epochs": 1, "init_seed": 0, "batch_seed": 0, "dropout_seed": 0, "view_seed": 0, "lr": 1.0}
    return replace(config, **free, imitation=0.0, temperature=1.0), features


def best_size(data: HeadData, job: HeadJob) -> int:
    """Runs of this kind that train together: on a CPU as many as fill its products, on a GPU as fit its memory."""
    tables = [data.tokens[modality] for modality in job.config.reads]
    batch = min(job.config.batch_size, len(job.train))
    cuda = tables[0].device.type == "cuda"
    if job.config.form == "mean":
        most = _LARGEST if cuda else _CPU_NUMBERS // (batch * sum(table.dim for table in tables))
    elif cuda:
        free, _ = torch.cuda.mem_get_info(tables[0].device)
        step = sum(batch * t.longest * (6 * t.dim + 6 * t.longest) * t.dtype.itemsize for t in tables)
        most = int(0.6 * free) // (step + sum(6 * 4 * 3 * t.dim**2 for t in tables))
    else:
        most = _CPU_ROWS // (batch * sum(table.longest for table in tables))
    return max(1, min(_LARGEST, most))


def _train_kind(
    data: HeadData, jobs: Sequence[HeadJob], numbers: Sequence[int], size: int
) -> Iterator[tuple[int, Outcome]]:
    """One kind of jobs through one fleet; on want of memory the unfinished ones start again in a smaller one."""
    done: set[int] = set()
    try:
        with kept_memory():
            for number, outcome in _run_fleet(data, jobs, numbers, size):
                done.add(number)
                yield number, outcome
        return
    except (torch.OutOfMemoryError, MemoryError) as error:
        why = (str(error).splitlines() or [type(error).__name__])[0]
    # Out of the handler: as long as the error lives, so does the fleet that filled the memory.
    torch.cuda.empty_cache()
    left = [number for number in numbers if number not in done]
    if size == 1:
        yield left[0], Failure(f"not enough memory to train it alone: {why}", MemoryError)
        left = left[1:]
    if left:
        yield from _train_kind(data, jobs, left, max(1, size // 2))


def _run_fleet(
    data: HeadData, jobs: Sequence[HeadJob], numbers: Sequence[int], size: int
) -> Iterator[tuple[int, Outcome]]:
    fleet = Fleet(data, jobs[numbers[0]], size)
    waiting = list(reversed(numbers))
    started, trained = time.perf_counter(), 0
    while waiting or fleet.places:
        while waiting and len(fleet.places) < size:
            number = waiting.pop()
            fleet.admit(number, jobs[number])
        ended = fleet.step()
        trained += sum(len(fleet.places[place].job.train) for place in ended)
        rate = trained / (time.perf_counter() - started)
        for place, outcome in sorted(_finish_epochs(data, fleet, ended, rate).items(), reverse=True):
            yield fleet.places[place].number, outcome
            fleet.dismiss(place)


def _finish_epochs(data: HeadData, fleet: Fleet, ended: Sequence[int], rate: float) -> dict[int, Outcome]:
    """Evaluate the runs at these places, record the epoch, and say which are done: place -> outcome."""
    outcomes: dict[int, Outcome] = {}
    if not ended:
        return outcomes
    tests = _evaluate(data, fleet, {place: fleet.places[place].job.test for place in ended})
    inner = {place: fleet.places[place].job.inner for place in ended}
    inners = _evaluate(data, fleet, {place: part for place, part in inner.items() if part is not None})
    for place in ended:
        run, (spoken, metrics) = fleet.places[place], tests[place]
        try:
            run.log.add_epoch(
                train_loss=fleet.end_epoch(place),
                test_loss=spoken.loss,
                metrics=metrics,
                probabilities=spoken.probabilities.cpu().numpy(),
                inner_auroc=inners[place][1]["auroc"] if place in inners else None,
                state=lambda place=place: fleet.state(place),
            )
        except FloatingPointError as error:
            outcomes[place] = Failure(str(error))
            continue
        if run.log.epoch == run.job.config.epochs:
            outcomes[place] = run.log.result(samples_per_second=rate)
    return outcomes


def _evaluate(data: HeadData, fleet: Fleet, parts: dict[int, np.ndarray]) -> dict[int, tuple[Spoken, dict[str, float]]]:
    """What each of these runs says about its part, and its metrics; runs that share a part are evaluated at once."""
    found: dict[int, tuple[Spoken, dict[str, float]]] = {}
    for places in _sharing(fleet, parts):
        part = parts[places[0]]
        params = {name: value[torch.tensor(places)] for name, value in fleet.params.items()}
        samples = torch.from_numpy(part.astype(np.int64))[None]
        runs = [fleet.places[place] for place in places]
        serves = OBJECTIVES[fleet.config.objective].serves(fleet.config.reads)
        items = {modality: items_of(runs[:1], modality, samples) for modality in serves}
        logits = predict(params, fleet.config, data.tokens, items)
        labels = data.labels[part]
        spoken = speak(logits, labels, fleet.config.target)
        scores = _score(labels, torch.stack([s.probabilities for s in spoken]), fleet)
        found |= dict(zip(places, zip(spoken, scores, strict=True), strict=True))
    return found


def _score(labels: np.ndarray, probabilities: Tensor, fleet: Fleet) -> list[dict[str, float]]:
    return score_runs(labels, torch.nan_to_num(probabilities), fleet.config.target)


def _sharing(fleet: Fleet, parts: dict[int, np.ndarray]) -> list[list[int]]:
    """Places whose part holds the same samples in the same order, and reads the same items of them."""
    groups: dict[object, list[int]] = {}
    for place, part in parts.items():
        rows = fleet.places[place].job.rows
        read = tuple((m, rows[m][part].tobytes()) for m in sorted(rows))
        groups.setdefault((part.tobytes(), part.dtype, read), []).append(place)
    return list(groups.values())
