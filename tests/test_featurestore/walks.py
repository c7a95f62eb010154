"""Walks through an operation: a crash, a power loss or a failing disk at one point of it after the other.

After each the store must be sound as it lies, and extraction must go on to the bytes of an undisturbed one. The tests
take some of the points, `benchmarks/faults.py --walk` takes them all.
"""

import hashlib
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from featurestore import claims as claims_module
from featurestore import fsio
from featurestore.claims import Claims
from featurestore.featureset import create_feature_set, open_feature_set
from featurestore.gc import collect
from featurestore.items import list_items
from featurestore.process import identity
from featurestore.store import Store, open_store
from featurestore.verify import verify
from featurestore.writer import ShardWriter

from .crashes import Disk, failing
from .faults import leftovers, read_set, shard_files, times_made
from .sets import add_images, add_texts, fill, image_layout, text_layout, tokens_of

DEAD = identity().rpartition("_")[0] + "_1"
KEYS = [str(i) for i in range(6)]
LAYOUTS = {"image": image_layout(), "text": text_layout(), "archive": text_layout(dtype="archive")}


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


def assert_sound(store: Store, name: str, stray: str = "nothing") -> dict[str, bytes | None]:
    """What must hold at any moment; gives what is held. `stray` is a shard file that may be there without a record."""
    held, truth = held_by(store, name), truth_of(name)
    assert held == {item: truth[item] for item in held}
    assert max(times_made(store).values(), default=1) == 1
    report = verify(store, deep=True)
    assert not [f for f in report.findings if f"the commit record is missing and {stray}" not in f.message]
    return held


def assert_resumes(store: Store, name: str, *, files: dict[str, bytes] | None = None) -> None:
    """Extraction goes on and ends with everything, once, and a collection leaves nothing that is not needed."""
    extract_sets(store, name)
    assert assert_sound(store, name) == truth_of(name)
    collect(store, dry_run=False)
    assert assert_sound(store, name) == truth_of(name)
    assert leftovers(store) == []
    assert files is None or shard_files(store) == files


@contextmanager
def as_the_dead() -> Iterator[pytest.MonkeyPatch]:
    """What is written meanwhile is signed by a process that is gone."""
    with pytest.MonkeyPatch.context() as patch:
        for module in (fsio, claims_module):
            patch.setattr(module, "identity", lambda: DEAD)
        yield patch


def digest(folder: Path) -> str:
    files = sorted((str(p.relative_to(folder)), p.read_bytes()) for p in folder.rglob("*") if p.is_file())
    return hashlib.sha256(repr(files).encode()).hexdigest()


def images_of(
    work: Callable[[], None], root: Path, into: Path, mark: Callable[[], set[str]], every: int
) -> dict[Path, set[str]]:
    """The folder as a crash at any point of `work` leaves it, every state once, with what `mark` gave at that point.

    Or at every so many-th point.
    """
    images: dict[Path, set[str]] = {}
    seen: set[str] = set()

    def each(disk: Disk) -> None:
        if len(disk.calls) % every:
            return
        for kind in (disk.killed, disk.lost_power, disk.lost_bytes):
            image = into / f"{len(seen)}-{len(disk.calls)}-{disk.calls[-1]}-{kind.__name__}"
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


def error_of(work: Callable[[], None]) -> OSError | None:
    try:
        work()
    except OSError as error:
        return error
    return None


def walk_commit(folder: Path, name: str, *, every: int = 1) -> int:
    """An extraction that a crash or a power loss ends at any point. How many states were looked at."""
    store = some_store(folder, name)
    acknowledged: set[str] = set()
    commit = ShardWriter.commit

    def told(self: ShardWriter) -> bool:
        assert commit(self)
        acknowledged.update(self.plan.items)
        return True

    with as_the_dead() as patch:
        patch.setattr(ShardWriter, "commit", told)
        into = folder / "images"
        images = images_of(lambda: extract_sets(store, name), store.root, into, lambda: set(acknowledged), every)
    assert acknowledged == set(truth_of(name))
    for image, promised in images.items():
        crashed = open_store(image)
        held = assert_sound(crashed, name)
        assert promised <= held.keys(), image.name
        assert_resumes(crashed, name, files=shard_files(store))
    return len(images)


def walk_collection(folder: Path, *, every: int = 1) -> int:
    """A collection of all kinds of leftovers that a crash ends at any point. How many states were looked at."""
    store, stray = some_store(folder, "image"), "tokens/v0/c.1.0.0"
    feature_set = create_feature_set(store, LAYOUTS["image"])
    with as_the_dead():
        leave_all_kinds(store)
        before = assert_sound(store, "image", stray)
        assert len(before) == 4
        images = images_of(lambda: collect(store, dry_run=False), store.root, folder / "images", set, every)
    assert leftovers(store) == []
    assert not (feature_set.path / stray).exists()
    for image in images:
        crashed = open_store(image)
        assert assert_sound(crashed, "image", stray) == before
        assert_resumes(crashed, "image")
    return len(images)


def leave_all_kinds(store: Store) -> None:
    """A committed shard that is not published, an attempt that was not committed, claims, and files of nobody."""
    feature_set = create_feature_set(store, LAYOUTS["image"])
    first, second = feature_set.plan(list_items(store, modality="image"))
    with pytest.MonkeyPatch.context() as patch, Claims(feature_set) as claims:
        for plan in (first, second):
            claims.take(plan.view, plan.shard)
        patch.setattr("featurestore.writer.publish", lambda *_: None)
        fill(store, feature_set, first).commit()
        patch.setattr("featurestore.writer.write_new", lambda *_: 1 / 0)
        patch.setattr("featurestore.writer.discard", lambda *_: None)
        with pytest.raises(ZeroDivisionError):
            fill(store, feature_set, second).commit()
        claims._held.clear()
    (store.root / f".{DEAD}.0123456789ab.partial").write_bytes(b"torn")
    (feature_set.path / "tokens/v0/c.1.0.0").write_bytes(b"nobody's")
    assert len(leftovers(store)) == 7


def walk_failures(folder: Path, error: int, calls: tuple[str, ...], *, every: int = 1) -> int:
    """An extraction whose calls fail with this `errno` from any point on. How many points there were."""
    for count, point in enumerate(range(1, 10_000, every)):
        store = some_store(folder / str(point), "image")
        with failing(point, error, calls) as failed:
            raised = error_of(lambda store=store: extract_sets(store, "image"))
        assert (raised is None) == (not failed)
        assert raised is None or raised.errno == error
        assert_sound(store, "image")
        assert_resumes(store, "image")
        shutil.rmtree(store.root)
        if not failed:
            return count
    raise AssertionError
