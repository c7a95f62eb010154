"""Errors of tokens in half precision, of other batch sizes and of thread counts, for every encoder at its real size.

    python -m benchmarks.precisions [NAME ...] [--items 2]

Relative L2 norm of the difference to float32 in one batch, on this machine's CPU. The paper's encoders are written with
random weights in their published layout (of the size of trained ones; their errors are those of the architecture);
efficientnet-lite0 and minilm have their real weights. Items: smooth noise as images, made-up reports.
"""

import argparse
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from featurestore.encoders import EncoderSpec, build, get_spec, is_available, resolve
from tests.test_featurestore import published

PAPER = ("rad-dino", "c2l", "medical-mae", "mrm", "biovil-t", "gloria", "biomedclip")
REPORTS = ("biovil-t-bert", "cxr-bert-general", "bio-clinicalbert")
REAL = ("efficientnet-lite0", "minilm")
WORDS = ("heart", "lung", "clear", "no", "effusion", "acute", "left", "mild", "3.5", "cm")


def items_of(spec: EncoderSpec, count: int) -> list[Any]:
    rng = np.random.default_rng(0)
    if spec.modality == "text":
        return [" ".join(rng.choice(WORDS, rng.integers(5, 100))) for _ in range(count)]
    small = [Image.fromarray(rng.integers(0, 256, (8, 8), dtype=np.uint8)) for _ in range(count)]
    return [image.resize((600, 500), Image.Resampling.BICUBIC) for image in small]


def tokens_of(spec: EncoderSpec, items: Sequence[Any], *, precision: str = "float32", size: int) -> torch.Tensor:
    """All real tokens of the items, [rows, d], in batches of `size`."""
    encoder = build(spec.computed_in(precision), device="cpu")
    ready = [encoder.prepare(item) for item in items]
    found = [encoder.encode(ready[i : i + size]) for i in range(0, len(ready), size)]
    if spec.modality == "image":
        return torch.cat([one.patches.flatten(0, 1) for one in found])
    return torch.cat([one.tokens[i, :n] for one in found for i, n in enumerate(one.lengths.tolist())])


def errors(spec: EncoderSpec, count: int) -> list[float]:
    items = items_of(spec, count)
    exact = tokens_of(spec, items, size=count)
    others = [tokens_of(spec, items, precision=precision, size=count) for precision in ("bfloat16", "float16")]
    others += [exact.half().float(), tokens_of(spec, items, size=1)]
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    others.append(tokens_of(spec, items, size=count))
    torch.set_num_threads(threads)
    return [((exact - other).norm() / exact.norm()).item() for other in others]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", default=[*PAPER, *REPORTS, *REAL])
    parser.add_argument("--items", type=int, default=2)
    options = parser.parse_args()
    columns = ("bfloat16", "float16", "stored float16", "batches of 1", "1 thread")
    print(f"{'encoder':<20}" + "".join(f"{column:>16}" for column in columns))
    for name in options.names:
        with tempfile.TemporaryDirectory() as folder:
            spec = get_spec(name)
            if name not in REAL:
                path, _ = published.write(name, Path(folder))
                spec = resolve(name, weights=path)
            elif not is_available(spec):
                print(f"{name:<20} its weights are not here")
                continue
            print(f"{name:<20}" + "".join(f"{error:>16.1e}" for error in errors(spec, options.items)), flush=True)


if __name__ == "__main__":
    main()
