"""Damage is found, named by item, and queued again; nothing sound is."""

import json
import shutil

import polars as pl
import pytest

from featurestore.errors import DamageError, UnknownNameError
from featurestore.featureset import find_feature_sets
from featurestore.gc import collect
from featurestore.items import list_items
from featurestore.reader import open_features
from featurestore.verify import _bad_record, verify

from .sets import add_images, add_texts, files_below, image_layout, text_layout, tokens_of, write_all

KEYS = [str(i) for i in range(10)]


@pytest.fixture
def images(store, tmp_path):
    add_images(store, tmp_path, KEYS)
    return write_all(store, image_layout(), fail=("d/3",))


@pytest.fixture
def texts(store):
    add_texts(store, {k: f"report {k}" for k in KEYS})
    return write_all(store, text_layout())


def flip(path, at):
    data = bytearray(path.read_bytes())
    data[at] ^= 1
    path.write_bytes(data)


def hit(report):
    return {item for finding in report.findings for item in finding.items}


@pytest.mark.usefixtures("images", "texts")
def test_a_sound_store_is_clean(store):
    report = verify(store, deep=True)
    assert report.clean
    assert (report.sets, report.shards, report.rows) == (2, 6, 19)


def row_bytes(layout):
    return layout.tokens * layout.dim * 2


def test_a_flipped_bit_hits_one_item_and_only_deep_sees_it(store, images):
    flip(images.path / "tokens/v0/c.0.0.0", row_bytes(images.layout) + 3)
    assert verify(store).clean
    report = verify(store, deep=True)
    assert hit(report) == {"d/1"}
    assert report.findings[0].kind == "row"


def test_a_flipped_bit_in_a_report_hits_that_report(store, texts):
    first = len(tokens_of("d/4", "text"))
    flip(texts.path / "tokens/v0/c.1.0", first * texts.dim * 2 + 1)
    assert hit(verify(store, deep=True)) == {"d/5"}


@pytest.mark.parametrize(
    "harm",
    [
        lambda path: path.unlink(),
        lambda path: path.write_bytes(path.read_bytes()[:-7]),
        lambda path: path.write_bytes(b""),
        lambda path: flip(path, len(path.read_bytes()) - 30),  # in the shard's index
    ],
    ids=["gone", "cut", "empty", "index"],
)
@pytest.mark.parametrize("deep", [False, True])
def test_a_missing_a_cut_and_an_unreadable_file_hit_the_shard(store, images, harm, deep):
    harm(images.path / "cls/v0/c.1.0")
    assert hit(verify(store, deep=deep)) == {"d/4", "d/5", "d/6", "d/7"}


def test_swapped_shards_are_found_by_deep_and_by_every_read(store, images):
    one, two = images.path / "tokens/v0/c.1.0.0", images.path / "tokens/v0/c.0.0.0"
    write_all(store, image_layout(encoder="other"))
    other = next(store.features.glob("other@*"))
    shutil.copy(one, images.path / "swap")
    # Shard 1 of both sets is of the same size: only the bytes tell.
    (images.path / "tokens/v0/c.1.0.0").write_bytes((other / "tokens/v0/c.0.0.0").read_bytes()[: one.stat().st_size])
    assert two.exists()
    assert hit(verify(store, [images.name], deep=True)) == {"d/4", "d/5", "d/6", "d/7"}
    with pytest.raises(DamageError, match="item d/4: its row in feature set"):
        open_features(store, images.name).image_tokens(["d/4"])


def test_a_record_that_cannot_be_read_hits_the_items_that_were_allocated(store, images):
    (images.path / "commits/v0/00000001.json").write_text("{")
    report = verify(store)
    assert [f.kind for f in report.findings] == ["record"]
    assert hit(report) == {"d/4", "d/5", "d/6", "d/7"}


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (lambda d: d["shape"].__setitem__(0, 4), "covers 4 of 12 rows"),
        (
            lambda d: d["attributes"]["radfs"].update(weights_sha256="ff"),
            "weights' sha256 is ff; the set was made with 00",
        ),
        (lambda d: d.update(fill_value=0), "differs from what radfs writes in fill_value"),
    ],
    ids=["short", "weights", "fill"],
)
def test_metadata_that_lies_to_other_readers_is_found_and_written_anew(store, images, change, expected):
    path = images.path / "tokens/v0/zarr.json"
    document = json.loads(path.read_bytes())
    change(document)
    path.write_text(json.dumps(document))
    (finding,) = verify(store).findings
    assert expected in finding.message
    assert verify(store, repair=True).findings[0].repaired
    assert verify(store).clean


