"""A set in another precision: the same rows, within the codec's error, under a key that says where they come from."""

import numpy as np
import pytest

from featurestore.codecs import CODECS
from featurestore.errors import DataError, UnknownNameError
from featurestore.featureset import find_feature_sets, find_one_feature_set, list_feature_sets, open_feature_set
from featurestore.reader import open_features
from featurestore.recode import recode, recoded_layout
from featurestore.verify import verify

from .sets import add_images, add_texts, image_layout, text_layout, write_all

KEYS = [str(i) for i in range(10)]


@pytest.fixture(params=["image", "text"])
def source(request, store, tmp_path):
    if request.param == "image":
        add_images(store, tmp_path, KEYS)
        return write_all(store, image_layout(), fail=("d/3",))
    add_texts(store, {k: f"report {k}" for k in KEYS})
    return write_all(store, text_layout(), fail=("d/3",))


def flat(store, name):
    features = open_features(store, name)
    items = features.items
    return items, features.text_tokens(items)[0] if features.modality == "text" else features.image_tokens(items)


@pytest.mark.parametrize("preset", sorted(set(CODECS) - {"float16"}))
def test_every_row_is_there_within_the_error_of_the_codec(store, source, preset):
    report = recode(store, source, preset)
    assert (report.written, report.already) == (10, 0)
    items, expected = flat(store, source.name)
    found_items, found = flat(store, report.target)
    assert found_items == items
    tolerance = {"int8": 0.5 / 127, "bfloat16": 2.0**-8}.get(preset, 0.0) * np.abs(expected.astype("f8")).max()
    np.testing.assert_allclose(found.astype("f8"), expected.astype("f8"), atol=tolerance * 1.01, rtol=0)
    target = open_features(store, report.target)
    assert target.failed(["d/3"]).all()
    assert target.content(items) == open_features(store, source.name).content(items)
    assert verify(store, deep=True).clean
    assert recode(store, source, preset).already == 10


def test_class_tokens_come_along(store, tmp_path):
    add_images(store, tmp_path, KEYS)
    source = write_all(store, image_layout())
    target = recode(store, source, "float32").target
    items = [f"d/{k}" for k in KEYS]
    found = open_features(store, target).cls_tokens(items)
    assert found.dtype == np.float32
    assert (found == open_features(store, source.name).cls_tokens(items)).all()


def test_views_come_along(store, tmp_path):
    add_images(store, tmp_path, KEYS)
    write_all(store, image_layout())
    source = write_all(store, image_layout(), view=1)
    target = recode(store, source, "int8").target
    assert open_features(store, target, view=1).has(["d/9"]).all()


def test_the_key_tells_numbers_that_an_encoder_would_not_have_given():
    half = image_layout()
    single = image_layout(dtype="float32")
    assert recoded_layout(single, "float16").name == half.name
    assert recoded_layout(single, "int8").name == image_layout(dtype="int8").name
    assert recoded_layout(half, "int8").name != image_layout(dtype="int8").name
    assert recoded_layout(half, "archive").identity == half.identity
    assert recoded_layout(recoded_layout(half, "archive"), "float16").name == half.name
    # What was lost on the way stays lost: int8 kept as float16 is not what float16 was.
    assert recoded_layout(recoded_layout(half, "int8"), "float16").name != half.name


def test_an_archive_has_the_same_numbers_and_gives_way_to_the_plain_set(store, tmp_path):
    add_images(store, tmp_path, KEYS)
    source = write_all(store, image_layout())
    archive = open_feature_set(store, recode(store, source, "archive").target)
    assert archive.name == f"{source.name}-archive"
    assert archive.identity == source.identity
    assert [s.name for s in find_feature_sets(store, "img")] == [source.name]
    assert [s.name for s in find_feature_sets(store, archive.name)] == [archive.name]
    assert find_one_feature_set(store, "img").name == source.name


def test_what_cannot_be_recoded_says_why(store, tmp_path):
    add_images(store, tmp_path, KEYS)
    source = write_all(store, image_layout())
    with pytest.raises(DataError, match="is kept as float16 already"):
        recode(store, source, "float16")
    with pytest.raises(UnknownNameError, match="'int9'"):
        recode(store, source, "int9")
    assert len(list_feature_sets(store)) == 1
    recode(store, source, "int8")
    with pytest.raises(DataError, match=r"several feature sets of img: .*\(float16\)"):
        find_one_feature_set(store, "img")
