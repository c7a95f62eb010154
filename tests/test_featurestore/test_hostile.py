"""A store made by a stranger: whatever its files say, radfs serves what it can check or refuses, and does nothing else.

Each case changes one thing of a good store and then does with it all that a user would. Allowed are answers and
`RadfsError`s. Nothing is run, nothing outside the store is read, written or removed, no memory is taken that the
bytes on disk do not ask for, and nothing waits for ever. The cases run in a process of their own with little memory.
"""

import json
import os
import pickle
import resource
import shutil
import signal
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import polars as pl
import pytest

from cohorts.cohort import FORMAT as COHORT_FORMAT
from featurestore.claims import Claims
from featurestore.errors import RadfsError
from featurestore.featureset import create_feature_set, list_feature_sets, open_feature_set
from featurestore.gc import collect
from featurestore.index import RowIndex
from featurestore.items import list_items
from featurestore.keys import canonical_json
from featurestore.reader import open_features
from featurestore.records import record_file
from featurestore.sealed import seal_json, seal_parquet
from featurestore.shards import crc32
from featurestore.store import Store, open_store
from featurestore.verify import verify
from featurestore.writer import ShardWriter

from .faults import finish, start
from .sets import add_images, add_texts, image_layout, text_layout, write_all

IMAGES, TEXTS = image_layout().name, text_layout().name
MEMORY = 3 * 2**30
SECONDS = 20
EVERY = int(os.environ.get("RADFS_HOSTILE_EVERY", "12"))
"""Each so many-th case is tried; 1 tries all of them, which takes minutes."""

LIMIT_S = 120 + 3000 // EVERY

Case = Callable[[Path, Path], None]
"""Takes a good store's root, and a folder outside that nobody may touch."""

CASES: dict[str, Case] = {}


def case(name: str) -> Callable[[Case], Case]:
    def add(change: Case) -> Case:
        assert name not in CASES
        CASES[name] = change
        return change

    return add


def images(root: Path) -> Path:
    return root / "features" / IMAGES


def texts(root: Path) -> Path:
    return root / "features" / TEXTS


# Commit records.


def change_record(**changes: Any) -> Case:
    def change(root: Path, _: Path) -> None:
        path = images(root) / record_file(0, 1)
        document = {k: v for k, v in json.loads(path.read_bytes()).items() if k != "check"}
        document |= {k: v(document[k]) if callable(v) else v for k, v in changes.items()}
        path.write_bytes(seal_json(document))

    return change


ABSURD = {
    "negative": -1, "huge": 10**30, "nan": float("nan"), "infinite": float("inf"), "text": "1", "nothing": None,
    "list": [1], "object": {"a": 1}, "true": True, "fraction": 1.5, "next": 2,
}  # fmt: skip
for _key in ("view", "shard", "first_row", "format", "feature_set", "attempt", "state", "items", "stamps", "content",
             "tokens", "failed", "truncated", "crc32", "files"):  # fmt: skip
    for _name, _value in ABSURD.items():
        CASES[f"record: {_key} is {_name}"] = change_record(**{_key: _value})
for _key in ("items", "stamps", "content", "tokens", "truncated"):
    for _name, _value in ABSURD.items():
        CASES[f"record: {_key} holds {_name}"] = change_record(**{_key: lambda old, v=_value: [v, *old[1:]]})
for _name, _value in ABSURD.items():
    CASES[f"record: size of a file is {_name}"] = change_record(
        files=lambda old, v=_value: {k: {**f, "bytes": v} for k, f in old.items()}
    )
    CASES[f"record: checksums hold {_name}"] = change_record(
        crc32=lambda old, v=_value: {k: [v, *c[1:]] for k, c in old.items()}
    )
    CASES[f"record: a reason is {_name}"] = change_record(failed={"0": _value})
    CASES[f"record: a failed position is {_name}"] = change_record(failed={str(_value): "no"})
for _name in (
    "../../../../outside/file",
    "/etc/passwd",
    "tokens/v0/../../../../outside/file",
    "tokens/v0/c.1.0.0\0",
    "",
):
    CASES[f"record: names the file {_name!r}"] = change_record(
        files=lambda old, n=_name: {**old, n: {"bytes": 4, "crc32": 0}}
    )
    CASES[f"record: names the file {_name!r} alone"] = change_record(
        files=lambda old, n=_name: {n: next(iter(old.values()))}
    )
    CASES[f"record: attempt {_name!r}"] = change_record(attempt=_name)
    CASES[f"record: of the set {_name!r}"] = change_record(feature_set=_name)
