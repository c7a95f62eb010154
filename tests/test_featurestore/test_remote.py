"""A store on object storage, against moto's S3 server: the same guarantees and the same bytes as on a disk."""

import os
import pickle
import signal
import subprocess
import sys
import threading
import time
import uuid
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import timedelta
from pathlib import Path, PurePosixPath

import numpy as np
import polars as pl
import pytest
from typer.testing import CliRunner

pytest.importorskip("obstore", reason="radfs[s3] is not installed")
pytest.importorskip("moto.server", reason="moto[server] is not installed")

from cli.main import app
from cohorts import build_phantom
from featurestore import copies, rangefile, writer
from featurestore import extract as extract_module
from featurestore import remote as remote_module
from featurestore.claims import Claims, list_claims
from featurestore.copies import local_file
from featurestore.errors import DamageError, DataError, StoreError
from featurestore.extract import extract_features
from featurestore.featureset import create_feature_set, list_feature_sets, open_feature_set
from featurestore.fsio import names, read_parquet, remove, scan_parquet, touch, write_atomic, write_new, write_parquet
from featurestore.gc import collect
from featurestore.items import add_items, list_items, remove_texts
from featurestore.process import identity
from featurestore.reader import open_features
from featurestore.records import record_file
from featurestore.remote import ObjectPath, object_path
from featurestore.removal import remove_feature_set
from featurestore.shardfile import Shard
from featurestore.store import open_store
from featurestore.verify import verify
from featurestore.writer import ShardWriter

from ..test_cli.study import BUILD, write_study
from .pictures import add_pictures, add_reports, write_pictures
from .s3 import Server
from .sets import add_images, add_texts, fill, image_layout, text_layout, tokens_of, write_all


@pytest.fixture(scope="module")
def one_server():
    server = Server()
    yield server
    server.close()


