"""Size, error and speed of every codec of the feature store on real token activations, interleaved in one run.

    python benchmarks/codecs.py [--items 250] [--rounds 9]

Radiographs and reports come from $RADFS_TEST_DATA or from shared/data beside the checkout, else from a phantom cohort.
A report that occurs twice counts once: repeats would flatter compression. Errors are judged in float64 against the
encoder's float32. Speeds are values a second, as a share of a plain copy of the same values as float16; only such
ratios of one run mean something. Decoding goes into a buffer; what is compressed is packed and unpacked chunk by chunk.
"""

import argparse
import csv
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from cohorts import build_phantom
from featurestore import list_items, open_store
from featurestore.codecs import CODECS, Codec
from featurestore.encoders import build, get_spec
from featurestore.images import decode_image, read_file

TEXT_CHUNK = 64  # tokens in an inner chunk of a set of reports; in a set of images it is one image
BATCH = 32


def real_items(folder: Path, most: int) -> tuple[list[str], list[str]]:
    """Image files and distinct reports of every set in the folder, at most so many rows of each."""
    images, texts = [], []
    for table in sorted(folder.glob("*/records.csv")):
        with table.open(newline="") as lines:
            rows = list(csv.DictReader(lines))[:most]
        images += [str(table.parent / row["file"]) for row in rows]
        texts += [text for row in rows if (text := row.get("text") or row.get("rendered_text"))]
    return images, list(dict.fromkeys(texts))


def phantom_items(most: int) -> tuple[list[bytes], list[str]]:
    with tempfile.TemporaryDirectory() as folder:
        store = open_store(Path(folder) / "store", create=True)
        build_phantom(store, "phantom", subjects=most)
        images = [Path(path).read_bytes() for path in list_items(store, modality="image")["path"]]
        return images, list(dict.fromkeys(list_items(store, modality="text")["text"]))


def encoded(name: str, payloads: Sequence) -> np.ndarray:
    """The tokens of all items, float32: [images, tokens, dim], or the real tokens of all reports, [tokens, dim]."""
    encoder = build(get_spec(name))
    done = []
    for start in range(0, len(payloads), BATCH):
        tokens = encoder.encode([encoder.prepare(payload) for payload in payloads[start : start + BATCH]])
        if encoder.spec.modality == "image":
            done.append(tokens.patches.numpy())
        else:
            done += [row[:n] for row, n in zip(tokens.tokens.numpy(), tokens.lengths.tolist(), strict=True)]
    return np.concatenate(done)


def chunks(array: np.ndarray) -> list[np.ndarray]:
    """Inner chunks: one image, or 64 tokens of reports."""
    return list(array) if array.ndim == 3 else np.split(array, range(TEXT_CHUNK, len(array), TEXT_CHUNK))


def encode(codec: Codec, values: np.ndarray) -> list[list]:
    """What stands in the shard files, part by part and chunk by chunk; whole parts where nothing is compressed."""
    parts = codec.encode(values)
    return [[codec.pack(chunk) for chunk in chunks(part)] if codec.compressed else [part] for part in parts]


def decode(codec: Codec, stored: list[list], out: np.ndarray) -> None:
    if not codec.compressed:
        codec.decode([part for (part,) in stored], out)
        return
    for target, *packed in zip(chunks(out), *stored, strict=True):
        parts = [
            codec.unpack(data, part.width(target.shape[-1]) * target[..., 0].size * np.dtype(part.dtype).itemsize)
            .view(part.dtype)
            .reshape(*target.shape[:-1], -1)
            for part, data in zip(codec.parts, packed, strict=True)
        ]
        codec.decode(parts, target)


def seconds(works: dict[str, Callable[[], object]], rounds: int) -> dict[str, float]:
    """Median seconds of each piece of work, done in turn."""
    taken: dict[str, list[float]] = {name: [] for name in works}
    for _ in range(rounds + 1):
        for name, work in works.items():
            start = time.perf_counter()
            work()
            taken[name].append(time.perf_counter() - start)
    return {name: statistics.median(times[1:]) for name, times in taken.items()}


def measure(title: str, values: np.ndarray, rounds: int) -> None:
    plain = values.astype(np.float16)
    copy, exact = np.empty_like(plain), values.astype(np.float64)
    rms = np.sqrt(np.square(exact).mean())
    works: dict[str, Callable[[], object]] = {"copy": lambda: np.copyto(copy, plain)}
    outs, stored = {}, {}
    for name, codec in CODECS.items():
        outs[name], stored[name] = np.empty(values.shape, codec.reads_as), encode(codec, values)
        works[f"encode {name}"] = lambda codec=codec: encode(codec, values)
        works[f"decode {name}"] = lambda codec=codec, name=name: decode(codec, stored[name], outs[name])
    times = seconds(works, rounds)
    print(f"\n{title}: {' x '.join(map(str, values.shape))}, rms {rms:.3g}")
    print(f"{'codec':<12}{'bytes':>8}{'rms error':>12}{'max error':>12}{'encode':>10}{'decode':>10}")
    for name in CODECS:
        size = sum(memoryview(chunk).nbytes for part in stored[name] for chunk in part) / plain.nbytes
        error = outs[name].astype(np.float64) - exact
        shares = [times["copy"] / times[f"{way} {name}"] for way in ("encode", "decode")]
        print(
            f"{name:<12}{size:>8.3f}{np.sqrt(np.square(error).mean()) / rms:>12.1e}{np.abs(error).max() / rms:>12.1e}"
            f"{shares[0]:>10.3f}{shares[1]:>10.3f}"
        )
    print(f"(of float16; of the rms; of a copy's speed, which was {plain.nbytes / times['copy'] / 1e9:.1f} GB/s)")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--items", type=int, default=250, help="most rows of each set")
    parser.add_argument("--rounds", type=int, default=9, help="times that everything is done")
    arguments = parser.parse_args()

    folder = Path(os.environ.get("RADFS_TEST_DATA", Path(__file__).parents[2] / "shared" / "data"))
    images, texts = real_items(folder, arguments.items)
    source = "real"
    if not images:
        images, texts = phantom_items(arguments.items)
        source = "phantom"
    pictures = [decode_image(image if isinstance(image, bytes) else read_file(image)) for image in images]
    measure(f"{source} radiographs, efficientnet-lite0", encoded("efficientnet-lite0", pictures), arguments.rounds)
    measure(f"{len(texts)} {source} reports, minilm", encoded("minilm", texts), arguments.rounds)


if __name__ == "__main__":
    main()
