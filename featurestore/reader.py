"""Reading tokens by item id, straight from the shard files: numpy only, no torch, no zarr.

A row's place comes from the shard's own index and the file is mapped, so one random row costs one row. Nothing is
read that no commit record vouches for: a missing Zarr chunk would read as zeros without an error. The checksum of
each row is compared when it is read for the first time.
"""

import mmap
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from .errors import DamageError, DataError
from .featureset import FeatureSet, open_feature_set, read_record
from .items import list_items
from .layout import ArrayLayout
from .shards import crc32c, decode_index, index_size
from .store import Store


@dataclass
class _Shard:
    """One committed shard, opened when a row of it is first asked for."""

    feature_set: FeatureSet
    number: int

    @cached_property
    def record(self) -> dict[str, Any]:
        """Its commit record."""
        return read_record(self.feature_set.record_path(self.number))

    @cached_property
    def verified(self) -> np.ndarray:
        """bool [rows]: rows whose checksums were compared already."""
        return np.zeros(len(self.record["items"]), dtype=bool)

    @cached_property
    def arrays(self) -> list[tuple[np.ndarray, np.ndarray]]:
        """(payload bytes, offset of each chunk) of every array of the set."""
        return [self._open(array) for array in self.feature_set.layout.arrays]

    def _open(self, array: ArrayLayout) -> tuple[np.ndarray, np.ndarray]:
        name = array.shard_file(self.number)
        where = f"feature set {self.feature_set.name}, {name}"
        expected = self.record["files"][name]["bytes"]
        data = _map(self.feature_set.path / name, expected, where)
        tail = index_size(array.chunks_per_shard)
        payload = data[:-tail]
        offsets = decode_index(
            data[-tail:].tobytes(), payload_bytes=len(payload), chunk_bytes=array.chunk_bytes, where=where
        )
        return payload, offsets

    def bounds(self, position: int) -> tuple[int, int]:
        """Text: first and one past the last token of a report within this shard's stretch of slots."""
        payload, offsets = self.arrays[1]
        at = offsets[position]
        first, last = payload[at : at + 16].view("<i8")
        base = self.number * self.feature_set.layout.shard_slots
        return int(first - base), int(last - base)

    def image_row(self, position: int, array: int) -> np.ndarray:
        """An image's bytes in one array of the set."""
        payload, offsets = self.arrays[array]
        at = offsets[position]
        size = self.feature_set.layout.arrays[array].chunk_bytes
        # An absent chunk of a row that the record calls done must not read as somebody else's bytes.
        return payload[at : at + size] if at >= 0 else payload[:0]

    def text_row(self, position: int) -> np.ndarray:
        """A report's bytes. The filled chunks stand back to back, so a report is one stretch."""
        first, last = self.bounds(position)
        width = self.feature_set.dim * 2
        return self.arrays[0][0][first * width : last * width] if 0 <= first <= last else self.arrays[0][0][:0]

    def check(self, position: int, parts: list[tuple[np.ndarray, int]]) -> None:
        """Compare the checksums of a row when it is read for the first time."""
        if self.verified[position]:
            return
        for data, expected in parts:
            if crc32c(data) != expected:
                raise DamageError(
                    f"item {self.record['items'][position]}: its row in feature set {self.feature_set.name} fails its "
                    f"checksum (stored {expected:08x}, found {crc32c(data):08x}). Delete "
                    f"commits/{self.number:06d}.json of the set and run the same `radfs extract` again."
                )
        self.verified[position] = True


def _map(path: Path, expected: int, where: str) -> np.ndarray:
    """The file's bytes, mapped. The size comes first: touching a page beyond the end would kill the process."""
    try:
        with path.open("rb") as file:
            found = path.stat().st_size
            if found == expected:
                return np.frombuffer(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ), dtype=np.uint8)
    except FileNotFoundError:
        found = 0
    raise DamageError(
        f"{where}: the commit record promises {expected} bytes, found {found}. Delete the record of this shard under "
        "commits/ and run the same `radfs extract` again."
    )


