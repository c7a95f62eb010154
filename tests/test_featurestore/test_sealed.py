"""Tables and JSON files that carry their checksum: no flipped bit passes, and any reader reads them."""

from io import BytesIO

import duckdb
import polars as pl
import pyarrow.parquet as pq
import pytest

from featurestore.errors import ChecksumError, DamageError
from featurestore.fsio import parquet_bytes, read_parquet, scan_parquet, write_parquet
from featurestore.sealed import check_parquet, open_json, seal_json, seal_parquet

FRAME = pl.DataFrame({"sample": ["d/1", "d/2", None], "label": [0, 1, 1], "p": [[0.25], [0.5, 0.5], []]})


@pytest.mark.parametrize("bit", [0, 3, 7])
def test_no_flipped_bit_of_a_table_passes(bit):
    raw = seal_parquet(FRAME)
    check_parquet(raw)
    for at in range(len(raw)):
        harmed = bytearray(raw)
        harmed[at] ^= 1 << bit
        with pytest.raises(ValueError, match=r"checksum fails|no checksum"):
            check_parquet(bytes(harmed))


@pytest.mark.parametrize("length", [0, 3, 8, 100, -1])
def test_a_cut_table_is_refused(length):
    with pytest.raises(ValueError, match=r"checksum fails|no checksum"):
        check_parquet(seal_parquet(FRAME)[:length])


def test_what_looks_like_the_checksum_is_not_taken_for_it():
    frame = pl.DataFrame({"radfs_crc32": ["radfs_crc32\x18\x0800000000", "radfs_crc32\x18\x08ffffffff"]})
    raw = seal_parquet(frame)
    check_parquet(raw)
    assert pl.read_parquet(raw).equals(frame)


@pytest.mark.parametrize("rows", [0, 1, 100_000])
def test_any_reader_reads_a_sealed_table(tmp_path, rows):
    frame = pl.DataFrame(
        {"item": [f"d/{i}" for i in range(rows)], "row": range(rows)}, schema={"item": pl.String, "row": pl.Int64}
    )
    raw = seal_parquet(frame)
    check_parquet(raw)
    assert pl.read_parquet(raw).equals(frame)
    assert pl.DataFrame(pq.read_table(BytesIO(raw))).equals(frame)
    (tmp_path / "t.parquet").write_bytes(raw)
    assert duckdb.sql(f"SELECT count(*), max(row) FROM '{tmp_path}/t.parquet'").fetchall() == [
        (rows, frame["row"].max())
    ]


def test_reading_a_table_compares_its_checksum(tmp_path):
    path = tmp_path / "t.parquet"
    write_parquet(path, FRAME)
    assert read_parquet(path).equals(FRAME)
    assert read_parquet(path, ["label"]).equals(FRAME.select("label"))
    data = bytearray(path.read_bytes())
    data[40] ^= 1
    path.write_bytes(data)
    for read in (lambda: read_parquet(path, ["label"]), lambda: scan_parquet([path]).collect()):
        with pytest.raises(ChecksumError, match=r"t\.parquet is damaged: its checksum fails") as caught:
            read()
        assert isinstance(caught.value, DamageError)
        assert isinstance(caught.value, OSError)


def test_a_table_that_radfs_did_not_write_is_refused(tmp_path):
    FRAME.write_parquet(tmp_path / "t.parquet")
    with pytest.raises(ChecksumError, match="carries no checksum of radfs"):
        read_parquet(tmp_path / "t.parquet")


def test_more_rows_than_the_bytes_can_hold_are_refused(tmp_path):
    (tmp_path / "t.parquet").write_bytes(parquet_bytes(pl.DataFrame({"x": pl.repeat(None, 10_000_000, eager=True)})))
    with pytest.raises(ChecksumError, match="claims 10000000 rows"):
        read_parquet(tmp_path / "t.parquet")


def test_no_flipped_bit_of_a_json_file_passes():
    document = {"classes": ["no", "yes"], "counts": {"class ünder": 3}, "check": 5}
    raw = seal_json(document)
    assert open_json(raw) == document
    for at in range(len(raw)):
        for bit in range(8):
            harmed = bytearray(raw)
            harmed[at] ^= 1 << bit
            with pytest.raises(ValueError, match="checksum fails"):
                open_json(bytes(harmed))
