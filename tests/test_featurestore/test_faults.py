"""Whatever is killed, cut off, filled up or copied at whatever moment: nothing lost, nothing twice, nothing wrong.

`benchmarks/faults.py` does the same with hundreds of kills.
"""

import errno
import os
import random
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import polars as pl
import pytest

from featurestore import claims as claims_module
from featurestore import records as records_module
from featurestore.claims import Claims
from featurestore.errors import DamageError
from featurestore.featureset import FeatureSet, create_feature_set, open_feature_set
from featurestore.gc import collect
from featurestore.items import list_items
from featurestore.process import identity, is_alive
from featurestore.reader import open_features
from featurestore.records import record_file
from featurestore.store import open_store
from featurestore.verify import verify
from featurestore.writer import abandon

from .crashes import die_at
from .faults import OPERATIONS, Campaign, finish, kill, leftovers, shard_files, start
from .sets import add_images, fill, image_layout, tokens_of, write_all
from .walks import (
    KEYS,
    LAYOUTS,
    assert_resumes,
    assert_sound,
    error_of,
    extract_sets,
    held_by,
    some_store,
    truth_of,
    walk_collection,
    walk_commit,
    walk_failures,
)

KILLS = (5, 6, 4, 5, 4, 4, 5)


@pytest.mark.parametrize(
    ("operation", "kills"), [pytest.param(op, n, id=op.name) for op, n in zip(OPERATIONS, KILLS, strict=True)]
)
def test_killed_at_random_moments_and_resumed(tmp_path, operation, kills):
    tally = Campaign(operation, tmp_path, random.Random(1)).run(kills)
    assert tally.kills >= kills
    assert tally.clean, tally


@pytest.fixture
def quick_disk(monkeypatch) -> None:
    """No waiting for the disk: here it is a model, or the system lives on."""
    monkeypatch.setattr(os, "fsync", lambda _: None)


@pytest.mark.usefixtures("quick_disk")
@pytest.mark.parametrize("name", ["image", "text"])
def test_a_crash_or_a_power_loss_at_points_of_the_commit(tmp_path, name):
    assert walk_commit(tmp_path, name, every=8) > 20


@pytest.mark.usefixtures("quick_disk")
def test_a_crash_at_points_of_a_collection(tmp_path):
    assert walk_collection(tmp_path, every=2) > 5


@pytest.mark.parametrize("point", range(1, 130, 24))
def test_a_process_that_ends_at_a_point_of_the_commit(tmp_path, point):
    store = some_store(tmp_path, "image")
    process = start(_extract_and_die, str(store.root), point)
    process.join()
    assert process.exitcode == 9
    assert_sound(store, "image")
    assert_resumes(store, "image")


def _extract_and_die(root: str, point: int) -> None:
    with die_at(point):
        extract_sets(open_store(root), "image")


@pytest.mark.usefixtures("quick_disk")
@pytest.mark.parametrize(
    ("error", "calls"), [(errno.ENOSPC, ("open", "mkdir", "writev", "link")), (errno.EIO, ("fsync", "replace"))]
)
def test_a_disk_that_fails_at_points_of_the_commit(tmp_path, error, calls):
    assert walk_failures(tmp_path, error, calls, every=10) > 4


@pytest.fixture
def mounted(tmp_path) -> Iterator[Callable[..., None]]:
    """`mounted(target, *options)` mounts a file system as long as the test runs; skips where that is not allowed."""
    done: list[Path] = []

    def mount(target: Path, *options: str) -> None:
        target.mkdir(parents=True, exist_ok=True)
        if shutil.which("mount") is None or os.geteuid() != 0:
            pytest.skip("mounting needs root")
        if subprocess.run(["mount", *options, str(target)], capture_output=True, check=False).returncode != 0:
            pytest.skip("mounting is not allowed here")
        if target not in done:
            done.append(target)

    yield mount
    for target in reversed(done):
        subprocess.run(["umount", "--lazy", str(target)], check=True)


