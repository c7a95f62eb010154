"""Extraction against the bare encoder and against the decoder alone, interleaved in one run.

    python benchmarks/extract.py [--part encode|decode] [--device cuda --precision bfloat16 --batch-size 256]

encode: a ViT of random weights over small JPEGs, against `model(x)` on the same tensors in memory, the same batches and
precision. decode: an encoder that costs next to nothing over JPEGs of 2,500 x 3,000, against the same threads that only
decode (Pillow), that decode and resize as its recipe demands, and that make its inputs. "pass" is the encoding part
alone, which needs torch and timm and neither a store nor a catalog; "extract" is all of it, where the store's libraries
are installed. The extraction of one image, its start-up, stands apart.
"""

import argparse
import dataclasses
import importlib.util
import io
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from featurestore.encoders import build, get_spec
from featurestore.encoders.frozen import ImageEncoder, computing_in
from featurestore.encoders.sources import SeededWeights
from featurestore.encoders.spec import Architecture, EncoderSpec, ImagePreprocessing, TokenLayout
from featurestore.imagepass import Shelf, Source, encode_images
from featurestore.images import decode_image, read_file

FULL, SMALL = (3000, 2500), (600, 500)
SHARD_ROWS = 256
START_UP = "extract of one image"
VIT = EncoderSpec(
    name="random-vit",
    modality="image",
    architecture=Architecture(library="timm", name="vit_base_patch16_224"),
    weights=SeededWeights(seed=0),
    preprocessing=ImagePreprocessing(
        resize_px=224, interpolation="bicubic", crop_px=224, mean=(0.5, 0.5, 0.5), std=(0.25, 0.25, 0.25)
    ),
    tokens=TokenLayout(dim=768, grid=(14, 14), has_cls=True),
    layer="after the last norm",
    builder="benchmarks.extract:build_vit",
    objective="none",
    pretraining=(),
    licence="none",
)


def build_vit(spec: EncoderSpec, *, device: str) -> ImageEncoder:
    import timm

    torch.manual_seed(0)
    network = timm.create_model(spec.architecture.name, pretrained=False, num_classes=0).eval().to(device)

    def forward(images):
        tokens = network.forward_features(images)
        return tokens[:, 1:], tokens[:, 0]

    return ImageEncoder(spec, forward, device=device)


def write_jpegs(folder: Path, n: int, size: tuple[int, int]) -> list[Path]:
    """Gray JPEGs at quality 95 that look like radiographs to a decoder: smooth, with the noise of a detector."""
    rng = np.random.default_rng(0)
    folder.mkdir()
    paths = []
    for i in range(n):
        smooth = Image.fromarray(rng.integers(0, 256, (12, 10), dtype=np.uint8)).resize(size[::-1], 3)
        noisy = np.asarray(smooth, np.float32) + rng.normal(0, 6, size).astype(np.float32)
        path = folder / f"{i:05d}.jpg"
        Image.fromarray(noisy.clip(0, 255).astype(np.uint8)).save(path, quality=95)
        paths.append(path)
    return paths


def one_pass(encoder: ImageEncoder, paths: list[Path], batch_size: int) -> None:
    files = {f"b/{i:06d}": path for i, path in enumerate(paths)}
    items = list(files)

    def groups() -> Iterator[list[Shelf]]:
        for start in range(0, len(items), SHARD_ROWS):
            yield [Shelf(encoder, 0, items[start : start + SHARD_ROWS])]

    with ThreadPoolExecutor(os.cpu_count() or 1) as readers:
        for batch in encode_images(
            groups(), lambda item: Source(decode_image(read_file(files[item]))), readers, batch_size=batch_size
        ):
            if batch is not None:
                batch.tokens.patches.half().cpu()


def whole_extraction(encoder: ImageEncoder, paths: list[Path], batch_size: int, device: str) -> None:
    import polars as pl

    from featurestore import extract, makers
    from featurestore.items import ITEM_SCHEMA, add_items
    from featurestore.store import open_store

    with tempfile.TemporaryDirectory() as folder:
        store = open_store(folder, create=True)
        rows = [(f"b/{i:06d}", "image", str(path), None) for i, path in enumerate(paths)]
        add_items(store, pl.DataFrame(rows, schema=ITEM_SCHEMA, orient="row"))
        makers.build = lambda spec, device: encoder  # loading the network is not what is measured
        (report,) = extract.extract_many(store, [encoder.spec], batch_size=batch_size, device=device)
        assert report.extracted == len(paths), report.failed


