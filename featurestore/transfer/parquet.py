"""Foreign embeddings as Parquet: one file, or the files of a folder, such as a Hugging Face dataset."""

import itertools
import json
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ..errors import DataError
from .foreign import ID_KEYS, MAX_ITEM_BYTES, TOKEN_KEYS, Choice, Foreign, from_items, parse_tags, pick
from .ids import read_ids

if TYPE_CHECKING:
    import pyarrow as pa

_BATCH_BYTES = 32 * 2**20
_BATCH_ROWS = 4096


def open_parquet(source: Path, choice: Choice, stack: ExitStack) -> Foreign:
    """A column of ids and one of lists: [d], [n][d], or flat [n * d] with a `shape` in the metadata."""
    paths = sorted(source.rglob("*.parquet")) if source.is_dir() else [source]
    if not paths:
        raise DataError(f"the folder {source.name} holds neither a manifest.csv nor Parquet files.")
    parts = [_Part(path, choice, stack) for path in paths]
    ids: list[str] = []
    shapes: list[tuple[int, ...] | None] = []
    for part in parts:
        part_ids, part_shapes = part.scan()
        ids += part_ids
        shapes += part_shapes
    if choice.ids is not None:
        ids = read_ids(choice.ids, choice.ids_key)
    return from_items(source.name, ids, shapes, _Rows(parts).load, tags=parts[0].tags)


