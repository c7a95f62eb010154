"""Items: the images and reports that a store knows, by id. Knows nothing of labels, subjects or encoders.

An item's id is `dataset/key`; its identity is (modality, id). Items come in immutable parts,
`items/<dataset>/<number>.parquet`; a later part wins, so that a corrected report replaces the old one.
"""

import hashlib
import re
from collections.abc import Sequence

import polars as pl

from .errors import DamageError, DataError
from .fsio import parquet_bytes, read_parquet, scan_parquet, write_atomic, write_new
from .remote import StorePath
from .store import Store

ITEM_SCHEMA = pl.Schema({"item": pl.String, "modality": pl.String, "path": pl.String, "text": pl.String})
"""item: `dataset/key`. modality: image or text. path: absolute path of the image file. text: the report."""

STORED_SCHEMA = pl.Schema({**ITEM_SCHEMA, "text_sha256": pl.String})
"""As kept, and as `list_items` gives it: `text` is null once `remove_texts` took it away; its hash stays, so that what
was embedded from it still counts."""

MODALITIES = ("image", "text")
_ITEM_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*/[^\x00-\x1f\x7f]{1,500}")
_KEY = ["modality", "item"]


def add_items(store: Store, frame: pl.DataFrame) -> int:
    """Add or redefine items, and say how many. What is known already in the same form is not written again.

    Args:
        store: the store.
        frame: columns of `ITEM_SCHEMA`; all ids of one dataset.

    Raises:
        DataError: a bad id, modality, a repeated id, an image without a path or a report without text.
    """
    frame = frame.select(ITEM_SCHEMA.names()).cast(pl.String)
    if frame.is_empty():
        return 0
    dataset = _check(frame)
    frame = frame.with_columns(_text_hashes(frame["text"]))
    while True:
        parts = _parts(store, dataset)
        known = _newest(parts)
        # A text that was removed comes back when somebody gives it again.
        fresh = frame.join(known, on=STORED_SCHEMA.names(), how="anti", nulls_equal=True)
        if fresh.is_empty():
            return 0
        number = int(parts[-1].stem) + 1 if parts else 0
        if write_new(store.items / dataset / f"{number:06d}.parquet", parquet_bytes(fresh)):
            return len(fresh)


def list_items(store: Store, *, modality: str | None = None, only: Sequence[str] | None = None) -> pl.DataFrame:
    """The newest definition of every item (of one modality, of these ids), in the order of ids: `STORED_SCHEMA`."""
    keep = pl.lit(True) if modality is None else pl.col("modality") == modality
    if only is not None:
        wanted = pl.Series(only, dtype=pl.String)
        keep &= pl.col("item").is_in(wanted.implode())
        datasets = wanted.str.split("/").list.first().unique().to_list()
    else:
        datasets = list_datasets(store)
    frames = [_newest(_parts(store, dataset), keep) for dataset in sorted(datasets)]
    return (pl.concat(frames) if frames else STORED_SCHEMA.to_frame()).sort(_KEY)


def list_datasets(store: Store) -> list[str]:
    """The datasets that items belong to, sorted."""
    return sorted(p.name for p in store.items.iterdir()) if store.items.is_dir() else []


def remove_texts(store: Store, dataset: str) -> int:
    """Take the texts of a dataset's reports out of the store, and say how many there were. Their hashes stay.

    Every part that holds one is rewritten in one step; nothing else in it changes.
    """
    removed = 0
    for part in _parts(store, dataset):
        frame = read_parquet(part)
        held = frame["text"].count()
        if held:
            write_atomic(part, parquet_bytes(frame.with_columns(text=pl.lit(None, pl.String))))
            removed += held
    return removed


def count_shared_texts(store: Store, dataset: str) -> dict[str, int]:
    """How many reports of other datasets have a text that a report of this one has or had, by dataset."""
    hashes = _newest(_parts(store, dataset))["text_sha256"].drop_nulls().unique()
    shared = pl.col("text").is_not_null() & pl.col("text_sha256").is_in(hashes.implode())
    others = {name: len(_newest(_parts(store, name), shared)) for name in list_datasets(store) if name != dataset}
    return {name: count for name, count in others.items() if count}


def text_hash(text: str) -> str:
    """The sha256 of a report, 64 hexadecimal digits: the identity of its content."""
    return hashlib.sha256(text.encode()).hexdigest()


def load_for_catalog(part: StorePath) -> pl.DataFrame:
    """One part as rows of the catalog's table `items`: how long a report is, never what it says."""
    frame = read_parquet(part, columns=STORED_SCHEMA.names())
    return frame.select(
        "item",
        "modality",
        pl.lit(part.parent.name).alias("dataset"),
        "path",
        pl.col("text").str.len_chars().alias("characters"),
    )


def _parts(store: Store, dataset: str) -> list[StorePath]:
    return sorted((store.items / dataset).glob("[0-9]*.parquet"))


def _newest(parts: Sequence[StorePath], keep: pl.Expr | None = None) -> pl.DataFrame:
    if not parts:
        return STORED_SCHEMA.to_frame()
    try:
        frame = scan_parquet(parts).filter(pl.lit(True) if keep is None else keep).collect()
        frame = frame.select(STORED_SCHEMA.names()).cast(STORED_SCHEMA)  # type: ignore[arg-type]
    except (OSError, pl.exceptions.PolarsError) as error:
        raise DamageError(
            f"the items of dataset {parts[0].parent.name} cannot be read ({type(error).__name__}): a file in "
            f"items/{parts[0].parent.name} is damaged. Restore it from a copy; `radfs verify` names it."
        ) from error
    return frame.unique(_KEY, keep="last", maintain_order=True)


def _text_hashes(texts: pl.Series) -> pl.Series:
    hashes = [None if text is None else text_hash(text) for text in texts]
    return pl.Series("text_sha256", hashes, dtype=pl.String)


def _check(frame: pl.DataFrame) -> str:
    for item in frame["item"]:
        if not isinstance(item, str) or not _ITEM_ID.fullmatch(item):
            raise DataError(
                f"item id {item!r} is not of the form dataset/key (dataset of letters, digits, '.', '_' and '-'; "
                "key without control characters, at most 500 long)."
            )
    datasets = frame["item"].str.split("/").list.first().unique().to_list()
    if len(datasets) != 1:
        raise DataError(f"items of several datasets in one call: {', '.join(sorted(datasets))}. Add them one by one.")
    bad = frame.filter(~pl.col("modality").is_in(MODALITIES))
    if not bad.is_empty():
        raise DataError(f"item {bad['item'][0]} has modality {bad['modality'][0]!r}; known: {', '.join(MODALITIES)}.")
    content = pl.when(pl.col("modality") == "image").then("path").otherwise("text")
    bad = frame.filter(content.is_null() | (content.str.strip_chars() == ""))
    if not bad.is_empty():
        raise DataError(f"item {bad['item'][0]}: an image needs a path and a report a text that is not blank.")
    repeated = frame.filter(frame.select(_KEY).is_duplicated())
    if not repeated.is_empty():
        raise DataError(f"item {repeated['item'][0]} stands more than once in one call.")
    return datasets[0]
