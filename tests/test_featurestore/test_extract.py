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
from featurestore.encoders import build, get_spec
from featurestore.encoders.frozen import TextEncoder
from featurestore.errors import DataError, ItemError, UnknownNameError
from featurestore.extract import extract_features
from featurestore.featureset import list_feature_sets, open_feature_set
from featurestore.gc import collect
from featurestore.images import decode_image, read_file
from featurestore.reader import open_features
from featurestore.records import record_file

from .pictures import add_pictures, add_reports, gray, write_pictures


@pytest.fixture
def small_shards(monkeypatch):
    """Shards of 8 rows, so that small sets have several."""
    monkeypatch.setattr(extract_module, "shard_rows_for", lambda **_: 8)


def files_of(feature_set):
    """Every file of a set but its allocations; of records all but the random name of the attempt."""
    files = {p.relative_to(feature_set.path): p.read_bytes() for p in feature_set.path.rglob("*") if p.is_file()}
    for record in feature_set.records():
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
