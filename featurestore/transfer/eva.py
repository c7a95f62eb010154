"""Foreign embeddings as kaiko-eva writes them: a manifest.csv, and a `.pt` file for each item below its folder.

The manifest's column `origin` holds the name of the image, `embeddings` the path of the file; what else stands there
(`target`, `split`, ...) is not read. A `.pt` file holds a tensor [d] or [n, d], or a list of such, whose tokens are
taken one after the other. The one reader that needs torch, which it loads when it runs.
"""

import csv
import io
import zipfile
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ..errors import DataError
from .foreign import Choice, Foreign, check_size, from_items, pick

if TYPE_CHECKING:
    import torch

_PICKLE_BYTES = 2**24
"""Longest description of a file's tensors; that of one tensor has some hundred bytes."""

Shape = tuple[int, int]


def open_manifest(source: Path, choice: Choice, stack: ExitStack) -> Foreign:
    """The files that a manifest lists, opened one by one."""
    ids, names = _rows(source, choice)
    files = [_below(source, name, item) for name, item in zip(names, ids, strict=True)]
    shapes = [_shape(file, f"{source.name}, item {item}") for file, item in zip(files, ids, strict=True)]
    return from_items(source.name, ids, shapes, _loader(source.name, ids, files, shapes))


def _rows(source: Path, choice: Choice) -> tuple[list[str], list[str]]:
    """Ids and paths, as the manifest writes them."""
    try:
        reader = csv.DictReader(io.StringIO(source.read_bytes().decode("utf-8-sig"), newline=""), strict=True)
        columns = list(reader.fieldnames or ())
        ids_key = pick(source.name, columns, choice.ids_key, ("origin",), "--ids-key")
        tokens_key = pick(source.name, columns, choice.tokens_key, ("embeddings",), "--tokens-key")
        if ids_key is None or tokens_key is None:
            raise DataError(
                f"{source.name} has the columns {', '.join(columns[:30])}; a manifest has `origin` and `embeddings`. "
                "Name others with --ids-key and --tokens-key."
            )
        rows = [(row[ids_key], row[tokens_key]) for row in reader]
    except (csv.Error, UnicodeDecodeError) as error:
        raise DataError(f"{source.name} cannot be read as CSV ({type(error).__name__}).") from error
    for number, row in enumerate(rows, start=1):
        if not all(row):
            raise DataError(f"{source.name}: row {number:,} lacks its {ids_key} or its {tokens_key}.")
    return [item for item, _ in rows], [name for _, name in rows]


def _below(source: Path, name: str, item: str) -> Path:
    """The file of an item; refused where it lies outside of the manifest's folder, by a link too."""
    folder = source.parent.resolve()
    try:
        path = (folder / name).resolve()
        there = path.is_file()
    except (OSError, ValueError, RuntimeError):  # a name that no file system takes, or a ring of links
        path, there = folder / "unusable", False
    if not path.is_relative_to(folder):
        raise DataError(f"{source.name}, item {item}: its file is not below the manifest's folder, so it is not read.")
    if not there:
        raise DataError(f"{source.name}, item {item}: its file is missing. Copy it, or take its row off the manifest.")
    return path


def _loader(source: str, ids: list[str], files: list[Path], shapes: list[Shape]) -> Callable[[int], np.ndarray]:
    def load(index: int) -> np.ndarray:
        where = f"{source}, item {ids[index]}"
        import torch

        tensors = _load(files[index], where, "cpu")
        if _total(where, tensors) != shapes[index]:
            raise DataError(f"{where}: its file changed while it was imported. Import again.")
        rows = [t.detach().reshape(-1, t.shape[-1]) for t in tensors]
        joined = torch.cat(rows)
        # numpy knows no bfloat16; float32 holds its values exactly.
        return (joined.float() if joined.dtype == torch.bfloat16 else joined).numpy()

    return load


def _shape(path: Path, where: str) -> Shape:
    """The shape of an item, [n, d], from the file's description alone: no value is read, nothing is allocated."""
    size = path.stat().st_size
    _check_archive(path, where, size)
    tensors = _load(path, where, "meta")
    for tensor in tensors:
        check_size(where, tensor.shape, np.dtype(f"V{tensor.element_size()}"), most=size)
        if tensor.untyped_storage().nbytes() > size:
            raise DataError(f"{where}: its file claims more values than it holds: it is damaged, or made to do harm.")
    return _total(where, tensors)


def _total(where: str, tensors: "list[torch.Tensor]") -> Shape:
    widths = {t.shape[-1] for t in tensors if t.ndim in (1, 2)}
    if len(widths) != 1 or any(t.ndim not in (1, 2) for t in tensors):
        shapes = ", ".join(str(list(t.shape)) for t in tensors[:3])
        raise DataError(f"{where}: its file holds {shapes or 'nothing'}; known: [dim] and [tokens, dim].")
    return sum(t.shape[0] if t.ndim == 2 else 1 for t in tensors), widths.pop()


def _check_archive(path: Path, where: str, size: int) -> None:
    """torch stores without compression: what unpacks to more than the file holds is no file of torch's."""
    try:
        with zipfile.ZipFile(path) as archive:
            entries = archive.infolist()
    except (zipfile.BadZipFile, OSError, ValueError, RuntimeError) as error:
        raise DataError(f"{where}: its file was not made by torch.save of torch 1.6 or newer.") from error
    pickles = sum(e.file_size for e in entries if e.filename.endswith(".pkl"))
    if sum(e.file_size for e in entries) > size or pickles > _PICKLE_BYTES:
        raise DataError(f"{where}: its file claims more bytes than it holds: it is damaged, or made to do harm.")


def _load(path: Path, where: str, device: str) -> "list[torch.Tensor]":
    import torch

    try:
        loaded = torch.load(path, map_location=device, weights_only=True)
    except Exception as error:
        # What torch refuses to run, and what damage makes of a pickle, comes as any class of error.
        raise DataError(
            f"{where}: its file holds more than plain tensors, or is damaged ({type(error).__name__}). Save the tensor "
            "alone, with torch.save."
        ) from error
    tensors = list(loaded) if isinstance(loaded, list | tuple) else [loaded]
    for tensor in tensors:
        plain = isinstance(tensor, torch.Tensor) and tensor.layout == torch.strided
        if not plain or tensor.dtype not in (torch.float16, torch.bfloat16, torch.float32, torch.float64):
            raise DataError(f"{where}: its file holds no tensor of floats, nor a list of such.")
    return tensors
