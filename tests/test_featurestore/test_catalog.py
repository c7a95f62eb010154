"""The catalog mirrors the truth files, can be deleted, and lets nobody write."""

import os
import subprocess
import sys
import time
from pathlib import Path

import duckdb
import polars as pl
import pytest

from featurestore import folding
from featurestore.catalog import Catalog, Column, Table
from featurestore.errors import DamageError, DataError, StoreError
from featurestore.folding import Fold
from featurestore.fsio import write_parquet
from featurestore.records import record_file
from featurestore.schema import TABLES, VIEWS
from featurestore.shards import crc32
from featurestore.store import open_store
from featurestore.writer import abandon

from .sets import add_images, add_texts, image_layout, write_all

PARTS = Table(
    "parts", "", (Column("run", "TEXT", ""), Column("x", "INTEGER", "")), "results/*.parquet", unique_by="run"
)


@pytest.fixture
def catalog(store, tmp_path, monkeypatch):
    monkeypatch.setenv("RADFS_CACHE", str(tmp_path / "cache"))
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
    (feature_set.path / record_file(0, 0)).unlink()
    catalog.fold()
    assert catalog.query("SELECT count(*) FROM feature_rows").item() == 0


def test_the_row_before_counts_again_when_the_record_of_the_newer_one_goes(store, tmp_path, catalog):
    add_images(store, tmp_path, ["1", "2"])
    feature_set = write_all(store, image_layout())
    (tmp_path / "2.bin").write_bytes(b"other")
    write_all(store, image_layout())
    catalog.fold()
    assert catalog.query("SELECT item, row FROM feature_rows ORDER BY item").rows() == [("d/1", 0), ("d/2", 4)]
    (feature_set.path / record_file(0, 1)).unlink()
    catalog.fold()
    assert catalog.query("SELECT item, row FROM feature_rows ORDER BY item").rows() == [("d/1", 0), ("d/2", 1)]


def test_a_dropped_row_does_not_count_whichever_is_folded_first(store, tmp_path, catalog):
    add_images(store, tmp_path, ["1", "2", "3"])
    feature_set = write_all(store, image_layout())
    write_all(store, image_layout(), view=1)
    catalog.fold()
    drop = pl.DataFrame({"row": [0, 1], "view": [None, 1], "item": ["d/1", "d/2"], "reason": "crc"})
    feature_set.drop(drop)
    catalog.fold()
    left = [(0, "d/2"), (0, "d/3"), (1, "d/3")]
    which = "SELECT view, item FROM feature_rows ORDER BY ALL"
    assert catalog.query(which).rows() == left
    catalog.rebuild()
    assert catalog.query(which).rows() == left
    assert catalog.query("SELECT row, view, item, reason FROM dropped_rows ORDER BY row").rows() == drop.rows()
    next((feature_set.path / "dropped").glob("*.parquet")).unlink()
    catalog.fold()
    assert catalog.query("SELECT count(*) FROM feature_rows").item() == 6


def test_a_dropped_row_is_not_made_good_by_an_older_one(store, tmp_path, catalog):
    add_images(store, tmp_path, ["1"])
    feature_set = write_all(store, image_layout())
    (tmp_path / "1.bin").write_bytes(b"other")
    write_all(store, image_layout())
    feature_set.drop(pl.DataFrame({"row": [4], "view": [0], "item": ["d/1"], "reason": "crc"}))
    catalog.fold()
    assert catalog.query("SELECT count(*) FROM feature_rows").item() == 0


def test_shards_say_what_was_decided_and_what_their_files_are(store, tmp_path, catalog):
    add_images(store, tmp_path, ["1"])
    feature_set = write_all(store, image_layout())
    abandon(feature_set, 0, 1)
    catalog.fold()
    record = feature_set.record(0, 0)
    crcs = b"".join(record.files[name]["crc32"].to_bytes(4, "little") for name in sorted(record.files))
    size = sum(file["bytes"] for file in record.files.values())
    assert catalog.query("SELECT view, shard, state, rows, bytes, checksum FROM shards ORDER BY shard").rows() == [
        (0, 0, "committed", 1, size, f"{crc32(crcs):08x}"),
        (0, 1, "abandoned", 0, 0, None),
    ]
    assert catalog.query("SELECT count(*) FROM feature_rows").item() == 1


