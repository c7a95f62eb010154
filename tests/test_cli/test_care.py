"""Looking after a store from the command line: what each command says, and its exit code."""

import json

import numpy as np
import polars as pl
import pytest

from featurestore.errors import DataError, UnknownNameError
from featurestore.featureset import list_feature_sets
from featurestore.items import ITEM_SCHEMA, add_items, list_items
from featurestore.store import open_store


@pytest.fixture
def images(study, tmp_path):
    """The feature set of the images, one shard."""
    return next(s for s in list_feature_sets(open_store(tmp_path / "radfs-store")) if s.modality == "image")


def harm(path, at=10):
    data = bytearray(path.read_bytes())
    data[at] ^= 1
    path.write_bytes(data)


def test_verify_says_what_is_hit_and_repair_queues_it(study, images):
    assert "2 feature sets, 2 shards, 96 rows" in study("verify", "--deep").output
    harm(images.path / "tokens/v0/c.0.0.0")
    assert "no findings (metadata, records and sizes" in study("verify").output
    found = study("verify", "tiny", "--deep", code=1).output
    assert "items: mine/images/0000.png" in found
    assert "radfs verify --repair" in found
    assert "1 item queued" in study("verify", "--deep", "--repair").output
    assert "1 new, 47 there already" in study("extract", "--backbone", "tiny").output
    assert "no findings" in study("verify", "--deep").output
    with pytest.raises(UnknownNameError, match="unknown feature set 'tyni'"):
        study("verify", "tyni")


def test_gc_names_leftovers_first_and_removes_them_then(study, images):
    leftover = images.path / "tokens/v0/c.9.0.0"
    leftover.write_bytes(b"torn")
    dry = study("gc", "--dry-run").output
    assert "tokens/v0/c.9.0.0: shard file without a commit record" in dry
    assert "1 leftover, 0.0 MB would be removed" in dry
    assert leftover.exists()
    assert "1 leftover, 0.0 MB removed" in study("gc").output
    assert not leftover.exists()


def test_reindex_brings_everything_back(study, tmp_path):
    study("train", "--grid", "grid.toml")
    sql = "SELECT run, auroc, auroc_best FROM results ORDER BY run"
    before = json.loads(study("query", sql, "--json").output)
    assert len(before) == 8
    (tmp_path / "radfs-store" / "catalog.duckdb").unlink()
    assert "8 runs" in study("reindex").output
    assert json.loads(study("query", sql, "--json").output) == before


def test_rm_asks_and_removes_what_was_named(study, tmp_path, images):
    store = open_store(tmp_path / "radfs-store")
    with pytest.raises(DataError, match="nothing to remove"):
        study("rm")
    with pytest.raises(UnknownNameError, match="unknown cohort 'yours'"):
        study("rm", "--cohort", "yours")
    with pytest.raises(UnknownNameError, match="unknown dataset 'yours'"):
        study("rm", "--texts", "yours")
    assert "Remove?" in study("rm", "--features", images.name, code=1).output  # no answer is no
    assert images.path.exists()
    texts = [*list_items(store, modality="text")["text"][:2], "another"]
    rows = [(f"other/{i}", "text", None, text) for i, text in enumerate(texts)]
    add_items(store, pl.DataFrame(rows, schema=ITEM_SCHEMA, orient="row"))
    said = study("rm", "--texts", "mine", "--yes").output
    assert "2 reports of dataset other have such a text too: radfs rm --texts other" in said
    add_items(store, pl.DataFrame([("mine/x", "text", None, "new")], schema=ITEM_SCHEMA, orient="row"))
    assert "1 text of mine removed" in study("rm", "--features", images.name, "--texts", "mine", "--yes").output
    assert [s.modality for s in list_feature_sets(store)] == ["text"]
    study("rm", "--cohort", "mine", "--yes")
    assert "(0 rows)" in study("query", "SELECT * FROM samples").output


def test_recode_and_train_from_int8(study, tmp_path, images):
    said = study("recode", images.name, "--preset", "int8").output
    assert "48 rows written, 0 there already" in said
    assert f"keep {images.name}: items that come later are recoded from it" in said
    (name,) = [s.name for s in list_feature_sets(open_store(tmp_path / "radfs-store")) if s.layout.dtype == "int8"]
    grid = (tmp_path / "grid.toml").read_text().replace('"tiny"', f'"{name}"')
    (tmp_path / "grid.toml").write_text(grid)
    assert "8 trained" in study("train", "--grid", "grid.toml").output


def test_an_archive_trains_to_the_same_runs(study, tmp_path, images):
    study("train", "--grid", "grid.toml")
    said = study("recode", "tiny", "--preset", "archive").output
    assert f"to remove the old one: radfs rm --features {images.name}" in said
    study("rm", "--features", images.name, "--yes")
    assert "8 done before, 0 trained" in study("train", "--grid", "grid.toml").output


def test_estimate_says_what_it_takes(study):
    text = study("estimate", "--backbone", "tiny", "--cohort", "mine").output
    assert "tiny as float16: 0 images without tokens" in text
    text = study("estimate", "--backbone", "tiny", "--items", "377110", "--trial", "4").output
    assert "377,110 images without tokens" in text
    assert "by a trial of 4 on this machine" in text


def test_embeddings_made_elsewhere_are_trained_on(study, tmp_path):
    rng = np.random.default_rng(0)
    np.save("mine.npy", rng.normal(size=(48, 7, 16)).astype("f4"))
    (tmp_path / "mine.ids.txt").write_text("".join(f"mine/images/{i:04d}.png\n" for i in range(48)))
    said = study("import", "mine.npy", "--encoder", "my-vit", "--modality", "image", "--revision", "1").output
    assert "48" in said
    (name,) = [s.name for s in list_feature_sets(open_store(tmp_path / "radfs-store")) if s.is_imported]
    grid = (tmp_path / "grid.toml").read_text()
    (tmp_path / "grid.toml").write_text(grid.replace('"tiny"', f'"{name}"'))
    assert "8 trained" in study("train", "--grid", "grid.toml").output
    (tmp_path / "grid.toml").write_text(grid.replace('"tiny-text"', f'"{name}"'))
    with pytest.raises(DataError, match="is of images, not of texts"):
        study("train", "--grid", "grid.toml")
    (tmp_path / "grid.toml").write_text(grid.replace('"tiny"', '"my-vit"'))
    with pytest.raises(UnknownNameError, match="Imported embeddings are named encoder@key"):
        study("train", "--grid", "grid.toml")
