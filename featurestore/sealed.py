"""Files that carry their own checksum: the CRC-32 of all their other bytes.

    Parquet   `radfs_crc32` in the key-value metadata: eight hexadecimal digits, which count as zeros themselves
    JSON      `check`, the last value of the object: of all before it, and of the closing brace

A flipped bit in an embedding is found by its row's checksum. In a label, an id or the number of a row it would be
believed, and give one patient's answer for another's. Any reader of Parquet and JSON reads these files as they are.
"""

import json
from io import BytesIO
from typing import TYPE_CHECKING, Any

from .shards import crc32

if TYPE_CHECKING:
    import polars as pl

_KEY, _BLANK = "radfs_crc32", b"00000000"
_FIELD = _KEY.encode() + b"\x18\x08"  # Thrift's compact protocol: a string of eight bytes follows
_FOOTER_END = 8  # its length in four bytes, and PAR1
_CHECK = b',"check":'


def seal_parquet(frame: "pl.DataFrame") -> bytes:
    """A frame as a Parquet file with its checksum."""
    buffer = BytesIO()
    frame.write_parquet(buffer, metadata={_KEY: _BLANK.decode()})
    raw = buffer.getvalue()
    at = _digits(raw)
    return b"".join((raw[:at], f"{crc32(raw):08x}".encode(), raw[at + len(_BLANK) :]))


def check_parquet(raw: bytes) -> None:
    """Compare a Parquet file with its checksum.

    Raises:
        ValueError: it has none, or another one.
    """
    at = _digits(raw)
    end, view = at + len(_BLANK), memoryview(raw)
    found = crc32(view[end:], crc32(_BLANK, crc32(view[:at])))
    if raw[at:end] != f"{found:08x}".encode():
        raise ValueError("its checksum fails")


def _digits(raw: bytes) -> int:
    """Where the digits of the checksum stand: after the last key of this name in the footer."""
    footer = len(raw) - _FOOTER_END - int.from_bytes(raw[-_FOOTER_END:-4], "little")
    at = raw.rfind(_FIELD, max(footer, 0), len(raw) - _FOOTER_END)
    if at < 0:
        raise ValueError("it carries no checksum of radfs")
    return at + len(_FIELD)


def seal_json(document: dict[str, Any]) -> bytes:
    """A JSON object as a file with its checksum."""
    body = json.dumps(document, separators=(",", ":"), ensure_ascii=False).encode()
    return body[:-1] + _CHECK + str(crc32(body)).encode() + b"}"


def open_json(raw: bytes) -> Any:
    """The object that `seal_json` wrote, without its checksum.

    Raises:
        ValueError: it has no checksum, or another one.
        RecursionError: it is nested too deeply.
    """
    head, found, tail = raw.rpartition(_CHECK)
    if not found or tail != str(crc32(head + b"}")).encode() + b"}":
        raise ValueError("its checksum fails")
    return json.loads(head + b"}")
