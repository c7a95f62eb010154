"""Reading and writing the feature store against np.memmap of the same numbers in one raw file, interleaved in one run.

    python benchmarks/store.py [--rows 3328] [--rounds 9] [--threads 2] [--folder DIR]

Only ratios of one run mean something. Rounds alternate between the two sides and medians are compared. np.memmap is
read in the fastest plain way that numpy has for each task (found in the same run). Warm: everything is in the page
cache. Where rows count as read before, both sides have touched all of theirs; "first read" opens both sides anew for
every round, and the store computes the checksum of every row. Cold: files are synced and dropped from the page cache.
"""

import argparse
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import zarr

from cohorts import build_phantom
from featurestore import add_items, list_items, open_features, open_store
from featurestore.featureset import FeatureSet, create_feature_set
from featurestore.gather import DEFAULT_THREADS
from featurestore.items import text_hash
from featurestore.layout import FeatureLayout, shard_rows_for
from featurestore.reader import Features
from featurestore.store import Store
from featurestore.stream import stream_features
from featurestore.writer import ShardWriter

TOKENS, DIM, CONTEXT = 196, 768, 512
BATCH = 64
MEAN_REPORT = 100
Sides = dict[str, tuple[Callable[[], Any], Callable[[Any], object]]]


def random_tokens(shape: tuple[int, ...], seed: int) -> np.ndarray:
    """Finite float16 numbers that no file system can shrink."""
    return np.random.default_rng(seed).integers(0, 2**14, shape, dtype=np.uint16).view(np.float16)


def report_lengths(count: int, folder: Path) -> np.ndarray:
    """Lengths of the phantom's reports in words, scaled to a mean of 100 tokens and drawn anew."""
    scratch = open_store(folder / "phantom", create=True)
    build_phantom(scratch, "phantom", subjects=200)
    words = np.array([len(text.split()) for text in list_items(scratch, modality="text")["text"]])
    drawn = np.random.default_rng(0).choice(words, count)
    return np.clip(np.rint(drawn * MEAN_REPORT / words.mean()), 1, CONTEXT).astype(np.int64)


def make_set(store: Store, modality: str, count: int) -> FeatureSet:
    """An empty feature set and its items; the sources that they name are looked at by nobody here."""
    tokens = TOKENS if modality == "image" else CONTEXT
    rows = shard_rows_for(modality=modality, tokens=tokens, dim=DIM)
    keys = [f"b/{modality}{i:06d}" for i in range(count)]
    sources = {"path": keys, "text": None} if modality == "image" else {"path": None, "text": keys}
    frame = pl.DataFrame({"item": keys, "modality": modality, **sources})
    add_items(store, frame.cast(pl.String))
    layout = FeatureLayout(modality, modality, DIM, tokens, False, rows, {}, {})  # type: ignore[arg-type]
    return create_feature_set(store, layout)


def write_set(store: Store, feature_set: FeatureSet, rows: Sequence[np.ndarray], plain: Path) -> list[list[float]]:
    """Write all rows as shards and, shard by shard in turn, the same bytes plainly; seconds of both."""
    modality, written = feature_set.modality, 0
    seconds: list[list[float]] = [[], []]
    for plan in feature_set.plan(list_items(store, modality=modality)):
        ours = rows[written : written + len(plan.items)]
        written += len(ours)
        flat = np.concatenate([row.reshape(-1, DIM) for row in ours])

        def through_store(plan=plan, ours=ours) -> None:
            writer = ShardWriter(feature_set, plan)
            for position, (item, row) in enumerate(zip(plan.items, ours, strict=True)):
                writer.put(position, row, content=text_hash(item), stamp="absent")
            writer.commit()

        def plainly(flat=flat) -> None:
            with plain.open("ab", buffering=0) as file:
                file.write(flat)
                os.fsync(file.fileno())

        for side, write in enumerate((through_store, plainly)):
            started = time.perf_counter()
            write()
            seconds[side].append(time.perf_counter() - started)
    return seconds