@pytest.fixture
def server(one_server, tmp_path, monkeypatch):
    """The server; the environment leads to it, and to an empty cache."""
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "key")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    monkeypatch.setenv("AWS_REGION", "us-east-1")
    monkeypatch.setenv("AWS_ENDPOINT_URL", one_server.url)
    monkeypatch.setenv("RADFS_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(copies, "_opened", set())
    one_server.forget()
    return one_server


@pytest.fixture
def bucket(server):
    """The address of an empty bucket."""
    name = f"lab-{uuid.uuid4().hex[:8]}"
    server.make_bucket(name)
    return f"s3://{name}"


@pytest.fixture
def folder(bucket):
    return object_path(f"{bucket}/folder")


@pytest.fixture
def remote(bucket):
    """An empty store."""
    return open_store(f"{bucket}/stores/one", create=True)


@pytest.fixture
def impatient(monkeypatch):
    """Two tries, not nine."""
    monkeypatch.setattr(remote_module, "_RETRIES", {"max_retries": 1, "retry_timeout": timedelta(seconds=5)})
    remote_module._connect.cache_clear()
    yield
    remote_module._connect.cache_clear()


@pytest.fixture
def small_shards(monkeypatch):
    monkeypatch.setattr(extract_module, "shard_rows_for", lambda **_: 8)


def files_of(feature_set) -> dict[str, bytes]:
    """Every file of a set; of records all but the random name of the attempt."""
    paths = [p for p in feature_set.path.rglob("*") if isinstance(p, ObjectPath) or p.is_file()]
    files = {p.relative_to(feature_set.path).as_posix(): p.read_bytes() for p in paths}
    for record in feature_set.records():
        files[record_file(record.view, record.shard)] = replace(record, attempt="").encode()
    return files


# Paths


@pytest.mark.parametrize("name", ["a", "a/b.parquet", "a@1-2/c.0.0.0", "x/y/z.tar.gz", "x/v0-00000001.g0001"])
def test_a_path_has_the_parts_that_a_path_of_pathlib_has(name):
    ours, theirs = object_path("s3://lab/root") / name, PurePosixPath("/root") / name
    assert (ours.name, ours.stem, ours.suffix) == (theirs.name, theirs.stem, theirs.suffix)
    assert ours.parts[1:] == theirs.parts[1:]
    assert [str(p).removeprefix("s3://lab") or "/" for p in ours.parents] == [str(p) for p in theirs.parents]
    assert str(ours.with_name("other")) == "s3://lab" + str(theirs.with_name("other"))
    assert ours.relative_to(object_path("s3://lab/root")) == theirs.relative_to("/root")
    assert pickle.loads(pickle.dumps(ours)) == ours == object_path(str(ours) + "/")
    assert hash(ours) == hash(object_path(str(ours)))
    with pytest.raises(ValueError, match="is not below"):
        ours.relative_to(object_path("s3://lab/roo"))


def test_names_that_lead_elsewhere_are_refused():
    root = object_path("s3://lab/root")
    for name in ("..", "a/../b", "./a", "a\nb", "a\\b"):
        with pytest.raises(ValueError, match="is no name below"):
            root / name
    for url in ("s3://", "s3:///a", "s3://la b/a", "s3://lab/../a", "gs://lab/a"):
        with pytest.raises(DataError, match="is no address of a store: give s3://bucket/prefix"):
            object_path(url)


TREE = (
    "radfs.json", "items/d/000000.parquet", "items/d/000001.parquet", "items/e/000000.parquet", "items/e/x.parquet",
    "features/a@1/zarr.json", "features/b@2/zarr.json", "features/c@3/rows/00000000.parquet",
    "features/a@1/commits/v0/00000000.json", "features/a@1/commits/v1/00000000.json", "features/a@1/commits/x",
    "features/a@1/claims/v0-00000000.g0001", "features/a@1/claims/v0-00000000.g0002", "results/x/runs.parquet",
    "results/y/epochs.parquet",
)  # fmt: skip


def test_globs_and_listings_find_what_they_find_on_a_disk(folder, tmp_path):
    for name in TREE:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(name.encode())
        write_atomic(folder / name, name.encode())
    (folder.parent / "folder2/radfs.json").put([b"a neighbour whose name begins alike"])
    for pattern in (
        "items/*/[0-9]*.parquet", "features/*/zarr.json", "features/*/commits/v*/[0-9]*.json", "results/*/runs.parquet",
        "features/a@1/commits/v*", "features/a@1/claims/v0-00000000.g*", "*", "items/d/*", "nothing/*/x.json", "*.json",
    ):  # fmt: skip
        found = sorted(p.relative_to(folder).as_posix() for p in folder.glob(pattern))
        assert found == sorted(p.relative_to(tmp_path).as_posix() for p in tmp_path.glob(pattern))
    assert sorted(p.name for p in folder.rglob("*.json")) == sorted(p.name for p in tmp_path.rglob("*.json"))
    assert sorted(names(folder / "items")) == ["d", "e"]
    assert names(folder / "nothing") == []
    assert [(folder / n).is_dir() for n in ("items", "ite", "radfs.json")] == [True, False, False]
    assert [(folder / n).exists() for n in ("items", "radfs.json")] == [False, True]
    (folder / "features/a@1").remove_below()
    assert sorted(p.name for p in (folder / "features").iterdir()) == ["b@2", "c@3"]


def test_files_are_written_replaced_moved_and_removed(folder):
    path = folder / "a/b.bin"
    write_atomic(path, b"one", memoryview(b"two"))
    assert path.read_bytes() == b"onetwo"
    before = path.stat()
    write_atomic(path, b"twoone")  # as long, in the same second
    assert path.stat().st_size == before.st_size
    assert path.stat().st_mtime_ns != before.st_mtime_ns
    assert path.replace(folder / "c").read_text() == "twoone"
    assert not path.exists()
    for missing in (path.read_bytes, path.stat, path.unlink, lambda: path.replace(folder / "c"), lambda: touch(path)):
        with pytest.raises(FileNotFoundError, match=r"a/b\.bin"):
            missing()
    assert remove(folder / "c")
    assert not remove(folder / "c")


def test_touching_moves_the_time_of_change(folder):
    write_atomic(folder / "a", b"claim")
    before = (folder / "a").stat().st_mtime_ns
    time.sleep(1.1)
    touch(folder / "a")
    assert (folder / "a").stat().st_mtime_ns >= before + 10**9
    assert (folder / "a").read_bytes() == b"claim"


def test_what_is_large_is_written_in_parts(server, folder, monkeypatch):
    monkeypatch.setattr(remote_module, "PART_BYTES", 6 * 2**20)
    chunks = [np.random.default_rng(i).integers(0, 256, 2**20, dtype=np.uint8).data for i in range(14)]
    write_atomic(folder / "large", *chunks)
    assert (folder / "large").read_bytes() == b"".join(chunks)
    assert len([a for a in server.asked if "partNumber" in a.query]) == 3


def test_tables_are_read_as_from_a_disk(folder, tmp_path):
    parts = [pl.DataFrame({"item": [f"d/{i}", "x"], "row": [i, None]}) for i in range(3)]
    for i, part in enumerate(parts):
        write_parquet(folder / f"{i}.parquet", part)
    assert read_parquet(folder / "1.parquet").equals(parts[1])
    assert read_parquet(folder / "1.parquet", columns=["row"]).equals(parts[1].select("row"))
    assert scan_parquet([folder / f"{i}.parquet" for i in range(3)]).collect().equals(pl.concat(parts))
    write_atomic(folder / "torn.parquet", b"PAR1")
    with pytest.raises(pl.exceptions.PolarsError):
        read_parquet(folder / "torn.parquet")


# Put-if-absent, which is the commit


def test_of_writers_at_once_one_has_the_name(folder):
    for name in ("a", "b", "c"):
        start = threading.Barrier(8)

        def write(i, path=folder / name, start=start):
            start.wait()
            return write_new(path, b"%d" % i)

        with ThreadPoolExecutor(8) as pool:
            won = list(pool.map(write, range(8)))
        assert won.count(True) == 1
        assert (folder / name).read_bytes() == b"%d" % won.index(True)


def test_a_write_whose_answer_was_lost_is_known_as_ones_own(server, folder):
    lost = []
    server.loses_answer = lambda asked: asked.method == "PUT" and not lost and not lost.append(asked)
    assert write_new(folder / "a", b"mine")
    assert len(lost) == 1
    assert [a.method for a in server.asked if "/folder/" in a.path] == ["PUT", "PUT", "GET"]  # done, refused, compared
    assert not write_new(folder / "a", b"theirs")
    assert (folder / "a").read_bytes() == b"mine"


# Opening


def test_a_store_is_made_opened_and_refused_as_on_a_disk(bucket):
    with pytest.raises(StoreError, match=r"no radfs store at s3://.*/a\. Build a cohort first"):
        open_store(f"{bucket}/a")
    store = open_store(f"{bucket}/a", create=True)
    assert store == open_store(f"{bucket}/a/") == pickle.loads(pickle.dumps(store))
    (object_path(bucket) / "b/photo.png").put([b""])
    with pytest.raises(StoreError, match="/b exists and is not a radfs store"):
        open_store(f"{bucket}/b", create=True)
    with pytest.raises(StoreError, match=r"/b/photo\.png exists and is not a radfs store"):
        open_store(f"{bucket}/b/photo.png", create=True)
    (object_path(bucket) / "c/radfs.json").put([b'{"format": 1}'])
    with pytest.raises(StoreError, match="has format 1; this radfs reads format"):
        open_store(f"{bucket}/c")
    with pytest.raises(DataError, match="--group is for folders"):
        open_store(f"{bucket}/d", create=True, group=True)
    with pytest.raises(DataError, match=r"give the address of a remote store as a text"):
        open_store(Path(f"{bucket}/a"))


def test_a_folder_that_a_console_made_is_empty(server, bucket):
    from urllib.request import Request, urlopen

    urlopen(Request(f"{server.url}/{bucket.removeprefix('s3://')}/made/", data=b"", method="PUT")).close()
    open_store(f"{bucket}/made", create=True)


def test_what_the_environment_lacks_is_said(server, bucket, monkeypatch):
    with pytest.raises(StoreError, match=rf"bucket 'nobodys' does not exist at {server.url}"):
        open_store("s3://nobodys/a", create=True)
    server.refuses = lambda _: True
    with pytest.raises(StoreError, match=r"the server does not allow to .* Check AWS_ACCESS_KEY_ID"):
        open_store(f"{bucket}/a")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    with pytest.raises(StoreError, match=r"no credentials for s3://.*: set AWS_ACCESS_KEY_ID and AWS_SECRET"):
        open_store(f"{bucket}/a")
    monkeypatch.setenv("AWS_REGION", "eu-west-1")
    monkeypatch.setitem(sys.modules, "obstore.store", None)
    with pytest.raises(StoreError, match=r'needs obstore, .* pip install "radfs\[s3\]"'):
        open_store(f"{bucket}/a")


def test_a_server_out_of_reach_is_an_error_and_no_damage(remote, impatient, monkeypatch):
    feature_set = create_feature_set(remote, image_layout())
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    with pytest.raises(StoreError, match=r"cannot look at s3://.*/radfs.json: .*Check AWS_ENDPOINT_URL"):
        open_store(str(remote.root))
    with pytest.raises(StoreError, match="cannot look at"):
        feature_set.record(0, 0)


@pytest.mark.parametrize(
    ("url", "allowed"), [(None, False), ("https://minio.example", False), ("http://localhost:9000", True)]
)
def test_nothing_goes_unencrypted_unless_the_endpoint_says_so(server, monkeypatch, url, allowed):
    made = []
    monkeypatch.setattr("obstore.store.S3Store", lambda bucket, **options: made.append(options))
    monkeypatch.setenv("AWS_ENDPOINT_URL", url) if url else monkeypatch.delenv("AWS_ENDPOINT_URL")
    remote_module._connect.__wrapped__("lab", tuple((k, v) for k, v in os.environ.items() if k.startswith("AWS_")))
    assert [m["client_options"]["allow_http"] for m in made] == [allowed]


# The whole path


@pytest.mark.usefixtures("small_shards")
def test_an_extraction_writes_the_same_bytes_as_to_a_disk(remote, store, tmp_path):
    import zarr
    from obstore.store import S3Store
    from zarr.storage import ObjectStore

    paths = write_pictures(tmp_path / "in", 21)
    reports = {str(i): "effusion " * (i % 5) + "clear lungs" for i in range(11)}
    added = {"tiny": lambda s: add_pictures(s, paths), "tiny-text": lambda s: add_reports(s, reports)}
    for encoder, add in added.items():
        items, _ = (add(s) for s in (store, remote))
        names = [extract_features(s, encoder, batch_size=4).feature_set for s in (store, remote)]
        here, there = (open_feature_set(s, name) for s, name in zip((store, remote), names, strict=True))
        ours, theirs = (files_of(f) for f in (here, there))
        assert theirs.keys() == ours.keys()
        assert theirs == ours
        one, two = (open_features(s, names[0]) for s in (store, remote))
        objects = S3Store(there.path.bucket, prefix=there.path.key, client_options={"allow_http": True})
        group = zarr.open_group(ObjectStore(objects, read_only=True), mode="r")
        assert group.attrs["radfs"]["encoder"] == encoder
        if encoder == "tiny":
            tokens = two.image_tokens(items)
            assert np.array_equal(tokens, one.image_tokens(items))
            assert np.array_equal(two.cls_tokens(items), one.cls_tokens(items))
            rows = [two.locate([item]).rows[0] for item in items]
            assert np.array_equal(group["tokens/v0"][:][rows].view(np.uint16), tokens.view(np.uint16))
        else:
            (tokens, offsets), (expected, bounds) = (f.text_tokens(items) for f in (two, one))
            assert np.array_equal(offsets, bounds)
            assert np.array_equal(tokens, expected)
            slots, reports_at = group["tokens/v0"], group["offsets/v0"][:]
            for i, item in enumerate(items):
                first, last = reports_at[two.locate([item]).rows[0]]
                assert np.array_equal(slots[first:last], tokens[offsets[i] : offsets[i + 1]])


SLOW_EXTRACTION = """
import sys, time
from featurestore import extract as module
from featurestore.shardfile import Shard
from featurestore.store import open_store

module.shard_rows_for = lambda **_: 8
module.extract_features(open_store(sys.argv[1]), "tiny", batch_size=4, on_progress=lambda *_: time.sleep(0.05))
"""


@pytest.mark.usefixtures("small_shards")
def test_an_extraction_that_was_killed_goes_on(server, remote, tmp_path):
    items = add_pictures(remote, write_pictures(tmp_path / "in", 44))
    with subprocess.Popen([sys.executable, "-c", SLOW_EXTRACTION, str(remote.root)]) as process:
        deadline = time.monotonic() + 60
        while not any(a.method == "PUT" and "/commits/" in a.path for a in server.asked) and process.poll() is None:
            assert time.monotonic() < deadline
            time.sleep(0.02)
        time.sleep(0.1)
        os.kill(process.pid, signal.SIGKILL)
    (feature_set,) = list_feature_sets(remote)
    decided = feature_set.decided(0)
    assert list_claims(feature_set)
    report = extract_features(remote, "tiny", batch_size=4)
    assert report.already >= 8 * len(decided) > 0
    assert report.already + report.extracted == 44
    assert report.extracted > 0  # the kill came in the middle
    rows = [item for record in feature_set.records() for item in record.items]
    assert sorted(rows) == sorted(items)
    assert verify(remote, deep=True).clean
    assert open_features(remote, report.feature_set).image_tokens(items).any(axis=(1, 2)).all()
    collect(remote, dry_run=False)
    assert not list_claims(feature_set)
    assert names(feature_set.path / "staged") == []
    assert verify(remote, deep=True).clean


def planned(remote, tmp_path, layout):
    add_images(remote, tmp_path, [str(i) for i in range(6)])
    feature_set = create_feature_set(remote, layout)
    return feature_set, feature_set.plan(list_items(remote, modality="image"))


def test_a_late_writer_changes_nothing(remote, tmp_path):
    feature_set, plans = planned(remote, tmp_path, image_layout())
    late = ShardWriter(feature_set, plans[0])
    for position in range(4):
        late.put(position, np.ones((5, 6), np.float16), content="00", cls=np.ones(6, np.float16))
    assert all(fill(remote, feature_set, plan).commit() for plan in plans)
    before = files_of(feature_set)
    assert not late.commit()
    assert files_of(feature_set) == before
    assert names(feature_set.path / "staged") == []


def test_a_commit_whose_answers_are_lost_is_no_lost_shard(server, remote, tmp_path, impatient):
    feature_set, plans = planned(remote, tmp_path, image_layout())
    server.loses_answer = lambda asked: asked.method == "PUT" and "/commits/" in asked.path
    late = fill(remote, feature_set, plans[0])
    server.refuses = lambda asked: asked.method == "GET" and "/commits/" in asked.path
    with pytest.raises(StoreError):
        late.commit()
    server.forget()
    assert feature_set.is_decided(0, 0)
    items = [f"d/{i}" for i in range(4)]
    tokens = open_features(remote, feature_set.name).image_tokens(items)  # from where they were staged
    assert np.array_equal(tokens, np.stack([tokens_of(item, "image") for item in items]))
    collect(remote, dry_run=False)
    assert names(feature_set.path / "staged") == []
    assert np.array_equal(open_features(remote, feature_set.name).image_tokens(items), tokens)


def test_a_shard_is_read_while_its_files_are_given_their_names(remote, tmp_path, monkeypatch):
    monkeypatch.setattr(rangefile, "SMALL_BYTES", 0)
    monkeypatch.setattr(rangefile, "COPIED_SHARE", 9)
    feature_set, plans = planned(remote, tmp_path, image_layout())
    with monkeypatch.context() as patch:
        patch.setattr(writer, "publish", lambda *_: None)
        assert fill(remote, feature_set, plans[0]).commit()
    features = open_features(remote, feature_set.name)
    assert np.array_equal(features.image_tokens(["d/0"])[0], tokens_of("d/0", "image"))
    writer.publish(feature_set, feature_set.record(0, 0))
    assert np.array_equal(features.image_tokens(["d/2"])[0], tokens_of("d/2", "image"))


def test_claims_of_the_dead_are_taken_over_and_those_of_the_living_beat(remote, tmp_path):
    feature_set, _ = planned(remote, tmp_path, image_layout())
    write_new(feature_set.path / "claims/v0-00000000.g0001", f"{identity().rpartition('_')[0]}_1/00000000".encode())
    with Claims(feature_set, lease_s=6.0) as one, Claims(feature_set, lease_s=6.0) as two:
        assert one.take(0, 0)
        assert not two.take(0, 0)
        beat = list_claims(feature_set)[-1].beat
        time.sleep(2.1)
        assert list_claims(feature_set)[-1].beat > beat
        one.release(0, 0)
        assert two.take(0, 0)
    assert list_claims(feature_set) == []


def test_damage_is_found_and_repaired(remote, tmp_path):
    add_images(remote, tmp_path, [str(i) for i in range(11)])
    feature_set = write_all(remote, image_layout())
    assert verify(remote, deep=True).clean
    path = feature_set.path / "tokens/v0/c.1.0.0"
    data = bytearray(path.read_bytes())
    data[70] ^= 1
    path.put([data])
    assert verify(remote).clean
    (finding,) = verify(remote, deep=True, repair=True).findings
    assert finding.items == ("d/4",)  # the second of its shard
    (feature_set.path / "cls/v0/c.2.0").unlink()
    assert [f.kind for f in verify(remote, repair=True).findings] == ["file"]
    write_all(remote, image_layout())
    items = [f"d/{i}" for i in range(11)]
    tokens = open_features(remote, feature_set.name).image_tokens(items)
    assert np.array_equal(tokens, np.stack([tokens_of(item, "image") for item in items]))
    assert collect(remote, dry_run=True).removed
    collect(remote, dry_run=False)
    assert verify(remote, deep=True).clean
    remove_feature_set(feature_set)
    assert list_feature_sets(remote) == []
    assert list(feature_set.path.rglob("*")) == []


def test_texts_can_be_removed(remote):
    add_texts(remote, {"1": "clear lungs", "2": "effusion"})
    feature_set = write_all(remote, text_layout())
    assert remove_texts(remote, "d") == 2
    assert list_items(remote)["text"].null_count() == 2
    assert open_features(remote, feature_set.name).has(["d/1", "d/2"]).all()
    held = [path.read_bytes() for path in remote.root.rglob("*")]
    held += [path.read_bytes() for path in Path(os.environ["RADFS_CACHE"]).rglob("*") if path.is_file()]
    assert not any(b"clear lungs" in data for data in held)


# The cache


@pytest.fixture
def large(remote, monkeypatch):
    """A set of one shard of 64 rows of 4 kB; its file is too large to be copied for one row."""
    monkeypatch.setattr(rangefile, "SMALL_BYTES", 2**12)
    layout = image_layout(dim=64, tokens=32, has_cls=False, shard_rows=64)
    add_texts(remote, {"0": "not an image"})
    frame = {"item": [f"d/{i:02d}" for i in range(64)], "modality": "image", "path": "/gone.png", "text": None}
    add_items(remote, pl.DataFrame(frame, schema_overrides={"text": pl.String}))
    feature_set = create_feature_set(remote, layout)
    (plan,) = feature_set.plan(list_items(remote, modality="image"))
    values = np.random.default_rng(0).standard_normal((64, 32, 64)).astype(np.float16)
    shard = ShardWriter(feature_set, plan)
    for i in range(64):
        shard.put(i, values[i], content="00", stamp="gone")
    assert shard.commit()
    return feature_set, values


TOKENS = "tokens/v0/c.0.0.0"


def copy_of(feature_set):
    return copies.copy_of(feature_set.path / TOKENS, feature_set.record(0, 0).files[TOKENS])


def test_a_few_rows_are_fetched_alone_and_many_make_a_copy(server, remote, large):
    feature_set, values = large
    size = feature_set.record(0, 0).files[TOKENS]["bytes"]
    features = open_features(remote, feature_set.name)
    server.forget()
    few = [40, 3, 17]
    assert np.array_equal(features.image_tokens([f"d/{i:02d}" for i in few]), values[few])
    ranges = [a.range.removeprefix("bytes=").split("-") for a in server.fetched(TOKENS)]
    assert 3 * 4096 < sum(int(last) - int(first) + 1 for first, last in ranges if first) < size / 8
    again = [3, 40]
    assert np.array_equal(features.image_tokens([f"d/{i:02d}" for i in again]), values[again])
    assert not copy_of(feature_set).exists()
    assert np.array_equal(features.image_tokens(features.items), values)
    assert copy_of(feature_set).stat().st_size == size
    server.forget()
    assert np.array_equal(features.image_tokens(features.items[::-1]), values[::-1])
    assert np.array_equal(open_features(remote, feature_set.name).image_tokens(features.items), values)
    assert server.fetched(TOKENS) == []
    assert copy_of(feature_set).parent.stat().st_mode & 0o077 == 0


def test_a_torn_copy_is_made_anew(server, remote, large):
    feature_set, values = large
    open_features(remote, feature_set.name).image_tokens([f"d/{i:02d}" for i in range(64)])
    copy = copy_of(feature_set)
    whole = copy.read_bytes()
    for torn in (b"", whole[:-1], whole + b"x"):
        copy.write_bytes(torn)
        features = open_features(remote, feature_set.name)
        assert np.array_equal(features.image_tokens(features.items), values)
        assert copy.read_bytes() == whole


def test_a_copy_that_was_broken_off_is_nobodys(remote, large):
    feature_set, values = large
    objects = copies.cache_folder("objects")
    dead = objects / f".{identity().rpartition('_')[0]}_1.0123456789ab.partial"
    dead.write_bytes(b"half")
    features = open_features(remote, feature_set.name)
    assert np.array_equal(features.image_tokens(features.items), values)
    assert not dead.exists()


@pytest.mark.parametrize("whole", [False, True])
def test_an_object_of_another_size_is_damage(server, remote, large, whole):
    feature_set, _ = large
    path = feature_set.path / TOKENS
    path.put([path.read_bytes()[:-5000]])
    features = open_features(remote, feature_set.name)
    items = features.items if whole else features.items[:1]
    with pytest.raises(DamageError, match=r"the commit record promises 263\d\d\d bytes, found 258\d\d\d.*radfs verify"):
        features.image_tokens(items)
    path.unlink()
    with pytest.raises(DamageError, match="is gone"):
        Shard(feature_set, 0, 0).row(feature_set.layout.arrays()[0], 0)


def test_a_row_that_came_wrong_is_found(remote, large):
    feature_set, values = large
    path = feature_set.path / TOKENS
    data = bytearray(path.read_bytes())
    data[5 * 4096 + 8] ^= 1
    path.put([data])
    features = open_features(remote, feature_set.name)
    for items in (["d/05"], features.items):
        with pytest.raises(DamageError, match=r"item d/05: .*delete the cache"):
            features.image_tokens(items)
    others = [i for i in range(64) if i != 5]
    assert np.array_equal(features.image_tokens([f"d/{i:02d}" for i in others]), values[others])


def test_the_least_recently_used_copies_make_room(folder, monkeypatch):
    paths = [folder / str(i) for i in range(4)]
    for path in paths:
        path.put([path.name.encode() * 1000])
    monkeypatch.setenv("RADFS_CACHE_BYTES", "2500")
    made = []
    for path in paths[:2]:
        made.append(local_file(path))
        time.sleep(0.01)
    copies._opened.clear()  # as if another process had made them
    assert local_file(paths[0]) == made[0]
    copies._opened.clear()
    made.append(local_file(paths[2]))
    assert [path.exists() for path in made] == [True, False, True]
    made.append(local_file(paths[3]))
    assert [path.exists() for path in made] == [False, False, True, True]
    assert local_file(paths[1]) == made[1]
    assert [path.exists() for path in made] == [False, True, True, True]  # this process reads all of them
    assert [path.read_bytes() for path in made[1:]] == [path.read_bytes() for path in paths[1:]]
    monkeypatch.setenv("RADFS_CACHE_BYTES", "much")
    with pytest.raises(DataError, match="RADFS_CACHE_BYTES is 'much': give a number of bytes"):
        local_file(folder / "0")


def test_another_object_of_the_same_name_is_another_copy(folder):
    path = folder / "a"
    path.put([b"one"])
    first = local_file(path)
    path.put([b"two"])
    assert local_file(path).read_bytes() == b"two"
    assert first.read_bytes() == b"one"


def test_a_full_disk_is_said(folder, monkeypatch):
    (folder / "a").put([b"one"])

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(copies.os, "pwrite", full)
    with pytest.raises(StoreError, match=r"cannot be copied into the cache .*: No space left on device\. Make room"):
        local_file(folder / "a")
    assert list(copies.cache_folder("objects").iterdir()) == []


# The command line


def test_commands_work_on_a_remote_store(bucket, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("RADFS_STORE", f"{bucket}/study")

    def run(*arguments):
        result = CliRunner().invoke(app, list(arguments))
        assert result.exception is None, (result.exception, result.output)
        return result.output

    write_study(tmp_path)
    run(*BUILD)
    run("extract", "--backbone", "tiny")
    run("extract", "--backbone", "tiny-text")
    (tmp_path / "grid.toml").write_text((tmp_path / "grid.toml").read_text().replace("seed = 2", "seed = 1"))
    run("train", "--grid", "grid.toml")
    found = run("query", "SELECT count(*) AS n FROM results", "--csv")
    assert found.split() == ["n", "4"]
    assert f"store {bucket}/study" in run("info")
    assert "no findings" in run("verify", "--deep")
    assert "0 leftovers" in run("gc", "--dry-run")
    assert "4 runs" in run("reindex")
    assert "mine" in run("cohort", "list")
    assert not (tmp_path / "radfs-store").exists()
    assert not list(tmp_path.glob("s3:*"))


def test_the_pictures_of_a_phantom_are_files_of_this_machine(remote):
    report = build_phantom(remote, "practice", subjects=4, image_px=32)
    folder = Path(list_items(remote, modality="image")["path"][0]).parent
    assert report.lines()[-1] == f"its images are on this machine alone: {folder}"
    assert len(list(folder.glob("*.png"))) == 4
    assert folder.is_relative_to(os.environ["RADFS_CACHE"])
    assert not list((remote.root / "phantom").rglob("*"))
    assert extract_features(remote, "tiny").extracted == 4
