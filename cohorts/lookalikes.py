"""Images that look alike: a small thumbnail of each, a perceptual hash to find candidates, correlation to confirm.

Knows pixels; not cohorts. Chest radiographs resemble each other as few pictures do, so a hash of the usual 64 bits
would take different patients for one: this one has 256 bits, and what is near by it must also correlate.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from featurestore.errors import ItemError
from featurestore.images import decode_image, read_file

THUMB_PX = 32
_HASH_PX = 16
MAX_DISTANCE = 40
"""Bits of 256 by which the hashes of a pair may differ."""
MIN_CORRELATION = 0.97
"""Of the thumbnails of a pair. On 1,000 NIH radiographs no pair of two patients reaches it (docs/LOG.md)."""
COPY_CORRELATION = 0.995
"""What a copy has that was compressed, scaled or brightened anew, from some hundred pixels on."""
_CHUNK = 512


@dataclass(frozen=True)
class Thumbnails:
    """Of images [n]: grey levels uint8 [n, THUMB_PX, THUMB_PX] and hashes uint64 [n, 4]."""

    grey: npt.NDArray[np.uint8]
    hashes: npt.NDArray[np.uint64]


def thumbnail(path: str | Path) -> npt.NDArray[np.uint8]:
    """A small grey picture of an image file, [THUMB_PX, THUMB_PX].

    Raises:
        ItemError: the file cannot be read as an image.
    """
    from PIL import Image

    try:
        image = decode_image(read_file(path))
    except OSError as error:
        raise ItemError(f"cannot be read: {error.strerror}") from None
    return np.asarray(image.convert("L").resize((THUMB_PX, THUMB_PX), Image.Resampling.BOX), np.uint8)


def as_thumbnails(pictures: Sequence[npt.NDArray[np.uint8]]) -> Thumbnails:
    """Hashes of pictures: is a cell of a 17 x 16 grid brighter than its right neighbour?"""
    from PIL import Image

    grey = np.stack(pictures) if pictures else np.empty((0, THUMB_PX, THUMB_PX), np.uint8)
    grids = np.empty((len(grey), _HASH_PX, _HASH_PX + 1), np.int16)
    for i, picture in enumerate(grey):
        grids[i] = np.asarray(Image.fromarray(picture).resize((_HASH_PX + 1, _HASH_PX), Image.Resampling.BOX))
    bits = (grids[:, :, 1:] > grids[:, :, :-1]).reshape(len(grey), _HASH_PX * _HASH_PX)
    packed = np.packbits(bits, axis=1) if len(grey) else np.empty((0, 32), np.uint8)
    return Thumbnails(grey, np.ascontiguousarray(packed).view(np.uint64))


def near_pairs(thumbnails: Thumbnails) -> Iterator[tuple[int, int, float]]:
    """Every pair i < j that looks alike, with the correlation of its thumbnails."""
    hashes, n = thumbnails.hashes, len(thumbnails.hashes)
    if not n:
        return
    flat = thumbnails.grey.reshape(n, -1).astype(np.float32)
    flat -= flat.mean(1, keepdims=True)
    flat /= np.maximum(np.linalg.norm(flat, axis=1, keepdims=True), 1e-6)
    for start in range(0, n, _CHUNK):
        rows = hashes[start : start + _CHUNK]
        distance = np.zeros((len(rows), n - start), np.uint16)
        for word in range(hashes.shape[1]):
            distance += np.bitwise_count(rows[:, None, word] ^ hashes[None, start:, word])
        for i, j in np.argwhere(distance <= MAX_DISTANCE).tolist():
            if i < j:
                correlation = float(flat[start + i] @ flat[start + j])
                if correlation >= MIN_CORRELATION:
                    yield start + i, start + j, correlation
