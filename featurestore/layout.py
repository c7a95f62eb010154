"""How one feature set lies on disk: its arrays, their Zarr v3 metadata, rows a shard, names of files.

Image sets are dense: `tokens/v0` [row, token, dim] and, where the encoder has a class token, `cls/v0` [row, dim].
Text sets are ragged: `tokens` [slot, dim] and `offsets` [row, 2]. Shard s of a text set owns the slots
[s * rows * context, (s + 1) * rows * context) of the token axis; reports stand there back to back and only filled
chunks are stored, so a file holds real tokens and no offset depends on another shard.
"""

import json
import math
from dataclasses import dataclass
from typing import Any, Literal

from .keys import content_key
from .store import FORMAT

SHARD_BYTES = 128 * 2**20
MAX_SHARD_ROWS = 256
"""A kill loses one shard's work at most, so small rows do not make huge shards."""

SLOT_CHUNK = 64
"""Tokens in one inner chunk of a ragged array: at most 63 padding tokens a shard file, and a short index."""

STORAGE_DTYPE = "float16"


@dataclass(frozen=True)
class ArrayLayout:
    """One Zarr array: a shard is one file."""

    path: str
    dtype: str
    dims: tuple[str, ...]
    shard_shape: tuple[int, ...]
    chunk_shape: tuple[int, ...]

    @property
    def chunks_per_shard(self) -> int:
        """Inner chunks of one shard: they differ along the first axis alone."""
        return self.shard_shape[0] // self.chunk_shape[0]

    @property
    def chunk_bytes(self) -> int:
        """Payload bytes of one inner chunk."""
        return math.prod(self.chunk_shape) * {"float16": 2, "int64": 8}[self.dtype]

    def shard_file(self, shard: int) -> str:
        """The file of one shard, relative to the feature set's folder."""
        return "/".join([self.path, "c", str(shard), *["0"] * (len(self.shard_shape) - 1)])

    def metadata(self, shards: int) -> bytes:
        """`zarr.json` of the array when `shards` shards are allocated."""
        little = {"name": "bytes", "configuration": {"endian": "little"}}
        sharding = {
            "chunk_shape": self.chunk_shape,
            "codecs": [little],
            "index_codecs": [little, {"name": "crc32c"}],
            "index_location": "end",
        }
        document = {
            "zarr_format": 3,
            "node_type": "array",
            "shape": [shards * self.shard_shape[0], *self.shard_shape[1:]],
            "data_type": self.dtype,
            "chunk_grid": {"name": "regular", "configuration": {"chunk_shape": self.shard_shape}},
            "chunk_key_encoding": {"name": "default", "configuration": {"separator": "/"}},
            "fill_value": 0,
            "codecs": [{"name": "sharding_indexed", "configuration": sharding}],
            "dimension_names": self.dims,
            "attributes": {},
        }
        return json.dumps(document, indent=1).encode()


@dataclass(frozen=True)
class FeatureLayout:
    """Everything about a feature set that is fixed when it is made.

    Attributes:
        encoder: its name, such as mrm.
        modality: image or text.
        dim: width of a token.
        tokens: tokens an image, or the context length of a text encoder.
        has_cls: whether a class token is kept beside the patch tokens.
        shard_rows: rows of one shard.
        what: all of the encoder that changes numbers (weights' sha256, preprocessing, layer, ...), as resolved.
        about: what does not: licence, how to read it, where the weights came from.
    """

    encoder: str
    modality: Literal["image", "text"]
    dim: int
    tokens: int
    has_cls: bool
    shard_rows: int
    what: dict[str, Any]
    about: dict[str, Any]

    @property
    def name(self) -> str:
        """`encoder@key`: the key hashes what changes numbers, and nothing else."""
        key = content_key({"encoder": self.what, "view": "clean", "dtype": STORAGE_DTYPE, "format": FORMAT}, 8)
        return f"{self.encoder}@{key}"

    @property
    def shard_slots(self) -> int:
        """Text: length of the stretch of the token axis that one shard owns."""
        return -(-self.shard_rows * self.tokens // SLOT_CHUNK) * SLOT_CHUNK

    @property
    def arrays(self) -> tuple[ArrayLayout, ...]:
        """The arrays of the set, the tokens first."""
        rows, dim = self.shard_rows, self.dim
        if self.modality == "text":
            slots = self.shard_slots
            return (
                ArrayLayout("tokens", STORAGE_DTYPE, ("slot", "dim"), (slots, dim), (SLOT_CHUNK, dim)),
                ArrayLayout("offsets", "int64", ("row", "bound"), (rows, 2), (1, 2)),
            )
        shape = (self.tokens, dim)
        tokens = ArrayLayout("tokens/v0", STORAGE_DTYPE, ("row", "token", "dim"), (rows, *shape), (1, *shape))
        if not self.has_cls:
            return (tokens,)
        return (tokens, ArrayLayout("cls/v0", STORAGE_DTYPE, ("row", "dim"), (rows, dim), (1, dim)))

    def metadata(self) -> bytes:
        """`zarr.json` of the group, which says what the set is to any reader of Zarr."""
        radfs = {
            "format": FORMAT,
            "encoder": self.encoder,
            "modality": self.modality,
            "dim": self.dim,
            "tokens": self.tokens,
            "has_cls": self.has_cls,
            "shard_rows": self.shard_rows,
            "what": self.what,
            "about": self.about,
        }
        document = {"zarr_format": 3, "node_type": "group", "attributes": {"radfs": radfs}}
        return json.dumps(document, indent=1, sort_keys=True).encode()

    @classmethod
    def from_metadata(cls, document: bytes) -> "FeatureLayout":
        """The layout that `metadata` wrote.

        Raises:
            KeyError, TypeError, ValueError: the document is not one of ours.
        """
        radfs = dict(json.loads(document)["attributes"]["radfs"])
        if radfs.pop("format") != FORMAT:
            raise ValueError("another format version")
        return cls(**radfs)


def shard_rows_for(*, modality: str, tokens: int, dim: int) -> int:
    """Rows of a shard of about `SHARD_BYTES`; a report is taken to fill a quarter of the context length."""
    row_bytes = tokens * dim * 2 // (4 if modality == "text" else 1)
    return max(1, min(MAX_SHARD_ROWS, SHARD_BYTES // max(1, row_bytes)))
