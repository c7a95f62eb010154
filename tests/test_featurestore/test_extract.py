"""Extraction: bad items are recorded and the run goes on; killed or repeated, every row is there exactly once."""

import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from featurestore import extract as extract_module
from featurestore import makers
from featurestore.encoders import ENCODERS, build, get_spec, list_specs, resolve
from featurestore.encoders.frozen import ImageEncoder, TextEncoder
from featurestore.encoders.sources import SeededWeights
from featurestore.errors import DataError, ItemError, UnknownNameError
from featurestore.extract import choose_encoders, extract_features, extract_many
from featurestore.featureset import list_feature_sets, open_feature_set
from featurestore.gc import collect
from featurestore.images import decode_image, read_file
from featurestore.layout import FeatureLayout
from featurestore.reader import open_features
from featurestore.records import record_file
from featurestore.store import open_store
from featurestore.views import crop_of

from .pictures import add_pictures, add_reports, gray, write_pictures


@pytest.fixture
def small_shards(monkeypatch):
    """Shards of 8 rows, so that small sets have several."""
    monkeypatch.setattr(extract_module, "shard_rows_for", lambda **_: 8)


def files_of(feature_set):
    """Every file of a set but its allocations; of records all but the random name of the attempt."""
    files = {p.relative_to(feature_set.path): p.read_bytes() for p in feature_set.path.rglob("*") if p.is_file()}
    for view in feature_set.views():
        for record in feature_set.records(view):
            files[Path(record_file(record.view, record.shard))] = replace(record, attempt="").encode()
    return {path: data for path, data in files.items() if path.parent.name != "rows"}


def test_the_store_gives_back_what_the_encoder_gave(store, tmp_path):
    paths = write_pictures(tmp_path / "in", 5)
    items = add_pictures(store, paths)
    report = extract_features(store, "tiny")
    assert (report.asked, report.extracted, report.failed) == (5, 5, {})
    encoder = build(get_spec("tiny"))
    expected = encoder.encode([encoder.prepare(decode_image(read_file(p))) for p in paths])
    features = open_features(store, report.feature_set)
    assert np.array_equal(features.image_tokens(items), expected.patches.numpy().astype(np.float16))
    assert np.array_equal(features.cls_tokens(items), expected.cls.numpy().astype(np.float16))


