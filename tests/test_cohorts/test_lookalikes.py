"""Look-alikes: the search by sketches finds exactly the pairs that a look at every pair finds."""

import numpy as np
import pytest

from cohorts import lookalikes
from cohorts.lookalikes import MAX_DISTANCE, MIN_CORRELATION, THUMB_PX, Thumbnails, as_thumbnails, near_pairs


def families(n: int, *, seed: int = 0) -> list[np.ndarray]:
    """Smooth pictures, three of each kind with a little noise, so that correlations lie on both sides of the limit."""
    rng = np.random.default_rng(seed)
    coarse = rng.normal(size=((n + 2) // 3, 6, 6))
    pictures = []
    for i in range(n):
        smooth = np.kron(coarse[i // 3], np.ones((6, 6)))[:THUMB_PX, :THUMB_PX]
        noisy = smooth + rng.normal(size=smooth.shape) * rng.choice([0, 0.1, 0.2, 0.3])
        pictures.append(np.clip(128 + 40 * noisy, 0, 255).astype(np.uint8))
    return pictures


def one_by_one(thumbnails: Thumbnails) -> dict[tuple[int, int], float]:
    """The slow twin: every pair is looked at."""
    flat = thumbnails.grey.reshape(len(thumbnails.grey), THUMB_PX**2).astype(np.float64)
    flat -= flat.mean(1, keepdims=True)
    flat /= np.maximum(np.linalg.norm(flat, axis=1, keepdims=True), 1e-6)
    found = {}
    for i in range(len(flat)):
        for j in range(i + 1, len(flat)):
            distance = np.bitwise_count(thumbnails.hashes[i] ^ thumbnails.hashes[j]).sum()
            if distance <= MAX_DISTANCE and flat[i] @ flat[j] >= MIN_CORRELATION:
                found[i, j] = flat[i] @ flat[j]
    return found


@pytest.mark.parametrize(("n", "tile"), [(0, 512), (1, 512), (2, 512), (7, 2), (100, 512), (203, 17)])
def test_no_pair_is_missed_and_none_is_made_up(monkeypatch, n, tile):
    monkeypatch.setattr(lookalikes, "_ROWS", tile)
    monkeypatch.setattr(lookalikes, "_COLUMNS", 3 * tile)
    thumbnails = as_thumbnails(families(n))
    expected = one_by_one(thumbnails)
    found = list(near_pairs(thumbnails))
    assert [pair[:2] for pair in found] == sorted(expected)
    assert all(abs(correlation - expected[i, j]) < 1e-5 for i, j, correlation in found)
    if n == 203:
        assert 10 < len(found) < 203, "families on both sides of the limit"


def test_the_products_of_sketches_are_upper_bounds_of_correlations():
    thumbnails = as_thumbnails([*families(60), np.full((THUMB_PX, THUMB_PX), 9, np.uint8)])
    unit = lookalikes._unit(thumbnails.grey)
    sketches = lookalikes._sketches(thumbnails.grey)
    assert sketches.shape == (61, 36)
    assert (sketches @ sketches.T >= unit @ unit.T - 1e-5).all()


def test_pictures_of_one_grey_resemble_nothing():
    grey = [np.full((THUMB_PX, THUMB_PX), level, np.uint8) for level in (0, 9, 255)]
    assert list(near_pairs(as_thumbnails([*grey, *grey]))) == []


def test_many_copies_of_one_picture_are_all_pairs():
    found = list(near_pairs(as_thumbnails(families(1) * 40)))
    assert [(i, j) for i, j, _ in found] == [(i, j) for i in range(40) for j in range(i + 1, 40)]
