"""Whatever is killed, cut off, filled up or copied at whatever moment: nothing lost, nothing twice, nothing wrong.

`benchmarks/faults.py` does the same with hundreds of kills.
"""

import errno
import hashlib
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
from featurestore import fsio
from featurestore.claims import Claims
from featurestore.errors import DamageError
from featurestore.featureset import FeatureSet, create_feature_set, open_feature_set
from featurestore.gc import collect
from featurestore.items import list_items
from featurestore.process import identity, is_alive
from featurestore.reader import open_features
from featurestore.records import record_file
from featurestore.store import Store, open_store
from featurestore.verify import verify
from featurestore.writer import ShardWriter, abandon

from .crashes import Disk, die_at, failing
from .faults import OPERATIONS, Campaign, finish, kill, leftovers, read_set, shard_files, start, times_made
from .sets import add_images, add_texts, fill, image_layout, text_layout, tokens_of, write_all

DEAD = identity().rpartition("_")[0] + "_1"
KEYS = [str(i) for i in range(6)]
LAYOUTS = {"image": image_layout(), "text": text_layout(), "archive": text_layout(dtype="archive")}


KILLS = (6, 6, 5, 5, 4, 5, 5)


@pytest.mark.parametrize(
    ("operation", "kills"), [pytest.param(op, n, id=op.name) for op, n in zip(OPERATIONS, KILLS, strict=True)]
)
def test_killed_at_random_moments_and_resumed(tmp_path, operation, kills):
    tally = Campaign(operation, tmp_path, random.Random(1)).run(kills)
    assert tally.kills >= kills
    assert tally.clean, tally


def some_store(folder: Path, name: str) -> Store:
    """A store of six items of the layout's modality."""
    folder.mkdir(parents=True, exist_ok=True)
    store = open_store(folder / "store", create=True)
    if LAYOUTS[name].modality == "image":
        add_images(store, folder, KEYS)
    else:
        add_texts(store, {key: f"report {key}" for key in KEYS})
    return store


def extract_sets(store: Store, name: str) -> None:
    """Make what is missing, as an extraction does."""
    feature_set = create_feature_set(store, LAYOUTS[name])
    for _ in range(3):
        plans = feature_set.plan(list_items(store, modality=feature_set.modality))
        if not plans:
            return
        with Claims(feature_set) as claims:
            for plan in claims.share(plans):
                fill(store, feature_set, plan).commit()
                claims.release(plan.view, plan.shard)


def truth_of(name: str) -> dict[str, bytes]:
    """What the items of `some_store` must read as."""
    layout = LAYOUTS[name]
    held = {}
    for key in KEYS:
        tokens = tokens_of(f"d/{key}", layout.modality)
        cls = (tokens[0] + tokens.dtype.type(1)).tobytes() if layout.has_cls else b""
        held[f"d/{key}"] = tokens.tobytes() + cls
    return held


def held_by(store: Store, name: str) -> dict[str, bytes | None]:
    """What readers are given, once the set is there."""
    path = store.features / LAYOUTS[name].name / "zarr.json"
    return read_set(store, open_feature_set(store, LAYOUTS[name].name)) if path.exists() else {}


def assert_sound(store: Store, name: str) -> dict[str, bytes | None]:
    """What must hold at any moment; gives what is held."""
    held, truth = held_by(store, name), truth_of(name)
    assert held == {item: truth[item] for item in held}
    assert max(times_made(store).values(), default=1) == 1
    report = verify(store, deep=True)
    assert report.clean, report.findings
    return held


def assert_resumes(store: Store, name: str, *, files: dict[str, bytes] | None = None) -> None:
    """Extraction goes on and ends with everything, once, and a collection leaves nothing that is not needed."""
    extract_sets(store, name)
    assert assert_sound(store, name) == truth_of(name)
    collect(store, dry_run=False)
    assert assert_sound(store, name) == truth_of(name)
    assert leftovers(store) == []
    assert files is None or shard_files(store) == files


@pytest.fixture
def quick_disk(monkeypatch) -> None:
    """No waiting for the disk: here it is a model, or the system lives on."""
    monkeypatch.setattr(os, "fsync", lambda _: None)


@pytest.fixture
def as_the_dead() -> Iterator[pytest.MonkeyPatch]:
    """What is written meanwhile is signed by a process that is gone, until `undo`."""
    with pytest.MonkeyPatch.context() as patch:
        for module in (fsio, claims_module):
            patch.setattr(module, "identity", lambda: DEAD)
        yield patch


def digest(folder: Path) -> str:
    files = sorted((str(p.relative_to(folder)), p.read_bytes()) for p in folder.rglob("*") if p.is_file())
    return hashlib.sha256(repr(files).encode()).hexdigest()


