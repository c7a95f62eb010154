"""The reference: every head form and objective as plainly as PyTorch says it, one head, one loop.

This is the truth that everything faster is judged by, so it stays boring: no algebra, no sharing between runs, no
clever batching. It takes from the engine only what must be common to be comparable: initial parameters, batch order,
views, dropout masks, the checks of the inputs, and the record of epochs.
"""

import math
import time
from collections.abc import Iterator, Mapping

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.rnn import pad_sequence

from .engine import UNKNOWN, HeadConfig, HeadData, HeadJob, HeadResult, TokenTable
from .engine.forms.multihead import head_count
from .engine.log import RunLog
from .engine.network import initial_state
from .engine.objectives import OBJECTIVES
from .engine.run import check_job
from .engine.scores import METRIC_NAMES
from .engine.streams import dropout_keys, dropout_levels, dropout_scale, epoch_orders, epoch_views, keep_mask
from .metrics import get_metric


class AttentionTower(nn.Module):
    """LayerNorm, self-attention, mean pooling (the paper's section 2.2 and appendix A), with one head or several."""

    def __init__(self, dim: int, heads: int = 1) -> None:
        super().__init__()
        self.heads = heads
        self.norm = nn.LayerNorm(dim)
        self.query = nn.Linear(dim, dim)
        self.key = nn.Linear(dim, dim)
        self.value = nn.Linear(dim, dim)

    def forward(self, tokens: Tensor, real: Tensor, mask: Tensor | None = None) -> Tensor:
        """Pooled vectors [b, d].

        Args:
            tokens: [b, n, d], as the encoder gave them; whatever stands at padding is not read.
            real: bool [b, n], False at padding; each item has a real token.
            mask: dropout on the attention weights [b, heads, n, n], 0 or 1/(1-p); None outside training.
        """
        x = self.norm(tokens.masked_fill(~real[:, :, None], 0.0))
        query, key, value = (
            layer(x).unflatten(2, (self.heads, -1)).transpose(1, 2) for layer in (self.query, self.key, self.value)
        )
        scores = query @ key.transpose(2, 3) / math.sqrt(query.shape[3])
        weights = scores.masked_fill(~real[:, None, None, :], -math.inf).softmax(dim=3)
        if mask is not None:
            weights = weights * mask
        attended = (weights @ value).transpose(1, 2).flatten(2).masked_fill(~real[:, :, None], 0.0)
        return attended.sum(dim=1) / real.sum(dim=1, keepdim=True)


class QueryTower(nn.Module):
    """LayerNorm, one learnt query that attends to the tokens, value projection."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(dim)
        self.query = nn.Linear(dim, 1)
        self.value = nn.Linear(dim, dim)

    def forward(self, tokens: Tensor, real: Tensor, mask: Tensor | None = None) -> Tensor:
        """As `AttentionTower.forward`, with a mask [b, 1, 1, n]."""
        x = self.norm(tokens.masked_fill(~real[:, :, None], 0.0))
        scores = self.query(x).transpose(1, 2)  # [b, 1, n]
        weights = scores.masked_fill(~real[:, None, :], -math.inf).softmax(dim=2)
        if mask is not None:
            weights = weights * mask[:, 0]
        return (weights @ self.value(x))[:, 0]


class MeanTower(nn.Module):
    """LayerNorm and the mean over tokens."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(dim)

    def forward(self, tokens: Tensor, real: Tensor, mask: Tensor | None = None) -> Tensor:
        """As `AttentionTower.forward`; there is nothing to drop."""
        x = self.norm(tokens.masked_fill(~real[:, :, None], 0.0)).masked_fill(~real[:, :, None], 0.0)
        return x.sum(dim=1) / real.sum(dim=1, keepdim=True)


class Classifier(nn.Linear):
    """A linear classifier on pooled vectors; of two modalities, each is normalised by itself before concatenation."""

    def __init__(self, dims: Mapping[str, int], classes: int) -> None:
        super().__init__(sum(dims.values()), classes)
        if len(dims) > 1:
            for modality, dim in dims.items():
                self.add_module(f"{modality}_norm", nn.LayerNorm(dim))

    def features(self, pooled: Mapping[str, Tensor]) -> Tensor:
        """What the linear map sees."""
        if len(pooled) == 1:
            return next(iter(pooled.values()))
        return torch.cat([self.get_submodule(f"{m}_norm")(z) for m, z in pooled.items()], dim=1)


