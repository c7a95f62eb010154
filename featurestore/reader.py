"""Reading tokens by item id, straight from the shard files: numpy only, no torch, no zarr.

Nothing is read that no commit record vouches for: a missing Zarr chunk would read without an error. The checksum of
each row is compared when it is read for the first time. Rows come back in the order in which they are asked for. For
sets beyond memory see `stream`.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl

from . import memory
from .errors import DataError
from .featureset import FeatureSet, open_feature_set
from .gather import DEFAULT_THREADS, Gatherer
from .items import list_items
from .store import Store


@dataclass(frozen=True)
class Places:
    """Where rows lie: int64 [b] each. Made by `Features.locate`; rows can be read by it again and again.

    Attributes:
        rows: number of the row in the set's arrays.
        tokens: tokens of the row.
    """

    rows: np.ndarray
    tokens: np.ndarray

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: np.ndarray | slice) -> "Places":
        return Places(self.rows[index], self.tokens[index])


class Features:
    """The tokens of one view of one feature set, by item id. Made by `open_features`. May be shared by threads."""

    def __init__(
        self,
        feature_set: FeatureSet,
        status: pl.DataFrame,
        *,
        view: int = 0,
        check: bool = True,
        threads: int = DEFAULT_THREADS,
    ) -> None:
        self.feature_set = feature_set
        self.view = view
        done = status.filter(pl.col("state") == "done").sort("item")
        self._ids = done["item"]
        self._content = done["content"]
        self._failed = set(status.filter(pl.col("state") == "failed")["item"])
        self._all = Places(done["row"].to_numpy(), done["tokens"].to_numpy().astype(np.int64))
        self._index = {item: i for i, item in enumerate(self._ids)}
        self._gatherer = Gatherer(feature_set, view, done, check=check, threads=threads)

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

    @property
    def dtype(self) -> np.dtype:
        """Of what is read: float16, or float32 where the set is kept as bfloat16 or float32."""
        return np.dtype(self.feature_set.layout.codec.reads_as)

    @property
    def items(self) -> list[str]:
        """The ids that can be read, in the order of ids."""
        return self._ids.to_list()

    def has(self, items: Sequence[str]) -> np.ndarray:
        """bool [b]: tokens are committed, and of what the item is now."""
        return np.array([item in self._index for item in items], dtype=bool)

    def failed(self, items: Sequence[str]) -> np.ndarray:
        """bool [b]: extraction tried the item as it is now and recorded a failure."""
        return np.array([item in self._failed for item in items], dtype=bool)

    def content(self, items: Sequence[str]) -> list[str | None]:
        """The sha256 of the image or report that each item's tokens were made from; None where there are none."""
        places = [self._index.get(item) for item in items]
        return [None if place is None else self._content[place] for place in places]

    def locate(self, items: Sequence[str]) -> Places:
        """Where the rows of these items lie, in the order asked for.

        Raises:
            DataError: an item has no tokens here; names the first ones and how many.
        """
        found = [self._index.get(item, -1) for item in items]
        missing = [item for item, place in zip(items, found, strict=True) if place < 0]
        if missing:
            more = f" and {len(missing) - 3} more" if len(missing) > 3 else ""
            view = f" in view {self.view}" if self.view else ""
            raise DataError(
                f"feature set {self.name} has no tokens of {', '.join(missing[:3])}{more}{view}. "
                f"{self.feature_set.how_to_fill()}"
            )
        return self._all[np.array(found, dtype=np.int64)]

    def image_tokens(
        self, items: Sequence[str] | Places, out: np.ndarray | None = None, *, threads: int | None = None
    ) -> np.ndarray:
        """Patch tokens: `dtype` [b, n, d], in the order of `items`, into `out` if given.

        Args:
            items: ids, or their places.
            out: `dtype` [b, n, d] to fill.
            threads: that share the work, where it should be others than the set was opened with.

        Raises:
            DataError: an item has no tokens here, or the array does not fit into memory.
            DamageError: bytes are gone or differ from what was committed; names the item.
        """
        layout = self.feature_set.layout
        return self._dense(items, "tokens", (layout.tokens, layout.dim), out, threads)

    def cls_tokens(self, items: Sequence[str] | Places, out: np.ndarray | None = None) -> np.ndarray:
        """Class tokens: `dtype` [b, d]. Raises as `image_tokens`, and DataError where the encoder has none."""
        if not self.feature_set.layout.has_cls:
            raise DataError(f"feature set {self.name} has no class token: its encoder gives patch tokens alone.")
        return self._dense(items, "cls", (self.dim,), out, None)

    def text_tokens(
        self, items: Sequence[str] | Places, out: np.ndarray | None = None, *, threads: int | None = None
    ) -> tuple[np.ndarray, np.ndarray]:
        """Text tokens without padding: flat `dtype` [total, d] and offsets int64 [b + 1].

        Report i is `flat[offsets[i]:offsets[i + 1]]`. Raises as `image_tokens`.

        Args:
            items: ids, or their places.
            out: `dtype` [at least total, d] to fill; the flat array given back is the filled part of it.
            threads: as of `image_tokens`.
        """
        self._refuse_modality("text")
        places = self._places(items)
        offsets = np.concatenate([[0], np.cumsum(places.tokens)])
        flat = self._buffer((int(offsets[-1]), self.dim), out, at_least=True)
        self._gather("tokens", places.rows, places.tokens, flat, threads)
        return flat, offsets

    def will_need(self, items: Sequence[str] | Places) -> None:
        """Let the system fetch the tokens of these items while we do something else. Only speed changes."""
        places = self._places(items)
        self._gatherer.expect("tokens", places.rows, places.tokens)

    def _dense(
        self,
        items: Sequence[str] | Places,
        base: str,
        shape: tuple[int, ...],
        out: np.ndarray | None,
        threads: int | None,
    ) -> np.ndarray:
        self._refuse_modality("image")
        places = self._places(items)
        rows = self._buffer((len(places), *shape), out)
        tokens = places.tokens if base == "tokens" else np.ones_like(places.tokens)
        self._gather(base, places.rows, tokens, rows, threads)
        return rows

    def _gather(self, base: str, rows: np.ndarray, tokens: np.ndarray, out: np.ndarray, threads: int | None) -> None:
        whole = out if out.flags.c_contiguous else np.empty(out.shape, out.dtype)
        self._gatherer.gather(base, rows, tokens, whole.reshape(-1, self.dim), threads)
        if whole is not out:
            np.copyto(out, whole)

    def _places(self, items: Sequence[str] | Places) -> Places:
        return items if isinstance(items, Places) else self.locate(items)

    def _buffer(self, shape: tuple[int, ...], out: np.ndarray | None, *, at_least: bool = False) -> np.ndarray:
        if out is None:
            nbytes = int(np.prod(shape, dtype=np.int64)) * self.dtype.itemsize
            what = f"reading {shape[0]:,} rows of feature set {self.name} into memory"
            memory.require(nbytes, what, "Read it in minibatches (featurestore.stream_features).")
            return np.empty(shape, dtype=self.dtype)
        fits = out.shape[:1] >= shape[:1] if at_least else out.shape[:1] == shape[:1]
        if out.shape[1:] != shape[1:] or not fits or out.dtype != self.dtype or not out.flags.writeable:
            kind = "" if out.flags.writeable else "read-only "
            raise DataError(f"out is {kind}{out.dtype} {out.shape}; it must be {self.dtype} {shape}.")
        return out[: shape[0]] if at_least else out

    def _refuse_modality(self, modality: str) -> None:
        if self.modality != modality:
            raise DataError(f"feature set {self.name} holds {self.modality} tokens, not {modality} tokens.")


def open_features(
    store: Store,
    feature_set: str,
    *,
    view: int = 0,
    only: Sequence[str] | None = None,
    check: bool = True,
    threads: int = DEFAULT_THREADS,
) -> Features:
    """Open a feature set for reading, by its name `encoder@key`.

    Only items that the store knows, as they are now, can be read: tokens of a report that has since been corrected,
    or of an image file with other bytes, are missing until they are extracted again.

    Args:
        store: an open store.
        feature_set: its name.
        view: 0 is the clean one.
        only: ids, where only those will be read: what is not looked at is not compared with its source.
        check: compare the checksum of each row when it is first read.
        threads: that share the work of reading many rows.
    """
    opened = open_feature_set(store, feature_set)
    items = list_items(store, modality=opened.modality, only=only)
    return Features(opened, opened.status(items, view), view=view, check=check, threads=threads)