CASES["record: a field too many"] = change_record(more=1)
CASES["record: abandoned with rows"] = change_record(state="abandoned")
CASES["record: items twice"] = change_record(items=lambda old: [old[0]] * len(old))
CASES["record: ids that are paths"] = change_record(items=lambda old: ["../../outside/file"] * len(old))
CASES["record: more rows than a shard"] = change_record(
    items=lambda old: old * 100, stamps=lambda old: old * 100, content=lambda old: old * 100,
    tokens=lambda old: old * 100, crc32=lambda old: {k: c * 100 for k, c in old.items()},
)  # fmt: skip
CASES["record: ten terabytes"] = change_record(
    files=lambda old: {k: {**f, "bytes": 10**13} for k, f in old.items()}, tokens=lambda old: [2**31 - 1] * len(old)
)


def put(file: str, data: bytes | str) -> Case:
    """Other bytes in a file of the image set."""

    def change(root: Path, _: Path) -> None:
        path = images(root) / file
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data if isinstance(data, bytes) else data.encode())

    return change


class Bomb:
    """Unpickled, it leaves a file behind."""

    def __reduce__(self):
        return (open, (os.environ["RADFS_TEST_SENTINEL"], "w"))


def bomb() -> bytes:
    os.environ["RADFS_TEST_SENTINEL"] = "/never"  # the path is written into the pickle when a case is prepared
    return pickle.dumps(Bomb())


JUNK: dict[str, bytes] = {
    "empty": b"", "no text": b"\xff\xfe\x00\x01", "null": b"null", "a list": b"[]", "a number": b"1e999",
    "nested": b"[" * 200_000, "nested objects": b'{"a":' * 100_000, "a long number": b"9" * 10_000,
    "parquet's magic": b"PAR1" + bytes(8) + b"PAR1", "a numpy file": b"\x93NUMPY\x01\x00",
}  # fmt: skip
FILES = (record_file(0, 0), "zarr.json", "tokens/v0/zarr.json", "rows/00000000.parquet", "rows/00000077.parquet",
         "dropped/00000000.parquet", "stamps/00000000.parquet", "tokens/v0/c.1.0.0", "claims/v0-00000004.g0001",
         "index/v0/00000000-00000031.rows", "../../radfs.json", "../../items/d/000000.parquet")  # fmt: skip
for _file in FILES:
    for _name, _data in JUNK.items():
        CASES[f"{_file}: {_name}"] = put(_file, _data)
for _file in ("commits/v0/abc.json", "commits/v0/0²000000.json", "commits/v²/00000000.json", "commits/v0/5.json",
              "commits/v99999999999/00000000.json", "commits/v0/99999999.json", "rows/abc.parquet", "rows/1.parquet",
              "claims/v0-abc.g1", "claims/v²-²²²²²²²².g²", "claims/v0-00000000.g9999999999", "staged/v0-0-0-tokens",
              "staged/..", "staged/v0-00000000-000000000000-tokens", "tokens/v0/c.²", "tokens/v0/c.99999999999.0.0",
              "index/v0/..rows"):  # fmt: skip
    if not _file.endswith(".."):
        CASES[f"a file {_file}"] = put(_file, b"{}")


# Links, pipes and devices where files should be.


def link(file: str, to: str) -> Case:
    """A link in place of a file or folder of the image set; `to` is below the folder outside, or absolute."""

    def change(root: Path, outside: Path) -> None:
        path, target = images(root) / file, outside / to
        if path.is_dir():
            shutil.rmtree(target, ignore_errors=True)
            shutil.copytree(path, target)
            shutil.rmtree(path)
        else:
            path.parent.mkdir(parents=True, exist_ok=True)
            if path.exists():
                if not target.exists():
                    shutil.copy(path, target)
                path.unlink()
        path.symlink_to(target)

    return change