def test_new_files_cost_one_insert_a_table_and_are_read_once(store, monkeypatch):
    read, statements, plain = [], [], Fold._sql
    columns = (Column("name", "TEXT", ""), Column("size", "INTEGER", ""))

    def read_one(path):
        read.append(path)
        return path.name

    def load(name):
        return pl.DataFrame({"name": [name], "size": [len(name)]})

    tables = [
        Table("first", "", columns, "results/*.txt", load, read=read_one),
        Table("second", "", columns, "results/*.txt", load, read=read_one, newest_by=("name",)),
    ]
    store.results.mkdir()
    for n in range(50):
        (store.results / f"{n}.txt").write_text("x")
    monkeypatch.setattr(Fold, "_sql", lambda self, sql: (statements.append(sql), plain(self, sql)))
    catalog = Catalog(store, tables, [])
    catalog.fold()
    assert catalog.query("SELECT count(*) FROM first JOIN second USING (name)").item() == 50
    assert len(read) == 50
    for table in ("first", "second"):
        assert sum(sql.startswith(f'INSERT INTO truth."{table}"') for sql in statements) == 1


def test_a_truth_file_that_goes_while_it_is_folded_is_left_out(store, catalog, monkeypatch):
    add_texts(store, {"1": "clear"})
    listing = Catalog._listing(catalog)
    listing["items/*/[0-9]*.parquet"]["items/d/000009.parquet"] = "1:1"
    monkeypatch.setattr(catalog, "_listing", lambda: listing)
    catalog.fold()
    assert catalog.query("SELECT count(*) FROM items").item() == 1


