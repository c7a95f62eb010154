"""A fleet: runs of one kind whose parameters are stacked and that take every step together.

Each run keeps its own subset, order, views, dropout, learning rate, lambda and tau. A run that ends gives its place to
the next one; places in use are always 0..k-1.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from .adam import StackedAdam
from .forms import Reading
from .log import RunLog
from .network import initial_state, prepare_towers, untrained
from .objectives import OBJECTIVES, Step
from .run import HeadData, HeadJob
from .streams import dropout_keys, epoch_orders, epoch_views


@dataclass
class Place:
    """One run of a fleet.

    Attributes:
        number: of its job.
        job: what it trains.
        log: what is recorded of it.
        orders: its permutations, epoch after epoch.
        views: its views, likewise; None where there is but the clean one.
        cursor: samples of this epoch that are trained on already.
    """

    number: int
    job: HeadJob
    log: RunLog
    orders: Iterator[Tensor]
    views: Iterator[Tensor] | None
    cursor: int = 0


class Fleet:
    """Up to `size` runs that differ in nothing that has a shape. All device work of training is here."""

    def __init__(self, data: HeadData, like: HeadJob, size: int) -> None:
        """`like`: any job of the kind (see `kind_of`); `size`: places."""
        self.data, self.config = data, like.config
        self._objective = OBJECTIVES[self.config.objective]
        self._tables = {modality: data.tokens[modality] for modality in self.config.reads}
        self.device = next(iter(self._tables.values())).device
        self._features = 0 if like.lesson is None or like.lesson.features is None else like.lesson.features.shape[2]
        self._dims = {modality: table.dim for modality, table in self._tables.items()}
        fresh = initial_state(self.config, self._dims, features=self._features)
        self.params = {k: torch.empty(size, *v.shape, device=self.device) for k, v in fresh.items()}
        self._trained = [name for name in fresh if name not in untrained(self.config)]
        self._adam = StackedAdam({name: self.params[name] for name in self._trained})
        self._labels = torch.from_numpy(data.labels.astype(np.int64))
        self.places: list[Place] = []
        self.size = size
        self._samples = torch.zeros(size, 0, dtype=torch.int64)  # of this epoch, in its order
        self._within = torch.zeros(size, 0, dtype=torch.int64)  # the same as places in `train`
        self._view_of = torch.zeros(size, 0, dtype=torch.int64)
        self._losses = torch.zeros(size, dtype=torch.float64, device=self.device)

    def admit(self, number: int, job: HeadJob) -> None:
        """A job takes the next free place."""
        place, config = len(self.places), job.config
        state = initial_state(config, self._dims, features=self._features)
        for name, value in state.items():
            self.params[name][place] = value.to(self.device)
        self._adam.reset(place, config.lr)
        views = max(table.n_views for table in self._tables.values())
        run = Place(
            number,
            job,
            RunLog(job),
            epoch_orders(len(job.train), seed=config.batch_seed),
            epoch_views(len(job.train), views - 1, seed=config.view_seed) if views > 1 else None,
        )
        self.places.append(run)
        self._widen(len(job.train))
        self._begin_epoch(place)

    def dismiss(self, place: int) -> None:
        """The run at `place` leaves; the last one moves there."""
        last = len(self.places) - 1
        if place != last:
            for name in self.params:
                self.params[name][place] = self.params[name][last]
            self._adam.move(last, place)
            for tensor in (self._samples, self._within, self._view_of, self._losses):
                tensor[place] = tensor[last]
            self.places[place] = self.places[last]
        self.places.pop()

    def step(self) -> list[int]:
        """One step of every run; returns the places whose epoch ended with it."""
        k, size = len(self.places), self.config.batch_size
        cursors = torch.tensor([run.cursor for run in self.places])
        lengths = torch.tensor([len(run.job.train) for run in self.places])
        counts = (lengths - cursors).clamp(max=size)
        column = torch.arange(int(counts.max()))
        real = column < counts[:, None]
        at = torch.where(real, cursors[:, None] + column, cursors[:, None])  # a missing sample repeats the first one
        weight = (real / counts[:, None]).to(self.device, torch.float32)
        losses = self._train(at, weight)
        self._losses[:k] += losses.double() * counts.to(self.device)
        ended = []
        for place, run in enumerate(self.places):
            run.cursor += int(counts[place])
            if run.cursor == len(run.job.train):
                ended.append(place)
        return ended

    def end_epoch(self, place: int) -> float:
        """The mean training loss of the epoch that ended; the next one begins."""
        loss = float(self._losses[place]) / len(self.places[place].job.train)
        self._begin_epoch(place)
        return loss

    def state(self, place: int) -> dict[str, np.ndarray]:
        """A copy of one run's parameters."""
        return {name: value[place].cpu().numpy().copy() for name, value in self.params.items()}

    def _begin_epoch(self, place: int) -> None:
        run = self.places[place]
        order, n = next(run.orders), len(run.job.train)
        run.cursor, self._losses[place] = 0, 0.0
        self._within[place, :n] = order
        self._samples[place, :n] = torch.from_numpy(run.job.train.astype(np.int64))[order]
        if run.views is not None:
            self._view_of[place, :n] = next(run.views) + 1

    def _widen(self, n: int) -> None:
        """Room for epochs of n samples."""
        missing = n - self._samples.shape[1]
        if missing > 0:
            more = torch.zeros(self.size, missing, dtype=torch.int64)
            self._samples, self._within, self._view_of = (
                torch.cat([tensor, more], dim=1) for tensor in (self._samples, self._within, self._view_of)
            )

    def _train(self, at: Tensor, weight: Tensor) -> Tensor:
        """Forward, backward, Adam on the samples at these places [k, b] of the epochs; the losses [k]."""
        k = len(self.places)
        samples, within, views = (t[:k].gather(1, at) for t in (self._samples, self._within, self._view_of))
        leaves = {name: self.params[name][:k].detach().requires_grad_(name in self._trained) for name in self.params}
        pooled = self._pool(leaves, samples, views)
        loss = (self._objective.loss(leaves, self.config, self._seen(pooled, samples, within, views)) * weight).sum(1)
        trained = [leaves[name] for name in self._trained]
        gradients = torch.autograd.grad(loss.sum(), trained)
        self._adam.step(dict(zip(self._trained, gradients, strict=True)))
        return loss.detach()

    def _pool(self, leaves: Mapping[str, Tensor], samples: Tensor, views: Tensor) -> dict[str, Tensor]:
        k = len(self.places)
        items = {modality: items_of(self.places, modality, samples) for modality in self._tables}
        lengths = {modality: self._tables[modality].lengths[items[modality][0]] for modality in items}
        towers = prepare_towers(leaves, self.config, lengths, self.config.reads, training=True)
        seeds = torch.tensor([run.job.config.dropout_seed for run in self.places])
        steps = torch.tensor(self._adam.counts[:k])
        pooled = {}
        for tower, (modality, pool) in enumerate(towers.items()):
            table = self._tables[modality]
            reading = Reading(
                table,
                items[modality],
                views if table.n_views > 1 else None,
                dropout_keys(seeds, steps, tower),
                self.config.dropout,
            )
            pooled[modality] = pool(reading)
        return pooled

    def _seen(self, pooled: dict[str, Tensor], samples: Tensor, within: Tensor, views: Tensor) -> Step:
        """What the objective sees of this step."""
        configs = [run.job.config for run in self.places]
        lessons = {}
        if self._objective.needs_lesson:
            names = ("logits", "features") if self._objective.needs_features else ("logits",)
            lessons = {name: self._taught(name, within, views) for name in names}
        return Step(
            pooled=pooled,
            targets=self._labels[samples].to(self.device),
            imitation=torch.tensor([[c.imitation] for c in configs], device=self.device),
            temperature=torch.tensor([[[c.temperature]] for c in configs], device=self.device),
            **lessons,
        )

    def _taught(self, name: str, within: Tensor, views: Tensor) -> Tensor:
        """The teachers' words on these samples: [k, b, F]. A lesson of one view says the same of every view."""
        words = []
        for place, run in enumerate(self.places):
            lesson: np.ndarray = getattr(run.job.lesson, name)
            view = views[place].numpy() if len(lesson) > 1 else 0
            words.append(lesson[view, within[place].numpy()])
        return torch.from_numpy(np.stack(words)).to(self.device, torch.float32)


def items_of(places: list[Place], modality: str, samples: Tensor) -> Tensor:
    """The items that samples [k, b] of these runs read."""
    if not any(modality in run.job.rows for run in places):
        return samples
    rows = [run.job.rows.get(modality) for run in places]
    mapped = [s if r is None else torch.from_numpy(r.astype(np.int64))[s] for r, s in zip(rows, samples, strict=True)]
    return torch.stack(mapped)