def pipe(file: str) -> Case:
    def change(root: Path, _: Path) -> None:
        path = images(root) / file
        path.parent.mkdir(parents=True, exist_ok=True)
        path.unlink(missing_ok=True)
        os.mkfifo(path)

    return change


for _file in FILES:
    CASES[f"{_file}: a link out of the store"] = link(_file, "linked")
    CASES[f"{_file}: a link to /dev/zero"] = link(_file, "/dev/zero")
    CASES[f"{_file}: a pipe"] = pipe(_file)
for _folder in (
    "tokens",
    "tokens/v0",
    "cls/v0",
    "commits",
    "commits/v0",
    "rows",
    "staged",
    "claims",
    "dropped",
    "index",
):
    CASES[f"{_folder}/: a link out of the store"] = link(_folder, "folder")


@case("staged/: a link to a folder with files that a collection would take for leftovers")
def _(root: Path, outside: Path) -> None:
    staged = images(root) / "staged"
    shutil.rmtree(staged, ignore_errors=True)
    staged.symlink_to(outside / "precious")


@case("tokens/v0/: a link to the shards of another store")
def _(root: Path, outside: Path) -> None:
    shutil.rmtree(images(root) / "tokens/v0")
    (images(root) / "tokens/v0").symlink_to(outside / "precious")


@case("results/: a link to a folder that a collection would take for a broken-off part")
def _(root: Path, outside: Path) -> None:
    (root / "results").mkdir(exist_ok=True)
    (root / "results" / "part").symlink_to(outside / "precious")


# What sets claim to be.


def change_layout(**changes: Any) -> Case:
    def change(root: Path, _: Path) -> None:
        path = images(root) / "zarr.json"
        document = json.loads(path.read_bytes())
        radfs = document["attributes"]["radfs"] | changes
        with suppress(ValueError, RecursionError):  # what has no canonical form cannot have a checksum either
            fields = {key: value for key, value in radfs.items() if key not in ("format", "crc32")}
            radfs["crc32"] = crc32(canonical_json(fields).encode())
        document["attributes"]["radfs"] = radfs
        path.write_text(json.dumps(document))

    return change


for _key in ("encoder", "modality", "dim", "tokens", "has_cls", "shard_rows", "what", "about", "dtype", "format"):
    for _name, _value in ABSURD.items():
        CASES[f"layout: {_key} is {_name}"] = change_layout(**{_key: _value})
for _name, _changes in {
    "ten terabytes": {"dim": 2**16, "tokens": 2**16, "shard_rows": 2**12},
    "the largest that is allowed": {"dim": 2**8, "tokens": 2**9, "shard_rows": 2**14},
    "as many rows as are allowed": {"dim": 1, "tokens": 1, "shard_rows": 2**16},
    "a name that is a path": {"encoder": "../../outside"},
    "objects": {"dtype": "object"},
    "a pickle": {"dtype": "pickle"},
    "another codec": {"dtype": "archive"},
    "deep": {"about": json.loads("[" * 900 + "]" * 900) and {"a": json.loads("[" * 900 + "]" * 900)}},
}.items():
    CASES[f"layout: {_name}"] = change_layout(**_changes)


def change_array(**changes: Any) -> Case:
    def change(root: Path, _: Path) -> None:
        for array in ("tokens/v0", "cls/v0"):
            path = images(root) / array / "zarr.json"
            path.write_text(json.dumps(json.loads(path.read_bytes()) | changes))

    return change


for _name, _changes in {
    "ten terabytes": {"shape": [10**9, 100, 100]},
    "a negative shape": {"shape": [-1, 5, 6]},
    "no shape": {"shape": []},
    "an infinite shape": {"shape": [float("inf"), 5, 6]},
    "objects": {"data_type": "object", "codecs": [{"name": "pickle"}]},
    "other attributes": {"attributes": []},
}.items():
    CASES[f"array: {_name}"] = change_array(**_changes)


# Tables.


def table(file: str, frame: Callable[[], pl.DataFrame]) -> Case:
    def change(root: Path, _: Path) -> None:
        path = images(root) / file
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(seal_parquet(frame()))

    return change


def rows(first: int, items: list[str], **more: Any) -> pl.DataFrame:
    return pl.DataFrame({"item": items, "row": range(first, first + len(items)), **more})