class _Part:
    """One Parquet file: its row groups, read batch after batch."""

    def __init__(self, path: Path, choice: Choice, stack: ExitStack) -> None:
        import pyarrow.parquet as pq

        self.source = path.name
        with _damage_named(self.source):
            self._file = stack.enter_context(pq.ParquetFile(path, pre_buffer=False, buffer_size=2**20))
            schema = self._file.schema_arrow
            self.groups = [self._file.metadata.row_group(g).num_rows for g in range(self._file.num_row_groups)]
        metadata = schema.metadata or {}
        name = pick(self.source, schema.names, choice.tokens_key, TOKEN_KEYS, "--tokens-key")
        if name is None:
            raise DataError(
                f"{self.source} has the columns {', '.join(schema.names[:30])}: name the one of embeddings with "
                "--tokens-key."
            )
        self.tokens = name
        self.tags = parse_tags(metadata.get(b"radfs"))
        self._shape = _flat_shape(self.source, metadata.get(b"shape"))
        asked = None if choice.ids is not None else choice.ids_key
        self._ids = pick(self.source, schema.names, asked, ID_KEYS, "--ids-key")
        if self._ids is None and choice.ids is None:
            raise DataError(f"{self.source} has no column of ids: name it with --ids-key, or a file of ids with --ids.")

    def scan(self) -> tuple[list[str], list[tuple[int, ...] | None]]:
        """Ids, and the shape of each item; None where it is null."""
        ids: list[str] = []
        shapes: list[tuple[int, ...] | None] = []
        columns = [self.tokens, *([self._ids] if self._ids else [])]
        with _damage_named(self.source):
            for batch in itertools.chain.from_iterable(self._batches(g, columns) for g in range(len(self.groups))):
                shapes += [None if row is None else row.shape for row in self._rows(batch)]
                if self._ids:
                    ids += _texts(self.source, batch.column(self._ids))
        return ids, shapes

    def rows(self, group: int) -> Iterator[list[np.ndarray | None]]:
        """The items of one row group, some at a time."""
        with _damage_named(self.source):
            for batch in self._batches(group, [self.tokens]):
                yield self._rows(batch)

    def _batches(self, group: int, columns: list[str]) -> Iterator["pa.RecordBatch"]:
        size = self._batch_rows(group)
        yield from self._file.iter_batches(size, row_groups=[group], columns=columns, use_threads=False)

    def _batch_rows(self, group: int) -> int:
        """Items of a batch of about `_BATCH_BYTES`, by what the row group says it holds."""
        metadata = self._file.metadata.row_group(group)
        columns = [metadata.column(i) for i in range(metadata.num_columns)]
        values = sum(c.num_values for c in columns if c.path_in_schema.split(".")[0] == self.tokens)
        row_bytes = 8 * values // max(1, metadata.num_rows)
        if row_bytes > MAX_ITEM_BYTES:
            raise DataError(f"{self.source} claims {row_bytes:,} bytes an item: it is damaged, or made to do harm.")
        return max(1, min(_BATCH_ROWS, _BATCH_BYTES // max(1, row_bytes)))

    def _rows(self, batch: "pa.RecordBatch") -> list[np.ndarray | None]:
        return _decode(f"{self.source}, column {self.tokens}", batch.column(self.tokens), self._shape)


class _Rows:
    """The items of all parts by their number: one batch in memory, going forward."""

    def __init__(self, parts: list[_Part]) -> None:
        self._groups = [(part, group) for part in parts for group in range(len(part.groups))]
        sizes = [part.groups[group] for part, group in self._groups]
        self._starts = np.concatenate([[0], np.cumsum(sizes, dtype=np.int64)])
        self._batches: Iterator[list[np.ndarray | None]] = iter(())
        self._group = -1
        self._first = 0
        self._held: list[np.ndarray | None] = []

    def load(self, index: int) -> np.ndarray:
        """The array of one item."""
        group = int(np.searchsorted(self._starts, index, side="right")) - 1
        if group != self._group or index < self._first:
            part, number = self._groups[group]
            self._batches, self._group = part.rows(number), group
            self._first, self._held = int(self._starts[group]), []
        while index >= self._first + len(self._held):
            self._first += len(self._held)
            self._held = next(self._batches, [])
            if not self._held:
                raise DataError(f"{self._groups[group][0].source} holds fewer rows than it says: it is damaged.")
        row = self._held[index - self._first]
        assert row is not None  # its length is 0, so nobody asks for it
        return row


def _decode(source: str, column: "pa.Array", shape: tuple[int, int] | None) -> list[np.ndarray | None]:
    """The items of a column of lists, as views; None for a null and for an item with a null among its tokens."""
    import pyarrow as pa

    if isinstance(column.type, pa.FixedShapeTensorType):
        shape, column = tuple(column.type.shape), column.storage
    elif isinstance(column, pa.ExtensionArray):
        column = column.storage
    outer, child = _peel(source, column)
    nested = _is_list(child.type)
    inner, values = _peel(source, child) if nested else (np.arange(len(child) + 1), child)
    if not pa.types.is_floating(values.type):
        raise DataError(f"{source} holds {values.type}; the embeddings must be float16, float32 or float64.")
    data = values.to_numpy(zero_copy_only=False)
    nulls = child.is_null().to_numpy(zero_copy_only=False) if nested and child.null_count else None
    rows: list[np.ndarray | None] = []
    for i, valid in enumerate(column.is_valid().to_pylist()):
        start, stop = int(outer[i]), int(outer[i + 1])
        if not valid or start == stop or (nulls is not None and nulls[start:stop].any()):
            rows.append(None)
            continue
        row = data[inner[start] : inner[stop]]
        if nested:
            widths = np.diff(inner[start : stop + 1])
            if (widths != widths[0]).any():
                raise DataError(f"{source}: the tokens of one item differ in width.")
            shape = (stop - start, int(widths[0]))
        if shape is not None and row.size != shape[0] * shape[1]:
            raise DataError(f"{source}: an item has {row.size:,} values, which do not fill the shape {list(shape)}.")
        rows.append(row if shape is None else row.reshape(shape))
    return rows


def _is_list(kind: "pa.DataType") -> bool:
    import pyarrow as pa

    return pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind)


def _peel(source: str, column: "pa.Array") -> tuple[np.ndarray, "pa.Array"]:
    """The bounds of each list and the values of all of them."""
    import pyarrow as pa

    if not _is_list(column.type):
        raise DataError(f"{source} holds {column.type}; an item must be a list of numbers, or a list of such lists.")
    if pa.types.is_fixed_size_list(column.type):
        bounds = (np.arange(len(column) + 1, dtype=np.int64) + column.offset) * column.type.list_size
        return bounds, column.values
    return column.offsets.to_numpy(), column.values


def _flat_shape(source: str, metadata: bytes | None) -> tuple[int, int] | None:
    if metadata is None:
        return None
    try:
        tokens, dim = (int(length) for length in json.loads(metadata))
    except (ValueError, TypeError) as error:
        raise DataError(f"{source}: `shape` in the metadata is not [tokens, dim].") from error
    return tokens, dim


def _texts(source: str, column: "pa.Array") -> list[str]:
    import pyarrow as pa

    if column.null_count:
        raise DataError(f"{source}: an item has no id.")
    if not (
        pa.types.is_integer(column.type) or pa.types.is_string(column.type) or pa.types.is_large_string(column.type)
    ):
        raise DataError(f"{source}: the ids are {column.type}; they must be texts.")
    return [str(item) for item in column.to_pylist()]


@contextmanager
def _damage_named(source: str) -> Iterator[None]:
    import pyarrow as pa

    try:
        yield
    except (OSError, ValueError, KeyError, TypeError, pa.ArrowException) as error:
        raise DataError(f"{source} is no Parquet file, or is damaged ({type(error).__name__}).") from error
