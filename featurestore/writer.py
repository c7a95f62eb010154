"""Writing one shard: fill it in memory, publish its files, then the commit record. Never sees an encoder.

The order is the guarantee: every file of the shard is durable under its final name before the record is, and the
record is the commit. A kill at any moment leaves the shard done or not done, and the next run makes it anew.
"""

import json
from typing import Any

import numpy as np

from .errors import ItemError
from .featureset import FeatureSet, ShardPlan
from .fsio import write_atomic, write_new
from .layout import SLOT_CHUNK, ArrayLayout
from .shards import crc32c, encode_index
from .store import FORMAT


class ShardWriter:
    """The rows of one planned shard. Put or fail every position once, then `commit`.

    Positions count from 0 within the shard. Tokens are stored as float16.
    """

    def __init__(self, feature_set: FeatureSet, plan: ShardPlan) -> None:
        self.feature_set = feature_set
        self.plan = plan
        self._rows: list[np.ndarray | None] = [None] * len(plan.items)
        self._cls: list[np.ndarray | None] = [None] * len(plan.items)
        self._content: list[str | None] = [None] * len(plan.items)
        self._failed: dict[int, str] = {}
        self._truncated: list[int] = []

    def put(
        self,
        position: int,
        tokens: np.ndarray,
        *,
        content: str,
        cls: np.ndarray | None = None,
        truncated: bool = False,
    ) -> None:
        """Keep the tokens of one item.

        Args:
            position: of the item in the plan.
            tokens: [n, d]; an image's n is the set's, a report's is its own length.
            content: sha256 of the item's bytes.
            cls: [d], where the encoder has a class token.
            truncated: a report was longer than the context length.

        Raises:
            ItemError: a value is not finite in the stored precision.
        """
        layout = self.feature_set.layout
        allowed = range(1, layout.tokens + 1) if layout.modality == "text" else (layout.tokens,)
        if tokens.shape[0] not in allowed or tokens.shape[1] != layout.dim or (cls is not None) != layout.has_cls:
            raise ValueError(f"{self.feature_set.name}: tokens of shape {tokens.shape} do not fit the set.")
        self._rows[position] = _stored(tokens)
        self._cls[position] = None if cls is None else _stored(cls)
        self._content[position] = content
        if truncated:
            self._truncated.append(position)

    def fail(self, position: int, reason: str, *, content: str | None = None) -> None:
        """Record that an item has no tokens, and why. Its row is never read."""
        self._failed[position] = reason
        self._content[position] = content

    @property
    def failed(self) -> dict[str, str]:
        """Reasons by item."""
        return {self.plan.items[position]: reason for position, reason in sorted(self._failed.items())}

    @property
    def truncated(self) -> int:
        """Reports that were longer than the context length."""
        return len(self._truncated)

    def commit(self) -> None:
        """Make the shard durable: its files, then its record."""
        open_positions = [i for i, r in enumerate(self._rows) if r is None and i not in self._failed]
        if open_positions:
            raise ValueError(f"{self.feature_set.name}: no tokens for {self.plan.items[open_positions[0]]}.")
        payloads = self._text_payloads() if self.feature_set.modality == "text" else self._image_payloads()
        files = {}
        for array, payload, present in payloads:
            files[array.shard_file(self.plan.shard)] = self._write(array, payload, present)
        record = json.dumps(self._record(files), separators=(",", ":")).encode()
        write_new(self.feature_set.record_path(self.plan.shard), record)

    def _image_payloads(self) -> list[tuple[ArrayLayout, np.ndarray, np.ndarray]]:
        layout = self.feature_set.layout
        present = np.zeros(layout.shard_rows, dtype=bool)
        present[: len(self._rows)] = [r is not None for r in self._rows]
        columns = [self._rows, self._cls][: len(layout.arrays)]
        return [
            (array, np.stack(kept) if (kept := [r for r in column if r is not None]) else np.empty(0, "f2"), present)
            for array, column in zip(layout.arrays, columns, strict=True)
        ]

    def _text_payloads(self) -> list[tuple[ArrayLayout, np.ndarray, np.ndarray]]:
        layout = self.feature_set.layout
        tokens_array, offsets_array = layout.arrays
        lengths = np.array([0 if r is None else len(r) for r in self._rows], dtype=np.int64)
        ends = self.plan.shard * layout.shard_slots + np.cumsum(lengths)
        # The last inner chunk is filled up with zeros; no report's bounds reach into them.
        chunks = -(-int(lengths.sum()) // SLOT_CHUNK)
        flat = np.zeros((chunks * SLOT_CHUNK, layout.dim), dtype=np.float16)
        kept = [r for r in self._rows if r is not None]
        if kept:
            np.concatenate(kept, out=flat[: lengths.sum()])
        filled = np.arange(tokens_array.chunks_per_shard) < chunks
        rows = np.arange(layout.shard_rows) < len(self._rows)
        return [
            (tokens_array, flat, filled),
            (offsets_array, np.stack([ends - lengths, ends], axis=1), rows),
        ]

    def _write(self, array: ArrayLayout, payload: np.ndarray, present: np.ndarray) -> dict[str, int]:
        data = np.ascontiguousarray(payload).reshape(-1).view(np.uint8).data
        index = encode_index(present, array.chunk_bytes)
        write_atomic(self.feature_set.path / array.shard_file(self.plan.shard), data, index)
        return {"bytes": len(data) + len(index)}

    def _record(self, files: dict[str, dict[str, int]]) -> dict[str, Any]:
        text = self.feature_set.modality == "text"
        checksums = [None if r is None else crc32c(r) for r in self._rows]
        return {
            "format": FORMAT,
            "feature_set": self.feature_set.name,
            "shard": self.plan.shard,
            "first_row": self.plan.first_row,
            "items": list(self.plan.items),
            "content": self._content,
            "tokens": [None if r is None else len(r) for r in self._rows],
            "crc32c": checksums,
            "cls_crc32c": [None if r is None else crc32c(r) for r in self._cls] if not text else None,
            "failed": self._failed,
            "truncated": self._truncated,
            "files": files,
        }


def _stored(tokens: np.ndarray) -> np.ndarray:
    with np.errstate(over="ignore"):
        stored = np.ascontiguousarray(tokens, dtype=np.float16)
    if not np.isfinite(stored).all():
        raise ItemError("the encoder gave tokens that are not finite in float16")
    return stored