def images_of(work: Callable[[], None], root: Path, into: Path, mark: Callable[[], set[str]]) -> dict[Path, set[str]]:
    """The folder as a crash at any point of `work` leaves it, every state once, with what `mark` gave at that point."""
    images: dict[Path, set[str]] = {}
    seen = set()

    def each(disk: Disk) -> None:
        for kind in (disk.killed, disk.lost_power, disk.lost_bytes):
            image = into / f"{len(images)}-{disk.calls[-1]}-{kind.__name__}"
            kind(image)
            found = digest(image)
            if found in seen:
                shutil.rmtree(image)
            else:
                seen.add(found)
                images[image] = mark()

    into.mkdir()
    with Disk(root).recording(each):
        work()
    return images


@pytest.mark.usefixtures("quick_disk")
@pytest.mark.parametrize("name", ["image", "text"])
def test_a_crash_or_a_power_loss_at_every_point_of_the_commit(tmp_path, as_the_dead, name):
    store = some_store(tmp_path, name)
    acknowledged: set[str] = set()
    commit = ShardWriter.commit

    def told(self):
        assert commit(self)
        acknowledged.update(self.plan.items)
        return True

    as_the_dead.setattr(ShardWriter, "commit", told)
    images = images_of(lambda: extract_sets(store, name), store.root, tmp_path / "images", lambda: set(acknowledged))
    as_the_dead.undo()
    assert len(images) > 100
    assert acknowledged == set(truth_of(name))
    for image, promised in images.items():
        if not (image / "radfs.json").exists():
            continue
        crashed = open_store(image)
        held = assert_sound(crashed, name)
        assert promised <= held.keys(), image.name
        assert_resumes(crashed, name, files=shard_files(store))


@pytest.mark.usefixtures("quick_disk")
def test_a_crash_at_every_point_of_a_collection(tmp_path, as_the_dead):
    store = some_store(tmp_path, "image")
    feature_set = create_feature_set(store, LAYOUTS["image"])
    items = list_items(store, modality="image")
    with as_the_dead.context() as patch, Claims(feature_set) as claims:
        first, second = feature_set.plan(items)
        for plan in (first, second):
            claims.take(plan.view, plan.shard)
        patch.setattr("featurestore.writer.publish", lambda *_: None)
        fill(store, feature_set, first).commit()  # not published
        patch.setattr("featurestore.writer.write_new", lambda *_: 1 / 0)
        patch.setattr("featurestore.writer.discard", lambda *_: None)
        with pytest.raises(ZeroDivisionError):
            fill(store, feature_set, second).commit()  # staged alone
        claims._held.clear()
    (store.root / f".{DEAD}.0123456789ab.partial").write_bytes(b"torn")
    (feature_set.path / "tokens/v0/c.1.0.0").write_bytes(b"nobody's")
    assert len(leftovers(store)) == 7
    before = assert_sound(store, "image")
    assert len(before) == 4
    images = images_of(lambda: collect(store, dry_run=False), store.root, tmp_path / "images", set)
    as_the_dead.undo()
    assert leftovers(store) == []
    assert len(images) > 10
    for image in images:
        crashed = open_store(image)
        assert assert_sound(crashed, "image") == before
        assert_resumes(crashed, "image")


@pytest.mark.parametrize("point", range(1, 130, 16))
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
@pytest.mark.parametrize("error", [errno.ENOSPC, errno.EIO])
def test_a_disk_that_fails_at_every_point(tmp_path, error):
    failures = 0
    for point in range(1, 1000):
        store = some_store(tmp_path / str(point), "image")
        with failing(point, error) as failed:
            raised = _error_of(lambda store=store: extract_sets(store, "image"))
        if raised is not None:
            assert raised.errno == error
            assert raised.filename is not None or failed[0] == "fsync"  # the command line names it
        assert_sound(store, "image")
        assert_resumes(store, "image")
        shutil.rmtree(store.root)
        if not failed:
            break
        failures += 1
    assert failures > 50


def _error_of(work: Callable[[], None]) -> OSError | None:
    try:
        work()
    except OSError as error:
        return error
    return None


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
        error = _error_of(lambda: extract_sets(store, "image"))
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
    assert [(f.kind, set(f.items)) for f in report.findings] == [("file", {"d/0", "d/1", "d/2", "d/3"})]
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

    real = Path.read_bytes

    def refuse(self):
        if self.parent.parent.name == "commits":
            raise PermissionError(errno.EACCES, "Permission denied")
        return real(self)

    monkeypatch.setattr(Path, "read_bytes", refuse)
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
