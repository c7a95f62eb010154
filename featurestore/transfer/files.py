"""The files that an export can write, each from batches of rows. Knows arrays and ids, not stores."""

import json
from abc import ABC, abstractmethod
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, BinaryIO, Self

import numpy as np

from ..errors import DataError

if TYPE_CHECKING:
    import pyarrow as pa

_SAFETENSORS_HEADER = 100_000_000
"""The longest that readers of the format take."""

_PART_BYTES = 2**29
"""Of a Hugging Face dataset: size of one Parquet file."""


@dataclass(frozen=True)
class Shape:
    """What is to be written.

    Attributes:
        items: how many.
        tokens: of an image; None where an item is one vector, and for reports.
        dim: width of a token.
        dtype: of the rows.
        offsets: of reports, int64 [items + 1]: the bounds of their tokens; None for images.
        bfloat16: the float32 values are bfloat16 ones.
    """

    items: int
    tokens: int | None
    dim: int
    dtype: np.dtype
    offsets: np.ndarray | None
    bfloat16: bool = False

    @property
    def row(self) -> tuple[int, ...]:
        """Shape of one row of the array: of an item, or of a report's token."""
        return (self.dim,) if self.tokens is None else (self.tokens, self.dim)

    @property
    def array(self) -> tuple[int, ...]:
        """Shape of the array of all rows: [N, n, d], [N, d], or of reports [all tokens, d]."""
        return (self.items if self.offsets is None else int(self.offsets[-1]), *self.row)


@dataclass(frozen=True)
class Batch:
    """Some items: ids, rows `Shape.row` each, and of reports the bounds of their tokens within `rows`."""

    ids: list[str]
    rows: np.ndarray
    offsets: np.ndarray | None


class Writer(ABC):
    """Writes one export to `path`, a name in an empty folder; other files go beside it. Use as a context."""

    def __init__(self, path: Path, ids: list[str], shape: Shape, about: dict[str, Any]) -> None:
        self._path = path
        self._ids = ids
        self._shape = shape
        self._about = about
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        self._begin()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()

    @staticmethod
    def beside(path: Path) -> list[Path]:
        """The files that come beside `path`."""
        del path
        return []

    @abstractmethod
    def _begin(self) -> None:
        """Open the files and write what comes first."""

    @abstractmethod
    def add(self, batch: Batch) -> None:
        """Write the next items."""

    def _open(self, path: Path) -> BinaryIO:
        return self._stack.enter_context(path.open("xb"))


class NpyWriter(Writer):
    """One `.npy`, mappable, with the ids, the licence and the bounds of reports in files beside it."""

    @staticmethod
    def beside(path: Path) -> list[Path]:
        return [path.with_name(path.stem + ending) for ending in (".ids.txt", ".json", ".offsets.npy")]

    def _begin(self) -> None:
        ids, about, offsets = self.beside(self._path)
        ids.write_bytes("".join(f"{item}\n" for item in self._ids).encode())
        about.write_text(json.dumps(self._about, indent=1))
        if self._shape.offsets is not None:
            np.save(offsets, self._shape.offsets, allow_pickle=False)
        self._file = self._open(self._path)
        description = np.lib.format.dtype_to_descr(self._shape.dtype)
        header = {"descr": description, "fortran_order": False, "shape": self._shape.array}
        np.lib.format.write_array_header_1_0(self._file, header)

    def add(self, batch: Batch) -> None:
        self._file.write(np.ascontiguousarray(batch.rows).data)


class SafetensorsWriter(Writer):
    """One `.safetensors`: `embeddings`, of reports `offsets` too, the ids and the licence in the metadata."""

    def _begin(self) -> None:
        shape = self._shape
        size = int(np.prod(shape.array, dtype=np.int64)) * (2 if shape.bfloat16 else shape.dtype.itemsize)
        first = b"" if shape.offsets is None else shape.offsets.astype("<i8").tobytes()
        kind = "BF16" if shape.bfloat16 else {2: "F16", 4: "F32"}[shape.dtype.itemsize]
        header: dict[str, Any] = {"__metadata__": {"radfs": json.dumps(self._about), "ids": json.dumps(self._ids)}}
        if shape.offsets is not None:
            header["offsets"] = {"dtype": "I64", "shape": [len(shape.offsets)], "data_offsets": [0, len(first)]}
        bounds = [len(first), len(first) + size]
        header["embeddings"] = {"dtype": kind, "shape": list(shape.array), "data_offsets": bounds}
        text = json.dumps(header).encode()
        text += b" " * (-len(text) % 8)  # so that the data begin at a multiple of 8
        if len(text) > _SAFETENSORS_HEADER:
            raise DataError(f"the ids of {shape.items:,} items do not fit into a safetensors header: export .parquet.")
        self._file = self._open(self._path)
        self._file.write(len(text).to_bytes(8, "little") + text + first)

    def add(self, batch: Batch) -> None:
        rows = batch.rows
        if self._shape.bfloat16:  # the values are bfloat16 ones: the lower half of each is zero
            rows = (rows.view(np.uint32) >> np.uint32(16)).astype(np.uint16)
        self._file.write(np.ascontiguousarray(rows).data)