def test_a_set_whose_weights_differ_from_its_name_is_refused(store, images):
    (images.path / "zarr.json").write_bytes(image_layout(what={"weights_sha256": "01"}).metadata())
    (finding,) = verify(store).findings
    assert finding.kind == "set"
    assert "weights' sha256" in finding.message


@pytest.mark.parametrize(("field", "value"), [("shard_rows", 5), ("dim", 7), ("tokens", 6), ("about", {})])
def test_an_altered_field_of_a_set_is_refused_and_repair_touches_nothing(store, images, field, value):
    path = images.path / "zarr.json"
    sound = path.read_bytes()
    document = json.loads(sound)
    document["attributes"]["radfs"][field] = value
    path.write_text(json.dumps(document))
    before = files_below(images.path)
    (finding,) = verify(store, deep=True, repair=True).findings
    assert finding.kind == "set"
    assert "one of them was altered" in finding.message
    assert files_below(images.path) == before
    path.write_bytes(sound)
    assert verify(store, deep=True).clean


def test_a_set_that_lost_its_zarr_json_is_named_and_not_collected(store, images):
    (images.path / "zarr.json").unlink()
    before = files_below(images.path)
    (finding,) = verify(store, repair=True).findings
    assert "rows and no zarr.json" in finding.message
    assert collect(store, dry_run=False, stale_s=-1).removed == []
    assert files_below(images.path) == before


def test_a_damaged_set_is_no_obstacle_to_the_others(store, images, texts):
    (images.path / "zarr.json").write_text("{")
    assert [s.name for s in find_feature_sets(store, "txt")] == [texts.name]
    assert collect(store, dry_run=False).removed == []
    assert verify(store, [texts.name], deep=True).clean


@pytest.mark.parametrize("table", ["rows/00000000.parquet", "dropped/00000000.parquet"])
def test_a_damaged_table_of_a_set_is_a_finding(store, images, table):
    images.drop(pl.DataFrame({"row": [0], "view": [0], "item": ["d/0"], "reason": ["x"]}))
    (images.path / table).write_bytes(b"torn")
    assert "is damaged" in verify(store).findings[0].message


@pytest.mark.parametrize("harm", [{"attributes": []}, {"shape": ["x"]}, {"shape": []}], ids=["list", "text", "none"])
def test_strange_metadata_of_an_array_is_a_finding(store, images, harm):
    path = images.path / "cls/v0/zarr.json"
    path.write_text(json.dumps(json.loads(path.read_bytes()) | harm))
    assert [f.kind for f in verify(store).findings] == ["metadata"]
    assert verify(store, repair=True).findings
    assert verify(store).clean


def test_a_repair_done_twice_harms_nothing(store, images):
    record = images.path / "commits/v0/00000001.json"
    record.write_text("{")
    message = "seen by two at once"
    assert _bad_record(images, 0, 1, message, {}, repair=True).repaired
    write_all(store, image_layout())
    before = open_features(store, images.name).items
    _bad_record(images, 0, 1, message, {}, repair=True)  # the second comes late
    assert open_features(store, images.name).items == before
    assert verify(store, deep=True).clean
    assert images.record(0, 1).state == "abandoned"


def test_repair_queues_just_what_is_hit(store, images):
    flip(images.path / "tokens/v0/c.0.0.0", 3)
    (images.path / "commits/v0/00000002.json").write_text("{")
    report = verify(store, deep=True, repair=True)
    assert hit(report) == {"d/0", "d/8", "d/9"}
    assert all(finding.repaired for finding in report.findings)
    status = images.status(list_items(store, modality="image"))
    assert set(status.filter(status["state"] == "missing")["item"]) == {"d/0", "d/8", "d/9"}
    write_all(store, image_layout())
    features = open_features(store, images.name)
    for item in ("d/0", "d/1", "d/8", "d/9"):
        assert (features.image_tokens([item])[0] == tokens_of(item, "image")).all()
    assert verify(store, deep=True).clean


def test_damage_in_rows_that_no_longer_count_is_no_finding(store, texts):
    add_texts(store, {k: f"corrected {k}" for k in KEYS[:4]})
    write_all(store, text_layout())
    flip(texts.path / "tokens/v0/c.0.0", 1)
    (texts.path / "offsets/v0/c.0.0").unlink()
    assert verify(store, deep=True).clean


def test_a_table_that_cannot_be_read_is_named(store, images):
    (store.items / "d" / "000000.parquet").write_bytes(b"torn")
    assert ["items/d/000000.parquet is damaged" in f.message for f in verify(store).findings] == [True]


def test_an_unknown_set_is_an_error(store, images):
    with pytest.raises(UnknownNameError, match="unknown feature set"):
        verify(store, ["img@0"])
