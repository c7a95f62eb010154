"""Which item each row of foreign embeddings is: ids in the container, or in a file beside it."""

import io
from pathlib import Path

import numpy as np

from ..errors import DataError
from .foreign import ID_KEYS, Choice, pick
from .npy import load_npy


def ids_beside(source: Path, choice: Choice) -> list[str]:
    """The ids in the file that the user named, or in `<stem>.ids.txt`, `.ids.csv` or `.ids.npy` beside the source.

    Raises:
        DataError: there is no such file, or it cannot be read.
    """
    if choice.ids is not None:
        return read_ids(choice.ids, choice.ids_key)
    for ending in ("txt", "csv", "npy"):
        path = source.with_name(f"{source.stem}.ids.{ending}")
        if path.is_file():
            return read_ids(path, choice.ids_key)
    raise DataError(
        f"{source.name} has no ids: put them, one a line and in the order of rows, into {source.stem}.ids.txt beside "
        "it, or name their file with --ids."
    )


def read_ids(path: Path, column: str | None = None) -> list[str]:
    """Ids from a text file (one a line), a CSV file (a column) or an `.npy` file (texts or whole numbers).

    Raises:
        DataError: there is no such file, or it cannot be read as such.
    """
    if not path.is_file():
        raise DataError(f"there is no file of ids {path}.")
    if path.suffix == ".npy":
        return ids_of(path.name, load_npy(path))
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(f"{path.name}: the ids are not UTF-8 text.") from error
    if path.suffix == ".csv":
        return _csv_ids(path.name, text, column)
    # By "\n" alone: `splitlines` would cut an id at other separators, which may stand in one.
    lines = [line.removesuffix("\r") for line in text.removesuffix("\n").split("\n")]
    if "" in lines:
        raise DataError(f"{path.name}: line {lines.index('') + 1:,} is blank; give one id a line.")
    return lines


def ids_of(source: str, array: np.ndarray) -> list[str]:
    """An array of texts or whole numbers as ids.

    Raises:
        DataError: it is something else.
    """
    if array.ndim != 1 or array.dtype.kind not in "USiu":
        raise DataError(f"{source}: the ids are {array.dtype} {list(array.shape)}; they must be texts, one an item.")
    try:
        return [v.decode() if isinstance(v, bytes) else str(v) for v in array.tolist()]
    except UnicodeDecodeError as error:
        raise DataError(f"{source}: the ids are not UTF-8 text.") from error


def _csv_ids(source: str, text: str, column: str | None) -> list[str]:
    import polars as pl

    try:
        frame = pl.read_csv(io.StringIO(text), infer_schema=False)
    except pl.exceptions.PolarsError as error:
        raise DataError(f"{source}: the ids cannot be read as CSV.") from error
    name = pick(source, frame.columns, column, ID_KEYS, "--ids-key")
    if name is None:
        raise DataError(f"{source} has the columns {', '.join(frame.columns[:30])}: name the one of ids by --ids-key.")
    if frame[name].null_count():
        raise DataError(f"{source}: row {(frame[name].is_null().arg_max() or 0) + 1:,} has no id.")
    return frame[name].to_list()
