"""Reading and writing the feature store against np.memmap of the same numbers in one raw file, interleaved in one run.

    python benchmarks/store.py [--rows 3328] [--reports 1280] [--rounds 9] [--threads 2] [--folder DIR]

Only ratios of one run mean something, and on a busy machine these swing too: a ratio is the median over rounds in which
each side has its turn. The plain side is the fastest of the plain ways that numpy has for a task. Warm: all is in the
page cache. "Again": rows that were read before, and maps of which every page was touched. "First": both sides are
opened anew in every round, and the store computes the checksum of every row. Cold: files are synced and dropped from
the page cache. Needs about 3.5 GB on the disk and 3 GB of memory.
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
STRETCH = 2**26

Sides = dict[str, tuple[Callable[[], Any], Callable[[Any], object]]]
"""Ways to do a task: what is made ready before the clock starts, and what is done with it."""


def measure(sides: Sides, rounds: int, dropped: Path | None = None) -> dict[str, np.ndarray]:
    """Seconds of each way in each round; cold if a folder is to be dropped from the cache before."""
    taken: dict[str, list[float]] = {name: [] for name in sides}
    for number in range(rounds):
        for name, (prepare, run) in list(sides.items())[:: 1 if number % 2 else -1]:
            ready = prepare()
            if dropped is not None:
                drop_cache(dropped)
            started = time.perf_counter()
            run(ready)
            taken[name].append(time.perf_counter() - started)
    return {name: np.array(seconds) for name, seconds in taken.items()}


def fastest(prefix: str, times: dict[str, np.ndarray]) -> np.ndarray:
    """Of the ways whose name begins so, the one with the least median."""
    return min((seconds for name, seconds in times.items() if name.startswith(prefix)), key=np.median)


def drop_cache(folder: Path) -> None:
    """Write back and forget all files below a folder."""
    for path in folder.rglob("*"):
        if path.is_file():
            fd = os.open(path, os.O_RDONLY)
            os.fsync(fd)
            os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
            os.close(fd)


def fill_cache(folder: Path) -> None:
    """Have all files below a folder in the page cache, in pieces of about the same sizes.

    The longer the system reads ahead in a file, the larger the pieces, and what lies there in large pieces is faster to
    read whoever does: a file of a gigabyte would be at an advantage that one shard cannot have.
    """
    drop_cache(folder)
    for path in folder.rglob("*"):
        for start in range(0, path.stat().st_size if path.is_file() else 0, STRETCH):
            with path.open("rb", buffering=0) as file:
                file.seek(start)
                for _ in range(STRETCH // 2**20):
                    file.read(2**20)


def say(
    task: str, size: float, unit: str, ours: np.ndarray, plain: np.ndarray | None = None, must: float | None = None
) -> None:
    """One line: the rates of both, the median ratio of the rounds, and whether it is what it must be."""
    line = f"{task:<46}{size / np.median(ours):>9.2f}"
    if plain is not None:
        ratio = float(np.median(plain / ours))
        line += f"{size / np.median(plain):>9.2f} {unit:<8}{ratio:>7.2f}"
        line += f"{must:>7.2f}  {'ok' if ratio >= must else 'below'}" if must is not None else ""
    else:
        line += f"{'':>10}{unit}"
    print(line, flush=True)


def random_tokens(shape: tuple[int, ...], seed: int) -> np.ndarray:
    """Finite float16 numbers that nothing can shrink."""
    return np.random.default_rng(seed).integers(0, 2**14, shape, dtype=np.uint16).view(np.float16)


def report_lengths(count: int, folder: Path) -> np.ndarray:
    """Lengths of reports: those of the phantom in words, scaled to a mean of `MEAN_REPORT` tokens and drawn anew."""
    scratch = open_store(folder / "phantom", create=True)
    build_phantom(scratch, "phantom", subjects=200)
    words = np.array([len(text.split()) for text in list_items(scratch, modality="text")["text"]])
    drawn = np.random.default_rng(0).choice(words, count)
    return np.clip(np.rint(drawn * MEAN_REPORT / words.mean()), 1, CONTEXT).astype(np.int64)


def empty_set(store: Store, modality: str, count: int) -> FeatureSet:
    """A feature set without rows, and its items. Nobody looks at the images that they name."""
    tokens = TOKENS if modality == "image" else CONTEXT
    keys = [f"b/{modality}{i:06d}" for i in range(count)]
    sources = {"path": keys, "text": None} if modality == "image" else {"path": None, "text": keys}
    add_items(store, pl.DataFrame({"item": keys, "modality": modality, **sources}).cast(pl.String))
    rows = shard_rows_for(modality=modality, tokens=tokens, dim=DIM)
    return create_feature_set(store, FeatureLayout(modality, modality, DIM, tokens, False, rows, {}, {}))  # type: ignore[arg-type]


def write_set(store: Store, feature_set: FeatureSet, rows: Sequence[np.ndarray], folder: Path) -> None:
    """Write all rows as shards and, in turn, the bytes of each shard to a plain file with fsync; say how fast."""
    seconds: dict[str, list[float]] = {"ours": [], "plain": []}
    plain = folder / f"plain-{feature_set.modality}"
    written = 0
    for plan in feature_set.plan(list_items(store, modality=feature_set.modality)):
        part = rows[written : written + len(plan.items)]
        flat = np.concatenate([row.reshape(-1, DIM) for row in part])
        written += len(part)

        def write_shard(plan=plan, part=part) -> None:
            writer = ShardWriter(feature_set, plan)
            for position, (item, row) in enumerate(zip(plan.items, part, strict=True)):
                writer.put(position, row, content=text_hash(item), stamp="absent")
            writer.commit()

        def write_plain(flat=flat) -> None:
            with plain.open("ab", buffering=0) as file:
                file.write(flat)
                os.fsync(file.fileno())

        ways = [("ours", write_shard), ("plain", write_plain)]
        for name, write in ways if plan.shard % 2 else ways[::-1]:
            started = time.perf_counter()
            write()
            seconds[name].append((time.perf_counter() - started) / flat.nbytes * 1e9)
    title = f"{feature_set.modality}: write shards, checksums and fsync"
    say(title, 1, "GB/s", np.array(seconds["ours"]), np.array(seconds["plain"]), 0.7)


class Task:
    """Tokens as a feature set and as a raw file of rows of one size, and the ways to read them."""

    def __init__(self, store: Store, name: str, raw: Path, shape: tuple[int, ...], threads: int) -> None:
        self.store, self.name, self.raw, self.shape, self.threads = store, name, raw, shape, threads
        self.items = self.open().items
        order = np.random.default_rng(3).permutation(shape[0])
        self.batches = [order[i : i + BATCH] for i in range(0, shape[0] - BATCH + 1, BATCH)]
        self.out = np.zeros(shape, np.float16)
        self.buffer = np.zeros((BATCH, *shape[1:]), np.float16)
        self.of_batches = len(self.batches) * BATCH / shape[0]

    def open(self, threads: int | None = None) -> Features:
        return open_features(self.store, self.name, threads=threads or self.threads)

    def read(self, features: Features, places: Any, out: np.ndarray) -> None:
        if features.modality == "image":
            features.image_tokens(places, out=out)
        else:
            features.text_tokens(places, out=out.reshape(-1, DIM))

    def full(self, features: Features) -> None:
        self.read(features, self.items, self.out)

    def random(self, features: Features) -> None:
        places = features.locate(self.items)
        for batch in self.batches:
            self.read(features, places[batch], self.buffer)

    def stream(self, features: Features) -> None:
        for _ in stream_features(features, self.items, batch_size=BATCH, shuffle_seed=0, drop_last=True):
            pass

    def memmap(self) -> np.memmap:
        return np.memmap(self.raw, np.float16, "r", shape=self.shape)

    def memmap_full(self, memmap: np.ndarray) -> None:
        np.copyto(self.out, memmap)

    def memmap_rows(self, memmap: np.ndarray) -> None:
        for i in range(len(memmap)):
            self.out[i] = memmap[i]

    def memmap_loop(self, memmap: np.ndarray) -> None:
        for batch in self.batches:
            for i, j in enumerate(batch.tolist()):
                self.buffer[i] = memmap[j]

    def memmap_take(self, memmap: np.ndarray) -> None:
        for batch in self.batches:
            np.take(memmap, batch, axis=0, out=self.buffer, mode="clip")

    def again(self, features: Features) -> Callable[[], Features]:
        """The same reader every time, all of whose rows were read and mapped before."""
        for _ in range(2):
            self.full(features)
        return lambda: features

    def sides(self) -> dict[str, Sides]:
        """By task, all ways to do it: `again` and `first`, ours and plain."""
        ours, one, touched = self.again(self.open()), self.again(self.open(1)), self.memmap()
        self.memmap_full(touched)
        tasks: dict[str, Sides] = {}
        for task, read, plain in (
            ("full read", self.full, (self.memmap_full, self.memmap_rows)),
            ("random batches of 64", self.random, (self.memmap_loop, self.memmap_take)),
        ):
            sides: Sides = {"ours again": (ours, read), "one thread again": (one, read)}
            sides |= {"ours first": (self.open, read), "one thread first": (lambda: self.open(1), read)}
            for way in plain:
                sides[f"plain again {way.__name__}"] = (lambda: touched, way)
                sides[f"plain first {way.__name__}"] = (self.memmap, way)
            tasks[task] = sides
        return tasks

    def streams(self) -> Sides:
        """A stream in its first epoch and a later one."""
        return {"first": (self.open, self.stream), "again": (self.again(self.open()), self.stream)}

    def cold(self) -> Sides:
        """What is done once after the machine was started."""
        return {
            "full": (self.open, self.full),
            "plain full": (self.memmap, self.memmap_full),
            "random": (self.open, self.random),
            "plain random": (self.memmap, self.memmap_loop),
            "stream": (self.open, self.stream),
        }


def warm(
    kind: str, task: Task, size: float, unit: str, rounds: int, must: dict[str, tuple[float, float | None]]
) -> None:
    """Say all that is measured warm; `must` has the least ratio of rows read again and for the first time."""
    for title, sides in task.sides().items():
        times = measure(sides, rounds)
        done = size * task.of_batches if "random" in title else size
        for state, least in zip(("again", "first"), must[title], strict=True):
            plain = fastest(f"plain {state}", times)
            checked = ", checksums" if state == "first" else ""
            say(f"{kind}: {title}, {state}{checked}", done, unit, times[f"ours {state}"], plain, least)
            say("    by one thread", done, unit, times[f"one thread {state}"], plain)
        say("    first against a map touched before", done, unit, times["ours first"], fastest("plain again", times))
    times = measure(task.streams(), rounds)
    for state in ("first", "again"):
        say(f"{kind}: stream, shuffled, {state}", size * task.of_batches, unit, times[state])


def cold(kind: str, task: Task, size: float, unit: str, rounds: int, folder: Path) -> None:
    """Say all that is measured cold."""
    times = measure(task.cold(), rounds, folder)
    say(f"{kind}: cold full read, checksums", size, unit, times["full"], times["plain full"])
    size *= task.of_batches
    say(f"{kind}: cold random batches, checksums", size, unit, times["random"], times["plain random"])
    say(f"{kind}: cold stream, shuffled, checksums", size, unit, times["stream"], times["plain random"])


def zarr_python(task: Task, size: float, folder: Path) -> None:
    """zarr-python on the same files, for the record: one random batch."""
    array: Any = zarr.open_group(folder, mode="r")["tokens/v0"]
    started = time.perf_counter()
    array.oindex[np.sort(task.batches[0])]
    seconds = np.array([time.perf_counter() - started])
    say("image: zarr-python, 64 random rows", size * BATCH / task.shape[0], "GB/s", seconds)


def run(folder: Path, arguments: argparse.Namespace) -> None:
    store = open_store(folder / "store", create=True)
    print(f"load average {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores; {arguments.threads} threads")
    print(f"{'':<46}{'store':>9}{'plain':>9} {'':<8}{'ratio':>7}{'must':>7}")

    values = random_tokens((arguments.rows, TOKENS, DIM), 0)
    images = empty_set(store, "image", arguments.rows)
    write_set(store, images, values, folder)
    fill_cache(folder)
    gigabytes = values.nbytes / 1e9
    image = Task(store, images.name, folder / "plain-image", values.shape, arguments.threads)
    image.full(image.open())
    assert np.array_equal(image.out.view(np.uint16), values.view(np.uint16))
    del values
    warm(
        "image",
        image,
        gigabytes,
        "GB/s",
        arguments.rounds,
        {"full read": (0.85, 0.85), "random batches of 64": (0.8, 0.6)},
    )
    zarr_python(image, gigabytes, store.features / images.name)

    lengths = report_lengths(arguments.reports, folder)
    reports = [random_tokens((n, DIM), 1 + i) for i, n in enumerate(lengths.tolist())]
    texts = empty_set(store, "text", len(reports))
    write_set(store, texts, reports, folder)
    with (folder / "padded").open("wb") as file:
        for report in reports:
            file.write(np.concatenate([report, np.zeros((CONTEXT - len(report), DIM), np.float16)]))
    fill_cache(folder)
    text = Task(store, texts.name, folder / "padded", (len(reports), CONTEXT, DIM), arguments.threads)
    warm(
        "text",
        text,
        len(reports) / 1e3,
        "krows/s",
        arguments.rounds,
        {"full read": (3, None), "random batches of 64": (3, None)},
    )

    rounds = -(-arguments.rounds // 3)
    cold("image", image, gigabytes, "GB/s", rounds, folder)
    cold("text", text, len(reports) / 1e3, "krows/s", rounds, folder)
    print(f"load average {os.getloadavg()[0]:.1f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=3328, help="images, of 196 x 768 float16: 301 kB each")
    parser.add_argument("--reports", type=int, default=1280, help="reports, of 100 of 512 tokens on average")
    parser.add_argument("--rounds", type=int, default=9, help="of each task; a third of them cold")
    parser.add_argument("--threads", type=int, default=DEFAULT_THREADS, help="of the store's reader")
    parser.add_argument("--folder", type=Path, help="where scratch files are put; on a disk, not in memory")
    arguments = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="radfs-bench-", dir=arguments.folder))
    try:
        run(folder, arguments)
    finally:
        shutil.rmtree(folder)


if __name__ == "__main__":
    main()