def medians(sides: Sides, rounds: int, folder: Path | None = None) -> dict[str, float]:
    """Median seconds of each way, all of them in turn in every round; cold if a folder is to be dropped from the cache.

    A way is what is made ready before the clock starts, and what is done with it.
    """
    taken: dict[str, list[float]] = {name: [] for name in sides}
    for _ in range(rounds):
        for name, (prepare, run) in sides.items():
            ready = prepare()
            if folder is not None:
                drop_cache(folder)
            started = time.perf_counter()
            run(ready)
            taken[name].append(time.perf_counter() - started)
    return {name: float(np.median(seconds)) for name, seconds in taken.items()}


def drop_cache(folder: Path) -> None:
    """Write back and forget all files below a folder."""
    for path in folder.rglob("*"):
        if path.is_file():
            fd = os.open(path, os.O_RDONLY)
            os.fsync(fd)
            os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
            os.close(fd)


def say(task: str, size: float, unit: str, ours: float, theirs: float | None, required: float | None = None) -> None:
    """One line: rates of both, their ratio, and whether it is what it must be."""
    line = f"{task:<52}{size / ours:>9.2f}"
    if theirs is not None:
        line += f"{size / theirs:>10.2f}  {unit:<7}{theirs / ours:>6.2f}"
    else:
        line += f"{'':>12}{unit}"
    if required is not None and theirs is not None:
        line += f"{required:>6.2f}  {'ok' if theirs / ours >= required else 'below'}"
    print(line, flush=True)


def best(name: str, times: dict[str, float]) -> float:
    """The least time of the ways whose name begins so."""
    return min(seconds for way, seconds in times.items() if way.startswith(name))


class Images:
    """Image tokens as a feature set and as a raw file, and the ways to read them."""

    def __init__(self, store: Store, name: str, raw: Path, count: int, threads: int) -> None:
        self.store, self.name, self.raw, self.count, self.threads = store, name, raw, count, threads
        self.items = self.open().items
        order = np.random.default_rng(3).permutation(count)
        self.batches = [order[i : i + BATCH] for i in range(0, count, BATCH)]
        self.out = np.zeros((count, TOKENS, DIM), np.float16)
        self.buffer = np.zeros((BATCH, TOKENS, DIM), np.float16)
        self.gigabytes = count * TOKENS * DIM * 2 / 1e9

    def open(self, threads: int | None = None) -> Features:
        return open_features(self.store, self.name, threads=threads or self.threads)

    def memmap(self) -> np.memmap:
        return np.memmap(self.raw, np.float16, "r", shape=(self.count, TOKENS, DIM))

    def full(self, features: Features) -> None:
        features.image_tokens(self.items, out=self.out)

    def random(self, features: Features) -> None:
        places = features.locate(self.items)
        for batch in self.batches:
            features.image_tokens(places[batch], out=self.buffer[: len(batch)])

    def full_memmap(self, memmap: np.ndarray) -> None:
        np.copyto(self.out, memmap)

    def full_rows(self, memmap: np.ndarray) -> None:
        for i in range(self.count):
            self.out[i] = memmap[i]

    def random_loop(self, memmap: np.ndarray) -> None:
        for batch in self.batches:
            for i, j in enumerate(batch.tolist()):
                self.buffer[i] = memmap[j]

    def random_take(self, memmap: np.ndarray) -> None:
        for batch in self.batches:
            np.take(memmap, batch, axis=0, out=self.buffer[: len(batch)], mode="clip")

    def stream(self, features: Features) -> None:
        for _ in stream_features(features, self.items, batch_size=BATCH, shuffle_seed=0):
            pass

    def check(self) -> None:
        """Both sides hold the same numbers."""
        self.full(self.open())
        if not np.array_equal(self.out.view(np.uint16), self.memmap().view(np.uint16)):
            raise SystemExit("the feature set and the raw file differ")

    def known(self, features: Features) -> Callable[[], Features]:
        """Rows that were read before, and are mapped."""
        for _ in range(2):
            self.full(features)
        return lambda: features

    def warm(self, rounds: int) -> None:
        self.check()
        ours, single = self.known(self.open()), self.known(self.open(threads=1))
        theirs = self.memmap()
        for task, read, ways, required in (
            ("full read", self.full, (self.full_memmap, self.full_rows), (0.85, 0.85)),
            ("random batches of 64 rows", self.random, (self.random_loop, self.random_take), (0.8, 0.6)),
        ):
            sides: Sides = {"ours": (ours, read), "single": (single, read), "new ours": (self.open, read)}
            sides["new single"] = (lambda: self.open(threads=1), read)
            for number, way in enumerate(ways):
                sides[f"memmap {number}"] = (lambda: theirs, way)
                sides[f"new memmap {number}"] = (self.memmap, way)
            times = medians(sides, rounds)
            known, new = best("memmap", times), best("new memmap", times)
            gb = self.gigabytes
            say(f"{task}, rows read before", gb, "GB/s", times["ours"], known, required[0])
            say("    by one thread", gb, "GB/s", times["single"], known)
            say(f"{task}, first read with checksums", gb, "GB/s", times["new ours"], new, required[1])
            say("    by one thread", gb, "GB/s", times["new single"], new)
            say("    against a memmap whose pages are mapped already", gb, "GB/s", times["new ours"], known)
        times = medians({"first": (self.open, self.stream), "again": (ours, self.stream)}, rounds)
        say("stream, shuffled, first epoch with checksums", self.gigabytes, "GB/s", times["first"], None)
        say("stream, shuffled, rows read before", self.gigabytes, "GB/s", times["again"], None)

    def cold(self, folder: Path, rounds: int) -> None:
        sides: Sides = {
            "full": (self.open, self.full),
            "full memmap": (self.memmap, self.full_memmap),
            "random": (self.open, self.random),
            "random memmap": (self.memmap, self.random_loop),
            "stream": (self.open, self.stream),
        }
        times = medians(sides, rounds, folder)
        for task, ways in (("full read", "full"), ("random batches of 64 rows", "random")):
            say(f"cold: {task}, with checksums", self.gigabytes, "GB/s", times[ways], times[f"{ways} memmap"])
        say("cold: stream, shuffled, with checksums", self.gigabytes, "GB/s", times["stream"], times["random memmap"])

    def zarr(self, path: Path) -> None:
        """zarr-python on the same files, for the record."""
        array = zarr.open_group(path, mode="r")["tokens/v0"]
        started = time.perf_counter()
        array.oindex[np.sort(self.batches[0])]  # type: ignore[union-attr]
        seconds = time.perf_counter() - started
        say("zarr-python, 64 random rows", self.buffer.nbytes / 1e9, "GB/s", seconds, None)


