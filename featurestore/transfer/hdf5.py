"""Foreign embeddings as HDF5: a dataset `embeddings` with `ids`, or one dataset an item. Needs h5py.

WARN: the library itself can loop or crash on some damaged files, which nothing outside it can help. The store takes no
harm: nothing is written before a source is open, and shards are committed whole.
"""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import DataError
from .foreign import (
    ID_KEYS,
    MAX_ITEM_BYTES,
    TOKEN_KEYS,
    Choice,
    Foreign,
    check_floats,
    check_size,
    from_array,
    from_items,
    pick,
)
from .ids import ids_beside, ids_of

if TYPE_CHECKING:
    import h5py

_BLOCK_BYTES = 32 * 2**20


def open_hdf5(source: Path, choice: Choice, stack: ExitStack) -> Foreign:
    """Datasets `embeddings`, `ids` and perhaps `offsets`, or one dataset an item, named by its id."""
    try:
        import h5py
    except ImportError as error:
        raise DataError(f"{source.name}: reading HDF5 needs h5py. Install it: pip install h5py") from error
    with _damage_named(source.name):
        return _open(source, stack.enter_context(h5py.File(source, "r")), choice)


def _open(source: Path, file: "h5py.File", choice: Choice) -> Foreign:
    datasets = _datasets(file)
    name = pick(source.name, list(datasets), choice.tokens_key, TOKEN_KEYS, "--tokens-key")
    if name is None:
        for item, dataset in datasets.items():
            _check_dataset(f"{source.name}, {item}", dataset)
            check_size(f"{source.name}, {item}", dataset.shape, dataset.dtype)
        arrays = list(datasets.values())
        shapes = [dataset.shape for dataset in arrays]
        return from_items(source.name, list(datasets), shapes, lambda i: _read(source.name, arrays[i], ()))
    _check_dataset(f"{source.name}, {name}", datasets[name])
    return from_array(
        source.name,
        _ids(source, choice, datasets),
        datasets[name].shape,
        datasets[name].dtype,
        _in_blocks(source.name, datasets[name]),
        offsets=_whole(source.name, datasets["offsets"]) if "offsets" in datasets else None,
    )


def _datasets(file: "h5py.File") -> "dict[str, h5py.Dataset]":
    """The datasets by name. Links to other places and other files are not followed."""
    import h5py

    found: dict[str, h5py.Dataset] = {}

    def visit(name: str, node: Any) -> None:
        if isinstance(node, h5py.Dataset):
            found[name] = node

    file.visititems(visit)
    return found


def _check_dataset(source: str, dataset: "h5py.Dataset") -> None:
    """Refuse what reads other files, and what reads as zeros because nobody wrote it."""
    if dataset.external or dataset.is_virtual:
        raise DataError(f"{source} takes its data from other files; give one that holds them itself.")
    check_floats(source, dataset.dtype)
    if dataset.chunks is None:
        held = dataset.id.get_storage_size()
        whole = held >= check_size(source, dataset.shape, dataset.dtype, most=max(held, 0))
    else:
        check_size(source, dataset.chunks, dataset.dtype)
        chunks = 1
        for length, step in zip(dataset.shape, dataset.chunks, strict=True):
            chunks *= -(-length // step)
        whole = dataset.id.get_num_chunks() == chunks
    if not whole:
        raise DataError(f"{source}: part of {list(dataset.shape)} was never written and would read as zeros.")


def _in_blocks(source: str, dataset: "h5py.Dataset") -> Callable[[int, int], np.ndarray]:
    """Rows of a dataset, read in blocks of whole chunks: else each row would cost the unpacking of its chunk."""
    row_bytes = max(1, check_size(source, dataset.shape[1:], dataset.dtype))
    step = dataset.chunks[0] if dataset.chunks else 1
    if step * row_bytes > MAX_ITEM_BYTES:
        step = 1
    rows = max(1, _BLOCK_BYTES // row_bytes // step) * step
    first, block = 0, np.empty((0, *dataset.shape[1:]), dataset.dtype)

    def take(start: int, stop: int) -> np.ndarray:
        nonlocal first, block
        if not (first <= start and stop <= first + len(block)):
            first = start - start % step
            block = _read(source, dataset, np.s_[first : max(stop, first + rows)])
        return block[start - first : stop - first]

    return take


def _ids(source: Path, choice: Choice, datasets: "dict[str, h5py.Dataset]") -> list[str]:
    name = pick(source.name, list(datasets), choice.ids_key, ID_KEYS, "--ids-key")
    if choice.ids is not None or name is None:
        return ids_beside(source, choice)
    dataset = datasets[name]
    if dataset.dtype.kind != "O":
        return ids_of(source.name, _whole(source.name, dataset))
    import h5py

    if h5py.check_string_dtype(dataset.dtype) is None:
        raise DataError(f"{source.name}: {name} holds no texts.")
    return ids_of(source.name, np.array(_whole(source.name, dataset).tolist(), dtype=np.bytes_))


def _whole(source: str, dataset: "h5py.Dataset") -> np.ndarray:
    """A small dataset, such as ids or offsets."""
    if dataset.external or dataset.is_virtual:
        raise DataError(f"{source} takes its data from other files; give one that holds them itself.")
    check_size(source, dataset.shape, dataset.dtype, most=dataset.file.id.get_filesize())
    return _read(source, dataset, ())


def _read(source: str, dataset: "h5py.Dataset", rows: Any) -> np.ndarray:
    with _damage_named(source):
        return np.asarray(dataset[rows])


@contextmanager
def _damage_named(source: str) -> Iterator[None]:
    try:
        yield
    except (OSError, RuntimeError, ValueError, KeyError, TypeError) as error:
        raise DataError(f"{source} is no HDF5 file, or is damaged ({type(error).__name__}).") from error
