"""Extraction against the bare encoder and against the decoder alone, interleaved in one run; and errors of precisions.

    python benchmarks/extract.py [--device cuda --precision bfloat16 --batch-size 256] [--images 64] [--rounds 3]
    python benchmarks/extract.py --errors

Encoder-bound: a ViT-B/16 of random weights over small JPEGs, against `model(x)` on the same tensors in memory, the same
batches and precision. Decode-bound: an encoder that costs next to nothing over JPEGs of 2,500 x 3,000, against the same
threads that only decode, and that only make the encoder's inputs. "pass" is the encoding part alone, which needs torch
and timm and neither a store nor a catalog; "extract" is all of it, where the store's libraries are installed.
"""

import argparse
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

from featurestore.encoders import build, get_spec, is_available
from featurestore.encoders.frozen import ImageEncoder, computing_in
from featurestore.encoders.sources import SeededWeights
from featurestore.encoders.spec import Architecture, EncoderSpec, ImagePreprocessing, TokenLayout
from featurestore.imagepass import Shelf, Source, encode_images
from featurestore.images import decode_image, read_file

FULL, SMALL = (3000, 2500), (600, 500)
SHARD_ROWS = 256
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
    files = {f"b/{path.stem}": path for path in paths}
    items = sorted(files)

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
        rows = [(f"b/{path.stem}", "image", str(path), None) for path in paths]
        add_items(store, pl.DataFrame(rows, schema=ITEM_SCHEMA, orient="row"))
        makers.build = lambda spec, device: encoder  # loading the network is not what is measured
        extract.extract_many(store, [encoder.spec], batch_size=batch_size, device=device)


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


def decode_only(path: Path) -> None:
    Image.open(io.BytesIO(path.read_bytes())).load()


def compare(title: str, runs: dict[str, Callable[[], object]], images: int, rounds: int) -> None:
    """Rates and ratios to the first of the runs: medians over the rounds of ratios within a round."""
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    for run in runs.values():
        run()
    for _ in range(rounds):
        for name, run in runs.items():
            start = time.perf_counter()
            run()
            seconds[name].append(time.perf_counter() - start)
    names = list(runs)
    print(f"\n{title:<44}{'images/s':>10}" + "".join(f"{'of ' + n:>18}" for n in names[:2]))
    for name, values in seconds.items():
        ratios = [statistics.median(b / v for b, v in zip(seconds[n], values, strict=True)) for n in names[:2]]
        print(f"{name:<44}{images / min(values):>10.1f}" + "".join(f"{ratio:>18.3f}" for ratio in ratios))


def speeds(options: argparse.Namespace) -> None:
    spec = VIT.computed_in(options.precision)
    vit = build_vit(spec, device=options.device)
    free = build(get_spec("tiny"), device=options.device)
    with_store = all(importlib.util.find_spec(name) for name in ("polars", "duckdb", "zarr"))
    size, device = options.batch_size, options.device
    with tempfile.TemporaryDirectory() as folder:
        small = write_jpegs(Path(folder, "small"), options.images, SMALL)
        full = write_jpegs(Path(folder, "full"), options.images, FULL)
        runs: dict[str, Callable[[], object]] = {
            "model(x)": bare_loop(vit, small, size),
            "pass": lambda: one_pass(vit, small, size),
        }
        if with_store:
            runs["extract"] = lambda: whole_extraction(vit, small, size, device)
        compare(f"ViT-B/16, {spec.precision}, {device}, batch {size}", runs, len(small), options.rounds)
        runs = {
            "decode": lambda: in_threads(decode_only, full),
            "inputs": lambda: in_threads(lambda path: free.prepare(decode_image(read_file(path))), full),
            "pass": lambda: one_pass(free, full, size),
        }
        if with_store:
            runs["extract"] = lambda: whole_extraction(free, full, size, device)
        compare("nearly free encoder, JPEG 2,500 x 3,000", runs, len(full), options.rounds)


def relative(exact: torch.Tensor, other: torch.Tensor) -> str:
    return f"{((exact - other).norm() / exact.norm()).item():.1e}"


def errors() -> None:
    """Tokens of other precisions, batch sizes and thread counts against float32 in batches of 8: relative L2 norm."""
    rng = np.random.default_rng(0)
    pictures = [Image.fromarray(rng.integers(0, 256, (8, 8), dtype=np.uint8)).resize((600, 500), 3) for _ in range(8)]
    words = ("heart", "lungs", "clear", "effusion", "acute", "opacity", "left", "mildly", "unchanged", "3.5", "cm")
    reports = [" ".join(rng.choice(words, rng.integers(5, 200))) for _ in range(8)]
    print(f"{'encoder':<22}{'bfloat16':>10}{'float16':>10}{'stored float16':>16}{'batch 1':>10}{'1 thread':>10}")
    names = [name for name in ("efficientnet-lite0", "minilm") if is_available(get_spec(name))]
    for spec in [VIT, *map(get_spec, names)]:
        make = build_vit if spec is VIT else build
        items = reports if spec.modality == "text" else pictures

        def tokens(precision: str = "float32", size: int = 8, make=make, spec=spec, items=items) -> torch.Tensor:
            encoder = make(spec.computed_in(precision), device="cpu")
            ready = [encoder.prepare(item) for item in items]
            found = [encoder.encode(ready[i : i + size]) for i in range(0, len(ready), size)]
            if spec.modality == "image":
                return torch.cat([one.patches for one in found])
            rows = [(one.tokens[i], n) for one in found for i, n in enumerate(one.lengths.tolist())]
            return torch.cat([row[:n] for row, n in rows])

        exact = tokens()
        found = [tokens("bfloat16"), tokens("float16"), exact.half().float(), tokens(size=1)]
        threads = torch.get_num_threads()
        torch.set_num_threads(1)
        found.append(tokens())
        torch.set_num_threads(threads)
        columns = zip([relative(exact, other) for other in found], (10, 10, 16, 10, 10), strict=True)
        print(f"{spec.name:<22}" + "".join(f"{text:>{width}}" for text, width in columns))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--precision", default="float32")
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--images", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--errors", action="store_true")
    options = parser.parse_args()
    errors() if options.errors else speeds(options)


if __name__ == "__main__":
    main()