def test_bad_images_are_recorded_and_the_run_goes_on(store, tmp_path):
    folder = tmp_path / "in"
    good = write_pictures(folder, 3)
    half = folder / "half.png"
    half.write_bytes(good[0].read_bytes()[: good[0].stat().st_size // 2])
    (folder / "text.jpg").write_text("this is a report, not an image")
    (folder / "empty.jpg").write_bytes(b"")
    Image.fromarray(gray(7).astype(np.uint16) * 16).save(folder / "deep.png")
    Image.merge("CMYK", [Image.fromarray(gray(k)) for k in range(4)]).save(folder / "cmyk.jpg")
    names = ("half.png", "text.jpg", "empty.jpg", "deep.png", "cmyk.jpg", "gone.png")
    add_pictures(store, [*good, *(folder / n for n in names)])
    report = extract_features(store, "tiny")
    assert set(report.failed) == {"d/half", "d/text", "d/empty", "d/gone"}
    assert report.extracted == 5
    assert not any(str(folder) in reason for reason in report.failed.values())
    assert report.failed["d/gone"] == "the image file does not exist"
    again = extract_features(store, "tiny")
    assert (again.already, again.known_failures, again.extracted, again.failed) == (5, 4, 0, {})
    Image.fromarray(gray(9)).save(half)
    repaired = extract_features(store, "tiny")
    assert (repaired.extracted, repaired.known_failures) == (1, 3)


def test_a_bug_in_a_decoder_costs_one_item_and_not_the_run(store, tmp_path, monkeypatch):
    items = add_pictures(store, write_pictures(tmp_path / "in", 3))

    def decode(data, original=makers.decode_image):
        if data == (tmp_path / "in" / "001.png").read_bytes():
            raise ZeroDivisionError
        return original(data)

    monkeypatch.setattr(makers, "decode_image", decode)
    report = extract_features(store, "tiny")
    assert report.failed == {items[1]: "unexpected ZeroDivisionError while decoding"}
    assert report.extracted == 2


def test_reports_keep_their_length_and_a_long_one_is_cut_and_counted(store):
    items = add_reports(store, {"short": "clear lungs", "long": "effusion " * 3_000, "mid": "a b c d e f"})
    report = extract_features(store, "tiny-text")
    assert report.truncated == 1
    features = open_features(store, report.feature_set)
    _, offsets = features.text_tokens(items)
    context = get_spec("tiny-text").context_length
    lengths = np.diff(offsets)
    assert lengths[1] == context
    assert lengths[0] < lengths[2] < context


def test_a_report_that_the_encoder_refuses_is_a_failure_with_its_reason(store, monkeypatch):
    items = add_reports(store, {"1": "clear lungs", "2": "???", "3": "effusion"})

    def prepare(self, payload, original=TextEncoder.prepare):
        if payload == "???":
            raise ItemError("empty text")
        return original(self, payload)

    monkeypatch.setattr(TextEncoder, "prepare", prepare)
    report = extract_features(store, "tiny-text")
    assert report.failed == {"d/2": "empty text"}
    assert open_features(store, report.feature_set).has(items).tolist() == [True, False, True]
    assert extract_features(store, "tiny-text").known_failures == 1


@pytest.mark.usefixtures("small_shards")
def test_how_it_runs_changes_no_byte(store, tmp_path):
    add_pictures(store, write_pictures(tmp_path / "in", 21))
    one = open_feature_set(store, extract_features(store, "tiny", workers=1).feature_set)
    before = files_of(one)
    for path in (one.path / "commits/v0").iterdir():
        path.unlink()
    two = open_feature_set(store, extract_features(store, "tiny", workers=4, device="cpu").feature_set)
    assert two == one
    assert files_of(two) == before


def test_the_batch_size_is_no_part_of_the_key_and_changes_tokens_by_rounding_alone(store, tmp_path):
    items = add_pictures(store, write_pictures(tmp_path / "in", 10))
    first = extract_features(store, "tiny", batch_size=1)
    tokens = open_features(store, first.feature_set).image_tokens(items)
    for path in (open_feature_set(store, first.feature_set).path / "commits/v0").iterdir():
        path.unlink()
    second = extract_features(store, "tiny", batch_size=7)
    assert second.feature_set == first.feature_set
    np.testing.assert_allclose(
        open_features(store, second.feature_set).image_tokens(items), tokens, rtol=2e-3, atol=1e-3
    )


def test_only_the_items_asked_for(store, tmp_path):
    items = add_pictures(store, write_pictures(tmp_path / "in", 6))
    report = extract_features(store, "tiny", items=[items[4], items[1], items[4]])
    assert (report.asked, report.extracted) == (2, 2)
    assert open_features(store, report.feature_set).has(items).tolist() == [False, True, False, False, True, False]
    with pytest.raises(UnknownNameError, match="unknown image item 'd/nope'"):
        extract_features(store, "tiny", items=["d/nope"])


def test_what_cannot_start_says_why(store, tmp_path):
    with pytest.raises(UnknownNameError, match=r"unknown encoder 'tyni'\. Did you mean 'tiny'"):
        extract_features(store, "tyni")
    with pytest.raises(DataError, match="the store has no image items, which encoder tiny reads"):
        extract_features(store, "tiny")
    add_pictures(store, write_pictures(tmp_path / "in", 2))
    with pytest.raises(DataError, match="device 'tpu9000' is unknown"):
        extract_features(store, "tiny", device="tpu9000")


def several(store, *names, **options):
    return {r.feature_set.partition("@")[0]: r for r in extract_many(store, [resolve(n) for n in names], **options)}


def other_tiny(monkeypatch) -> str:
    """A second image encoder: `tiny` with other weights, and other shards."""
    spec = replace(get_spec("tiny"), name="other", weights=SeededWeights(seed=5))
    monkeypatch.setitem(ENCODERS, "other", f"{__name__}:OTHER")
    monkeypatch.setattr(sys.modules[__name__], "OTHER", spec)
    rows = {"tiny": 8, "other": 4}
    original = extract_module.layout_of
    monkeypatch.setattr(extract_module, "layout_of", lambda s, **more: original(s, shard_rows=rows[s.name], **more))
    return "other"


OTHER = None


def test_many_encoders_decode_each_image_once_and_give_what_each_gives_alone(tmp_path, monkeypatch):
    other, decoded = other_tiny(monkeypatch), []
    monkeypatch.setattr(makers, "decode_image", lambda data: decoded.append(1) or decode_image(data))
    paths = write_pictures(tmp_path / "in", 21)
    paths[5].write_bytes(b"no image")
    together, alone = (open_store(tmp_path / name, create=True) for name in ("together", "alone"))
    for one in (together, alone):
        add_pictures(one, paths)
    reports = several(together, "tiny", other, views=2, batch_size=3, workers=3)
    assert len(decoded) == 21
    for name in ("tiny", other):
        assert (reports[name].asked, reports[name].extracted, set(reports[name].failed)) == (63, 60, {"d/005"})
        report = extract_features(alone, name, views=2, batch_size=3, workers=1)
        assert report.feature_set == reports[name].feature_set
        sets = [open_feature_set(one, report.feature_set) for one in (together, alone)]
        assert files_of(sets[0]) == files_of(sets[1])
        assert sets[0].views() == [0, 1, 2]


@pytest.mark.usefixtures("small_shards")
def test_more_views_add_the_new_ones_alone(store, tmp_path):
    paths = write_pictures(tmp_path / "in", 10)
    items = add_pictures(store, paths)
    paths[3].write_bytes(b"no image")
    first = extract_features(store, "tiny", views=1)
    assert (first.asked, first.extracted, first.failed.keys()) == (20, 18, {"d/003"})
    feature_set = open_feature_set(store, first.feature_set)
    before = files_of(feature_set)
    more = extract_features(store, "tiny", views=3)
    assert (more.asked, more.already, more.known_failures, more.extracted) == (40, 18, 2, 18)
    after = files_of(feature_set)
    assert {path: after[path] for path in before if "zarr.json" not in path.name} == {
        path: data for path, data in before.items() if "zarr.json" not in path.name
    }
    # Every view is what the encoder gives for its crop, which depends on the image's id and the view's number alone.
    encoder = build(get_spec("tiny"))
    for view in (1, 2, 3):
        features = open_features(store, feature_set.name, view=view)
        assert features.has(items).tolist() == [i != 3 for i in range(10)]
        for i in (0, 9):
            image = decode_image(read_file(paths[i]))
            crop = crop_of(items[i], view, width=image.width, height=image.height)
            expected = encoder.encode([encoder.prepare(image, crop)]).patches[0].numpy().astype(np.float16)
            assert np.array_equal(features.image_tokens([items[i]])[0], expected)
    assert extract_features(store, "tiny", views=2).extracted == 0


def test_an_encoder_that_refuses_an_image_does_not_keep_it_from_another(store, tmp_path, monkeypatch):
    other = other_tiny(monkeypatch)
    items = add_pictures(store, write_pictures(tmp_path / "in", 3))

    def prepare(self, payload, crop=None, original=ImageEncoder.prepare):
        if self.spec.name == "other" and np.array_equal(np.asarray(payload), gray(1)):
            raise ItemError("too bright")
        return original(self, payload, crop)

    monkeypatch.setattr(ImageEncoder, "prepare", prepare)
    reports = several(store, "tiny", other)
    assert (reports["tiny"].failed, reports["other"].failed) == ({}, {items[1]: "too bright"})


@pytest.mark.usefixtures("small_shards")
def test_encoders_of_both_kinds_in_one_command(store, tmp_path):
    add_pictures(store, write_pictures(tmp_path / "in", 3))
    add_reports(store, {"1": "clear lungs", "2": "effusion"})
    reports = several(store, "tiny", "tiny-text", "tiny", views=1)
    assert list(reports) == ["tiny", "tiny-text"]
    assert [(r.asked, r.extracted, r.views) for r in reports.values()] == [(6, 6, 1), (2, 2, 0)]
    with pytest.raises(DataError, match="augmented views are of images, and no encoder here reads any"):
        extract_features(store, "tiny-text", views=1)
    with pytest.raises(DataError, match="1000 views: give a number from 0 to 999"):
        extract_features(store, "tiny", views=1000)


def test_all_are_the_encoders_that_can_run_here(store, tmp_path, monkeypatch):
    monkeypatch.setattr(extract_module, "is_available", lambda spec: spec.name in ("efficientnet-lite0", "minilm"))
    with pytest.raises(DataError, match=r"no encoder can run: .*efficientnet-lite0: the store has no images"):
        choose_encoders(store, "all")
    add_pictures(store, write_pictures(tmp_path / "in", 1))
    specs, left_out = choose_encoders(store, "all")
    assert [spec.name for spec in specs] == ["efficientnet-lite0"]
    assert left_out["minilm"] == "the store has no texts"
    assert left_out["rad-dino"] == "weights are not here"
    assert "tiny" not in left_out
    assert [spec.name for spec in choose_encoders(store, "tiny, tiny-text,tiny")[0]] == ["tiny", "tiny-text"]
    with pytest.raises(UnknownNameError, match="unknown encoder 'tyni'"):
        choose_encoders(store, "tiny,tyni")
    with pytest.raises(DataError, match="--weights and --variant belong to one encoder, and these are 2"):
        choose_encoders(store, "tiny,tiny-text", weights="x.pt")


def test_precision_and_long_text_make_sets_of_their_own(store, tmp_path):
    add_pictures(store, write_pictures(tmp_path / "in", 2))
    items = add_reports(store, {"1": " ".join(f"word{i}" for i in range(100)), "2": "clear " * 500})
    images = [extract_features(store, "tiny", precision=p).feature_set for p in ("float32", "bfloat16")]
    assert len(set(images)) == 2
    cut, whole = (extract_features(store, "tiny-text", long_text=how) for how in ("truncate", "window"))
    assert cut.feature_set != whole.feature_set
    assert (cut.truncated, whole.truncated) == (2, 1)
    tokens, offsets = open_features(store, whole.feature_set).text_tokens(items)
    assert np.diff(offsets).tolist() == [100, 200]
    short, _ = open_features(store, cut.feature_set).text_tokens(items)
    assert np.array_equal(tokens[:32], short[:32])


def test_every_encoder_makes_a_set_that_can_be_opened_again(monkeypatch):
    monkeypatch.setattr(extract_module, "weights_sha256", lambda spec: "0" * 64)
    for spec in list_specs():
        for long_text in ("truncate", "window"):
            layout = extract_module.layout_of(spec.with_long_text(long_text))
            assert FeatureLayout.from_metadata(layout.metadata()) == layout
            assert layout.shard_rows.bit_count() == 1  # shards of several encoders lie within each other


def test_what_is_inferred_says_so_in_the_set(store, tmp_path):
    add_pictures(store, write_pictures(tmp_path / "in", 1))
    feature_set = open_feature_set(store, extract_features(store, "tiny").feature_set)
    assert feature_set.attrs["what"]["preprocessing"]["views"]["scale"] == [0.4, 0.9]
    assert "no flip are inferred" in feature_set.attrs["about"]["views"]


TWO_ENCODERS = """
import sys, time
from featurestore import extract as module
from featurestore.encoders import resolve
from featurestore.store import open_store

original = module.layout_of
rows = iter([8, 4])
module.layout_of = lambda spec, **more: original(spec, shard_rows=next(rows), **more)
specs = [resolve("tiny"), resolve("tiny", precision="float16")]
module.extract_many(open_store(sys.argv[1]), specs, views=1, batch_size=4, on_progress=lambda *_: time.sleep(0.01))
"""


def two_encoders(root) -> subprocess.Popen:
    return subprocess.Popen([sys.executable, "-c", TWO_ENCODERS, str(root)])


def test_processes_share_many_encoders_and_a_killed_one_is_made_good(tmp_path):
    paths = write_pictures(tmp_path / "in", 60)
    shared, single = (open_store(tmp_path / name, create=True) for name in ("shared", "single"))
    for store in (shared, single):
        add_pictures(store, paths)
    with two_encoders(shared.root) as killed:
        _wait_for(lambda: len(list(shared.features.glob("*/commits/v1/*.json"))) > 1 or killed.poll() is not None)
        os.kill(killed.pid, signal.SIGKILL)
    processes = [two_encoders(root) for root in (shared.root, shared.root, single.root)]
    assert [process.wait(timeout=120) for process in processes] == [0, 0, 0]
    collect(shared, dry_run=False)
    for one, other in zip(list_feature_sets(shared), list_feature_sets(single), strict=True):
        assert one.views() == [0, 1]
        assert files_of(one) == files_of(other)


SLOW_EXTRACTION = """
import sys, time
from featurestore import extract as module
from featurestore.store import open_store

module.shard_rows_for = lambda **_: 8
module.extract_features(open_store(sys.argv[1]), "tiny", batch_size=4, on_progress=lambda *_: time.sleep(0.03))
"""


@pytest.mark.usefixtures("small_shards")
@pytest.mark.parametrize("delay_s", [0.0, 0.05, 0.15, 0.3])
def test_killed_and_run_again_every_row_is_there_once_and_equal(store, tmp_path, delay_s):
    items = add_pictures(store, write_pictures(tmp_path / "in", 60))
    with subprocess.Popen([sys.executable, "-c", SLOW_EXTRACTION, str(store.root)]) as process:
        _wait_for(lambda: any(store.features.glob("*/rows/*.parquet")) or process.poll() is not None)
        time.sleep(delay_s)
        os.kill(process.pid, signal.SIGKILL)
    (feature_set,) = list_feature_sets(store)
    report = extract_features(store, "tiny", batch_size=4)
    assert report.already + report.extracted == 60
    assert report.extracted > 0  # the kill came in the middle
    feature_set = open_feature_set(store, report.feature_set)
    rows = [row for record in feature_set.records() for row in record.items]
    assert sorted(rows) == sorted(items)
    collect(store, dry_run=False)
    whole = files_of(feature_set)
    assert not [path for path in whole if ".partial" in path.name]
    for path in (feature_set.path / "commits/v0").iterdir():
        path.unlink()
    extract_features(store, "tiny", batch_size=4)
    assert files_of(feature_set) == whole


def _wait_for(condition, timeout_s: float = 60.0) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)
