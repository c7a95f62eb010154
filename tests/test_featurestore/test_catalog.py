"""The catalog mirrors the truth files, can be deleted, and lets nobody write."""

import subprocess
import sys
import time

import polars as pl
import pytest

from featurestore.catalog import Catalog, Column, Table
from featurestore.errors import DamageError, DataError, StoreError
from featurestore.schema import TABLES, VIEWS

from .sets import add_images, add_texts, image_layout, write_all

PARTS = Table(
    "parts", "", (Column("run", "TEXT", ""), Column("x", "INTEGER", "")), "results/*.parquet", unique_by="run"
)


@pytest.fixture
def catalog(store):
    return Catalog(store, TABLES, VIEWS)


def test_tables_follow_the_truth_files(store, tmp_path, catalog):
    add_images(store, tmp_path, ["1", "2"])
    write_all(store, image_layout(), fail=("d/2",))
    catalog.fold()
    assert catalog.query("SELECT item, state FROM feature_rows ORDER BY item").rows() == [
        ("d/1", "done"),
        ("d/2", "failed"),
    ]
    assert catalog.query("SELECT item, reason FROM failures").rows() == [("d/2", "told to fail")]
    (tmp_path / "2.bin").write_bytes(b"repaired")
    write_all(store, image_layout())
    catalog.fold()
    assert catalog.query("SELECT count(*) FROM failures").item() == 0
    assert catalog.query("SELECT sum(rows) FROM shards").item() == 3


def test_a_truth_file_that_goes_takes_its_rows_with_it(store, tmp_path, catalog):
    add_images(store, tmp_path, ["1", "2"])
    feature_set = write_all(store, image_layout())
    catalog.fold()
    feature_set.record_path(0).unlink()
    catalog.fold()
    assert catalog.query("SELECT count(*) FROM feature_rows").item() == 0


def test_a_deleted_or_outdated_catalog_is_rebuilt(store, catalog):
    add_texts(store, {"1": "clear"})
    catalog.fold()
    before = catalog.query("SELECT * FROM items")
    store.catalog.unlink()
    catalog.fold()
    assert catalog.query("SELECT * FROM items").equals(before)
    wider = Catalog(store, [*TABLES, PARTS], VIEWS)
    wider.fold()
    assert wider.query("SELECT count(*) FROM parts").item() == 0
    assert wider.query("SELECT * FROM items").equals(before)


def test_a_run_that_two_processes_wrote_counts_once(store):
    catalog = Catalog(store, [PARTS], [])
    store.results.mkdir()
    pl.DataFrame({"run": ["a", "b"], "x": [1, 2]}, schema_overrides={"x": pl.Int32}).write_parquet(
        store.results / "1.parquet"
    )
    pl.DataFrame({"run": ["b", "c"], "x": [2, 3]}, schema_overrides={"x": pl.Int32}).write_parquet(
        store.results / "2.parquet"
    )
    catalog.fold()
    assert catalog.query("SELECT run, x FROM parts ORDER BY run").rows() == [("a", 1), ("b", 2), ("c", 3)]


@pytest.mark.parametrize(
    "sql",
    [
        "CREATE TABLE t (x INT)",
        "DELETE FROM truth.items",
        "INSERT INTO truth.items SELECT * FROM truth.items",
        "COPY items TO 'out.csv'",
        "ATTACH 'other.db'",
        "SELECT * FROM read_csv('/etc/passwd')",
        "SELECT * FROM read_text('/etc/passwd')",
        "SELECT * FROM '/etc/passwd'",
        "INSTALL httpfs",
        "SET enable_external_access = true",
        "EXPORT DATABASE 'out'",
        "SELEC 1",
    ],
)
def test_a_query_can_only_read_the_store(store, catalog, sql, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    catalog.fold()
    with pytest.raises(DataError, match=r"SQL refused|returns no rows"):
        catalog.query(sql)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["store"]


def test_parameters_are_bound(store, catalog):
    add_texts(store, {"1": "clear", "2": "no"})
    catalog.fold()
    assert catalog.query("SELECT characters FROM items WHERE item = ?", ["d/2"]).item() == 2


def test_a_fold_that_waited_keeps_what_another_process_folded_meanwhile(store, catalog, monkeypatch):
    add_texts(store, {"1": "clear"})
    early = Catalog._listing(catalog)
    add_texts(store, {"2": "effusion"})
    listings = iter([early])
    monkeypatch.setattr(catalog, "_listing", lambda: next(listings, None) or Catalog._listing(catalog))
    Catalog(store, TABLES, VIEWS).fold()
    catalog.fold()
    assert catalog.query("SELECT count(*) FROM items").item() == 2


def test_a_damaged_truth_file_is_named_and_the_rest_is_kept(store, tmp_path, catalog):
    add_images(store, tmp_path, ["1"])
    catalog.fold()
    (store.items / "d" / "000001.parquet").write_bytes(b"torn")
    with pytest.raises(DamageError, match=r"d/000001\.parquet cannot be read for the table items"):
        catalog.fold()
    assert catalog.query("SELECT count(*) FROM items").item() == 1


HOLD = """
import duckdb, sys, time
connection = duckdb.connect(sys.argv[1])
print("held", flush=True)
time.sleep(float(sys.argv[2]))
"""


def test_a_query_waits_for_a_writer_and_gives_up_with_a_clear_word(store, catalog):
    catalog.fold()
    with subprocess.Popen([sys.executable, "-c", HOLD, str(store.catalog), "1"], stdout=subprocess.PIPE) as holder:
        assert holder.stdout.readline()
        with pytest.raises(StoreError, match=r"another process has held .*catalog"):
            catalog.query("SELECT 1", wait_s=0.1)
        start = time.monotonic()
        assert catalog.query("SELECT 1").item() == 1
        assert time.monotonic() - start > 0.2


def test_a_file_that_is_no_catalog_is_named(store, catalog):
    store.catalog.write_bytes(b"not a database" * 1000)
    with pytest.raises(StoreError, match="It is a cache: delete it"):
        catalog.fold()