def bare_loop(encoder: ImageEncoder, paths: list[Path], batch_size: int) -> Callable[[], None]:
    device = encoder._device
    inputs = [encoder.prepare(decode_image(read_file(path))) for path in paths]
    batches = [torch.stack(inputs[i : i + batch_size]) for i in range(0, len(inputs), batch_size)]
    step = encoder._chunk
    chunks = [c.to(device, memory_format=torch.channels_last) for batch in batches for c in batch.split(step)]

    def loop() -> None:
        with computing_in(encoder.spec.precision, device):
            for chunk in chunks:
                patches, _ = encoder._forward(chunk)
        patches.sum().item()  # waits for an accelerator

    return loop


def in_threads(work: Callable[[Path], object], paths: list[Path]) -> None:
    with ThreadPoolExecutor(os.cpu_count() or 1) as pool:
        for _ in pool.map(work, paths):
            pass


def decode(path: Path) -> Image.Image:
    image = Image.open(io.BytesIO(path.read_bytes()))
    image.load()
    return image


def compare(title: str, baselines: int, runs: dict[str, Callable[[], object]], images: int, rounds: int) -> None:
    """Rates, and ratios to the first `baselines` of the runs: medians over the rounds of ratios within a round.

    "extract of one image" is an extraction's start-up: it is taken off "extract" in a line of its own.
    """
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    for run in runs.values():
        run()
    for _ in range(rounds):
        for name, run in runs.items():
            start = time.perf_counter()
            run()
            seconds[name].append(time.perf_counter() - start)
    if START_UP in seconds:
        start_up = seconds.pop(START_UP)
        for name in [name for name in seconds if name.startswith("extract")]:
            seconds[f"{name}, less start-up"] = [
                whole - once for whole, once in zip(seconds[name], start_up, strict=True)
            ]
        print(f"\n{START_UP}: {min(start_up):.2f} s")
    names = list(runs)[:baselines]
    print(f"\n{title:<48}{'images/s':>10}" + "".join(f"{'of ' + n:>22}" for n in names))
    for name, values in seconds.items():
        ratios = [statistics.median(b / v for b, v in zip(seconds[n], values, strict=True)) for n in names]
        print(f"{name:<48}{images / min(values):>10.1f}" + "".join(f"{ratio:>22.3f}" for ratio in ratios), flush=True)


def encoder_bound(options: argparse.Namespace, folder: Path, *, with_store: bool) -> None:
    spec, size, device = VIT.computed_in(options.precision), options.batch_size, options.device
    vit = build_vit(spec, device=device)
    small = write_jpegs(folder, options.images, SMALL)
    runs: dict[str, Callable[[], object]] = {
        "model(x)": bare_loop(vit, small, size),
        "pass": lambda: one_pass(vit, small, size),
    }
    if with_store:
        runs["extract"] = lambda: whole_extraction(vit, small, size, device)
    compare(f"ViT-B/16, {spec.precision}, {device}, batch {size}", 1, runs, len(small), options.rounds)


def decode_bound(options: argparse.Namespace, folder: Path, *, with_store: bool) -> None:
    """The ceiling of a recipe that resizes is decoding and resizing; that of one that only crops is decoding."""
    size, device, tiny = options.batch_size, options.device, get_spec("tiny")
    free = build(tiny, device=device)
    assert isinstance(tiny.preprocessing, ImagePreprocessing)
    uncut = dataclasses.replace(tiny.preprocessing, resize_px=min(FULL))
    crop = build(dataclasses.replace(tiny, preprocessing=uncut), device=device)
    side = tiny.preprocessing.resize_px
    small = (side, side * FULL[0] // FULL[1])
    full = write_jpegs(folder, options.images, FULL) * options.repeat
    runs: dict[str, Callable[[], object]] = {
        "decode": lambda: in_threads(decode, full),
        "decode and resize": lambda: in_threads(lambda path: decode(path).resize(small, 2), full),
        "inputs": lambda: in_threads(lambda path: free.prepare(decode_image(read_file(path))), full),
        "pass": lambda: one_pass(free, full, size),
    }
    if with_store:
        runs["extract"] = lambda: whole_extraction(free, full, size, device)
        runs["extract, recipe without resizing"] = lambda: whole_extraction(crop, full, size, device)
        runs[START_UP] = lambda: whole_extraction(free, full[:1], size, device)
    compare("nearly free encoder, JPEG 2,500 x 3,000", 2, runs, len(full), options.rounds)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--part", choices=("encode", "decode", "both"), default="both")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--precision", default="float32")
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--images", type=int, default=32, help="files that are written")
    parser.add_argument("--repeat", type=int, default=8, help="times that each full-size file is an item")
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    with_store = all(importlib.util.find_spec(name) for name in ("polars", "duckdb", "zarr"))
    with tempfile.TemporaryDirectory() as folder:
        if options.part != "decode":
            encoder_bound(options, Path(folder, "small"), with_store=with_store)
        if options.part != "encode":
            decode_bound(options, Path(folder, "full"), with_store=with_store)


if __name__ == "__main__":
    main()
