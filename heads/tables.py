"""Token tables for training, loaded from a store, each once, and no more of them than memory holds.

A table whose normalised form does not fit is normalised batch by batch; one whose tokens do not fit lies in an unnamed
temporary file (below TMPDIR), mapped into memory.
"""

import re
import tempfile
from dataclasses import dataclass

import numpy as np
import torch

from featurestore import memory
from featurestore.errors import DataError
from featurestore.featureset import open_feature_set
from featurestore.keys import content_key
from featurestore.reader import Features, open_features
from featurestore.store import Store

from .engine import TokenTable
from .plan import PlannedRun
from .rows import CommonRows

_SHARE = 0.7
"""Of the free memory that tables may take; the rest is for training."""

_CHUNK = 4096  # rows read into a mapped file at a time

_TYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}


@dataclass(frozen=True)
class TableKey:
    """Which tokens: those of the common rows of a cohort in a feature set, or their class tokens, in some views."""

    cohort: str
    feature_set: str
    is_cls: bool
    views: int


def table_keys(run: PlannedRun) -> dict[str, TableKey]:
    """The tables that the training of a run takes, its teacher's included, by modality."""
    return {
        modality: TableKey(
            run.rows.cohort.name,
            feature_set.name,
            run.kind.reads_cls and modality == "image",
            run.spec.views if modality == "image" else 0,
        )
        for modality, feature_set in run.features.items()
    }


class Tables:
    """The tables of a call of training. What the next runs do not read is let go when another is loaded."""

    def __init__(self, store: Store, device: str, precision: str) -> None:
        self._store, self._device, self._dtype = store, device, _TYPES[precision]
        self._held: dict[TableKey, TokenTable] = {}

    def get(self, rows: CommonRows, keys: dict[str, TableKey]) -> dict[str, TokenTable]:
        """The tables of these keys, by modality.

        Raises:
            DataError: items were replaced since the plan was made, or a token is not finite.
            DamageError: bytes differ from what was committed; names the item.
        """
        wanted = set(keys.values())
        if not wanted <= self._held.keys():
            self._held = {key: table for key, table in self._held.items() if key in wanted}
        for key in keys.values():
            if key not in self._held:
                self._held[key] = self._load(rows, key)
        return {modality: self._held[key] for modality, key in keys.items()}

    def _load(self, rows: CommonRows, key: TableKey) -> TokenTable:
        modality = open_feature_set(self._store, key.feature_set).modality
        items = rows.samples[modality].to_list()
        views = [open_features(self._store, key.feature_set, view=view, only=items) for view in range(key.views + 1)]
        if content_key(views[0].content(items)) != rows.content[key.feature_set]:
            raise DataError(
                f"cohort {key.cohort}: {modality}s were replaced while the grid was running. Run the same "
                "command again: it plans anew."
            )
        try:
            return self._table(views, items, key)
        except ValueError as error:
            raise DataError(f"feature set {key.feature_set}: {_with_id(str(error), items)}.") from error

    def _table(self, views: list[Features], items: list[str], key: TableKey) -> TokenTable:
        dtype, first = self._dtype, views[0]
        if first.modality == "text":
            tokens = int(first.locate(items).tokens.sum())
            room = _Room(tokens * first.dim, first.dtype, dtype, self._device)
            out = room.array((tokens, first.dim), first.dtype)
            flat, offsets = first.text_tokens(items, out)
            return TokenTable.ragged(flat, offsets, dtype=dtype, device=self._device, resident=room.is_resident)
        n = 1 if key.is_cls else first.feature_set.layout.tokens
        room = _Room(len(views) * len(items) * n * first.dim, first.dtype, dtype, self._device)
        arrays = [room.array((len(items), n, first.dim), first.dtype) for _ in views]
        for features, array in zip(views, arrays, strict=True):
            for start in range(0, len(items), _CHUNK):
                part, out = items[start : start + _CHUNK], array[start : start + _CHUNK]
                if key.is_cls:
                    features.cls_tokens(part, out[:, 0])
                else:
                    features.image_tokens(part, out)
        return TokenTable.dense(*arrays, dtype=dtype, device=self._device, resident=room.is_resident)


class _Room:
    """Where a table of so many numbers goes: its tokens as read, and its normalised form."""

    def __init__(self, numbers: int, read_as: np.dtype, dtype: torch.dtype, device: str) -> None:
        raw, table = numbers * read_as.itemsize, numbers * dtype.itemsize
        free = memory.available_bytes()
        room = float("inf") if free is None else _SHARE * free
        if device.startswith("cuda"):
            self.is_resident = table <= _SHARE * torch.cuda.mem_get_info(device)[0]
            self._is_mapped = raw > room
        else:
            self.is_resident = raw + table <= room
            self._is_mapped = raw > room

    def array(self, shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
        """An array to fill, in memory or in a file that vanishes with it."""
        if not self._is_mapped:
            return np.empty(shape, dtype)
        with tempfile.TemporaryFile(prefix="radfs-") as file:  # the mapping outlives it
            return np.memmap(file, dtype=dtype, mode="w+", shape=shape)


def _with_id(message: str, items: list[str]) -> str:
    """The engine's message, with the id of the item that it knows by number."""
    return re.sub(r"\bitem (\d+)", lambda m: f"item {items[int(m.group(1))]}", message)
