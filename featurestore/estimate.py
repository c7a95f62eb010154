"""What an extraction will take, before anything runs: bytes, files, memory, hours. No torch is loaded to count."""

from dataclasses import dataclass

import numpy as np

from .layout import FeatureLayout
from .shards import index_size

RECORD_BYTES_ROW = 280
"""Of commit records and allocations together, a row."""

FILLED_SHARE = 0.25
"""Of the context length that a report fills where lengths are not known: what reports of MIMIC-CXR come to."""


@dataclass(frozen=True)
class Estimate:
    """What extracting `items` items of one encoder takes.

    Attributes:
        items: to be embedded.
        shards: of one view.
        files: that come to lie in the store: shard files and records.
        disk_bytes: of those files.
        resident_bytes: of memory, to train from all of them at once.
        shard_bytes: of memory while extracting: two shards, one filled and one being written.
        seconds: of extraction; None where no speed is known.
        free_bytes: where the store lies; None where that has no meaning.
    """

    items: int
    shards: int
    files: int
    disk_bytes: int
    resident_bytes: int
    shard_bytes: int
    seconds: float | None
    free_bytes: int | None


def estimate(
    layout: FeatureLayout,
    items: int,
    *,
    views: int = 1,
    tokens_a_report: float | None = None,
    items_a_second: float | None = None,
    free_bytes: int | None = None,
) -> Estimate:
    """What it takes to embed `items` items.

    Args:
        layout: of the feature set that would be made.
        items: how many have no tokens yet.
        views: how many views of each.
        tokens_a_report: mean length; None to take `FILLED_SHARE` of the context length.
        items_a_second: speed of the encoder on the device, as measured by a trial.
        free_bytes: handed on.
    """
    shards = -(-items // layout.shard_rows)
    row = layout.row_bytes
    reads = np.dtype(layout.codec.reads_as).itemsize * layout.dim * (layout.tokens + layout.has_cls)
    if layout.modality == "text":
        share = (tokens_a_report or FILLED_SHARE * layout.tokens) / layout.tokens
        row, reads = int(row * share) + 16, int(reads * share)
    arrays = layout.arrays()
    index = sum(index_size(array.chunks_per_shard) for array in arrays)
    return Estimate(
        items=items,
        shards=shards * views,
        files=shards * views * (len(arrays) + 1) + (1 if items else 0),
        disk_bytes=views * (items * (row + RECORD_BYTES_ROW) + shards * index),
        resident_bytes=items * reads,
        shard_bytes=2 * layout.shard_rows * row,
        seconds=None if items_a_second is None else views * items / items_a_second,
        free_bytes=free_bytes,
    )
