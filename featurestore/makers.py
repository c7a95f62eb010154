"""What extraction does with the shards that are to be made: images in one pass for all encoders, reports one by one.

One bad item never stops a run: its reason is recorded by id, for each encoder, and it is tried again when its file or
text has changed, or on request. Tokens are put into shards and made durable in background threads.
"""

import hashlib
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from .encoders import Encoder, EncoderSpec, build
from .errors import ItemError
from .featureset import FeatureSet, ShardPlan
from .imagepass import Batch, Prepared, Shelf, Source, encode_images
from .images import decode_image, read_file
from .items import list_items, text_hash
from .making import one_by_one
from .sources import source_stamp
from .store import Store
from .writer import ShardWriter

if TYPE_CHECKING:
    from torch import Tensor

_GONE = "the item is no longer in the store"
_TEXT_GONE = "its text was removed from the store"
_TEXT_DAMAGED = "its text in the store is not what was put there (its sha256 differs); build its cohort again"
_BATCHES_BEHIND = 2
"""Batches whose tokens are put into their shards while the next are encoded."""

Progress = Callable[[int, int, int], None]
"""Called with (rows done, rows to do, rows failed) while a run goes on; a row is an item in one view of one set."""


@dataclass
class ExtractReport:
    """What an extraction did for one encoder. All counts are of rows: an item in each view is one.

    Attributes:
        feature_set: `encoder@key`.
        asked: rows asked for.
        views: augmented views beside the clean one.
        already: of these, committed before.
        known_failures: of these, failures of an earlier run that were not tried again.
        extracted: rows asked for whose tokens this run committed.
        resumed: rows beyond those asked for, which stood in the same unfinished shards.
        elsewhere: rows of shards that other processes made meanwhile.
        failed: reasons by item id, of this run.
        truncated: reports of which this run cut off the end.
        seconds: duration of the whole run, the encoders' loading included.
    """

    feature_set: str
    asked: int
    views: int = 0
    already: int = 0
    known_failures: int = 0
    extracted: int = 0
    resumed: int = 0
    elsewhere: int = 0
    failed: dict[str, str] = field(default_factory=dict)
    truncated: int = 0
    seconds: float = 0.0


@dataclass
class Filled:
    """A feature set that an extraction fills: with which encoder, for which items, and what came of it."""

    feature_set: FeatureSet
    spec: EncoderSpec
    asked: set[str]
    report: ExtractReport


@dataclass
class _Making:
    """One extraction under way; the sets by their names."""

    store: Store
    sets: dict[str, Filled]
    readers: ThreadPoolExecutor
    device: str
    batch_size: int
    on_progress: Progress | None
    encoders: dict[str, Encoder] = field(default_factory=dict)
    sources: dict[str, dict[str, Any]] = field(default_factory=dict)
    total: int = 0
    seen: int = 0

    def encoder(self, name: str) -> Encoder:
        """The encoder of a set, loaded when something is to be encoded."""
        if name not in self.encoders:
            self.encoders[name] = build(self.sets[name].spec, device=self.device)
        return self.encoders[name]

    def begin(self, plans: Sequence[ShardPlan]) -> None:
        planned = {item for plan in plans for item in plan.items}
        (modality,) = {filled.spec.modality for filled in self.sets.values()}
        known = list_items(self.store, modality=modality, only=list(planned))
        self.sources = known.rows_by_key("item", named=True, unique=True)
        self.total += sum(len(plan.items) for plan in plans)

    def finish(self, writer: ShardWriter, *, committed: bool) -> None:
        filled = self.sets[writer.feature_set.name]
        report = filled.report
        if not committed:
            report.elsewhere += len(writer.plan.items)
            return
        report.failed.update(writer.failed)
        made = set(writer.plan.items) - set(writer.failed)
        report.extracted += len(made & filled.asked)
        report.resumed += len(made - filled.asked)
        report.truncated += writer.truncated

    def skip(self, feature_set: FeatureSet, items: int) -> None:
        self.sets[feature_set.name].report.elsewhere += items
        self.tell(items)

    def tell(self, more: int) -> None:
        self.seen += more
        if self.on_progress is not None:
            failed = sum(len(filled.report.failed) for filled in self.sets.values())
            self.on_progress(self.seen, self.total, failed)


