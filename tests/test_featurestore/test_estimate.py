"""What an estimate says is what an extraction then takes."""

import pytest

from featurestore.errors import UnknownNameError
from featurestore.extract import extract_features
from featurestore.featureset import open_feature_set
from featurestore.trial import estimate_extraction

from .pictures import add_pictures, add_reports, write_pictures
from .sets import files_below


@pytest.mark.parametrize("preset", ["float16", "int8", "float32"])
def test_images_take_what_was_estimated(store, tmp_path, preset):
    add_pictures(store, write_pictures(tmp_path / "in", 40))
    before = files_below(store.root)
    found = estimate_extraction(store, "tiny", preset=preset, trial=4)
    assert files_below(store.root) == before
    report = extract_features(store, "tiny", preset=preset)
    feature_set = open_feature_set(store, report.feature_set)
    files = [p for p in feature_set.path.rglob("*") if p.is_file() and p.name != "zarr.json"]
    assert found.files == len(files)
    assert found.disk_bytes == pytest.approx(sum(p.stat().st_size for p in files), rel=0.2)
    assert found.items == 40
    assert found.seconds is not None
    assert found.seconds > 0
    assert found.free_bytes is not None
    assert estimate_extraction(store, "tiny", preset=preset, trial=0).items == 0


def test_reports_are_reckoned_by_the_lengths_of_a_trial(store):
    add_reports(store, {f"{i}": "heart size is normal " * (1 + i % 3) for i in range(60)})
    found = estimate_extraction(store, "tiny-text", trial=60)
    report = extract_features(store, "tiny-text")
    feature_set = open_feature_set(store, report.feature_set)
    data = sum(p.stat().st_size for p in feature_set.path.rglob("*") if p.is_file() and p.name != "zarr.json")
    assert found.disk_bytes == pytest.approx(data, rel=0.3)


def test_a_count_stands_in_for_items_that_are_not_there_yet(store, tmp_path):
    add_pictures(store, write_pictures(tmp_path / "in", 3))
    few = estimate_extraction(store, "tiny", trial=0)
    many = estimate_extraction(store, "tiny", count=377_110, trial=0)
    assert few.items == 3
    assert many.items == 377_110
    assert many.seconds is None
    with pytest.raises(UnknownNameError):
        estimate_extraction(store, "tyni")
