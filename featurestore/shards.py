"""The bytes of a Zarr v3 shard: chunk payloads back to back, then the index, then the index's crc32c.

    payload of chunk 0 | payload of chunk 1 | ... | (offset, nbytes) u64 pairs, one a chunk | crc32c u32

A chunk that is not there has (2^64-1, 2^64-1) in the index. Half-precision activations shrink by 1.14x at best, for a
third of the speed and the loss of mapping (docs/adr/001-token-store.md), so chunks are compressed for archives alone.
zarr-python reads these files bit for bit (a test); writing them ourselves gives fsync, keeps all-zero rows, and needs
no read-modify-write.
"""

from collections.abc import Iterable

import google_crc32c
import numpy as np
from isal import isal_zlib

from .errors import DamageError

ABSENT = np.uint64(2**64 - 1)


def crc32(data: np.ndarray | bytes | memoryview, start: int = 0) -> int:
    """CRC-32 (as in zlib) of an array's bytes, going on from `start`: what rows and files are checked with.

    ISA-L computes it at 19 GB/s with the copy that follows, google-crc32c's Castagnoli at 12 (docs/LOG.md).
    """
    if isinstance(data, np.ndarray):
        data = np.ascontiguousarray(data).reshape(-1).view(np.uint8).data
    return isal_zlib.crc32(data, start)


def encode_index(sizes: Iterable[int]) -> bytes:
    """The index of a shard whose present chunks stand back to back.

    Args:
        sizes: stored bytes of each chunk; -1 for one that is absent.
    """
    nbytes = np.fromiter(sizes, dtype=np.int64)
    present = nbytes >= 0
    index = np.full((len(nbytes), 2), ABSENT, dtype="<u8")
    kept = nbytes[present]
    index[present, 0] = np.cumsum(kept) - kept
    index[present, 1] = kept
    raw = index.tobytes()
    return raw + google_crc32c.value(raw).to_bytes(4, "little")


def index_size(chunks: int) -> int:
    """Bytes of the index of a shard of so many chunks, its crc32c included."""
    return 16 * chunks + 4


def decode_index(tail: bytes, *, payload_bytes: int, chunk_bytes: int | None, where: str) -> np.ndarray:
    """Offset and size of a shard's chunks, checked: int64 [chunks, 2], -1 for an absent one.

    Args:
        tail: the last `index_size(chunks)` bytes of the file.
        payload_bytes: bytes before the index.
        chunk_bytes: bytes of one chunk's payload; None where they are compressed.
        where: what to name in an error.

    Raises:
        DamageError: the index's checksum fails, or it points outside the payload.
    """
    raw, crc = tail[:-4], int.from_bytes(tail[-4:], "little")
    found = google_crc32c.value(raw)
    if found != crc:
        raise DamageError(f"{where}: the shard index fails its checksum (stored {crc:08x}, found {found:08x}).")
    index = np.frombuffer(raw, dtype="<u8").reshape(-1, 2)
    present = index[:, 0] != ABSENT
    # Compared as unsigned, without a sum that could wrap: a stranger may have written any 64 bits here.
    inside = (index[:, 0] <= payload_bytes) & (index[:, 1] <= payload_bytes - np.minimum(index[:, 0], payload_bytes))
    if chunk_bytes is not None:
        inside &= index[:, 1] == chunk_bytes
    if not inside[present].all():
        raise DamageError(f"{where}: the shard index points outside its {payload_bytes} payload bytes.")
    return np.where(present[:, None], index, ABSENT).view(np.int64)