class ImageMaker(_Making):
    """Fills sets of images, all in one pass."""

    def fill(self, groups: Iterator[Sequence[ShardWriter]]) -> Iterator[ShardWriter]:
        shelves = ([self._shelf(writer) for writer in group] for group in groups)
        behind: deque[tuple[Batch, Future[None]]] = deque()

        def full(most: int) -> Iterator[ShardWriter]:
            while len(behind) > most:
                batch, put = behind.popleft()
                put.result()
                self.tell(len(batch.prepared))
                if batch.is_last:
                    yield batch.shelf.label

        with ThreadPoolExecutor(1) as putter:
            for batch in encode_images(shelves, self._load, self.readers, batch_size=self.batch_size):
                if batch is not None:
                    behind.append((batch, putter.submit(_put_images, batch)))
                yield from full(0 if batch is None else _BATCHES_BEHIND)
            yield from full(0)

    def _shelf(self, writer: ShardWriter) -> Shelf:
        return Shelf(self.encoder(writer.feature_set.name), writer.plan.view, writer.plan.items, writer)

    def _load(self, item: str) -> Source:
        if item not in self.sources:
            return Source(None, reason=_GONE)
        content = None
        path = self.sources[item]["path"]
        stamp = source_stamp(path)  # before it is read: a file that changes meanwhile is then seen to have changed
        try:
            data = read_file(path)
            content = hashlib.sha256(data).hexdigest()
            return Source(decode_image(data), content, stamp)
        except ItemError as error:
            return Source(None, content, stamp, str(error))
        except Exception as error:
            # Bytes from outside can make a decoder raise anything; a run of a million goes on all the same.
            return Source(None, content, stamp, f"unexpected {type(error).__name__} while decoding")


def _put_images(batch: Batch) -> None:
    writer: ShardWriter = batch.shelf.label
    stored = writer.feature_set.layout.codec.parts[0].dtype
    patches = _numbers(batch.tokens.patches, stored)
    cls = None if batch.tokens.cls is None else _numbers(batch.tokens.cls, stored)
    for i, prepared in enumerate(batch.prepared):
        _put(writer, batch.start + i, prepared, patches[i], cls=None if cls is None else cls[i])


def _numbers(tokens: "Tensor", stored: str) -> np.ndarray:
    """The tokens on this side; rounded on the other where float16 is stored, for half the way."""
    return (tokens.half() if stored == "float16" else tokens).cpu().numpy()


class TextMaker(_Making):
    """Fills sets of reports."""

    def fill(self, groups: Iterator[Sequence[ShardWriter]]) -> Iterator[ShardWriter]:
        return one_by_one(groups, self._fill)

    def _fill(self, writer: ShardWriter) -> None:
        encoder = self.encoder(writer.feature_set.name)
        ready = list(self.readers.map(lambda item: self._prepare(encoder, item), writer.plan.items))
        for position, prepared in enumerate(ready):
            if prepared.value is None:
                writer.fail(position, prepared.reason, content=prepared.content, stamp=prepared.stamp)
        # Reports of like length share a batch: less padding, and the order is the shard's own.
        order = sorted((i for i, p in enumerate(ready) if p.value is not None), key=lambda i: len(ready[i].value))
        self.tell(len(ready) - len(order))
        for start in range(0, len(order), self.batch_size):
            batch = order[start : start + self.batch_size]
            encoded = encoder.encode([ready[i].value for i in batch])
            tokens, lengths = encoded.tokens.numpy(), encoded.lengths.tolist()
            for i, position in enumerate(batch):
                row = tokens[i, : lengths[i]]
                _put(writer, position, ready[position], row, truncated=bool(encoded.truncated[i]))
            self.tell(len(batch))

    def _prepare(self, encoder: Encoder, item: str) -> Prepared:
        if item not in self.sources:
            return Prepared(None, reason=_GONE)
        text, content = self.sources[item]["text"], self.sources[item]["text_sha256"]
        if text is None:
            return Prepared(None, reason=_TEXT_GONE)
        if text_hash(text) != content:
            return Prepared(None, content, reason=_TEXT_DAMAGED)
        try:
            return Prepared(encoder.prepare(text), content)
        except ItemError as error:
            return Prepared(None, content, reason=str(error))
        except Exception as error:
            return Prepared(None, content, reason=f"unexpected {type(error).__name__} while tokenising")


def _put(
    writer: ShardWriter,
    position: int,
    source: Prepared,
    tokens: np.ndarray,
    *,
    cls: np.ndarray | None = None,
    truncated: bool = False,
) -> None:
    if source.value is None:
        writer.fail(position, source.reason, content=source.content, stamp=source.stamp)
        return
    try:
        writer.put(position, tokens, content=source.content, stamp=source.stamp, cls=cls, truncated=truncated)
    except ItemError as error:
        writer.fail(position, str(error), content=source.content, stamp=source.stamp)