def test_a_full_disk_is_a_clear_error_and_extraction_goes_on_once_there_is_space(tmp_path, mounted):
    mounted(tmp_path / "disk", "-t", "tmpfs", "-o", "size=400k", "tmpfs")
    store = some_store(tmp_path / "disk", "image")
    ballast, failures, most = tmp_path / "disk" / "ballast", 0, 0
    for pages in range(100):
        ballast.write_bytes(bytes(max(0, shutil.disk_usage(tmp_path / "disk").free - 4096 * pages)))
        before = held_by(store, "image")
        error = error_of(lambda: extract_sets(store, "image"))
        ballast.unlink()
        held = assert_sound(store, "image")
        assert before.items() <= held.items()
        assert leftovers(store) == []
        if error is None:
            break
        assert error.errno == errno.ENOSPC
        assert error.filename is not None  # the command line names it
        failures, most = failures + 1, max(most, len(held))
    assert failures > 3
    assert 0 < most < len(KEYS)  # once it was full after the first shard
    assert_resumes(store, "image")


def test_a_read_only_store_is_read_verified_and_never_written(tmp_path, mounted):
    from typer.testing import CliRunner

    from cli.main import app

    store = some_store(tmp_path, "image")
    extract_sets(store, "image")
    view = tmp_path / "view"
    mounted(view, "--bind", str(store.root))
    mounted(view, "-o", "remount,ro,bind")
    locked = open_store(view)
    assert assert_sound(locked, "image") == truth_of("image")
    assert verify(locked, deep=True).clean
    assert collect(locked, dry_run=True).removed == []
    for command in (["info"], ["verify", "--deep"], ["query", "SELECT count(*) AS n FROM items", "--csv"]):
        result = CliRunner().invoke(app, [*command, "--store", str(view)])
        assert result.exit_code == 0, (command, result.output, result.exception)
    add_images(store, tmp_path, ["new"])
    with pytest.raises(OSError, match="Read-only file system"):
        extract_sets(locked, "image")


def test_a_copy_made_while_the_store_was_written_serves_only_right_rows_and_can_be_completed(tmp_path):
    store = some_store(tmp_path, "image")
    keys = [str(i) for i in range(120)]
    add_images(store, tmp_path, keys)
    truth = {f"d/{key}": tokens_of(f"d/{key}", "image") for key in keys}
    chance = random.Random(5)
    for attempt in range(4):
        writer = start(_extract_slowly, str(store.root))
        _wait_for(lambda: any(store.features.glob("*/commits/v0/*.json")))
        copy = open_store(_copy_in_random_order(store.root, tmp_path / f"copy{attempt}", chance))
        kill(writer)
        feature_set = open_feature_set(copy, image_layout().name)
        features = open_features(copy, feature_set.name)
        report = verify(copy, deep=True)
        hit = {item for finding in report.findings for item in finding.items}
        served = [item for item in features.items if item not in hit]
        assert all((row == truth[i]).all() for i, row in zip(served, features.image_tokens(served), strict=True))
        for item in hit - set(features.items):
            with pytest.raises(Exception, match="has no tokens"):
                features.image_tokens([item])
        verify(copy, deep=True, repair=True)
        write_all(copy, image_layout())
        write_all(copy, image_layout())  # an allocation that was not copied may be taken twice
        features = open_features(copy, feature_set.name)
        assert features.items == sorted(truth)
        assert all((row == truth[i]).all() for i, row in zip(truth, features.image_tokens(list(truth)), strict=True))
        assert verify(copy, deep=True).clean
        collect(copy, dry_run=False, stale_s=-1)
        assert leftovers(copy) == []
        assert all((row == truth[i]).all() for i, row in zip(truth, features.image_tokens(list(truth)), strict=True))


def _extract_slowly(root: str) -> None:
    store = open_store(root)
    feature_set = create_feature_set(store, image_layout())
    with Claims(feature_set) as claims:
        for plan in claims.share(feature_set.plan(list_items(store, modality="image"))):
            time.sleep(0.01)
            fill(store, feature_set, plan).commit()
            claims.release(plan.view, plan.shard)


