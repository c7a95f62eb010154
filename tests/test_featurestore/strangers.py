"""Embeddings as other tools leave them: the same items in every format, made by the formats' own libraries."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np

DIM = 6


def pooled(n: int = 5) -> dict[str, np.ndarray]:
    return {f"k{i}": rng_of(i).standard_normal(DIM).astype(np.float32) for i in range(n)}


def dense(n: int = 5) -> dict[str, np.ndarray]:
    return {f"k{i}": rng_of(i).standard_normal((4, DIM)).astype(np.float32) for i in range(n)}


def ragged(n: int = 5) -> dict[str, np.ndarray]:
    return {f"k{i}": rng_of(i).standard_normal((1 + (3 * i) % 5, DIM)).astype(np.float32) for i in range(n)}


def rng_of(i: int) -> np.random.Generator:
    return np.random.default_rng(i)


def _stack(items: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """embeddings and ids, and offsets where lengths differ."""
    arrays = list(items.values())
    if len({a.shape for a in arrays}) == 1:
        return {"embeddings": np.stack(arrays), "ids": np.array(list(items))}
    bounds = np.cumsum([0, *map(len, arrays)])
    return {"embeddings": np.concatenate(arrays), "ids": np.array(list(items)), "offsets": bounds}


def npy(folder: Path, items: dict[str, np.ndarray]) -> Path:
    parts = _stack(items)
    np.save(folder / "e.npy", parts["embeddings"])
    (folder / "e.ids.txt").write_text("\n".join(items))
    if "offsets" in parts:
        np.save(folder / "e.offsets.npy", parts["offsets"])
    return folder / "e.npy"


def npz(folder: Path, items: dict[str, np.ndarray]) -> Path:
    np.savez(folder / "e.npz", **_stack(items))
    return folder / "e.npz"


def npz_compressed(folder: Path, items: dict[str, np.ndarray]) -> Path:
    np.savez_compressed(folder / "e.npz", **_stack(items))
    return folder / "e.npz"


def npz_items(folder: Path, items: dict[str, np.ndarray]) -> Path:
    np.savez(folder / "e.npz", **items)
    return folder / "e.npz"


def safetensors(folder: Path, items: dict[str, np.ndarray]) -> Path:
    from safetensors.numpy import save_file

    parts = _stack(items)
    ids = parts.pop("ids").tolist()
    save_file(parts, folder / "e.safetensors", metadata={"ids": json.dumps(ids)})
    return folder / "e.safetensors"


def safetensors_items(folder: Path, items: dict[str, np.ndarray]) -> Path:
    from safetensors.numpy import save_file

    save_file(items, folder / "e.safetensors")
    return folder / "e.safetensors"


def hdf5(folder: Path, items: dict[str, np.ndarray]) -> Path:
    import h5py

    with h5py.File(folder / "e.h5", "w") as file:
        for name, array in _stack(items).items():
            file.create_dataset(name, data=array.astype("S") if name == "ids" else array)
    return folder / "e.h5"


def hdf5_chunked(folder: Path, items: dict[str, np.ndarray]) -> Path:
    import h5py

    with h5py.File(folder / "e.h5", "w") as file:
        for name, array in _stack(items).items():
            if name == "ids":
                file.create_dataset(name, data=list(items), dtype=h5py.string_dtype())
            else:
                file.create_dataset(name, data=array, chunks=(2, *array.shape[1:]), compression="gzip")
    return folder / "e.h5"


def hdf5_items(folder: Path, items: dict[str, np.ndarray]) -> Path:
    import h5py

    with h5py.File(folder / "e.hdf5", "w") as file:
        for name, array in items.items():
            file[name] = array
    return folder / "e.hdf5"


def parquet(folder: Path, items: dict[str, np.ndarray]) -> Path:
    import polars as pl

    lists = [a.tolist() for a in items.values()]
    kind = pl.List(pl.Float32) if next(iter(items.values())).ndim == 1 else pl.List(pl.List(pl.Float32))
    frame = pl.DataFrame({"item": list(items), "embedding": pl.Series(lists, dtype=kind)})
    frame.write_parquet(folder / "e.parquet", row_group_size=2)
    return folder / "e.parquet"


def parquet_folder(folder: Path, items: dict[str, np.ndarray]) -> Path:
    import polars as pl

    (folder / "set" / "data").mkdir(parents=True)
    for part, name in enumerate(items):
        values = items[name]
        kind = pl.Array(pl.Float32, values.shape)  # fixed-size lists
        row = pl.DataFrame({"id": [name], "features": pl.Series([values.tolist()], dtype=kind)})
        row.write_parquet(folder / "set" / "data" / f"train-{part:05d}.parquet")
    return folder / "set"


def eva(folder: Path, items: dict[str, np.ndarray]) -> Path:
    import torch

    lines = ["origin,embeddings,target,split"]
    for i, (name, array) in enumerate(items.items()):
        path = folder / "eva" / "images" / f"{name}.pt"
        path.parent.mkdir(parents=True, exist_ok=True)
        tensor = torch.from_numpy(array)
        torch.save([tensor] if i % 2 else tensor, path)  # older versions of eva wrote the tensor, newer a list
        lines.append(f"{name},images/{name}.pt,{i % 2},train")
    (folder / "eva" / "manifest.csv").write_text("\n".join(lines) + "\n")
    return folder / "eva"


EQUAL: dict[str, Callable[[Path, dict[str, np.ndarray]], Path]] = {
    f.__name__: f for f in (npy, npz, npz_compressed, npz_items, safetensors, safetensors_items, hdf5, hdf5_chunked)
} | {f.__name__: f for f in (hdf5_items, parquet, parquet_folder, eva)}
"""Every way in which a source may come, by name."""
