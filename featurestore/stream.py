"""Minibatches of a feature set in an explicit order, read ahead in the background: for sets beyond memory.

    for batch in stream_features(features, items, batch_size=64, shuffle_seed=stream_seed(seed, f"epoch {epoch}")):
        ...  # batch.tokens[i] are those of items[batch.indices[i]]

Single rows are read in fully random order: on a local disk blocks of neighbours gain nothing. While a batch is used,
the next ones are read into other buffers, and the system fetches the one after those.
"""

from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass
from queue import SimpleQueue
from threading import Event, Thread
from types import TracebackType
from typing import Literal, NamedTuple, Self

import numpy as np

from . import memory
from .errors import DataError
from .keys import stream_seed
from .reader import Features, Places


class Minibatch(NamedTuple):
    """Tokens of some items, valid until the next minibatch is asked for: then its buffer is filled anew.

    Attributes:
        indices: int64 [b], places in the `items` that were given.
        tokens: `dtype` [b, n, d]; of reports flat, [tokens of all, d].
        offsets: of reports int64 [b + 1]: report i is `tokens[offsets[i]:offsets[i + 1]]`. None for images.
    """

    indices: np.ndarray
    tokens: np.ndarray
    offsets: np.ndarray | None


class FeatureStream(Iterator[Minibatch]):
    """One epoch. Made by `stream_features`; `len` is the number of its minibatches.

    Leave it early by `close`, or use it as a context: its thread ends then. What a thread fails with, such as a
    DamageError that names an item, is raised where the minibatch would have come.

    Attributes:
        skipped: ids of `items` that have no tokens and do not come, in their order; only with `missing="skip"`.
    """

    def __init__(self, batches: "_Batches", buffers: list[np.ndarray], skipped: list[str]) -> None:
        self.skipped = skipped
        self._count = len(batches.starts)
        self._run = _run(batches, buffers)

    def __len__(self) -> int:
        return self._count

    def __next__(self) -> Minibatch:
        return next(self._run)

    def close(self) -> None:
        """End the thread. There is nothing more to come afterwards."""
        self._run.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def stream_features(
    features: Features,
    items: Sequence[str],
    *,
    batch_size: int,
    shuffle_seed: int | None,
    buffers: Sequence[np.ndarray] | None = None,
    prefetch: int = 2,
    threads: int | None = None,
    drop_last: bool = False,
    missing: Literal["error", "skip"] = "error",
) -> FeatureStream:
    """Every item exactly once, in minibatches; the last one may be short. Patch tokens of images, tokens of reports.

    Args:
        features: an open feature set.
        items: ids.
        batch_size: items of a minibatch.
        shuffle_seed: None gives the order of `items`; a number an order that it alone decides (`epoch_order`), the
            same everywhere. Give another one for every epoch.
        buffers: where minibatches are put, such as views of pinned tensors; at least `prefetch + 1`, C-contiguous, of
            the set's dtype: [batch_size, n, d], or for reports [tokens of the longest minibatch, d]; they may be
            longer. They are in use until the stream is closed or at its end. Without them the stream has its own.
        prefetch: minibatches that are read ahead.
        threads: that share the reading of one minibatch; by default those of `features`.
        drop_last: leave a short last minibatch away.
        missing: what to do about items without tokens: "error", or "skip", which leaves them out.

    Raises:
        DataError: items have no tokens, or an argument does not fit.
    """
    if batch_size < 1 or prefetch < 0 or missing not in ("error", "skip"):
        raise DataError(
            f"batch_size is {batch_size}, prefetch {prefetch}, missing {missing!r}; allowed are at least 1, at least "
            "0, and 'error' or 'skip'."
        )
    order = np.arange(len(items)) if shuffle_seed is None else epoch_order(len(items), shuffle_seed)
    skipped: list[str] = []
    if missing == "skip":
        there = features.has(items)
        skipped = [item for item, found in zip(items, there, strict=True) if not found]
        order = order[there[order]]
    places = features.locate([items[i] for i in order.tolist()])
    count = len(order) // batch_size if drop_last else -(-len(order) // batch_size)
    starts = np.arange(count, dtype=np.int64) * batch_size
    batches = _Batches(features, order, places, starts, batch_size, threads)
    given = _own_buffers(batches, prefetch + 1) if buffers is None else _checked(batches, list(buffers), prefetch + 1)
    return FeatureStream(batches, given, skipped)


