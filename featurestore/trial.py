"""An estimate for a store as it is: counts what is missing, and measures the encoder on a few items."""

import shutil
import statistics
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import polars as pl

from .encoders import Encoder, build, resolve
from .errors import ItemError
from .estimate import Estimate, estimate
from .extract import layout_of, resolve_device, wanted_items
from .featureset import FeatureSet
from .images import decode_image, read_file
from .store import Store


def estimate_extraction(
    store: Store,
    backbone: str,
    *,
    weights: str | Path | None = None,
    variant: Mapping[str, str] | None = None,
    views: int = 0,
    precision: str = "float32",
    long_text: str = "truncate",
    items: Sequence[str] | None = None,
    count: int | None = None,
    preset: str = "float16",
    trial: int = 16,
    device: str = "auto",
) -> Estimate:
    """What extracting the missing ones of these items takes. Nothing is written.

    Args:
        store: an open store.
        backbone, weights, variant, views, precision, long_text: as `extract_features`.
        items: ids; None for every item of its modality.
        count: number of items to reckon with, in place of those that are missing.
        preset: the codec.
        trial: items to encode for the speed; 0 for none.
        device: of the trial.

    Raises:
        UnknownNameError, DataError: as `extract_features`.
    """
    spec = resolve(backbone, weights=weights, variant=variant, precision=precision, long_text=long_text)
    wanted = wanted_items(store, spec, items)
    layout = layout_of(spec, dtype=preset)
    path = store.features / layout.name
    if (path / "zarr.json").exists():
        feature_set = FeatureSet(path, layout)
        missing = wanted.filter(feature_set.status(wanted)["state"] == "missing")
    else:
        missing = wanted
    speed = lengths = None
    sample = (missing if len(missing) else wanted).sample(min(trial, len(missing) or len(wanted)), seed=0)
    if len(sample):
        speed, lengths = _measure(build(spec, device=resolve_device(device)), sample)
    return estimate(
        layout,
        len(missing) if count is None else count,
        views=views + 1 if spec.modality == "image" else 1,
        tokens_a_report=lengths,
        items_a_second=speed,
        free_bytes=shutil.disk_usage(store.root).free if isinstance(store.root, Path) else None,
    )


def _measure(encoder: Encoder, sample: pl.DataFrame) -> tuple[float | None, float | None]:
    """Items a second, and the mean length of reports; None where none could be encoded. A warm-up is not counted."""
    text = sample["modality"][0] == "text"
    prepared = []
    start = time.perf_counter()
    for row in sample.iter_rows(named=True):
        try:
            source = decode_image(read_file(row["path"])) if row["modality"] == "image" else row["text"]
            prepared.append(encoder.prepare(source))
        except (ItemError, OSError):
            continue
    preparing = time.perf_counter() - start
    if not prepared:
        return None, None
    encoder.encode(prepared[:1])
    start = time.perf_counter()
    encoded = encoder.encode(prepared)
    if not text:
        encoded.patches.cpu()  # waits for an accelerator
    # Decoding runs beside the encoder, in threads: the slower of both sets the pace.
    seconds = max(time.perf_counter() - start, preparing)
    return len(prepared) / seconds, statistics.fmean(encoded.lengths.tolist()) if text else None