class Head(nn.Module):
    """One head: a tower a modality, and the classifiers of its objective. Parameters are named as the engine's."""

    def __init__(self, config: HeadConfig, dims: Mapping[str, int], features: int = 0) -> None:
        super().__init__()
        self.config = config
        for modality in config.reads:
            self.add_module(modality, _tower(config.form, dims[modality]))
        read = {modality: dims[modality] for modality in config.reads}
        served = {m: read[m] for m in OBJECTIVES[config.objective].serves(config.reads)}
        self.classifier = Classifier(served, config.classes)
        if config.objective == "tram":
            self.privileged = Classifier(read, config.classes)
        if config.objective == "feature-distill":
            self.hint = nn.Linear(sum(read.values()), features)

    def pool(self, batch: Mapping[str, tuple[Tensor, Tensor, Tensor | None]]) -> dict[str, Tensor]:
        """Pooled vectors [b, d] by modality, from (tokens, real, mask) of each."""
        return {modality: self.get_submodule(modality)(*inputs) for modality, inputs in batch.items()}

    def forward(self, batch: Mapping[str, tuple[Tensor, Tensor, Tensor | None]]) -> Tensor:
        """Logits [b, C] of what serves."""
        return self.classifier(self.classifier.features(self.pool(batch)))

    def loss(
        self,
        batch: Mapping[str, tuple[Tensor, Tensor, Tensor | None]],
        targets: Tensor,
        logits: Tensor | None,
        features: Tensor | None,
    ) -> Tensor:
        """The objective's loss of each sample [b], given labels and the teacher's logits and features."""
        config, pooled = self.config, self.pool(batch)
        if config.objective == "tram":
            served = {m: z.detach() for m, z in pooled.items() if m != "text"}
            both = self.privileged(self.privileged.features(pooled))
            own = self.classifier(self.classifier.features(served))
            return _hard(both, targets, config) + _hard(own, targets, config)
        seen = self.classifier.features(pooled)
        hard = _hard(self.classifier(seen), targets, config)
        if config.objective == "supervised":
            return hard
        if config.objective == "distill":
            assert logits is not None
            taught = _soft(self.classifier(seen), logits / config.temperature, config)
        else:
            assert features is not None
            taught = F.mse_loss(self.hint(seen), features, reduction="none").mean(dim=1)
        return (1 - config.imitation) * hard + config.imitation * taught


def fresh_head(config: HeadConfig, dims: Mapping[str, int], features: int = 0) -> Head:
    """A head with the engine's initial parameters; torch's global generator is not touched."""
    with torch.device("meta"):
        head = Head(config, dims, features)
    head.load_state_dict(initial_state(config, dims, features=features), assign=True)
    return head


def train_reference(data: HeadData, job: HeadJob) -> HeadResult:
    """Train one head in a plain loop; arguments, result and errors as `heads.engine.train_head`."""
    check_job(data, job)
    started, config = time.perf_counter(), job.config
    lesson, targets = job.lesson, torch.from_numpy(data.labels.astype(np.int64))
    features = 0 if lesson is None or lesson.features is None else lesson.features.shape[2]
    head = fresh_head(config, {m: table.dim for m, table in data.tokens.items()}, features)
    optimizer = torch.optim.Adam(head.parameters(), lr=config.lr)
    log, steps = RunLog(job), 0
    orders = epoch_orders(len(job.train), seed=config.batch_seed)
    drawn = _views(data, job)
    for _ in range(config.epochs):
        total, views = 0.0, next(drawn)
        for places, view in zip(next(orders).split(config.batch_size), views.split(config.batch_size), strict=True):
            samples = job.train[places.numpy()]
            batch = _batch(data, job, config.reads, samples, view, steps)
            said = [] if lesson is None else [lesson.logits, lesson.features]
            taught = [None if words is None else _said(words, view, places) for words in said] or [None, None]
            loss = head.loss(batch, targets[samples], *taught).mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            total += loss.item() * len(samples)
            steps += 1
        _record(log, head, data, job, total / len(job.train))
    return log.result(samples_per_second=config.epochs * len(job.train) / (time.perf_counter() - started))


def _record(log: RunLog, head: Head, data: HeadData, job: HeadJob, train_loss: float) -> None:
    """Test loss, metrics and the inner part's AUROC after an epoch."""
    spoken = _speak(head, data, job, job.test)
    log.add_epoch(
        train_loss=train_loss,
        test_loss=_mean_loss(*spoken, data.labels[job.test], job.config),
        metrics={name: _metric(name, data.labels[job.test], spoken[1]) for name in METRIC_NAMES},
        probabilities=spoken[1],
        inner_auroc=_inner_auroc(head, data, job),
        state=lambda: {name: value.detach().numpy().copy() for name, value in head.state_dict().items()},
    )


@torch.no_grad()
def _speak(head: Head, data: HeadData, job: HeadJob, part: np.ndarray) -> tuple[Tensor, np.ndarray]:
    """(logits, probabilities) of the samples of a part, on the clean view."""
    serves = OBJECTIVES[job.config.objective].serves(job.config.reads)
    batches = np.split(part, range(job.config.batch_size, len(part), job.config.batch_size))
    logits = torch.cat([head(_batch(data, job, serves, samples)) for samples in batches])
    return logits, (logits.softmax(dim=1) if job.config.target == "classes" else logits.sigmoid()).numpy()


