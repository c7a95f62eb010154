"""Looking for images that look alike: all pairs of a large cohort, by sketches and one by one, interleaved in one run.

    python benchmarks/lookalikes.py IMAGES [--n 377110] [--slow 4000]

Thumbnails are made up with the mean and the covariance of the image files below `IMAGES`, and every thousandth is a
copy of another one with other grey levels. The baseline compares the hashes of all pairs, of the first `--slow` alone;
its time for all grows with the square.
"""

import argparse
import resource
import time
from pathlib import Path

import numpy as np
import numpy.typing as npt

from cohorts.lookalikes import MAX_DISTANCE, THUMB_PX, Thumbnails, as_thumbnails, near_pairs, thumbnail
from featurestore.errors import ItemError

_COPY_EVERY = 1000


def make_up(folder: Path, n: int) -> npt.NDArray[np.uint8]:
    """Pictures uint8 [n, THUMB_PX, THUMB_PX] like those of the folder."""
    real = []
    for path in sorted(folder.rglob("*")):
        if path.suffix.lower() in (".png", ".jpg", ".jpeg"):
            try:
                real.append(thumbnail(path))
            except ItemError:
                continue
    flat = np.stack(real).reshape(len(real), -1).astype(np.float64)
    mean = flat.mean(0)
    values, axes = np.linalg.eigh(np.cov(flat.T))
    mix = (axes * np.sqrt(np.maximum(values, 0))).T.astype(np.float32)
    rng = np.random.default_rng(0)
    made = np.empty((n, THUMB_PX**2), np.uint8)
    for start in range(0, n, 10_000):
        part = rng.standard_normal((min(10_000, n - start), THUMB_PX**2), np.float32) @ mix + mean
        made[start : start + len(part)] = np.clip(part, 0, 255)
    copies = np.arange(_COPY_EVERY, n, _COPY_EVERY)
    made[copies] = np.clip(made[copies - 1].astype(np.float32) * 0.9 + 8, 0, 255)
    return made.reshape(n, THUMB_PX, THUMB_PX)


def all_pairs(thumbnails: Thumbnails) -> int:
    """How many pairs have near hashes."""
    hashes, near = thumbnails.hashes, 0
    for i in range(len(hashes)):
        near += int((np.bitwise_count(hashes[i] ^ hashes[i + 1 :]).sum(1, dtype=np.int64) <= MAX_DISTANCE).sum())
    return near


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("images", type=Path)
    parser.add_argument("--n", type=int, default=377_110)
    parser.add_argument("--slow", type=int, default=4_000)
    arguments = parser.parse_args()
    pictures = make_up(arguments.images, arguments.n)
    start = time.perf_counter()
    thumbnails = as_thumbnails(list(pictures))
    print(f"hashes of {arguments.n:,} thumbnails: {time.perf_counter() - start:.1f} s", flush=True)
    start = time.perf_counter()
    found = list(near_pairs(thumbnails))
    seconds = time.perf_counter() - start
    copies = len(range(_COPY_EVERY, arguments.n, _COPY_EVERY))
    kept = {(i, j) for i, j, _ in found}
    missed = sum((i - 1, i) not in kept for i in range(_COPY_EVERY, arguments.n, _COPY_EVERY))
    print(f"near pairs: {seconds:.1f} s, {len(found):,} pairs, {missed} of {copies} copies missed", flush=True)
    few = Thumbnails(thumbnails.grey[: arguments.slow], thumbnails.hashes[: arguments.slow])
    start = time.perf_counter()
    near = all_pairs(few)
    slow = (time.perf_counter() - start) * (arguments.n / arguments.slow) ** 2
    print(f"hashes of all pairs, {arguments.slow:,} images: {near:,} near; for all {slow / 60:.0f} minutes", flush=True)
    print(f"memory {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6:.1f} GB", flush=True)


if __name__ == "__main__":
    main()
