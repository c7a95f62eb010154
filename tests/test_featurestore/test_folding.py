"""Folding only what changed gives what making everything anew gives, and what plain Python gives."""

import os
import random

import duckdb
import polars as pl
import pytest

from featurestore import folding
from featurestore.catalog import Catalog, Column
from featurestore.folding import Table, Unless
from featurestore.fsio import write_parquet

KEY, N, FILE = Column("key", "TEXT", ""), Column("n", "INTEGER", ""), Column("file", "TEXT", "")
GONE = Unless("gone", "d.n = t.n")
TABLES = (
    Table("last_file", "", (KEY, N, FILE), "results/a*.parquet", newest_by=("key",)),
    Table("greatest", "", (KEY, N, FILE), "results/b*.parquet", newest_by=("key",), newest="n", unless=GONE),
    Table("first_file", "", (KEY, N, FILE), "results/d*.parquet", unique_by="key"),
    Table("gone", "", (N,), "results/c*.parquet"),
    Table("every", "", (KEY, N, FILE), "results/b*.parquet"),
)
SCHEMA = {"key": pl.String, "n": pl.Int64, "file": pl.String}


def expected(folder) -> dict[str, list[tuple]]:
    """What the tables should hold, file by file."""
    rows = {kind: [] for kind in "abcd"}
    for path in sorted(folder.iterdir()):
        rows[path.name[0]] += pl.read_parquet(path).rows()
    gone = {n for (n,) in rows["c"]}
    first = {}
    for key, _, file in rows["d"]:
        first.setdefault(key, file)
    greatest = {key: (key, n, file) for key, n, file in sorted(rows["b"], key=lambda row: row[1])}
    return {
        "last_file": sorted({key: (key, n, file) for key, n, file in rows["a"]}.values()),
        "greatest": sorted(row for row in greatest.values() if row[1] not in gone),
        "first_file": sorted(row for row in rows["d"] if first[row[0]] == row[2]),
        "gone": sorted(rows["c"]),
        "every": sorted(rows["b"]),
    }


@pytest.mark.parametrize("seed", range(4))
def test_any_order_of_files_that_come_change_and_go_gives_what_making_all_anew_gives(store, seed, monkeypatch):
    for name, value in (("_FEW", 4), ("_ROWS_A_ROUND", 10), ("_ROW_GROUP", 2)):
        if seed % 2:
            monkeypatch.setattr(folding, name, value)
    rng = random.Random(seed)
    store.results.mkdir()
    catalog = Catalog(store, TABLES, [])
    number = 0
    for step in range(40):
        kind = rng.choice("abbccd")
        path = store.results / f"{kind}{rng.randrange(6)}.parquet"
        if path.exists() and rng.random() < 0.4:
            path.unlink()
        else:
            keys = rng.sample("pqrs", rng.randrange(4)) * (2 if kind == "d" else 1)  # a run has several epochs
            numbers = [rng.randrange(max(0, number - 12), number + 1) for _ in keys]
            if kind != "c":
                numbers, number = list(range(number, number + len(keys))), number + len(keys)
            frame = pl.DataFrame({"key": keys, "n": numbers, "file": path.name}, schema=SCHEMA)
            write_parquet(path, frame.select(["n"] if kind == "c" else list(SCHEMA)))
            os.utime(path, ns=(step, step))
        if rng.random() < 0.4:
            catalog.fold()
            assert _all(store) == expected(store.results)
    catalog.rebuild()
    assert _all(store) == expected(store.results)


def _all(store) -> dict[str, list[tuple]]:
    with duckdb.connect(str(store.catalog), read_only=True) as connection:
        return {table.name: sorted(connection.execute(f'FROM "{table.name}"').fetchall()) for table in TABLES}