def _copy_in_random_order(root: Path, into: Path, chance: random.Random) -> Path:
    """As rsync does, but worse: files come in any order, some of them half, and some go while it looks."""
    into.mkdir()
    folders = [p.relative_to(root) for p in root.rglob("*") if p.is_dir()]
    for folder in folders:
        (into / folder).mkdir(parents=True, exist_ok=True)
    chance.shuffle(folders)
    for folder in [Path(), *folders]:
        names = [p.name for p in (root / folder).iterdir() if p.is_file()]
        chance.shuffle(names)
        for name in names:
            try:
                data = (root / folder / name).read_bytes()
            except FileNotFoundError:
                continue
            half = folder.name == "staged" and chance.random() < 0.5  # it was being written
            (into / folder / name).write_bytes(data[: len(data) // 2] if half else data)
            time.sleep(0.001)
    return into


def test_a_record_without_its_files_and_files_without_a_record(tmp_path):
    store = some_store(tmp_path, "image")
    extract_sets(store, "image")
    feature_set = open_feature_set(store, LAYOUTS["image"].name)
    (feature_set.path / "tokens/v0/c.0.0.0").unlink()
    (feature_set.path / record_file(0, 1)).unlink()
    report = verify(store)
    assert [(f.kind, set(f.items)) for f in report.findings] == [
        ("record", {"d/4", "d/5"}),
        ("file", {"d/0", "d/1", "d/2", "d/3"}),
    ]
    assert held_by(store, "image") == {}
    collect(store, dry_run=False)
    assert not (feature_set.path / "tokens/v0/c.1.0.0").exists()
    extract_sets(store, "image")
    assert held_by(store, "image") == truth_of("image")
    assert verify(store, deep=True).clean


@pytest.mark.parametrize("by", ["committed", "abandoned"])
@pytest.mark.parametrize("staged", [False, True])
def test_a_stalled_worker_that_wakes_changes_nothing(tmp_path, by, staged):
    store = some_store(tmp_path, "image")
    stalled = start(_extract_and_stall, str(store.root), staged)
    _wait_for(lambda: stalled.pid is not None and _state(stalled.pid) == "T")
    feature_set = open_feature_set(store, LAYOUTS["image"].name)
    assert bool(list(feature_set.path.glob("staged/*"))) is staged
    assert collect(store, dry_run=True).removed == []  # it lives: what it has is its own
    plan, _ = feature_set.plan(list_items(store, modality="image"))
    if by == "abandoned":
        assert abandon(feature_set, 0, 0)
    else:
        with Claims(feature_set, lease_s=0.4) as claims:
            _wait_for(lambda: claims.take(0, 0))
            assert fill(store, feature_set, plan).commit()
    before = {path: data for path, data in shard_files(store).items() if "c.0" in path}
    assert stalled.pid is not None
    os.kill(stalled.pid, signal.SIGCONT)
    finish(stalled)
    assert {path: data for path, data in shard_files(store).items() if "c.0" in path} == before
    assert leftovers(store) == []
    assert assert_sound(store, "image") == truth_of("image")


def _extract_and_stall(root: str, staged: bool) -> None:
    """Extract; stop before the first shard is staged, or before its record."""
    name = "write_new" if staged else "write_synced"

    def stall(*arguments):
        setattr(sets_writer, name, real)
        os.kill(os.getpid(), signal.SIGSTOP)
        return real(*arguments)

    from featurestore import writer as sets_writer

    real = getattr(sets_writer, name)
    setattr(sets_writer, name, stall)
    extract_sets(open_store(root), "image")


def _state(pid: int) -> str:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]


def test_a_clock_that_is_moved_back_neither_blocks_nor_steals(tmp_path, monkeypatch):
    store = some_store(tmp_path, "image")
    feature_set = create_feature_set(store, LAYOUTS["image"])
    feature_set.plan(list_items(store, modality="image"))
    clock = [2 * 10**9]

    def touch(path):
        clock[0] -= 3600
        os.utime(path, (clock[0], clock[0]))

    monkeypatch.setattr(claims_module, "touch", touch)
    monkeypatch.setattr(claims_module, "is_alive", lambda _: None)  # as on another machine
    with Claims(feature_set, lease_s=0.3) as worker, Claims(feature_set, lease_s=0.3) as other:
        assert worker.take(0, 0)
        deadline = time.monotonic() + 1.2
        while time.monotonic() < deadline:
            assert not other.take(0, 0)
            time.sleep(0.02)
        assert clock[0] < 2 * 10**9 - 3600
        worker._stop.set()  # it is dead now
        _wait_for(lambda: other.take(0, 0), timeout_s=5)


def test_a_claim_of_a_process_that_may_not_be_looked_at_is_not_taken_for_a_dead_one(monkeypatch):
    real = Path.read_text

    def hidden(self, *arguments):
        if self.name == "stat":
            raise PermissionError(errno.EACCES, "hidepid")
        return real(self, *arguments)

    who = identity()
    monkeypatch.setattr(Path, "read_text", hidden)
    assert is_alive(who) is None
    gone = who.split("_")
    gone[-2] = "999999999"
    assert is_alive("_".join(gone)) is False


def test_a_record_that_was_created_by_a_call_that_seemed_to_fail_counts(tmp_path, monkeypatch):
    store = some_store(tmp_path, "image")
    link = os.link

    def repeated(source, target):  # as NFS does when a reply is lost
        link(source, target)
        link(source, target)

    monkeypatch.setattr(os, "link", repeated)
    extract_sets(store, "image")
    monkeypatch.undo()
    assert assert_sound(store, "image") == truth_of("image")


def test_what_is_committed_while_another_process_plans_is_not_planned_twice(tmp_path, monkeypatch):
    store = some_store(tmp_path, "image")
    feature_set = create_feature_set(store, LAYOUTS["image"])
    items = list_items(store, modality="image")
    undone = [True]

    for name in ("_undecided", "_newest", "_compare", "allocations"):
        real = getattr(FeatureSet, name)

        def meanwhile(self, *arguments, real=real):
            given = real(self, *arguments)
            if undone and undone.pop():
                monkeypatch.undo()
                extract_sets(store, "image")  # another process is faster
            return given

        with monkeypatch.context() as patch:
            patch.setattr(FeatureSet, name, meanwhile)
            feature_set.plan(items)
        assert not undone
        assert len(feature_set.allocations()) == 1, name
        shutil.rmtree(feature_set.path)
        undone.append(True)
        create_feature_set(store, LAYOUTS["image"])


def test_a_view_is_not_taken_for_current_because_another_one_is(tmp_path):
    store = some_store(tmp_path, "image")
    extract_sets(store, "image")
    picture = tmp_path / "1.bin"
    picture.write_bytes(b"another patient")
    write_all(store, LAYOUTS["image"], view=1)
    os.utime(picture, (10**9, 10**9))
    write_all(store, LAYOUTS["image"], view=1)  # which keeps the new time of the file
    name = LAYOUTS["image"].name
    assert open_features(store, name, view=1).has(["d/1"]).all()
    assert not open_features(store, name).has(["d/1"]).any()


def test_a_repaired_item_is_missing_though_an_older_row_of_it_failed(tmp_path):
    store = some_store(tmp_path, "image")
    feature_set = write_all(store, LAYOUTS["image"], fail=("d/1",))
    for plan in feature_set.plan(list_items(store, modality="image"), retry_failed=True):
        fill(store, feature_set, plan).commit()
    feature_set.drop(pl.DataFrame({"row": [8], "view": [0], "item": ["d/1"], "reason": ["damaged"]}))
    status = feature_set.status(list_items(store, modality="image"))
    assert status.filter(pl.col("item") == "d/1")["state"].to_list() == ["missing"]


def test_a_record_that_cannot_be_read_just_now_is_no_damage(tmp_path, monkeypatch):
    store = some_store(tmp_path, "image")
    extract_sets(store, "image")

    def refuse(path: Path, most: int) -> bytes:
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(records_module, "read_whole", refuse)
    with pytest.raises(Exception, match="Permission denied") as raised:
        verify(store, [LAYOUTS["image"].name], repair=True)
    assert not isinstance(raised.value, DamageError)
    monkeypatch.undo()
    assert assert_sound(store, "image") == truth_of("image")


def _wait_for(condition: Callable[[], object], timeout_s: float = 60.0) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)
