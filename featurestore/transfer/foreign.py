"""Embeddings made elsewhere, opened for reading item by item. Knows files, not stores.

A file from outside is not trusted. No code of it runs (`allow_pickle=False`, `weights_only=True`), nothing outside of
it is read (no links, no paths that leave a manifest's folder), and what its headers claim is held against its size
before anything is allocated.

Three shapes are read: [N, d] (one vector an item), [N, n, d] (n tokens an item), and items of their own, [n, d] or [d]
each. Reports differ in length, so theirs come one array an item, or back to back as [total, d] with an array
`offsets` of N + 1 bounds (in a file of its own beside an `.npy`).
"""

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import DataError, ItemError

READERS = {
    ".npy": "arrays:open_npy",
    ".npz": "arrays:open_npz",
    ".safetensors": "arrays:open_safetensors",
    ".h5": "hdf5:open_hdf5",
    ".hdf5": "hdf5:open_hdf5",
    ".parquet": "parquet:open_parquet",
    ".csv": "eva:open_manifest",
}
"""Readers by the ending of the source's name. A folder is read by its manifest.csv, or as Parquet files."""

MAX_ITEM_BYTES = 2**30
"""More than any encoder gives of one item; what claims more is no embedding, or an attack on the memory."""

TOKEN_KEYS = ("embeddings", "embedding", "tokens", "features")
ID_KEYS = ("ids", "id", "items", "item")
_MAX_TAGS = 2**20


@dataclass(frozen=True)
class Choice:
    """What the user said about a source: the file of ids, and names within a container that holds several arrays."""

    ids: Path | None = None
    tokens_key: str | None = None
    ids_key: str | None = None


@dataclass
class Foreign:
    """An open source. Reading is cheap in ascending order; a format that is a stream reads anew on a step back.

    Attributes:
        ids: of the items, as the source writes them; no two are the same.
        lengths: int64 [N], tokens of each item; 0 where the source has none.
        dim: width of a token.
        load: the array of one item, by its place.
        dense: items are rows of one array [N, n, d]: reports must have been padded to stand in it.
        tags: what an export of radfs wrote into the source: `licence` and `credentialed`.
    """

    ids: list[str]
    lengths: np.ndarray
    dim: int
    load: Callable[[int], np.ndarray]
    dense: bool = False
    tags: dict[str, Any] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.ids)

    def read(self, index: int) -> np.ndarray:
        """The tokens of item `index`: floats [n, d]; values may be other than finite.

        Raises:
            ItemError: the source has no embedding of it.
        """
        if not self.lengths[index]:
            raise ItemError("the source has no embedding of the item")
        return np.asarray(self.load(index)).reshape(int(self.lengths[index]), self.dim)


@contextmanager
def open_foreign(source: Path, choice: Choice | None = None) -> Iterator[Foreign]:
    """Open embeddings made elsewhere.

    Raises:
        DataError: there is no such file, its kind is unknown, it is damaged, its ids do not fit its rows or repeat,
            widths differ, or it asks for what a file from outside is not granted.
    """
    kind = source.suffix.lower()
    if source.is_dir():
        kind = ".csv" if (source / "manifest.csv").is_file() else ".parquet"
        source = source / "manifest.csv" if kind == ".csv" else source
    elif not source.is_file():
        raise DataError(f"there is no file {source}. Give the embeddings' file, or a folder that holds them.")
    if kind not in READERS:
        hint = " A .pt file is read through the manifest.csv that lists it." if kind in (".pt", ".pth") else ""
        raise DataError(f"{source.name}: embeddings come as {', '.join(READERS)} or as a folder of those.{hint}")
    module, _, function = READERS[kind].partition(":")
    reader: Callable[[Path, Choice, ExitStack], Foreign] = getattr(import_module(f".{module}", __package__), function)
    with ExitStack() as stack:
        yield reader(source, choice or Choice(), stack)


def from_array(
    source: str,
    ids: Sequence[str],
    shape: Sequence[int],
    dtype: np.dtype,
    take: Callable[[int, int], np.ndarray],
    *,
    offsets: np.ndarray | None = None,
    tags: dict[str, Any] | None = None,
) -> Foreign:
    """Items that are rows of one array.

    Args:
        source: the file's name, for errors.
        ids: of the items, in the order of rows.
        shape: [N, d], [N, n, d], or with `offsets` [total, d].
        dtype: of the array.
        take: the rows from one number to before another.
        offsets: int64 [N + 1], the bounds of the items' tokens.
        tags: as in `Foreign`.
    """
    check_floats(source, dtype)
    if len(shape) not in (2, 3) or not all(shape[1:]) or (offsets is not None and len(shape) != 2):
        raise DataError(
            f"{source}: the embeddings have the shape {list(shape)}. Known: [items, dim], [items, tokens, dim], and "
            "[all tokens, dim] with an array `offsets`."
        )
    if offsets is None:
        bounds = np.arange(shape[0] + 1, dtype=np.int64)
        lengths = np.full(shape[0], shape[1] if len(shape) == 3 else 1, dtype=np.int64)
    else:
        bounds = check_offsets(source, offsets, int(shape[0]))
        lengths = np.diff(bounds)
    check_ids(source, ids, len(lengths))
    for n in np.unique(lengths).tolist():
        check_size(source, (n, shape[-1]), dtype)

    def load(index: int) -> np.ndarray:
        return take(int(bounds[index]), int(bounds[index + 1]))

    return Foreign(list(ids), lengths, int(shape[-1]), load, dense=len(shape) == 3, tags=tags or {})