for _name, _frame in {
    "negative rows": lambda: rows(-5, ["d/0", "d/1"]),
    "huge rows": lambda: rows(2**62, ["d/0", "d/1"]),
    "another shape": lambda: pl.DataFrame({"x": [1]}),
    "texts for numbers": lambda: pl.DataFrame({"item": ["d/0"], "row": ["x"]}),
    "pickled objects": lambda: pl.DataFrame({"item": [bomb()], "row": [0]}),
    "nulls": lambda: pl.DataFrame(
        {"item": [None, None], "row": [0, None]}, schema={"item": pl.String, "row": pl.Int64}
    ),
    "a million rows in a few bytes": lambda: pl.DataFrame({"item": ["d/0"], "row": [0]}).select(
        pl.all().repeat_by(5_000_000).explode()
    ),
    "other items": lambda: rows(0, [f"d/{i}" for i in range(9, -1, -1)]),
}.items():
    for _file in ("rows/00000000.parquet", "rows/00000003.parquet"):
        CASES[f"{_file}: {_name}"] = table(_file, _frame)
for _name, _frame in {
    "wrong columns": lambda: pl.DataFrame({"x": [1]}),
    "wrong types": lambda: pl.DataFrame({"row": ["a"], "view": ["b"], "item": [1], "reason": [1.5], "stamp": [2]}),
    "huge rows": lambda: pl.DataFrame(
        {"row": [2**62, -(2**62)], "view": [-1, 2**40], "item": ["", "x"], "reason": ["", ""], "content": ["", ""],
         "stamp": ["", ""]}
    ),
}.items():  # fmt: skip
    for _file in ("dropped/00000000.parquet", "stamps/00000000.parquet"):
        CASES[f"{_file}: {_name}"] = table(_file, _frame)


def items_at(path: str, item: str = "d/1") -> Case:
    def change(root: Path, outside: Path) -> None:
        where = str(outside / path)
        if path == "pipe":
            os.mkfifo(where)
        frame = {"item": [item], "modality": ["image"], "path": [where], "text": [None], "text_sha256": [None]}
        strings = {"text": pl.String, "text_sha256": pl.String}
        frame = pl.DataFrame(frame, schema_overrides=strings)
        (root / "items/d/000009.parquet").write_bytes(seal_parquet(frame))

    return change


CASES["items: an image that is /dev/zero"] = items_at("/dev/zero")
CASES["items: an image that is a pipe"] = items_at("pipe")
CASES["items: an image that is a folder"] = items_at("/")
CASES["items: an image with a null byte"] = items_at("/a\0b")
CASES["items: an id that is a path"] = items_at("nothing", "../../outside/file")
CASES["items: an id without a dataset"] = items_at("nothing", "file")
CASES["items: other columns"] = table("../../items/d/000009.parquet", lambda: pl.DataFrame({"x": [1]}))
CASES["items: other types"] = table(
    "../../items/d/000009.parquet",
    lambda: pl.DataFrame({"item": [1], "modality": [2], "path": [3], "text": [4], "text_sha256": [5]}),
)


# Shard files.


def change_index(offset: int, size: int) -> Case:
    """The first chunk of a shard points elsewhere; all checksums hold."""

    def change(root: Path, _: Path) -> None:
        import google_crc32c

        path = images(root) / "tokens/v0/c.1.0.0"
        data = bytearray(path.read_bytes())
        tail = 16 * 4 + 4
        data[-tail : -tail + 16] = np.array([offset, size], "<u8").tobytes()
        data[-4:] = google_crc32c.value(bytes(data[-tail:-4])).to_bytes(4, "little")
        path.write_bytes(bytes(data))
        change_record(files=lambda old: {k: {**f, "crc32": crc32(data)} if k.endswith("c.1.0.0") and k[0] == "t" else f
                                         for k, f in old.items()})(root, path)  # fmt: skip

    return change


for _offset, _size in ((10**15, 60), (2**64 - 61, 60), (2**63, 60), (0, 2**63), (0, 0), (7, 60), (60, 60), (240, 60)):
    CASES[f"shard: a chunk at {_offset} of {_size} bytes"] = change_index(_offset, _size)


