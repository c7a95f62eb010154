"""The catalog's tables of items and feature sets. Public: `docs/schema.md` is made from these."""

import polars as pl

from .catalog import Column, Table, View
from .featureset import DROP_SCHEMA
from .folding import Unless
from .fsio import read_parquet
from .items import load_for_catalog
from .layout import FeatureLayout
from .records import Record, read_record
from .remote import StorePath
from .shards import crc32


def _load_feature_set(path: StorePath) -> pl.DataFrame:
    layout = FeatureLayout.from_metadata(path.read_bytes())
    return pl.DataFrame(
        {
            "feature_set": path.parent.name,
            "encoder": layout.encoder,
            "modality": layout.modality,
            "dim": layout.dim,
            "tokens": layout.tokens,
            "has_cls": layout.has_cls,
            "stored_as": layout.dtype,
            "weights_sha256": layout.what.get("weights_sha256"),
            "licence": layout.about.get("licence"),
            "description": layout.about.get("description"),
        }
    )


def _load_shard(record: Record) -> pl.DataFrame:
    files = [record.files[name] for name in sorted(record.files)]
    checksum = crc32(b"".join(file["crc32"].to_bytes(4, "little") for file in files))
    return pl.DataFrame(
        {
            "feature_set": record.feature_set,
            "view": record.view,
            "shard": record.shard,
            "state": record.state,
            "rows": len(record.items),
            "failed": len(record.failed),
            "truncated": len(record.truncated),
            "bytes": sum(file["bytes"] for file in files),
            "checksum": f"{checksum:08x}" if files else None,
        }
    )


def _load_rows(record: Record) -> pl.DataFrame:
    return record.frame().with_columns(feature_set=pl.lit(record.feature_set), view=pl.lit(record.view))


def _load_dropped(path: StorePath) -> pl.DataFrame:
    frame = read_parquet(path, DROP_SCHEMA.names())
    return frame.with_columns(feature_set=pl.lit(path.parents[1].name))


_SET = Column("feature_set", "TEXT", "encoder@key, the key hashing all that changes numbers")
_VIEW = Column("view", "INTEGER", "0 is the clean one, from 1 on they are augmented")
_RECORDS = "features/*/commits/v*/[0-9]*.json"

TABLES = (
    Table(
        "items",
        "Images and reports that the store knows. The reports' texts are not in the catalog.",
        (
            Column("item", "TEXT", "dataset/key; unique within a modality"),
            Column("modality", "TEXT", "image or text"),
            Column("dataset", "TEXT", "the first part of the id"),
            Column("path", "TEXT", "image: absolute path of the file; null for a report"),
            Column("characters", "INTEGER", "report: length in characters; null for an image"),
        ),
        "items/*/[0-9]*.parquet",
        load_for_catalog,
        newest_by=("modality", "item"),
    ),
    Table(
        "feature_sets",
        "What each encoder made.",
        (
            _SET,
            Column("encoder", "TEXT", "name, as --backbone takes it"),
            Column("modality", "TEXT", "image or text"),
            Column("dim", "INTEGER", "width of a token"),
            Column("tokens", "INTEGER", "tokens an image, or the context length of a text encoder"),
            Column("has_cls", "BOOLEAN", "a class token is kept beside the patch tokens"),
            Column("stored_as", "TEXT", "how values are stored, as `radfs recode --preset` takes it"),
            Column("weights_sha256", "TEXT", "sha256 of the weights"),
            Column("licence", "TEXT", "licence of the weights"),
            Column("description", "TEXT", "which tokens these are"),
        ),
        "features/*/zarr.json",
        _load_feature_set,
    ),
    Table(
        "shards",
        "Shards that are decided: committed, or abandoned, which have no rows and never will.",
        (
            _SET,
            _VIEW,
            Column("shard", "INTEGER", "number of the shard"),
            Column("state", "TEXT", "committed or abandoned"),
            Column("rows", "INTEGER", "items of the shard"),
            Column("failed", "INTEGER", "items without tokens"),
            Column("truncated", "INTEGER", "reports longer than the context length"),
            Column("bytes", "BIGINT", "size of its files"),
            Column(
                "checksum",
                "TEXT",
                "CRC-32 (8 hexadecimal digits) over the CRC-32 of its files, each 4 bytes, little-endian, in the "
                "order of the files' names; null where abandoned",
            ),
        ),
        _RECORDS,
        _load_shard,
        read=read_record,
    ),
    Table(
        "dropped_rows",
        "Rows that no longer count: damaged, or taken out. Their items are missing until they are made again.",
        (
            _SET,
            Column("row", "BIGINT", "row of the Zarr arrays"),
            Column("view", "INTEGER", "the view that it is dropped from; null for all"),
            Column("item", "TEXT", "dataset/key"),
            Column("reason", "TEXT", "why"),
        ),
        "features/*/dropped/[0-9]*.parquet",
        _load_dropped,
    ),
    Table(
        "feature_rows",
        "Which item has which row: the newest committed one, unless that was dropped.",
        (
            _SET,
            _VIEW,
            Column("item", "TEXT", "dataset/key"),
            Column("row", "BIGINT", "row of the Zarr arrays"),
            Column("shard", "INTEGER", "the shard that holds it"),
            Column("state", "TEXT", "done or failed"),
            Column("content", "TEXT", "sha256 of the image file or the report; null where it could not be read"),
            Column("tokens", "INTEGER", "number of tokens; null where failed"),
            Column("truncated", "BOOLEAN", "the report was longer than the context length"),
            Column("reason", "TEXT", "why it failed"),
        ),
        _RECORDS,
        _load_rows,
        newest_by=("feature_set", "view", "item"),
        newest="row",
        unless=Unless(
            "dropped_rows",
            "d.feature_set = t.feature_set AND d.row = t.row AND (d.view = t.view OR d.view IS NULL)",
        ),
        read=read_record,
    ),
)

VIEWS = (
    View(
        "failures",
        "Items that an encoder could not read or encode. A later success takes an item off the list.",
        "SELECT feature_set, view, item, reason FROM feature_rows WHERE state = 'failed' "
        "ORDER BY feature_set, view, item",
        (_SET, _VIEW, Column("item", "TEXT", "dataset/key"), Column("reason", "TEXT", "why it failed")),
    ),
)