def test_much_is_folded_in_rounds_and_a_fold_that_was_killed_goes_on(store, monkeypatch):
    monkeypatch.setattr(folding, "_ROWS_A_ROUND", 5)
    monkeypatch.setattr(folding, "_ROW_GROUP", 3)
    monkeypatch.setattr(folding, "_FEW", 2)
    store.results.mkdir()
    for n in range(12):
        frame = pl.DataFrame({"run": [f"r{n}", f"r{n // 2}"], "x": [n, n]}, schema_overrides={"x": pl.Int32})
        write_parquet(store.results / f"{n:02d}.parquet", frame)
    rounds, plain = [], Fold.run

    def run(self, before, listing):
        rounds.append(sum(map(len, before.values())))
        if len(rounds) == 3:
            raise KeyboardInterrupt
        return plain(self, before, listing)

    monkeypatch.setattr(Fold, "run", run)
    with pytest.raises(KeyboardInterrupt):
        Catalog(store, [PARTS], []).fold()
    catalog = Catalog(store, [PARTS], [])
    catalog.fold()
    assert rounds == [0, 3, 6, 6, 9]
    first = {f"r{n}": min(m for m in range(12) if n in (m, m // 2)) for n in range(12)}
    assert dict(catalog.query("SELECT run, x FROM parts").rows()) == first
    # of the first file by name all rows count, and r0 stands twice in it
    assert catalog.query("SELECT count(*) FROM parts").item() == 13


def test_what_begins_with_a_dot_is_nobodys(store):
    catalog = Catalog(store, [PARTS], [])
    (store.results / ".half").mkdir(parents=True)
    for name in (".1.parquet", "2.parquet"):
        write_parquet(store.results / name, pl.DataFrame({"run": [name], "x": [1]}))
    catalog.fold()
    assert catalog.query("SELECT run FROM parts").rows() == [("2.parquet",)]


def test_values_that_do_not_fit_their_column_are_damage_of_their_file(store):
    catalog = Catalog(store, [PARTS], [])
    store.results.mkdir()
    write_parquet(store.results / "1.parquet", pl.DataFrame({"run": ["a"], "x": [2**40]}))
    with pytest.raises(DamageError, match=r"results/1\.parquet cannot be read for the table parts"):
        catalog.fold()


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
    for name, runs, x in (("1", ["a", "b"], [1, 2]), ("2", ["b", "c"], [2, 3])):
        frame = pl.DataFrame({"run": runs, "x": x}, schema_overrides={"x": pl.Int32})
        write_parquet(store.results / f"{name}.parquet", frame)
    catalog.fold()
    assert catalog.query("SELECT run, x FROM parts ORDER BY run").rows() == [("a", 1), ("b", 2), ("c", 3)]


HOSTILE = [
    "CREATE TABLE t (x INT)",
    "CREATE TEMP TABLE t AS SELECT 1",
    "CREATE TEMP MACRO m() AS 1",
    "CREATE SECRET s (TYPE s3)",
    "DELETE FROM truth.items",
    "UPDATE truth.items SET item = 'x'",
    "INSERT INTO truth.items SELECT * FROM truth.items",
    "DROP TABLE truth.items",
    "ALTER TABLE truth.items ADD COLUMN y INT",
    "COMMENT ON TABLE truth.items IS 'x'",
    "COPY items TO 'out.csv'",
    "COPY truth.items FROM '/etc/passwd'",
    "EXPLAIN ANALYZE COPY items TO 'out.csv'",
    "SELECT * FROM query('COPY items TO ''out.csv''')",
    "ATTACH 'other.db'",
    "ATTACH ':memory:' AS other",
    "USE truth",
    "EXPORT DATABASE 'out'",
    "IMPORT DATABASE 'out'",
    "SELECT * FROM read_csv('/etc/passwd')",
    "SELECT * FROM read_text('/etc/passwd')",
    "SELECT * FROM read_blob('/etc/passwd')",
    "SELECT * FROM read_json('/etc/passwd')",
    "SELECT * FROM read_parquet('file.parquet')",
    "SELECT * FROM read_duckdb('catalog.duckdb')",
    "SELECT * FROM parquet_metadata('file.parquet')",
    "SELECT * FROM sniff_csv('/etc/passwd')",
    "SELECT * FROM glob('/etc/*')",
    "SELECT * FROM '/etc/passwd'",
    "FROM 'file.parquet'",
    "SELECT * FROM 'https://127.0.0.1:9/x.csv'",
    "SELECT * FROM sql_auto_complete('SEL')",
    "SELECT * FROM duckdb_secrets()",
    "INSTALL httpfs",
    "LOAD httpfs",
    "LOAD parquet",
    "SET enable_external_access = true",
    "SET VARIABLE a = 1",
    "RESET threads",
    "PRAGMA enable_profiling",
    "PRAGMA database_list",
    "CALL pragma_version()",
    "CALL enable_logging(storage = 'file', storage_path = 'log')",
    "SELECT * FROM enable_logging('QueryLog', storage = 'file')",
    "SELECT getenv('HOME')",
    "CHECKPOINT",
    "VACUUM",
    "BEGIN",
    "PREPARE p AS SELECT 1",
    "SELECT 1; DROP TABLE truth.items",
    "SELECT 1; SELECT 2",
    "SELECT * FROM secret",
    "",
    "SELEC 1",
]


@pytest.fixture(scope="module")
def asked(tmp_path_factory):
    """A folded catalog that no question may change."""
    store = open_store(tmp_path_factory.mktemp("asked") / "store", create=True)
    add_texts(store, {"1": "clear"})
    catalog = Catalog(store, TABLES, VIEWS)
    catalog.fold()
    return catalog


@pytest.mark.parametrize("sql", HOSTILE)
def test_a_query_can_only_read_the_store(asked, sql, monkeypatch):
    secret = pl.DataFrame({"x": [1]})  # DuckDB would read a frame of the caller's by its name
    root = asked.store.root
    monkeypatch.chdir(root.parent)
    before = {p: p.read_bytes() for p in root.rglob("*") if p.is_file()}
    with pytest.raises(DataError, match=r"SQL refused|one question at a time"):
        asked.query(sql)
    assert [p.name for p in root.parent.iterdir()] == ["store"]
    assert {p: p.read_bytes() for p in root.rglob("*") if p.is_file()} == before
    assert len(secret) == 1


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT count(*) FROM items",
        "FROM items",
        "WITH a AS (SELECT 1) FROM a",
        "SHOW TABLES",
        "DESCRIBE items",
        "EXPLAIN SELECT 1",
        "PIVOT items ON modality USING count(*)",
    ],
)
def test_a_question_is_answered(asked, sql):
    assert not asked.query(sql).is_empty()


def test_a_slow_answer_prints_no_progress_bar(asked):
    assert asked.query("SELECT current_setting('enable_progress_bar')").item() is False


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


def test_a_rebuild_answers_from_the_old_catalog_until_it_is_replaced(store, catalog, monkeypatch):
    add_texts(store, {"1": "clear"})
    catalog.fold()
    with duckdb.connect(str(store.catalog)) as connection:
        connection.execute("DELETE FROM truth.items")  # as a catalog that went wrong
    count, plain, seen = "SELECT count(*) FROM items", Fold.run, []
    other = Catalog(store, TABLES, VIEWS)

    def run(self, before, listing):
        seen.append(other.query(count).item())
        return plain(self, before, listing)

    monkeypatch.setattr(Fold, "run", run)
    catalog.rebuild()
    assert seen == [0]
    assert other.query(count).item() == 1
    assert sorted(p.name for p in store.root.iterdir()) == ["catalog.duckdb", "items", "radfs.json"]


def test_a_rebuild_replaces_what_is_no_catalog_and_keeps_it_if_a_truth_file_is_damaged(store, catalog):
    add_texts(store, {"1": "clear"})
    store.catalog.write_bytes(b"not a database" * 1000)
    catalog.rebuild()
    (store.items / "d" / "000001.parquet").write_bytes(b"torn")
    with pytest.raises(DamageError, match=r"d/000001\.parquet"):
        catalog.rebuild()
    assert catalog.query("SELECT count(*) FROM items").item() == 1


KILLED = """
import duckdb, os, signal, sys
connection = duckdb.connect(sys.argv[1])
connection.execute("DELETE FROM truth.items")
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_the_log_of_a_killed_writer_is_not_taken_for_the_new_catalogs(store, catalog):
    add_texts(store, {"1": "clear"})
    catalog.fold()
    subprocess.run([sys.executable, "-c", KILLED, str(store.catalog)], check=False)
    assert Path(f"{store.catalog}.wal").exists()
    catalog.rebuild()
    assert catalog.query("SELECT count(*) FROM items").item() == 1


def test_a_rebuild_waits_for_others_no_longer_than_it_is_told(store, catalog):
    catalog.fold()
    before = store.catalog.stat().st_ino
    with subprocess.Popen([sys.executable, "-c", HOLD, str(store.catalog), "1"], stdout=subprocess.PIPE) as holder:
        assert holder.stdout.readline()
        with pytest.raises(StoreError, match=r"another process has held .*catalog"):
            catalog.rebuild(wait_s=0.1)
    assert store.catalog.stat().st_ino == before


@pytest.fixture
def read_only(store, monkeypatch):
    """Call it, and the store can no longer be written."""
    plain = os.access

    def access(path, mode):  # the superuser may write whatever the modes say
        return not (mode == os.W_OK and Path(path).is_relative_to(store.root)) and plain(path, mode)

    def lock():
        for path in (store.catalog, store.root):
            if path.exists():
                path.chmod(path.stat().st_mode & 0o555)
        monkeypatch.setattr(os, "access", access)

    yield lock
    store.root.chmod(0o700)


@pytest.mark.parametrize("state", ["missing", "behind", "current"])
def test_a_read_only_store_is_answered_from_the_users_own_cache(store, catalog, read_only, state, tmp_path):
    add_texts(store, {"1": "clear"})
    if state != "missing":
        catalog.fold()
    if state != "current":
        add_texts(store, {"2": "effusion"})
    read_only()
    before = {p: p.read_bytes() for p in store.root.rglob("*") if p.is_file()}
    reader = Catalog(store, TABLES, VIEWS)
    reader.fold()
    assert reader.query("SELECT count(*) FROM items").item() == (1 if state == "current" else 2)
    assert {p: p.read_bytes() for p in store.root.rglob("*") if p.is_file()} == before
    copies = list((tmp_path / "cache").rglob("catalog.duckdb"))
    assert len(copies) == (state != "current")
    for copy in copies:
        assert copy.stat().st_mode & 0o777 == 0o600
        assert copy.parent.stat().st_mode & 0o777 == 0o700
    with pytest.raises(StoreError, match="read-only"):
        reader.rebuild()


def test_a_copy_of_the_catalog_follows_the_store(store, catalog, read_only):
    read_only()
    catalog.fold()
    store.root.chmod(0o700)
    add_texts(store, {"1": "clear"})
    assert catalog.query("SELECT count(*) FROM items").item() == 0
    catalog.fold()
    assert catalog.query("SELECT count(*) FROM items").item() == 1


def test_a_store_without_a_catalog_answers_without_being_told_to_fold(store, catalog, read_only):
    add_texts(store, {"1": "clear"})
    read_only()
    assert catalog.query("SELECT count(*) FROM items").item() == 1


def test_a_cache_folder_of_somebody_else_is_refused(catalog, read_only, monkeypatch):
    read_only()
    monkeypatch.setattr(os, "geteuid", lambda: 12345)
    with pytest.raises(StoreError, match="RADFS_CACHE"):
        catalog.fold()


def test_the_catalog_is_as_private_as_the_store(store, catalog):
    catalog.fold()
    assert store.catalog.stat().st_mode & 0o777 == 0o600
    store.catalog.unlink()
    store.root.chmod(0o2770)
    catalog.fold()
    assert store.catalog.stat().st_mode & 0o777 == 0o660


@pytest.mark.parametrize(
    "planted",
    [
        "CREATE OR REPLACE MACRO max(a) AS (SELECT error(content) FROM read_text('{secret}'))",
        "CREATE OR REPLACE MACRO hash(a) AS (SELECT error(content) FROM read_text('{secret}'))",
        "DROP TABLE truth.files; CREATE VIEW truth.files AS SELECT * FROM read_text('{secret}')",
    ],
    ids=["max", "hash", "files"],
)
def test_a_strangers_catalog_reads_no_file_when_it_is_folded(store, tmp_path, catalog, planted):
    secret = tmp_path / "secret.txt"
    secret.write_text("TOPSECRET")
    add_images(store, tmp_path, ["1", "2"])
    write_all(store, image_layout())
    catalog.fold()
    with duckdb.connect(str(store.catalog)) as connection:
        connection.execute("DELETE FROM truth.files")
        connection.execute(planted.format(secret=secret))
    said = None
    try:
        catalog.fold()
    except StoreError as error:
        said = str(error)
    assert said is None or ("radfs reindex" in said and "TOPSECRET" not in said)
    catalog.rebuild()
    assert catalog.query("SELECT count(*) FROM feature_rows").item() == 2
