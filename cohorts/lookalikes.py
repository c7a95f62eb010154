"""Images that look alike: a small thumbnail of each, a perceptual hash to find candidates, correlation to confirm.

Knows pixels; not cohorts. Chest radiographs resemble each other as few pictures do, so a hash of the usual 64 bits
would take different patients for one: this one has 256 bits, and what is near by it must also correlate.

Of hundreds of thousands of images no pair can be looked at one by one. Tables of bands of hash bits do not help: hashes
of radiographs agree in so many bits that every second pair shares a band (docs/LOG.md). What does is a sketch of each
thumbnail, from which an upper bound of the correlation follows: no pair that counts is ever missed.
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
_WAVES = 6
"""Cosines a side in the sketch of a thumbnail."""
_ROWS, _COLUMNS = 256, 4_096
_ROUNDING = 1e-4


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
    """Every pair i < j that looks alike, with the correlation of its thumbnails; in ascending order."""
    grey, hashes = thumbnails.grey, thumbnails.hashes
    found: list[tuple[int, int, float]] = []
    for pairs in _possible_pairs(grey):
        i, j = pairs.min(1), pairs.max(1)
        near = np.bitwise_count(hashes[i] ^ hashes[j]).sum(1, dtype=np.int64) <= MAX_DISTANCE
        i, j = i[near], j[near]
        correlation = np.einsum("pd,pd->p", _unit(grey[i]), _unit(grey[j]))
        alike = correlation >= MIN_CORRELATION
        found += zip(i[alike].tolist(), j[alike].tolist(), correlation[alike].tolist(), strict=True)
    yield from sorted(found)


def _possible_pairs(grey: npt.NDArray[np.uint8]) -> Iterator[npt.NDArray[np.int64]]:
    """Pairs [p, 2] of images, each once, among them all that correlate by `MIN_CORRELATION`.

    Of unit vectors that correlate by c, no coordinate differs by more than sqrt(2 - 2 c). So with images in the order
    of the coordinate that spreads most, each has to be held against those of a window alone.
    """
    sketches = _sketches(grey)
    if not len(sketches):
        return
    axis = int(sketches[:, :-1].var(0).argmax())
    order = np.argsort(sketches[:, axis], kind="stable")
    sketches = sketches[order]
    places = sketches[:, axis]
    reach = (2 - 2 * MIN_CORRELATION) ** 0.5 + _ROUNDING
    for start in range(0, len(order), _ROWS):
        rows = sketches[start : start + _ROWS]
        stop = int(np.searchsorted(places, rows[-1, axis] + reach, side="right"))
        for left in range(start, stop, _COLUMNS):
            bound = rows @ sketches[left : min(left + _COLUMNS, stop)].T
            at = np.flatnonzero(bound >= MIN_CORRELATION - _ROUNDING)  # in two dimensions it is fifty times as slow
            pairs = np.stack(np.divmod(at, bound.shape[1]), 1) + np.array([start, left])
            pairs = pairs[pairs[:, 0] < pairs[:, 1]]
            if len(pairs):
                yield order[pairs]


def _sketches(grey: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
    """Of images [n] sketches [n, _WAVES**2] whose products are upper bounds of correlations.

    The correlation of x and y is the product of unit vectors. In an orthonormal basis it is the product of their
    coordinates plus that of what is left of each, which is at most the product of the lengths of both (Cauchy-Schwarz):
    so those lengths stand as one number more, the last. The basis are the slowest cosines, for pictures of low detail.
    """
    steps = np.arange(THUMB_PX) + 0.5
    waves = np.cos(np.pi * np.outer(np.arange(_WAVES), steps) / THUMB_PX)
    waves /= np.linalg.norm(waves, axis=1, keepdims=True)
    # Without the first, which is constant: so is what was subtracted from every picture.
    basis = np.einsum("ah,bw->abhw", waves, waves).reshape(_WAVES**2, THUMB_PX**2)[1:].T.astype(np.float32)
    sketches = np.empty((len(grey), _WAVES**2), np.float32)
    for start in range(0, len(grey), _COLUMNS):
        inside = _unit(grey[start : start + _COLUMNS]) @ basis
        left = np.sqrt(np.maximum(0, 1 - (inside**2).sum(1, keepdims=True)))
        sketches[start : start + _COLUMNS] = np.hstack([inside, left])
    return sketches


def _unit(grey: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
    """Pictures as vectors of mean 0 and length 1, float32 [n, THUMB_PX**2]; all zero where every pixel is equal."""
    flat = grey.reshape(len(grey), THUMB_PX**2).astype(np.float32)
    flat -= flat.mean(1, keepdims=True)
    return flat / np.maximum(np.linalg.norm(flat, axis=1, keepdims=True), 1e-6)
