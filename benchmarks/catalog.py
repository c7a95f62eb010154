"""The catalog and the row index of a large store: first fold, one shard more, lookups, questions.

    python -m benchmarks.catalog [--rows 1000000] [--folder DIR]

Makes a store of so many image items, one feature set with records of 256 rows each (no tokens) and a cohort of at most
a million samples, and removes it afterwards. It grows in stages, so that what one shard more costs can be compared
between them. Everything is in the page cache. The slow twin of the row index is reading all the records. 10 million
rows take 8 GB of disk and about ten minutes.
"""

import argparse
import hashlib
import multiprocessing
import random
import resource
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import polars as pl

from cli.info import QUESTIONS
from cohorts.cohort import ATTRIBUTES, FORMAT, cohort_key
from cohorts.scheme import BY_SUBJECT
from featurestore.featureset import FeatureSet, create_feature_set, list_feature_sets
from featurestore.fsio import write_parquet
from featurestore.index import RowIndex
from featurestore.layout import FeatureLayout
from featurestore.listing import list_truth
from featurestore.records import Record, read_record, record_file
from featurestore.sealed import seal_json
from featurestore.store import Store, open_store
from heads.catalog import open_catalog

SHARD_ROWS = 256
STAGES = (10_000, 1_000_000)
PART = 1_000_000
REPEATS = 5
SAMPLES = 1_000_000
TYPICAL = {
    "one item": "SELECT * FROM feature_rows WHERE item = '{item}'",
    "states a set": "SELECT feature_set, view, state, count(*) FROM feature_rows GROUP BY ALL",
    "a cohort's rows": "SELECT s.label_name, count(*), sum(r.tokens) FROM samples s JOIN feature_rows r "
    "ON r.item = s.image AND r.view = 0 WHERE s.cohort = 'big' GROUP BY ALL",
}


def item_id(number: int) -> str:
    """As of MIMIC-CXR: a hash of 40 digits in groups of eight."""
    digits = hashlib.blake2b(number.to_bytes(8, "little"), digest_size=20).hexdigest()
    return "mimic-cxr/" + "-".join(digits[i : i + 8] for i in range(0, 40, 8))


def make_store(root: Path, rows: int) -> FeatureSet:
    """A store with items and a cohort, and a feature set without shards."""
    store = open_store(root, create=True)
    for part, first in enumerate(range(0, rows, PART)):
        ids = [item_id(i) for i in range(first, min(first + PART, rows))]
        columns = {"item": ids, "modality": "image", "path": [f"/data/{i[10:]}.jpg" for i in ids]}
        frame = pl.DataFrame(columns).with_columns(text=pl.lit(None, pl.String), text_sha256=pl.lit(None, pl.String))
        write(frame, store.root / "items" / "mimic-cxr" / f"{part:06d}.parquet")
    make_cohort(store.root / "cohorts" / "big", min(rows, SAMPLES))
    what = {"weights_sha256": "0" * 64, "preprocessing": "none", "revision": "1"}
    layout = FeatureLayout("mrm", "image", 768, 196, True, SHARD_ROWS, what, {"licence": "MIT"})
    return create_feature_set(store, layout)