@case("shard: ten terabytes of nothing")
def _(root: Path, outside: Path) -> None:
    os.truncate(images(root) / "tokens/v0/c.1.0.0", 10**13)
    CASES["record: ten terabytes"](root, outside)


@case("shard: an archive whose chunks unpack to terabytes")
def _(root: Path, _outside: Path) -> None:
    store = open_store(root)
    feature_set = write_all(store, image_layout(encoder="packed", dtype="archive"))
    path = feature_set.path / "tokens/v0/c.0.0.0"
    data = bytearray(path.read_bytes())
    data[: len(data) - 68] = b"\x28\xb5\x2f\xfd\xe0" + b"\xff" * (len(data) - 68 - 5)  # a frame of 2**64 - 1 bytes
    path.write_bytes(bytes(data))


@case("index: a segment that says other rows")
def _(root: Path, _outside: Path) -> None:
    folder = images(root)
    for shard in range(3, 32):
        shutil.copy(folder / record_file(0, 0), folder / record_file(0, shard))
    (folder / "index/v0").mkdir(parents=True, exist_ok=True)
    (folder / "index/v0/00000000-00000031.rows").write_bytes(b"RADFSIX1" + b"\xff" * 8192)


# What lies beside the feature sets.


@case("catalog: a view over a file outside")
def _(root: Path, outside: Path) -> None:
    (root / "catalog.duckdb").unlink(missing_ok=True)
    with duckdb.connect(root / "catalog.duckdb") as connection:
        connection.execute(f"CREATE VIEW items AS SELECT * FROM read_csv('{outside}/secret.csv')")
        connection.execute(f"CREATE VIEW results AS SELECT * FROM read_csv('{outside}/secret.csv')")


@case("cohorts: a key that is a path")
def _(root: Path, _outside: Path) -> None:
    folder = root / "cohorts" / "c"
    folder.mkdir(parents=True)
    pointer = {"format": COHORT_FORMAT, "key": "../../../outside", "builder": "table", "options": {}, "task": "binary",
               "classes": ["a", "b"], "rows": "r", "splits": {}, "licence": "none", "counts": {}}  # fmt: skip
    (folder / "cohort.json").write_bytes(seal_json(pointer))


@case("cohorts: nested")
def _(root: Path, _outside: Path) -> None:
    (root / "cohorts" / "c").mkdir(parents=True)
    (root / "cohorts" / "c" / "cohort.json").write_bytes(JUNK["nested"])


@case("results: a part of junk")
def _(root: Path, _outside: Path) -> None:
    (root / "results" / "part").mkdir(parents=True)
    (root / "results" / "part" / "runs.parquet").write_bytes(JUNK["parquet's magic"])


# What a user does with it.


def answers(root: Path) -> Iterator[Callable[[], object]]:
    """All that a user would do with a store, one after the other."""
    from cohorts.cohort import list_cohorts, load_cohort
    from heads.catalog import open_catalog

    def store() -> Store:
        return open_store(root)

    yield lambda: list_items(store())
    yield lambda: list_feature_sets(store())
    for name in (IMAGES, TEXTS):
        yield lambda name=name: read_all(store(), name)
        yield lambda name=name: open_feature_set(store(), name).plan(list_items(store()).filter(modality="image"))
        yield lambda name=name: RowIndex(open_feature_set(store(), name).path, 0).compact()
    yield lambda: verify(store())
    yield lambda: verify(store(), deep=True)
    yield lambda: open_catalog(store()).fold()
    for name in ("items", "results", "feature_sets"):
        yield lambda name=name: refuse_secret(open_catalog(store()).query(f"SELECT * FROM {name}"))
    yield lambda: [load_cohort(store(), name) for name in list_cohorts(store())]
    yield lambda: collect(store(), dry_run=True, stale_s=-1)
    yield lambda: collect(store(), dry_run=False, stale_s=-1)
    yield lambda: verify(store(), deep=True, repair=True)
    yield lambda: extract(store(), image_layout())
    yield lambda: collect(store(), dry_run=False, stale_s=-1)
    yield lambda: read_all(store(), IMAGES)


def refuse_secret(frame: pl.DataFrame) -> None:
    assert "secret" not in str(frame.rows()), "a file outside was read"


def read_all(store: Store, name: str) -> None:
    features = open_features(store, name)
    for item in features.items:
        try:
            features.image_tokens([item]) if name == IMAGES else features.text_tokens([item])
        except RadfsError:
            continue