def epoch_order(count: int, seed: int) -> np.ndarray:
    """A random order of `range(count)` that the seed decides: int64 [count].

    It sorts raw numbers of PCG64, which no version of numpy may change; those that `permutation` makes of them may.
    """
    return np.argsort(np.random.PCG64(stream_seed(seed, "stream")).random_raw(count), kind="stable")


@dataclass(frozen=True)
class _Batches:
    """What a stream reads: `places` and `order` from each of `starts` on."""

    features: Features
    order: np.ndarray
    places: Places
    starts: np.ndarray
    size: int
    threads: int | None

    def at(self, number: int) -> slice:
        start = int(self.starts[number])
        return slice(start, start + self.size)

    def shape(self) -> tuple[int, ...]:
        """Of the smallest buffer that holds each minibatch."""
        layout = self.features.feature_set.layout
        if layout.modality == "image":
            return (min(self.size, len(self.order)), layout.tokens, layout.dim)
        tokens = np.add.reduceat(self.places.tokens, self.starts) if len(self.starts) else np.zeros(1, np.int64)
        return (int(tokens.max()), layout.dim)

    def read(self, number: int, buffer: np.ndarray) -> Minibatch:
        """Fill a buffer, while the system fetches what comes after."""
        features = self.features
        if number + 1 < len(self.starts):
            features.will_need(self.places[self.at(number + 1)])
        places, indices = self.places[self.at(number)], self.order[self.at(number)]
        if features.modality == "image":
            return Minibatch(indices, features.image_tokens(places, buffer[: len(indices)], threads=self.threads), None)
        return Minibatch(indices, *features.text_tokens(places, buffer, threads=self.threads))


def _run(batches: _Batches, buffers: list[np.ndarray]) -> Generator[Minibatch, None, None]:
    """The minibatches; a thread reads them into the buffers in turn."""
    free: SimpleQueue[np.ndarray | None] = SimpleQueue()
    ready: SimpleQueue[tuple[Minibatch, np.ndarray] | BaseException | None] = SimpleQueue()
    stop = Event()

    def read_all() -> None:
        try:
            for number in range(len(batches.starts)):
                buffer = free.get()
                if buffer is None or stop.is_set():
                    return
                ready.put((batches.read(number, buffer), buffer))
            ready.put(None)
        except BaseException as error:
            ready.put(error)

    for buffer in buffers:
        free.put(buffer)
    reader = Thread(target=read_all, name="feature stream", daemon=True)
    reader.start()
    try:
        while (got := ready.get()) is not None:
            if isinstance(got, BaseException):
                raise got
            yield got[0]
            free.put(got[1])
    finally:
        stop.set()
        free.put(None)
        reader.join()


def _own_buffers(batches: _Batches, count: int) -> list[np.ndarray]:
    shape, dtype = batches.shape(), batches.features.dtype
    nbytes = count * int(np.prod(shape, dtype=np.int64)) * dtype.itemsize
    what = f"reading feature set {batches.features.name} in minibatches of {batches.size:,}, {count} at a time,"
    memory.require(nbytes, what, "Take smaller minibatches, or a smaller prefetch.")
    return [np.empty(shape, dtype) for _ in range(count)]


def _checked(batches: _Batches, buffers: list[np.ndarray], count: int) -> list[np.ndarray]:
    shape, dtype = batches.shape(), batches.features.dtype
    if len(buffers) < count:
        raise DataError(f"{len(buffers)} buffers are too few: prefetch {count - 1} takes {count}.")
    for number, buffer in enumerate(buffers):
        fits = buffer.ndim == len(shape) and buffer.shape[1:] == shape[1:] and len(buffer) >= shape[0]
        if not fits or buffer.dtype != dtype or not buffer.flags.c_contiguous or not buffer.flags.writeable:
            raise DataError(
                f"buffer {number} is {buffer.dtype} {buffer.shape}; it must be {dtype} {shape} or longer, writeable "
                "and C-contiguous."
            )
        if any(np.may_share_memory(buffer, other) for other in buffers[:number]):
            raise DataError(f"buffer {number} shares its memory with another one; each must have its own.")
    return buffers