class Reports:
    """Reports as a feature set, and padded to the context length in a raw file."""

    def __init__(self, store: Store, name: str, padded: Path, lengths: np.ndarray, threads: int) -> None:
        self.store, self.name, self.padded, self.lengths, self.threads = store, name, padded, lengths, threads
        self.items = self.open().items
        order = np.random.default_rng(4).permutation(len(lengths))
        self.batches = [order[i : i + BATCH] for i in range(0, len(order), BATCH)]
        self.flat = np.zeros((int(lengths.sum()), DIM), np.float16)
        self.buffer = np.zeros((BATCH, CONTEXT, DIM), np.float16)
        self.out = np.zeros((len(lengths), CONTEXT, DIM), np.float16)

    def open(self) -> Features:
        return open_features(self.store, self.name, threads=self.threads)

    def memmap(self) -> np.memmap:
        return np.memmap(self.padded, np.float16, "r", shape=(len(self.lengths), CONTEXT, DIM))

    def full(self, features: Features) -> None:
        features.text_tokens(self.items, out=self.flat)

    def random(self, features: Features) -> None:
        places = features.locate(self.items)
        for batch in self.batches:
            features.text_tokens(places[batch], out=self.buffer.reshape(-1, DIM))

    def full_memmap(self, memmap: np.ndarray) -> None:
        np.copyto(self.out, memmap)

    def random_loop(self, memmap: np.ndarray) -> None:
        for batch in self.batches:
            for i, j in enumerate(batch.tolist()):
                self.buffer[i] = memmap[j]

    def random_take(self, memmap: np.ndarray) -> None:
        for batch in self.batches:
            np.take(memmap, batch, axis=0, out=self.buffer[: len(batch)], mode="clip")

    def stream(self, features: Features) -> None:
        for _ in stream_features(features, self.items, batch_size=BATCH, shuffle_seed=0):
            pass

    def warm(self, rounds: int) -> None:
        known, theirs = self.open(), self.memmap()
        self.full(known)
        self.full(known)
        krows = len(self.lengths) / 1e3
        sides: Sides = {
            "random": (lambda: known, self.random),
            "new random": (self.open, self.random),
            "random memmap loop": (lambda: theirs, self.random_loop),
            "random memmap take": (lambda: theirs, self.random_take),
            "new random memmap": (self.memmap, self.random_loop),
            "full": (lambda: known, self.full),
            "new full": (self.open, self.full),
            "full memmap": (lambda: theirs, self.full_memmap),
            "new full memmap": (self.memmap, self.full_memmap),
            "stream": (lambda: known, self.stream),
        }
        times = medians(sides, rounds)
        memmap = best("random memmap", times)
        say("text, random batches of 64, rows read before", krows, "krows/s", times["random"], memmap, 3)
        say("text, random batches, first read with checksums", krows, "krows/s", times["new random"], memmap, 3)
        say("text, full read, rows read before", krows, "krows/s", times["full"], times["full memmap"], 3)
        say("text, full read, first read", krows, "krows/s", times["new full"], times["new full memmap"], 3)
        say("text, stream, shuffled", krows, "krows/s", times["stream"], memmap)

    def cold(self, folder: Path, rounds: int) -> None:
        sides: Sides = {"ours": (self.open, self.random), "memmap": (self.memmap, self.random_loop)}
        times = medians(sides, rounds, folder)
        krows = len(self.lengths) / 1e3
        say("cold: text, random batches, with checksums", krows, "krows/s", times["ours"], times["memmap"])