def extract(store: Store, layout) -> None:
    feature_set = create_feature_set(store, layout)
    with Claims(feature_set, lease_s=0.1) as claims:
        for plan in claims.share(feature_set.plan(list_items(store, modality=layout.modality))[:50]):
            writer = ShardWriter(feature_set, plan)
            for position in range(len(plan.items)):
                writer.fail(position, "not tried")
            writer.commit()
            claims.release(plan.view, plan.shard)


@contextmanager
def little_memory() -> Iterator[None]:
    """An allocation of more than `MEMORY` fails."""
    held = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    old = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (held + MEMORY, old[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, old)


def fingerprint(folder: Path) -> dict[str, bytes | str]:
    found: dict[str, bytes | str] = {}
    for path in sorted(folder.rglob("*")):
        found[str(path)] = path.read_bytes() if path.is_file() else path.lstat().st_mode.__str__()
    return found


def run_cases(base: str, names: list[str], report: str) -> None:
    """Every case on a copy of the good store; writes what went wrong."""
    template, outside = Path(base) / "good", Path(base) / "outside"
    opened: list[str] = []
    sys.addaudithook(lambda event, args: opened.append(str(args[0])) if event == "open" else None)
    signal.signal(signal.SIGALRM, lambda *_: (_ for _ in ()).throw(TimeoutError("it waits for ever")))
    failures: dict[str, list[str]] = {}
    for name in names:
        root = Path(base) / "store"
        for folder in (root, outside):
            shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(template, root)
        make_outside(outside)
        os.environ["RADFS_TEST_SENTINEL"] = str(Path(base) / "sentinel")
        CASES[name](root, outside)
        before = fingerprint(outside)
        opened.clear()
        wrong = []
        with little_memory():
            for i, answer in enumerate(answers(root)):
                signal.alarm(SECONDS)
                try:
                    answer()
                except RadfsError:
                    pass
                except BaseException as error:
                    where = traceback.extract_tb(error.__traceback__)[-1]
                    wrong.append(
                        f"step {i}: {type(error).__name__}: {str(error)[:200]} ({where.filename}:{where.lineno})"
                    )
                finally:
                    signal.alarm(0)
        read = {o for o in opened if o.startswith(str(outside)) or o == "/dev/zero"}
        if fingerprint(outside) != before:
            wrong.append("something outside was changed")
        wrong += [f"opened {path}" for path in sorted(read)]
        if (Path(base) / "sentinel").exists():
            wrong.append("its code was run")
        if wrong:
            failures[name] = wrong
    Path(report).write_text(json.dumps(failures))


def make_outside(folder: Path) -> None:
    (folder / "precious").mkdir(parents=True)
    (folder / "file").write_text("mine")
    (folder / "secret.csv").write_text("secret\nsecret\n")
    for name in ("v0-00000001-000000000000-tokens", "v0-00000009-0123456789ab-tokens", "c.9.0.0", "c.1.0.0"):
        (folder / "precious" / name).write_text("mine")


@pytest.fixture(scope="module")
def good(tmp_path_factory) -> Path:
    """A folder with a good store that has images and reports."""
    base = tmp_path_factory.mktemp("hostile")
    store = open_store(base / "good", create=True)
    add_images(store, base, [str(i) for i in range(10)])
    add_texts(store, {str(i): f"report {i}" for i in range(5)})
    write_all(store, image_layout())
    write_all(store, text_layout())
    return base


def test_a_good_store_gives_answers_alone(good, tmp_path):
    shutil.copytree(good / "good", tmp_path / "store")
    for answer in answers(tmp_path / "store"):
        answer()


@pytest.mark.timeout(LIMIT_S + 20)
def test_a_strangers_store_is_refused_or_served_and_nothing_else(good):
    report = good / "report.json"
    finish(start(run_cases, str(good), sorted(CASES)[::EVERY], str(report)), timeout_s=LIMIT_S)
    failures = json.loads(report.read_text())
    assert not failures, f"{len(failures)} of {len(CASES)}:\n" + "\n".join(
        f"{name}: {'; '.join(wrong)}" for name, wrong in failures.items()
    )
