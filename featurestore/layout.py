"""How one feature set lies on disk: its arrays, their Zarr v3 metadata, rows a shard, names of files.

Every view has arrays of its own: v0 is clean, v1 and up are augmented. Image sets are dense: `tokens/v0` [row, token,
dim] and, where the encoder has a class token, `cls/v0` [row, dim]. Text sets are ragged: `tokens/v0` [slot, dim] and
`offsets/v0` [row, 2]. Shard s of a text set owns the slots [s * rows * context, (s + 1) * rows * context) of the token
axis; reports stand there back to back and only filled chunks are stored, so a file holds real tokens and no offset
depends on another shard. A codec may keep several arrays for one, as `tokens/v0` and `tokens_scale/v0`.
"""

import json
import math
import re
from dataclasses import asdict, dataclass, fields
from functools import cached_property
from typing import Any, Literal

import numpy as np

from .codecs import CODECS, Codec, get_codec
from .keys import canonical_json, content_key
from .shards import crc32
from .store import FORMAT

SHARD_BYTES = 128 * 2**20
MAX_SHARD_ROWS = {"image": 256, "text": 512}
"""A kill loses one shard's work at most, so small rows do not make huge shards. Reports are short, and made sooner."""

SLOT_CHUNK = 64
"""Tokens in one inner chunk of a ragged array: at most 63 padding tokens a shard file, and a short index."""

_LARGEST = {"dim": 2**16, "tokens": 2**16, "shard_rows": 2**16}
_LARGEST_SHARD = 2**33
LARGEST_METADATA = 2**20
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")