def write_images(store: Store, raw: Path, count: int) -> FeatureSet:
    """Write the image set and the raw file, and say how fast."""
    feature_set = make_set(store, "image", count)
    seconds = write_set(store, feature_set, random_tokens((count, TOKENS, DIM), 0), raw)
    ours, theirs = (float(np.median(side)) for side in seconds)
    gb = feature_set.layout.shard_rows * TOKENS * DIM * 2 / 1e9
    say("writing a shard: checksums, record, fsync", gb, "GB/s", ours, theirs, 0.7)
    return feature_set


def write_reports(store: Store, padded: Path, lengths: np.ndarray) -> FeatureSet:
    """Write the text set, and the same reports padded."""
    feature_set = make_set(store, "text", len(lengths))
    reports = [random_tokens((n, DIM), 1 + i) for i, n in enumerate(lengths.tolist())]
    seconds = write_set(store, feature_set, reports, padded.with_name("flat"))
    ours, theirs = (sum(side) for side in seconds)
    say("text, writing", float(lengths.sum()) * DIM * 2 / 1e9, "GB/s", ours, theirs)
    with padded.open("wb") as file:
        for report in reports:
            row = np.zeros((CONTEXT, DIM), np.float16)
            row[: len(report)] = report
            file.write(row)
    return feature_set


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=3328, help="images of 196 x 768 float16, 301 kB each")
    parser.add_argument("--reports", type=int, default=1280, help="reports, 100 of 512 tokens on average")
    parser.add_argument("--rounds", type=int, default=9, help="rounds of each task; a third of them cold")
    parser.add_argument("--threads", type=int, default=DEFAULT_THREADS, help="of the store's reader")
    parser.add_argument("--folder", type=Path, help="where scratch files are put; on a disk, not in memory")
    arguments = parser.parse_args()

    folder = Path(tempfile.mkdtemp(prefix="radfs-bench-", dir=arguments.folder))
    try:
        run(folder, arguments)
    finally:
        shutil.rmtree(folder)


def run(folder: Path, arguments: argparse.Namespace) -> None:
    store = open_store(folder / "store", create=True)
    print(f"{'':<52}{'store':>9}{'plain':>10}  {'':<7}{'ratio':>6}{'must':>6}")
    images = write_images(store, folder / "raw", arguments.rows)
    lengths = report_lengths(arguments.reports, folder)
    reports = write_reports(store, folder / "padded", lengths)
    rounds, cold_rounds = arguments.rounds, -(-arguments.rounds // 3)
    dense = Images(store, images.name, folder / "raw", arguments.rows, arguments.threads)
    dense.warm(rounds)
    dense.zarr(store.features / images.name)
    ragged = Reports(store, reports.name, folder / "padded", lengths, arguments.threads)
    ragged.warm(rounds)
    dense.cold(folder, cold_rounds)
    ragged.cold(folder, cold_rounds)


if __name__ == "__main__":
    main()