def make_cohort(folder: Path, n: int) -> None:
    """A cohort of the first items."""
    key = cohort_key("r", BY_SUBJECT)
    ids = [item_id(i) for i in range(n)]
    columns = {"cohort": "big", "cohort_key": key, "sample": ids, "subject": [f"p{i // 4}" for i in range(n)]}
    columns |= {"study": None, "image": ids, "text": None, "text_sha256": None}
    attributes = [pl.lit(None, dtype).alias(name) for name, dtype in ATTRIBUTES.items()]
    columns |= {"label": [i % 2 for i in range(n)], "label_name": [("no", "yes")[i % 2] for i in range(n)]}
    attributes.append(pl.lit(None, pl.List(pl.Int8)).alias("findings"))
    write(pl.DataFrame(columns).with_columns(attributes), folder / key / "samples.parquet")
    counts = {"samples": n, "subjects": -(-n // 4), "images": n, "texts": 0}
    pointer = {"format": FORMAT, "name": "big", "key": key, "builder": "table", "options": {}, "task": "binary"}
    pointer |= {"classes": ["no", "yes"], "rows": "r", "splits": BY_SUBJECT.what(), "licence": "none", "counts": counts}
    (folder / "cohort.json").write_bytes(seal_json(pointer))


def write(frame: pl.DataFrame, path: Path) -> None:
    """A Parquet file and its folders."""
    write_parquet(path, frame)


def decide(feature_set: FeatureSet, shards: range) -> None:
    """Commit shards that have no files; one row in a thousand failed."""
    (feature_set.path / "commits" / "v0").mkdir(parents=True, exist_ok=True)
    for shard in shards:
        first = shard * SHARD_ROWS
        numbers = range(first, first + SHARD_ROWS)
        failed = {i: "not an image" for i in range(SHARD_ROWS) if (first + i) % 1000 == 0}
        ids = [item_id(i) for i in numbers]
        crcs = [None if i in failed else (first + i) * 2654435761 % 2**32 for i in range(SHARD_ROWS)]
        record = Record(
            feature_set.name,
            0,
            shard,
            first,
            f"{shard:012x}",
            items=ids,
            stamps=[f"{10**6 + i}:{10**18 + i * 7919}:{i:08x}" for i in numbers],
            content=[(i[10:].replace("-", "") * 2)[:64] for i in ids],
            tokens=[None if i in failed else 196 for i in range(SHARD_ROWS)],
            failed=failed,
            crc32={array.path: crcs for array in feature_set.layout.arrays()},
            files={a.shard_file(shard): {"bytes": 77_074_436, "crc32": shard} for a in feature_set.layout.arrays()},
        )
        (feature_set.path / record_file(0, shard)).write_bytes(record.encode())


def timed(function: Callable[[], Any], repeats: int = 1) -> tuple[float, Any]:
    """Median seconds, and the last result."""
    seconds = []
    for _ in range(repeats):
        start = time.perf_counter()
        result = function()
        seconds.append(time.perf_counter() - start)
    return statistics.median(seconds), result


def alone(function: Callable[..., Any], *arguments: Any) -> tuple[Any, float]:
    """What a function gives in a process of its own, and that process's largest memory in MB."""
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        return pool.submit(_measured, function, arguments).result()


def _measured(function: Callable[..., Any], arguments: tuple[Any, ...]) -> tuple[Any, float]:
    return function(*arguments), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def the_store(root: Path) -> tuple[Store, FeatureSet]:
    """The store and its one feature set."""
    store = open_store(root)
    return store, list_feature_sets(store)[0]


def fold(root: Path) -> tuple[float, float]:
    """Seconds of a fold, and processor seconds, which a busy machine changes less."""
    catalog, before = open_catalog(open_store(root)), time.process_time()
    return timed(catalog.fold)[0], time.process_time() - before


def first_fold(root: Path) -> tuple[float, float]:
    """The same of a fold from nothing."""
    open_store(root).catalog.unlink(missing_ok=True)
    return fold(root)


def listing(root: Path) -> float:
    """Seconds of looking which truth files there are, which every command does."""
    catalog = open_catalog(open_store(root))
    return timed(lambda: list_truth(root, [table.truth for table in catalog.tables]), 5)[0]


def lookups(root: Path, rows: int) -> dict[str, float]:
    """Seconds of making the index, opening it, looking up; and of the slow twin."""
    path = the_store(root)[1].path
    found = {"made": timed(RowIndex(path, 0).compact)[0], "open": timed(lambda: RowIndex(path, 0), 5)[0]}
    rng = random.Random(0)
    for n in (1, 64, 10_000):
        items = [item_id(rng.randrange(rows)) for _ in range(n)]
        found[f"{n}"], frame = timed(lambda items=items: RowIndex(path, 0).lookup(items), 5)
        if set(frame["item"]) != set(items):
            raise SystemExit("the index lost rows")
    found["all"] = timed(lambda: RowIndex(path, 0).lookup(None))[0]
    return found


def slow_twin(root: Path) -> float:
    """Seconds of reading all the records."""
    path = the_store(root)[1].path
    return timed(lambda: pl.concat([read_record(p).frame() for p in sorted((path / "commits/v0").iterdir())]))[0]


def questions(root: Path, rows: int) -> dict[str, tuple[float, float]]:
    """Seconds of questions: of the query alone, and of looking for new truth files first, as commands do."""
    catalog = open_catalog(open_store(root))
    asked = {f"info: {name}": sql for name, sql in QUESTIONS.items()}
    asked |= {f"query: {name}": sql.format(item=item_id(rows // 2)) for name, sql in TYPICAL.items()}
    seconds = {}
    for name, sql in asked.items():
        alone_s = timed(lambda sql=sql: catalog.query(sql), 3)[0]
        seconds[name] = alone_s, timed(lambda sql=sql: (catalog.fold(), catalog.query(sql)), 3)[0]
    return seconds


def grow(root: Path, rows: int) -> None:
    """Stage by stage: fold what came, then one shard more."""
    _, feature_set = the_store(root)
    done, base = 0, 0.0
    print(f"{'rows':>12}{'records':>9}{'fold s':>9}{'listing s':>11}{'one more s':>12}{'its CPU s':>11}{'growth':>9}")
    for stage in sorted({*(s for s in STAGES if s < rows), rows}):
        shards = stage // SHARD_ROWS
        decide(feature_set, range(done, shards))
        (folded, _), _ = alone(fold, root)
        look, _ = alone(listing, root)
        more = []
        for extra in range(REPEATS):
            decide(feature_set, range(shards + extra, shards + extra + 1))
            more.append(alone(fold, root)[0])
        done = shards + REPEATS
        one, cpu = (statistics.median(column) for column in zip(*more, strict=True))
        base = base or one - look
        cost = f"{folded:>9.2f}{look:>11.3f}{one:>12.3f}{cpu:>11.3f}{(one - look) / base:>8.2f}x"
        print(f"{stage:>12,}{shards:>9,}{cost}", flush=True)
    print("(the first fold has all items and the cohort in it; growth is of one record more, less the listing)")


def main() -> None:
    """Make the store, print the figures, remove it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--folder", type=Path)
    arguments = parser.parse_args()
    scratch = Path(tempfile.mkdtemp(dir=arguments.folder))
    root, rows = scratch / "store", arguments.rows
    try:
        made, _ = timed(lambda: make_store(root, rows))
        print(f"{rows:,} rows, {rows // SHARD_ROWS:,} records; items and cohort made in {made:.0f} s")
        grow(root, rows)
        (first, cpu), memory = alone(first_fold, root)
        size = open_store(root).catalog.stat().st_size / 1e6
        print(
            f"first fold from nothing: {first:.1f} s (CPU {cpu:.1f} s), catalog {size:,.0f} MB, memory {memory:,.0f} MB"
        )
        found, memory = alone(lookups, root, rows)
        slow, _ = alone(slow_twin, root)
        print(f"row index: made in {found.pop('made'):.1f} s; memory {memory:,.0f} MB (with all rows read at once)")
        print(f"slow twin, reading all the records: {slow:.2f} s")
        for name, seconds in found.items():
            what = "open" if name == "open" else f"open and look up {name}"
            print(f"  {what:<24}{seconds * 1e3:>10.1f} ms{slow / seconds:>9.0f}x")
        answers, memory = alone(questions, root, rows)
        print(f"{'question':<28}{'query ms':>10}{'with fold ms':>14}   (memory {memory:,.0f} MB)")
        for name, (query_s, command_s) in answers.items():
            print(f"{name:<28}{query_s * 1e3:>10.0f}{command_s * 1e3:>14.0f}")
    finally:
        shutil.rmtree(scratch)


if __name__ == "__main__":
    main()
