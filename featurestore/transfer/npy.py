"""Arrays in numpy's format, mapped or read; their headers are parsed before anything is believed of them."""

import io
from pathlib import Path
from typing import BinaryIO

import numpy as np

from ..errors import DataError
from .foreign import check_size

_NPY_HEADER = 10_000
"""Longest header of an `.npy` that is parsed; numpy's own bound."""


def load_npy(path: Path) -> np.ndarray:
    """A small array, such as ids or offsets, in memory. Objects are refused."""
    return np.array(map_npy(path))


def map_npy(path: Path) -> np.ndarray:
    """An array, mapped."""
    with path.open("rb") as file:
        shape, fortran, dtype, start = npy_header(path.name, file)
    size = path.stat().st_size - start
    if check_size(path.name, shape, dtype, most=size) == 0:
        return np.empty(shape, dtype)
    return np.memmap(path, dtype, "r", start, shape, order="F" if fortran else "C")


def npy_header(source: str, file: BinaryIO) -> tuple[tuple[int, ...], bool, np.dtype, int]:
    """(shape, whether columns come first, dtype, where the data begins) of an array in numpy's format."""
    prefix = file.read(12)
    size = 10 if prefix[6:7] == b"\x01" else 12
    length = int.from_bytes(prefix[8:size], "little")
    if len(prefix) < 12 or prefix[:6] != b"\x93NUMPY" or prefix[6] not in (1, 2) or length > _NPY_HEADER:
        raise DataError(f"{source} is no array in numpy's format 1.0 or 2.0.")
    head = io.BytesIO(prefix + file.read(size + length - len(prefix)))
    try:
        version = np.lib.format.read_magic(head)
        read = np.lib.format.read_array_header_1_0 if version[0] == 1 else np.lib.format.read_array_header_2_0
        shape, fortran, dtype = read(head)
    except Exception as error:  # the header is a Python literal, and what its parser raises is of any class
        raise DataError(f"{source}: the header of the array cannot be read ({type(error).__name__}).") from error
    if dtype.hasobject:
        raise DataError(f"{source} holds Python objects, which are pickles and could run code: save plain arrays.")
    return shape, fortran, dtype, size + length