def from_items(
    source: str,
    ids: Sequence[str],
    shapes: Sequence[Sequence[int] | None],
    load: Callable[[int], np.ndarray],
    *,
    tags: dict[str, Any] | None = None,
) -> Foreign:
    """Items that have an array each.

    Args:
        source: the file's name, for errors.
        ids: of the items.
        shapes: [d] or [n, d] of each item; None where there is no embedding of it.
        load: the array of one item, by its place.
        tags: as in `Foreign`.
    """
    check_ids(source, ids, len(shapes))
    lengths = np.zeros(len(shapes), dtype=np.int64)
    dim, first = 0, ""
    for i, shape in enumerate(shapes):
        if shape is None:
            continue
        if len(shape) not in (1, 2) or not shape[-1]:
            raise DataError(f"{source}: item {ids[i]} has the shape {list(shape)}; known: [dim] and [tokens, dim].")
        if dim and shape[-1] != dim:
            raise DataError(
                f"{source}: item {ids[i]} is {shape[-1]} wide and {first} {dim}: one encoder's tokens have one width."
            )
        if not dim:
            dim, first = int(shape[-1]), ids[i]
        lengths[i] = shape[0] if len(shape) == 2 else 1
    return Foreign(list(ids), lengths, dim, load, tags=tags or {})


def check_ids(source: str, ids: Sequence[str], rows: int) -> None:
    """Refuse ids that are not one a row, or repeat."""
    if len(ids) != rows:
        raise DataError(f"{source}: {len(ids):,} ids for {rows:,} items. Give one id for each, in the same order.")
    if not rows:
        raise DataError(f"{source}: there is no embedding in it.")
    seen: set[str] = set()
    for i, item in enumerate(ids):
        if item in seen:
            raise DataError(
                f"{source}: id {item!r} stands more than once, again as number {i + 1:,}. Keep one of them."
            )
        seen.add(item)


def check_offsets(source: str, offsets: np.ndarray, total: int) -> np.ndarray:
    """Bounds of ragged items, checked: int64 [N + 1]."""
    if offsets.ndim != 1 or offsets.dtype.kind not in "iu" or not len(offsets):
        raise DataError(
            f"{source}: `offsets` is {offsets.dtype} {list(offsets.shape)}; it must be whole numbers [N + 1]."
        )
    bounds = offsets.astype(np.int64)
    if bounds[0] != 0 or bounds[-1] != total or (np.diff(bounds) < 0).any():
        raise DataError(f"{source}: `offsets` must rise from 0 to the {total:,} tokens of the embeddings.")
    return bounds


def check_floats(source: str, dtype: np.dtype) -> None:
    """Refuse what is not float16, float32 or float64: objects would be pickles, whole numbers are no embeddings."""
    if dtype.kind != "f" or dtype.itemsize > 8:
        raise DataError(f"{source}: the embeddings are {dtype}; they must be float16, float32 or float64.")


def check_size(source: str, shape: Sequence[int], dtype: np.dtype, *, most: int = MAX_ITEM_BYTES) -> int:
    """The bytes of an array of this shape; refused where they are more than `most`."""
    size = dtype.itemsize
    for length in shape:
        size *= int(length)
    if size > most or any(length < 0 for length in shape):
        raise DataError(
            f"{source}: an array of shape {list(shape)} would take {size:,} bytes, and there are at most {most:,}: "
            "the file is damaged, or made to do harm."
        )
    return size


def pick(source: str, names: Sequence[str], asked: str | None, known: Sequence[str], option: str) -> str | None:
    """The name among `names` that the user asked for, else the one that is in `known`; None where there is none."""
    found = [name for name in known if name in names] if asked is None else [asked]
    if asked is not None and asked not in names:
        raise DataError(f"{source} has no {asked!r}; it has {', '.join(list(names)[:30])}. Mend {option}.")
    if len(found) > 1:
        raise DataError(f"{source} has {' and '.join(found)}: say with {option} which one is meant.")
    return found[0] if found else None


def widen_bfloat16(bits: np.ndarray) -> np.ndarray:
    """bfloat16, given as its bits (uint16), as float32, which holds it exactly."""
    return (bits.astype(np.uint32) << np.uint32(16)).view(np.float32)


def parse_tags(document: bytes | str | None) -> dict[str, Any]:
    """The licences in the JSON that an export of radfs leaves with its files; nothing where it is somebody else's."""
    if document is None or len(document) > _MAX_TAGS:
        return {}
    try:
        found = json.loads(document)
    except ValueError:
        return {}
    if not isinstance(found, dict) or "radfs_export" not in found:
        return {}
    licences = found.get("data_licences")
    data = ", ".join(f"{k}: {v}" for k, v in licences.items()) if isinstance(licences, dict) else "not stated"
    licence = f"{found.get('licence') or 'not stated'}; data of {data}"
    return {"credentialed": found.get("credentialed") is not False, "licence": licence}