@dataclass(frozen=True)
class ArrayLayout:
    """One Zarr array: a shard is one file.

    Attributes:
        base: what it holds: tokens, cls or offsets.
        path: below the feature set's folder, such as tokens_scale/v0.
        dtype: as Zarr and numpy call it.
        dims: names of the axes.
        shard_shape: of one file.
        chunk_shape: of one inner chunk; they differ along the first axis alone.
        fill_value: what a reader of Zarr sees where nothing is stored; never zeros.
        codec: of the inner chunks.
        attributes: for any reader of Zarr.
    """

    base: str
    path: str
    dtype: str
    dims: tuple[str, ...]
    shard_shape: tuple[int, ...]
    chunk_shape: tuple[int, ...]
    fill_value: Any
    codec: Codec | None
    attributes: dict[str, Any]

    @property
    def chunks_per_shard(self) -> int:
        """Inner chunks of one shard."""
        return self.shard_shape[0] // self.chunk_shape[0]

    @property
    def unit_shape(self) -> tuple[int, ...]:
        """Shape of one step along the first axis: of a row, or of a slot."""
        return self.shard_shape[1:]

    @property
    def unit_bytes(self) -> int:
        """Stored bytes of one step along the first axis, uncompressed."""
        return math.prod(self.unit_shape) * np.dtype(self.dtype).itemsize

    @property
    def chunk_bytes(self) -> int:
        """Bytes of one inner chunk, uncompressed."""
        return self.unit_bytes * self.chunk_shape[0]

    @property
    def most_bytes(self) -> int:
        """No file of a shard is larger, whatever its codec makes of the values."""
        return 2 * self.chunks_per_shard * (self.chunk_bytes + 64)

    @property
    def compressed(self) -> bool:
        """Whether inner chunks are compressed."""
        return self.codec is not None and self.codec.compressed

    def shard_file(self, shard: int) -> str:
        """The file of one shard, relative to the feature set's folder. All lie in one folder: no folders to sync."""
        return f"{self.path}/" + ".".join(["c", str(shard), *["0"] * (len(self.shard_shape) - 1)])

    def metadata(self, shards: int) -> bytes:
        """`zarr.json` of the array when `shards` shards are allocated."""
        little = {"name": "bytes", "configuration": {"endian": "little"}}
        sharding = {
            "chunk_shape": self.chunk_shape,
            "codecs": self.codec.chunk_codecs(self.dtype) if self.codec else [little],
            "index_codecs": [little, {"name": "crc32c"}],
            "index_location": "end",
        }
        document = {
            "zarr_format": 3,
            "node_type": "array",
            "shape": [shards * self.shard_shape[0], *self.shard_shape[1:]],
            "data_type": self.dtype,
            "chunk_grid": {"name": "regular", "configuration": {"chunk_shape": self.shard_shape}},
            "chunk_key_encoding": {"name": "default", "configuration": {"separator": "."}},
            "fill_value": self.fill_value,
            "codecs": [{"name": "sharding_indexed", "configuration": sharding}],
            "dimension_names": self.dims,
            "attributes": self.attributes,
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
        dtype: name of the codec, one of `CODECS`.
    """

    encoder: str
    modality: Literal["image", "text"]
    dim: int
    tokens: int
    has_cls: bool
    shard_rows: int
    what: dict[str, Any]
    about: dict[str, Any]
    dtype: str = "float16"

    @property
    def codec(self) -> Codec:
        """How values are stored."""
        return get_codec(self.dtype)

    @property
    def identity(self) -> str:
        """`encoder@key`: the key hashes what changes numbers, and nothing else."""
        numbers = {"encoder": self.what, "dtype": self.codec.numbers, "format": FORMAT}
        return f"{self.encoder}@{content_key(numbers, 8)}"

    @property
    def name(self) -> str:
        """Name of the folder: the identity, and `-archive` where the same numbers are kept compressed."""
        return self.identity + ("-archive" if self.codec.compressed else "")

    @property
    def shard_slots(self) -> int:
        """Text: length of the stretch of the token axis that one shard owns."""
        return -(-self.shard_rows * self.tokens // SLOT_CHUNK) * SLOT_CHUNK

    def arrays(self, view: int = 0) -> tuple[ArrayLayout, ...]:
        """The arrays of one view: tokens first, then cls or offsets; several in a row where the codec has parts."""
        rows, dim = self.shard_rows, self.dim
        if self.modality == "text":
            offsets = ((rows, 2), (1, 2), ("row", "bound"))
            return (
                *self._parts("tokens", view, (self.shard_slots, dim), SLOT_CHUNK, ("slot", "dim")),
                ArrayLayout(
                    "offsets", f"offsets/v{view}", "int64", offsets[2], offsets[0], offsets[1], -1, None,
                    self._attributes("offsets", view, {"meaning": "first and one past the last slot of a report"}),
                ),
            )  # fmt: skip
        arrays = self._parts("tokens", view, (rows, self.tokens, dim), 1, ("row", "token", "dim"))
        if self.has_cls:
            arrays += self._parts("cls", view, (rows, dim), 1, ("row", "dim"))
        return arrays

    def _parts(
        self, base: str, view: int, shard_shape: tuple[int, ...], chunk: int, dims: tuple[str, ...]
    ) -> tuple[ArrayLayout, ...]:
        return tuple(
            ArrayLayout(
                base,
                f"{base}{part.suffix}/v{view}",
                part.dtype,
                dims,
                (*shard_shape[:-1], part.width(self.dim)),
                (chunk, *shard_shape[1:-1], part.width(self.dim)),
                part.fill_value,
                self.codec,
                self._attributes(base + part.suffix, view, part.attributes),
            )
            for part in self.codec.parts
        )

    def _attributes(self, array: str, view: int, more: dict[str, Any]) -> dict[str, Any]:
        said = {
            "format": FORMAT,
            "array": array,
            "view": view,
            "encoder": self.encoder,
            "revision": self.what.get("revision"),
            "weights_sha256": self.what.get("weights_sha256"),
            "preprocessing": self.what.get("preprocessing"),
            "licence": self.about.get("licence"),
            "codec": self.dtype,
        }
        return {"radfs": {**said, **more}}

    @cached_property
    def row_bytes(self) -> int:
        """Stored bytes of one full row of one view, before any compression."""
        dense = self.tokens + self.has_cls
        return dense * sum(part.width(self.dim) * np.dtype(part.dtype).itemsize for part in self.codec.parts)

    def metadata(self) -> bytes:
        """`zarr.json` of the group, which says what the set is to any reader of Zarr."""
        radfs = {"format": FORMAT, **asdict(self), "crc32": self._checksum}
        document = {"zarr_format": 3, "node_type": "group", "attributes": {"radfs": radfs}}
        return json.dumps(document, indent=1, sort_keys=True).encode()

    @property
    def _checksum(self) -> int:
        """Of all fields: the name hashes but some of them, and with another shape no row would be where it is."""
        return crc32(canonical_json(asdict(self)).encode())

    @classmethod
    def from_metadata(cls, document: bytes) -> "FeatureLayout":
        """The layout that `metadata` wrote. Nothing in it is believed before it was checked.

        Raises:
            ValueError: the document is not one of ours, or claims what no feature set can be; says what.
        """
        if len(document) > LARGEST_METADATA:
            raise ValueError(f"{len(document)} bytes long; at most {LARGEST_METADATA} are allowed")
        try:
            radfs = dict(json.loads(document)["attributes"]["radfs"])
        except (KeyError, TypeError, ValueError, RecursionError) as error:
            raise ValueError(f"no attributes of radfs ({type(error).__name__})") from error
        found = radfs.pop("format", None)
        if found != FORMAT:
            raise ValueError(f"format {found!r}; this radfs reads format {FORMAT}")
        checksum = radfs.pop("crc32", None)
        _check(radfs)
        layout = cls(**radfs)
        if checksum != layout._checksum:
            raise ValueError("its fields fail their checksum: one of them was altered")
        return layout


def _check(radfs: dict[str, Any]) -> None:
    """Refuse what cannot be a layout: names that are paths, numbers of absurd size, other types."""
    expected = {field.name for field in fields(FeatureLayout)}
    if set(radfs) != expected:
        raise ValueError(f"fields {sorted(set(radfs) ^ expected)} are missing or unknown")
    allowed = {
        "encoder": isinstance(radfs["encoder"], str) and _NAME.fullmatch(radfs["encoder"]) is not None,
        "modality": radfs["modality"] in ("image", "text"),
        "has_cls": isinstance(radfs["has_cls"], bool) and not (radfs["has_cls"] and radfs["modality"] == "text"),
        "what": isinstance(radfs["what"], dict),
        "about": isinstance(radfs["about"], dict),
        "dtype": isinstance(radfs["dtype"], str) and radfs["dtype"] in CODECS,
        **{key: type(radfs[key]) is int and 1 <= radfs[key] <= most for key, most in _LARGEST.items()},
    }
    for key, fine in allowed.items():
        if not fine:
            raise ValueError(f"{key} = {str(radfs[key])[:80]!r} is not allowed")
    if radfs["dim"] * radfs["tokens"] * radfs["shard_rows"] * 4 > _LARGEST_SHARD:
        raise ValueError(f"{radfs['shard_rows']} rows of {radfs['tokens']} x {radfs['dim']} are too much for one shard")


def shard_rows_for(*, modality: str, tokens: int, dim: int, most: int | None = None) -> int:
    """Rows of a shard of about `SHARD_BYTES`, at most `most` (None: `MAX_SHARD_ROWS`).

    A report is taken to fill a quarter of the context. A power of two, so that the shards of several encoders lie
    within each other, and an image comes to all of them at once.
    """
    row_bytes = tokens * dim * 2 // (4 if modality == "text" else 1)
    return min(most or MAX_SHARD_ROWS[modality], 1 << max(0, round(math.log2(SHARD_BYTES / max(1, row_bytes)))))