class ParquetWriter(Writer):
    """One Parquet file: columns `item` and `embedding`, one row group a batch, the licence in its metadata.

    Not compressed: activations in half precision shrink by 1.1 at best (docs/adr/001-token-store.md).
    """

    def _begin(self) -> None:
        self._open_part(self._path)

    def _open_part(self, path: Path) -> None:
        import pyarrow.parquet as pq

        self._schema = _arrow_schema(self._shape).with_metadata({"radfs": json.dumps(self._about)})
        self._parquet: pq.ParquetWriter = self._stack.enter_context(
            pq.ParquetWriter(path, self._schema, compression="none", use_dictionary=False)
        )

    def add(self, batch: Batch) -> None:
        import pyarrow as pa

        table = pa.table({"item": batch.ids, "embedding": _arrow_rows(batch)}, schema=self._schema)
        self._parquet.write_table(table, row_group_size=len(batch.ids))


class HuggingFaceWriter(ParquetWriter):
    """A folder that `datasets.load_dataset` opens: a card, and Parquet files of about half a gigabyte."""

    def _begin(self) -> None:
        (self._path / "data").mkdir(parents=True)
        (self._path / "README.md").write_text(_card(self._about))
        self._part = 0
        self._part_bytes = 0
        self._open_part(self._path / "data" / "part-00000.parquet")

    def add(self, batch: Batch) -> None:
        if self._part_bytes > _PART_BYTES:
            self._stack.close()
            self._part += 1
            self._part_bytes = 0
            self._open_part(self._path / "data" / f"part-{self._part:05d}.parquet")
        super().add(batch)
        self._part_bytes += batch.rows.nbytes


WRITERS: dict[str, type[Writer]] = {
    ".npy": NpyWriter,
    ".parquet": ParquetWriter,
    ".hf": HuggingFaceWriter,
    ".safetensors": SafetensorsWriter,
}
"""By the ending of the export's name."""


def _arrow_schema(shape: Shape) -> "pa.Schema":
    import pyarrow as pa

    kind = pa.list_(pa.float16() if shape.dtype.itemsize == 2 else pa.float32(), shape.dim)
    if shape.offsets is not None:
        kind = pa.list_(kind)
    elif shape.tokens is not None:
        kind = pa.list_(kind, shape.tokens)
    return pa.schema([("item", pa.string()), ("embedding", kind)])


def _arrow_rows(batch: Batch) -> "pa.Array":
    """The rows as lists, without a copy of the values."""
    import pyarrow as pa

    values = pa.array(np.ascontiguousarray(batch.rows).reshape(-1))
    vectors = pa.FixedSizeListArray.from_arrays(values, batch.rows.shape[-1])
    if batch.offsets is not None:
        return pa.ListArray.from_arrays(pa.array(batch.offsets, pa.int32()), vectors)
    return vectors if batch.rows.ndim == 2 else pa.FixedSizeListArray.from_arrays(vectors, batch.rows.shape[1])


def _card(about: dict[str, Any]) -> str:
    """README.md of a dataset: what `datasets` reads of it comes first, as YAML (of which JSON is a part)."""
    of = "class tokens" if about["array"] == "cls" else "token embeddings"
    licences = [f"- {cohort}: {licence}" for cohort, licence in about["data_licences"].items()]
    terms = "They are not known to be open: pass this on only if you may." if about["credentialed"] else ""
    return "\n".join(
        [
            "---",
            "license: other",
            f"license_name: {json.dumps(about['licence'])}",
            f"pretty_name: {json.dumps(about['feature_set'])}",
            'configs: [{"config_name": "default", "data_files": [{"split": "train", "path": "data/*.parquet"}]}]',
            "---",
            "",
            f"# {about['feature_set']}",
            "",
            f"{about['items']:,} items: {of} of {about['modality']}s, view {about['view']}, by {about['encoder']}, "
            f"{about['dim']} wide. Columns: `item`, `embedding`. `train` is only what a dataset's one part is called.",
            "",
            f"Licence of the encoder's weights: {about['licence']}. Licences of the data, by cohort:",
            "",
            *licences,
            "",
            terms,
            "",
            "```json",
            json.dumps(about, indent=1),
            "```",
            "",
        ]
    )