class Features:
    """The tokens of one feature set, by item id. Made by `open_features`."""

    def __init__(self, feature_set: FeatureSet, status: pl.DataFrame) -> None:
        self.feature_set = feature_set
        self._state = dict(zip(status["item"], status["state"], strict=True))
        done = status.filter(pl.col("state") == "done")
        self._place = dict(zip(done["item"], zip(done["shard"], done["row"], done["tokens"], strict=True), strict=True))
        self._content = dict(zip(done["item"], done["content"], strict=True))
        self._shards: dict[int, _Shard] = {}

    @property
    def name(self) -> str:
        """`encoder@key`."""
        return self.feature_set.name

    @property
    def modality(self) -> str:
        """image or text."""
        return self.feature_set.modality

    @property
    def dim(self) -> int:
        """Width of a token."""
        return self.feature_set.dim

    def has(self, items: Sequence[str]) -> np.ndarray:
        """bool [b]: tokens are committed, and of what the item is now."""
        return np.array([item in self._place for item in items], dtype=bool)

    def failed(self, items: Sequence[str]) -> np.ndarray:
        """bool [b]: extraction tried the item as it is now and recorded a failure."""
        return np.array([self._state.get(item) == "failed" for item in items], dtype=bool)

    def content(self, items: Sequence[str]) -> list[str | None]:
        """The sha256 of the image or report that each item's tokens were made from; None where there are none."""
        return [self._content.get(item) for item in items]

    def image_tokens(self, items: Sequence[str], out: np.ndarray | None = None) -> np.ndarray:
        """Patch tokens: float16 [b, n, d], in the order of `items`, into `out` if given.

        Raises:
            DataError: an item has no tokens here; names them.
            DamageError: bytes are gone or differ from what was committed; names the item.
        """
        layout = self.feature_set.layout
        return self._image_rows(items, 0, (layout.tokens, layout.dim), out)

    def cls_tokens(self, items: Sequence[str], out: np.ndarray | None = None) -> np.ndarray:
        """Class tokens: float16 [b, d]. Raises as `image_tokens`, and DataError where the encoder has none."""
        if not self.feature_set.layout.has_cls:
            raise DataError(f"feature set {self.name} has no class token: its encoder gives patch tokens alone.")
        return self._image_rows(items, 1, (self.dim,), out)

    def text_tokens(self, items: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
        """Text tokens without padding: flat float16 [total, d] and offsets int64 [b + 1].

        Report i is `flat[offsets[i]:offsets[i + 1]]`. Raises as `image_tokens`.
        """
        places = self._places(items, "text")
        lengths = np.array([n for _, _, n in places], dtype=np.int64)
        offsets = np.concatenate([[0], np.cumsum(lengths)])
        flat = np.empty((int(offsets[-1]), self.dim), dtype=np.float16)
        for i, (number, row, _) in enumerate(places):
            shard, position = self._locate(number, row)
            data = shard.text_row(position)
            shard.check(position, [(data, shard.record["crc32c"][position])])
            flat[offsets[i] : offsets[i + 1]] = data.view(np.float16).reshape(-1, self.dim)
        return flat, offsets

    def _image_rows(
        self, items: Sequence[str], array: int, shape: tuple[int, ...], out: np.ndarray | None
    ) -> np.ndarray:
        places = self._places(items, "image")
        rows = np.empty((len(places), *shape), dtype=np.float16) if out is None else out
        if rows.shape != (len(places), *shape) or rows.dtype != np.float16:
            raise DataError(f"out is {rows.dtype} {rows.shape}; it must be float16 {(len(places), *shape)}.")
        for i, (number, row, _) in enumerate(places):
            shard, position = self._locate(number, row)
            if not shard.verified[position]:
                keys = ["crc32c", "cls_crc32c"][: len(self.feature_set.layout.arrays)]
                shard.check(
                    position, [(shard.image_row(position, a), shard.record[k][position]) for a, k in enumerate(keys)]
                )
            rows[i] = shard.image_row(position, array).view(np.float16).reshape(shape)
        return rows

    def _places(self, items: Sequence[str], modality: str) -> list[tuple[int, int, int]]:
        if self.modality != modality:
            raise DataError(f"feature set {self.name} holds {self.modality} tokens, not {modality} tokens.")
        missing = [item for item in items if item not in self._place]
        if missing:
            more = f" and {len(missing) - 3} more" if len(missing) > 3 else ""
            raise DataError(
                f"feature set {self.name} has no tokens of {', '.join(missing[:3])}{more}. "
                f"Run `radfs extract --backbone {self.feature_set.encoder}`."
            )
        return [self._place[item] for item in items]

    def _locate(self, number: int, row: int) -> tuple[_Shard, int]:
        if number not in self._shards:
            self._shards[number] = _Shard(self.feature_set, number)
        return self._shards[number], row - number * self.feature_set.layout.shard_rows


def open_features(store: Store, feature_set: str, *, only: Sequence[str] | None = None) -> Features:
    """Open a feature set for reading, by its name `encoder@key`; of items `only`, where only those will be read.

    Only items that the store knows, as they are now, can be read: tokens of a report that has since been corrected,
    or of an image file with other bytes, are missing until they are extracted again.
    """
    opened = open_feature_set(store, feature_set)
    items = list_items(store, modality=opened.modality)
    if only is not None:  # what is not looked at is not compared with its source, which costs a look at each file
        items = items.filter(pl.col("item").is_in(list(only)))
    return Features(opened, opened.status(items))
