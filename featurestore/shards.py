"""The bytes of a Zarr v3 shard: chunk payloads back to back, then the index, then the index's crc32c.

    payload of chunk 0 | payload of chunk 1 | ... | (offset, nbytes) u64 pairs, one a chunk | crc32c u32

A chunk that is not there has (2^64-1, 2^64-1) in the index. The payload is never compressed: half-precision
activations shrink by 1.14x at best, for a third of the speed and the loss of mapping (docs/adr/001-token-store.md).
zarr-python reads these files bit for bit (a test); writing them ourselves gives fsync, keeps all-zero rows, and needs
no read-modify-write.
"""

import google_crc32c
import numpy as np

from .errors import DamageError

ABSENT = np.uint64(2**64 - 1)


def crc32c(data: np.ndarray | bytes) -> int:
    """The crc32c of an array's bytes."""
    if isinstance(data, np.ndarray):
        data = np.ascontiguousarray(data).reshape(-1).view(np.uint8)  # type: ignore[assignment]
    return google_crc32c.value(data)  # type: ignore[arg-type]


def index_size(chunks: int) -> int:
    """Bytes of the index of a shard of so many chunks, its crc32c included."""
    return 16 * chunks + 4


def encode_index(present: np.ndarray, chunk_bytes: int) -> bytes:
    """The index of a shard whose present chunks stand back to back.

    Args:
        present: bool [chunks].
        chunk_bytes: bytes of one chunk's payload.
    """
    index = np.full((len(present), 2), ABSENT, dtype="<u8")
    index[present, 0] = np.arange(present.sum(), dtype=np.uint64) * np.uint64(chunk_bytes)
    index[present, 1] = chunk_bytes
    raw = index.tobytes()
    return raw + crc32c(raw).to_bytes(4, "little")


def decode_index(tail: bytes, *, payload_bytes: int, chunk_bytes: int, where: str) -> np.ndarray:
    """The offsets of a shard's chunks, checked: int64 [chunks], -1 for an absent one.

    Args:
        tail: the last `index_size(chunks)` bytes of the file.
        payload_bytes: bytes before the index.
        chunk_bytes: bytes of one chunk's payload.
        where: what to name in an error.

    Raises:
        DamageError: the index's checksum fails, or it points outside the payload.
    """
    raw, crc = tail[:-4], int.from_bytes(tail[-4:], "little")
    if crc32c(raw) != crc:
        raise DamageError(f"{where}: the shard index fails its checksum (stored {crc:08x}, found {crc32c(raw):08x}).")
    index = np.frombuffer(raw, dtype="<u8").reshape(-1, 2)
    present = index[:, 0] != ABSENT
    offsets = np.where(present, index[:, 0], 0).astype(np.int64)
    inside = (offsets >= 0) & (offsets + chunk_bytes <= payload_bytes) & (index[:, 1] == chunk_bytes)
    if not inside[present].all():
        raise DamageError(f"{where}: the shard index points outside its {payload_bytes} payload bytes.")
    offsets[~present] = -1
    return offsets
