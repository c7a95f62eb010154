"""What is taken out of a store is gone, and nothing else is."""

import pytest

from featurestore.claims import Claims
from featurestore.errors import DataError, StoreError
from featurestore.extract import extract_features
from featurestore.featureset import create_feature_set, list_feature_sets
from featurestore.items import list_datasets, list_items, remove_texts
from featurestore.reader import open_features
from featurestore.removal import remove_feature_set

from .sets import add_images, add_texts, fill, image_layout, text_layout, write_all

KEYS = [str(i) for i in range(6)]


def test_a_feature_set_goes_alone(store, tmp_path):
    add_images(store, tmp_path, KEYS)
    one = write_all(store, image_layout())
    two = write_all(store, image_layout(encoder="other"))
    remove_feature_set(one)
    assert [s.name for s in list_feature_sets(store)] == [two.name]
    assert not one.path.exists()
    assert [p.name for p in store.features.iterdir()] == [two.name]


def test_a_set_that_somebody_is_extracting_into_stays(store, tmp_path):
    add_images(store, tmp_path, KEYS)
    feature_set = write_all(store, image_layout(), stop_after=1)
    with Claims(feature_set) as claims:
        assert claims.take(0, 1)
        with pytest.raises(StoreError, match="is making its shard 1"):
            remove_feature_set(feature_set)
    assert feature_set.path.exists()


def test_a_set_that_another_machine_is_extracting_into_stays(store, tmp_path):
    add_images(store, tmp_path, KEYS)
    feature_set = write_all(store, image_layout(), stop_after=1)
    (feature_set.path / "claims").mkdir(exist_ok=True)
    (feature_set.path / "claims" / "v0-00000001.g0001").write_text("other-host_0123456789ab_4026531836_77_1234/0")
    with pytest.raises(StoreError, match="on another machine is making its shard 1"):
        remove_feature_set(feature_set)


def test_a_late_writer_does_not_bring_a_removed_set_back(store, tmp_path):
    add_images(store, tmp_path, KEYS)
    feature_set = create_feature_set(store, image_layout())
    late = fill(store, feature_set, feature_set.plan(list_items(store, modality="image"))[0])
    remove_feature_set(feature_set)
    with pytest.raises(StoreError, match="was removed while shard 0 of it was being made"):
        late.commit()
    assert list_feature_sets(store) == []


def test_texts_go_and_their_tokens_stay_usable(store):
    texts = {k: f"no pneumothorax in {k}" for k in KEYS}
    add_texts(store, texts)
    feature_set = write_all(store, text_layout())
    before = open_features(store, feature_set.name).text_tokens([f"d/{k}" for k in KEYS])[0]
    assert list_datasets(store) == ["d"]
    assert remove_texts(store, "d") == 6
    assert remove_texts(store, "d") == 0
    assert list_items(store)["text"].null_count() == 6
    assert not any(b"pneumothorax" in p.read_bytes() for p in store.root.rglob("*") if p.is_file())
    features = open_features(store, feature_set.name)
    assert (features.text_tokens([f"d/{k}" for k in KEYS])[0] == before).all()
    with pytest.raises(DataError, match=r"the texts of 6 reports .* were removed .*`radfs rm --texts`.*first is d/0"):
        extract_features(store, "tiny-text")
    add_texts(store, texts)  # given again, they are back
    assert list_items(store)["text"].null_count() == 0
    assert extract_features(store, "tiny-text").extracted == 6