def _mean_loss(logits: Tensor, _: np.ndarray, labels: np.ndarray, config: HeadConfig) -> float:
    truth = torch.from_numpy(labels.astype(np.int64))
    if config.target == "classes":
        return F.cross_entropy(logits, truth).item()
    known = truth != UNKNOWN
    return F.binary_cross_entropy_with_logits(logits[known], truth[known].float()).item()


def _inner_auroc(head: Head, data: HeadData, job: HeadJob) -> float | None:
    if job.inner is None:
        return None
    return _metric("auroc", data.labels[job.inner], _speak(head, data, job, job.inner)[1])


def _metric(name: str, labels: np.ndarray, probabilities: np.ndarray) -> float:
    return get_metric(name)(labels, np.nan_to_num(probabilities))  # what is not finite is refused by its loss


def _views(data: HeadData, job: HeadJob) -> Iterator[Tensor]:
    n_views, n = max(data.tokens[m].n_views for m in job.config.reads), len(job.train)
    if n_views == 1:
        while True:
            yield torch.zeros(n, dtype=torch.int64)
    for views in epoch_views(n, n_views - 1, seed=job.config.view_seed):
        yield views + 1


def _batch(
    data: HeadData,
    job: HeadJob,
    modalities: tuple[str, ...],
    samples: np.ndarray,
    views: Tensor | None = None,
    step: int | None = None,
) -> dict[str, tuple[Tensor, Tensor, Tensor | None]]:
    """(tokens, real, mask) of each modality; a mask where `step` is given."""
    batch = {}
    for tower, modality in enumerate(modalities):
        table, items = data.tokens[modality], job.rows.get(modality, np.arange(len(data.labels)))[samples]
        padded, real = padded_tokens(table, items, views)
        mask = None if step is None else _mask(job.config, table, *real.shape, step=step, tower=tower)
        batch[modality] = (padded, real, mask)
    return batch


def _mask(config: HeadConfig, table: TokenTable, b: int, n: int, *, step: int, tower: int) -> Tensor | None:
    """The scaled dropout mask of one step."""
    levels = dropout_levels(config.dropout)
    if not levels or config.form == "mean":
        return None
    keys = dropout_keys(torch.tensor([config.dropout_seed]), torch.tensor([step]), tower)
    heads = head_count(table.dim) if config.form == "multihead" else 1
    queries = 1 if config.form == "query" else None
    kept = keep_mask(keys, torch.arange(b), n, longest=table.longest, levels=levels, heads=heads, queries=queries)
    return kept[0] * dropout_scale(config.dropout)


def _said(words: np.ndarray, views: Tensor, places: Tensor) -> Tensor:
    """A teacher's words on a batch."""
    view = views.numpy() if len(words) > 1 else np.zeros(len(places), np.int64)
    return torch.from_numpy(words[view, places.numpy()])


def _tower(form: str, dim: int) -> nn.Module:
    if form == "query":
        return QueryTower(dim)
    if form == "mean":
        return MeanTower(dim)
    return AttentionTower(dim, head_count(dim) if form == "multihead" else 1)


def _hard(logits: Tensor, targets: Tensor, config: HeadConfig) -> Tensor:
    """Cross-entropy with labels, [b]; of findings, the mean over those that are known."""
    if config.target == "classes":
        return F.cross_entropy(logits, targets, reduction="none")
    losses = []
    for own, truth in zip(logits, targets, strict=True):
        known = truth != UNKNOWN
        each = F.binary_cross_entropy_with_logits(own[known], truth[known].to(own.dtype), reduction="sum")
        losses.append(each / max(1, int(known.sum())))
    return torch.stack(losses)


def _soft(logits: Tensor, teacher: Tensor, config: HeadConfig) -> Tensor:
    """Cross-entropy with a teacher's tempered prediction, [b]."""
    if config.target == "classes":
        return F.cross_entropy(logits, teacher.softmax(dim=1), reduction="none")
    return F.binary_cross_entropy_with_logits(logits, teacher.sigmoid(), reduction="none").mean(dim=1)


def padded_tokens(table: TokenTable, items: np.ndarray, views: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """(tokens [b, n, d] float32 as given, padded to the longest item; real bool [b, n]) of some items."""
    chosen = [0] * len(items) if views is None or table.n_views == 1 else views.tolist()
    rows = [table.raw_tokens(int(item), view) for item, view in zip(items, chosen, strict=True)]
    real = pad_sequence([torch.ones(len(r), dtype=torch.bool) for r in rows], batch_first=True)
    return pad_sequence(rows, batch_first=True), real
