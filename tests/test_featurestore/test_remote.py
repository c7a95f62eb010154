"""Paths on object storage, put-if-absent, and opening a store there, against moto's S3 server."""

import os
import pickle
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path, PurePosixPath

import numpy as np
import polars as pl
import pytest

from featurestore import remote as remote_module
from featurestore.errors import ChecksumError, DataError, StoreError
from featurestore.featureset import create_feature_set
from featurestore.fsio import names, read_parquet, remove, scan_parquet, touch, write_atomic, write_new, write_parquet
from featurestore.remote import object_path
from featurestore.store import open_store

from .sets import image_layout


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
    with pytest.raises(ChecksumError):
        read_parquet(folder / "torn.parquet")


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


def test_a_server_that_replaces_what_it_should_keep_is_refused(bucket, monkeypatch):
    monkeypatch.setattr(remote_module.ObjectPath, "put_new", lambda self, data: self.put([data]) is None)
    with pytest.raises(StoreError, match=r"ignores `If-None-Match: \*`"):
        open_store(f"{bucket}/careless", create=True)


def test_a_folder_that_a_console_made_is_empty(server, bucket):
    from urllib.request import Request, urlopen

    urlopen(Request(f"{server.url}/{bucket.removeprefix('s3://')}/made/", data=b"", method="PUT")).close()
    store = open_store(f"{bucket}/made", create=True)
    assert open_store(f"{bucket}/made").root == store.root


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
