"""One pass over images for many encoders: each file is decoded once, and prepared for every encoder and view.

    decode and prepare (threads, some items ahead) -> batches of one shard each -> forward

Batches never cross a shard and an image that fails keeps its place in its batch, so the tokens of a row depend on its
shard alone: not on when, beside which other encoders, or by how many threads it was made. Knows encoders and no store.
"""

import heapq
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import groupby, repeat
from operator import itemgetter
from typing import TYPE_CHECKING, Any, NamedTuple

from .encoders import Encoder, ImageTokens
from .errors import ItemError
from .views import crop_of

if TYPE_CHECKING:
    from PIL.Image import Image as PilImage


class Source(NamedTuple):
    """An image as it was read, or why it was not; the sha256 of its file and the file's stamp."""

    image: "PilImage | None"
    content: str | None = None
    stamp: str | None = None
    reason: str = ""


class Prepared(NamedTuple):
    """One item ready for one encoder, or why it is not; the rest as of its source."""

    value: Any
    content: str | None = None
    stamp: str | None = None
    reason: str = ""


@dataclass(eq=False)
class Shelf:
    """A shard to be filled: its items in the order of their rows, and who makes them.

    Attributes:
        encoder: the encoder.
        view: 0 is the clean one.
        items: ids; sorted, if decoding is to be shared with other shelves.
        label: for the caller.
    """

    encoder: Encoder
    view: int
    items: Sequence[str]
    label: Any = None
    done: int = 0
    batch: list[Prepared] = field(default_factory=list)


class Batch(NamedTuple):
    """Encoded rows of a shelf, from `start` on. Of an item that failed the tokens mean nothing."""

    shelf: Shelf
    start: int
    prepared: Sequence[Prepared]
    tokens: ImageTokens

    @property
    def is_last(self) -> bool:
        """Whether the shelf is full with it."""
        return self.start + len(self.prepared) == len(self.shelf.items)


def encode_images(
    groups: Iterable[Sequence[Shelf]], load: Callable[[str], Source], readers: ThreadPoolExecutor, *, batch_size: int
) -> Iterator[Batch | None]:
    """Encode every shelf of every group; what stands on several shelves of a group is loaded once.

    Args:
        groups: shelves that hold the same items, some or all. An empty group gives None, once all before it was given.
        load: reads and decodes one item; called in the readers' threads; never raises.
        readers: threads that load and prepare, ahead of the encoders.
        batch_size: items a forward pass.
    """
    blanks: dict[int, Any] = {}
    for job in _ahead(readers, load, _jobs(groups), 2 * batch_size):
        if job is None:
            yield None
            continue
        shelves, everything = job
        for shelf, prepared in zip(shelves, everything, strict=True):
            shelf.batch.append(prepared)
            if len(shelf.batch) == batch_size or shelf.done + len(shelf.batch) == len(shelf.items):
                yield _encode(shelf, blanks)


def _encode(shelf: Shelf, blanks: dict[int, Any]) -> Batch:
    encoder, batch, start = shelf.encoder, shelf.batch, shelf.done
    if any(one.value is None for one in batch) and id(encoder) not in blanks:
        blanks[id(encoder)] = encoder.prepare(_blank())
    tokens = encoder.encode([blanks[id(encoder)] if one.value is None else one.value for one in batch])
    shelf.batch, shelf.done = [], start + len(batch)
    return Batch(shelf, start, batch, tokens)


def _blank() -> "PilImage":
    from PIL import Image

    return Image.new("RGB", (64, 64))


def _jobs(groups: Iterable[Sequence[Shelf]]) -> Iterator[tuple[str, list[Shelf]] | None]:
    """Every item with the shelves that want it, in the order of items; None for an empty group."""
    for shelves in groups:
        if not shelves:
            yield None
        wanted = heapq.merge(*(zip(shelf.items, repeat(i)) for i, shelf in enumerate(shelves)))
        for item, some in groupby(wanted, itemgetter(0)):
            yield item, [shelves[i] for _, i in some]


def _ahead(
    pool: ThreadPoolExecutor,
    load: Callable[[str], Source],
    jobs: Iterator[tuple[str, list[Shelf]] | None],
    ahead: int,
) -> Iterator[tuple[list[Shelf], list[Prepared]] | None]:
    """Every job done, in order; at most `ahead` of them done or under way before they are asked for."""
    waiting: deque[tuple[list[Shelf], Future[list[Prepared]]]] = deque()
    for job in jobs:
        if job is not None:
            waiting.append((job[1], pool.submit(_prepare, load, *job)))
        while waiting and (job is None or len(waiting) >= ahead):
            shelves, future = waiting.popleft()
            yield shelves, future.result()
        if job is None:
            yield None
    for shelves, future in waiting:
        yield shelves, future.result()


def _prepare(load: Callable[[str], Source], item: str, shelves: Sequence[Shelf]) -> list[Prepared]:
    source = load(item)
    return [_prepare_for(shelf, item, source) for shelf in shelves]


def _prepare_for(shelf: Shelf, item: str, source: Source) -> Prepared:
    image, content, stamp, reason = source
    if image is None:
        return Prepared(None, content, stamp, reason)
    try:
        crop = crop_of(item, shelf.view, width=image.width, height=image.height) if shelf.view else None
        return Prepared(shelf.encoder.prepare(image, crop), content, stamp)
    except ItemError as error:
        return Prepared(None, content, stamp, str(error))
    except Exception as error:
        return Prepared(None, content, stamp, f"unexpected {type(error).__name__} while preparing")
