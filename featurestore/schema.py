"""The catalog's tables of items and feature sets. Public: `docs/schema.md` is made from these."""

from pathlib import Path

import polars as pl

from .catalog import Column, Table, View
from .featureset import read_record, rows_of_record
from .items import load_for_catalog
from .layout import FeatureLayout


def _load_feature_set(path: Path) -> pl.DataFrame:
    layout = FeatureLayout.from_metadata(path.read_bytes())
    return pl.DataFrame(
        {
            "feature_set": layout.name,
            "encoder": layout.encoder,
            "modality": layout.modality,
            "dim": layout.dim,
            "tokens": layout.tokens,
            "has_cls": layout.has_cls,
            "weights_sha256": layout.what.get("weights_sha256"),
            "licence": layout.about.get("licence"),
            "description": layout.about.get("description"),
        },
        schema_overrides={"weights_sha256": pl.String, "licence": pl.String, "description": pl.String},
    )


def _load_shard(path: Path) -> pl.DataFrame:
    record = read_record(path)
    return pl.DataFrame(
        {
            "feature_set": record["feature_set"],
            "shard": record["shard"],
            "rows": len(record["items"]),
            "failed": len(record["failed"]),
            "truncated": len(record["truncated"]),
            "bytes": sum(file["bytes"] for file in record["files"].values()),
        }
    )


def _load_rows(path: Path) -> pl.DataFrame:
    record = read_record(path)
    return rows_of_record(record).with_columns(feature_set=pl.lit(record["feature_set"]))


_SET = Column("feature_set", "TEXT", "encoder@key, the key hashing all that changes numbers")

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
            Column("weights_sha256", "TEXT", "sha256 of the weights"),
            Column("licence", "TEXT", "licence of the weights"),
            Column("description", "TEXT", "which tokens these are"),
        ),
        "features/*/zarr.json",
        _load_feature_set,
    ),
    Table(
        "shards",
        "Committed shards.",
        (
            _SET,
            Column("shard", "INTEGER", "number of the shard"),
            Column("rows", "INTEGER", "items of the shard"),
            Column("failed", "INTEGER", "items without tokens"),
            Column("truncated", "INTEGER", "reports longer than the context length"),
            Column("bytes", "BIGINT", "size of its files"),
        ),
        "features/*/commits/[0-9]*.json",
        _load_shard,
    ),
    Table(
        "feature_rows",
        "Which item has which row, the newest committed one.",
        (
            _SET,
            Column("item", "TEXT", "dataset/key"),
            Column("row", "BIGINT", "row of the Zarr arrays"),
            Column("shard", "INTEGER", "the shard that holds it"),
            Column("state", "TEXT", "done or failed"),
            Column("content", "TEXT", "sha256 of the image file or the report; null where it could not be read"),
            Column("tokens", "INTEGER", "number of tokens; null where failed"),
            Column("truncated", "BOOLEAN", "the report was longer than the context length"),
            Column("reason", "TEXT", "why it failed"),
        ),
        "features/*/commits/[0-9]*.json",
        _load_rows,
        newest_by=("feature_set", "item"),
    ),
)

VIEWS = (
    View(
        "failures",
        "Items that an encoder could not read or encode. A later success takes an item off the list.",
        "SELECT feature_set, item, reason FROM feature_rows WHERE state = 'failed' ORDER BY feature_set, item",
        (_SET, Column("item", "TEXT", "dataset/key"), Column("reason", "TEXT", "why it failed")),
    ),
)
