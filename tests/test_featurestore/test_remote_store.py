"""The work of a store on object storage: the same guarantees and the same bytes as on a disk."""

import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from cli.main import app
from cohorts import build_phantom
from featurestore import extract as extract_module
from featurestore import rangefile, writer
from featurestore.claims import Claims, list_claims
from featurestore.errors import StoreError
from featurestore.extract import extract_features
from featurestore.featureset import create_feature_set, list_feature_sets, open_feature_set
from featurestore.fsio import names, write_new
from featurestore.gc import collect
from featurestore.items import list_items, remove_texts
from featurestore.process import identity
from featurestore.reader import open_features
from featurestore.records import record_file
from featurestore.remote import ObjectPath
from featurestore.removal import remove_feature_set
from featurestore.verify import verify
from featurestore.writer import ShardWriter

from ..test_cli.study import BUILD, write_study
from .pictures import add_pictures, add_reports, write_pictures
from .sets import add_images, add_texts, fill, image_layout, text_layout, tokens_of, write_all


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
from featurestore.openshard import Shard
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
