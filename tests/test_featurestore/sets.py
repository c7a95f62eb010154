"""Small feature sets with known tokens, for the store's tests: written without any encoder."""

import hashlib
from pathlib import Path

import numpy as np
import polars as pl

from featurestore.featureset import FeatureSet, ShardPlan, create_feature_set
from featurestore.items import add_items, list_items
from featurestore.layout import FeatureLayout
from featurestore.sources import source_stamp
from featurestore.store import Store
from featurestore.writer import ShardWriter

DIM = 6
IMAGE_TOKENS = 5


def image_layout(**changes) -> FeatureLayout:
    values = {"encoder": "img", "modality": "image", "dim": DIM, "tokens": IMAGE_TOKENS, "has_cls": True}
    values |= {"shard_rows": 4, "what": {"weights_sha256": "00"}, "about": {"licence": "MIT"}}
    return FeatureLayout(**(values | changes))


def text_layout(**changes) -> FeatureLayout:
    return image_layout(**({"encoder": "txt", "modality": "text", "tokens": 9, "has_cls": False} | changes))


def add_images(store: Store, folder: Path, keys: list[str]) -> None:
    paths = []
    for key in keys:
        path = folder / f"{key}.bin"
        path.write_bytes(key.encode())
        paths.append(str(path))
    frame = {"item": [f"d/{k}" for k in keys], "modality": "image", "path": paths, "text": None}
    add_items(store, pl.DataFrame(frame, schema_overrides={"text": pl.String}))


def add_texts(store: Store, texts: dict[str, str]) -> None:
    frame = {"item": [f"d/{k}" for k in texts], "modality": "text", "path": None, "text": list(texts.values())}
    add_items(store, pl.DataFrame(frame, schema_overrides={"path": pl.String}))


def tokens_of(item: str, modality: str) -> np.ndarray:
    """The tokens that an item has in these tests: float16 [n, DIM], all zero for one of them."""
    rng = np.random.default_rng(int.from_bytes(hashlib.sha256(item.encode()).digest()[:4], "big"))
    n = IMAGE_TOKENS if modality == "image" else int(rng.integers(1, 10))
    scale = 0.0 if item == "d/1" else 1.0
    return (scale * rng.standard_normal((n, DIM))).astype(np.float16)


def write_all(
    store: Store, layout: FeatureLayout, *, fail: tuple[str, ...] = (), stop_after: int = 99, view: int = 0
) -> FeatureSet:
    """Write what is missing; `stop_after` shards, the process is gone."""
    feature_set = create_feature_set(store, layout)
    items = list_items(store, modality=layout.modality)
    for plan in feature_set.plan(items, view)[:stop_after]:
        fill(store, feature_set, plan, fail=fail).commit()
    return feature_set


def fill(store: Store, feature_set: FeatureSet, plan: ShardPlan, *, fail: tuple[str, ...] = ()) -> ShardWriter:
    """A planned shard with the tokens that its items have, not committed yet."""
    layout = feature_set.layout
    sources = list_items(store, modality=layout.modality).rows_by_key("item", named=True, unique=True)
    writer = ShardWriter(feature_set, plan)
    for position, item in enumerate(plan.items):
        source = sources[item]
        content = source["text_sha256"] if layout.modality == "text" else _file_hash(source["path"])
        stamp = source_stamp(source["path"])
        if item in fail:
            writer.fail(position, "told to fail", content=content, stamp=stamp)
            continue
        tokens = tokens_of(item, layout.modality)
        cls = tokens[0] + np.float16(1) if layout.has_cls else None
        writer.put(position, tokens, content=content, stamp=stamp, cls=cls)
    return writer


def _file_hash(path: str) -> str:
    return hashlib.sha256(Path(path).read_bytes()).hexdigest()


def files_below(folder: Path) -> dict[str, bytes]:
    """Every file below a folder, with its bytes."""
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}
