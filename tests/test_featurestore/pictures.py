"""Image files for tests: good ones and every kind of bad one that the README promises to survive."""

from pathlib import Path

import numpy as np
import polars as pl
from PIL import Image

from featurestore.items import ITEM_SCHEMA, add_items
from featurestore.store import Store


def gray(seed: int, size: int = 40) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (size, size), dtype=np.uint8)


def write_pictures(folder: Path, n: int) -> list[Path]:
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / f"{i:03d}.png" for i in range(n)]
    for i, path in enumerate(paths):
        Image.fromarray(gray(i)).save(path)
    return paths


def add_pictures(store: Store, paths: list[Path], dataset: str = "d") -> list[str]:
    items = [f"{dataset}/{path.stem}" for path in paths]
    rows = [(item, "image", str(path), None) for item, path in zip(items, paths, strict=True)]
    add_items(store, pl.DataFrame(rows, schema=ITEM_SCHEMA, orient="row"))
    return items


def add_reports(store: Store, texts: dict[str, str], dataset: str = "d") -> list[str]:
    rows = [(f"{dataset}/{key}", "text", None, text) for key, text in texts.items()]
    add_items(store, pl.DataFrame(rows, schema=ITEM_SCHEMA, orient="row"))
    return [row[0] for row in rows]
