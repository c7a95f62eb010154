"""What a kept head says about images: files that were never in a store, or a cohort whose tokens are in one.

The encoder that read the training images reads the new ones, with the same weights and preprocessing, or nothing is
said.
"""

import math
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import polars as pl
import torch

from cohorts.cohort import load_cohort
from cohorts.split_files import load_parts
from featurestore.encoders import build, resolve
from featurestore.errors import DataError, ItemError
from featurestore.extract import layout_of, resolve_device
from featurestore.featureset import open_feature_set
from featurestore.images import decode_image, read_file
from featurestore.reader import Features, open_features
from featurestore.store import Store

from .engine import HeadData, TokenTable, apply_head
from .finished import FinishedRuns
from .jobs import head_config
from .kept import KeptHead, kept_runs, load_kept
from .kinds import get_head


def predict_files(
    store: Store,
    run_id: str,
    folder: Path,
    *,
    weights: str | Path | None = None,
    device: str = "auto",
    batch_size: int = 32,
) -> pl.DataFrame:
    """What a kept head says about the image files of a folder and its subfolders. Nothing is written to the store.

    Args:
        store: where the run and its head are.
        run_id: the run; it must read images alone.
        folder: the files; hidden ones are passed over.
        weights: the encoder's, where they are not its published ones.
        device: of the encoder: auto, cpu or cuda.
        batch_size: images a forward pass.

    Returns:
        One row a file, in the order of paths: `image` (path below `folder`), `p_<class>` for each class, and `failure`,
        null where the image could be read.

    Raises:
        DataError: no such head, it reads more than images, the folder is empty, or the encoder's weights are others.
    """
    kept = _kept(store, run_id)
    files, _ = image_files(folder)
    feature_set = open_feature_set(store, kept.features["image"])
    spec = resolve(feature_set.encoder, weights=weights, variant=feature_set.layout.about.get("variant"))
    if layout_of(spec, dtype=feature_set.layout.dtype).identity != feature_set.identity:
        raise DataError(
            f"run {run_id} was trained on tokens of {feature_set.identity}, and encoder {spec.name} as it is installed "
            "here makes others: its weights or its version differ. Install those, or name the weights with --weights."
        )
    encoder = build(spec, device=resolve_device(device))
    names, said, failures = [], [], []
    for start in range(0, len(files), batch_size):
        batch = files[start : start + batch_size]
        prepared, reasons = [], []
        for path in batch:
            try:
                prepared.append(encoder.prepare(decode_image(read_file(path))))
                reasons.append(None)
            except ItemError as error:
                reasons.append(str(error))
            except Exception as error:  # bytes from outside can make a decoder raise anything
                reasons.append(f"unexpected {type(error).__name__} while decoding")
        probabilities = np.full((len(batch), len(kept.spec.classes)), np.nan, np.float32)
        if prepared:
            tokens = encoder.encode(prepared)
            picked = tokens.cls[:, None] if get_head(kept.spec.head).reads_cls else tokens.patches
            as_kept = picked.cpu().numpy().astype(feature_set.layout.codec.reads_as)
            probabilities[[reason is None for reason in reasons]] = _apply(kept, as_kept)
        names += [str(path.relative_to(folder)) for path in batch]
        said.append(probabilities)
        failures += reasons
    return _frame(kept, "image", names, np.concatenate(said), failures)


def predict_cohort(store: Store, run_id: str, cohort_name: str, *, batch_size: int = 1024) -> pl.DataFrame:
    """What a kept head says about the images of a cohort, from their tokens in the store.

    Returns:
        One row a sample that has an image: `sample`; `part`, what the image was to this run: "train" (the head was
        trained on it), "test" (its results, and the choice of a best epoch, are of it), "unused" (of the run's cohort
        but in neither), null where it was not in that cohort; `p_<class>` for each class; and `failure`.

    Raises:
        DataError: no such head, or it reads more than images.
        UnknownNameError: no such cohort.
    """
    kept = _kept(store, run_id)
    feature_set = open_feature_set(store, kept.features["image"])
    samples = load_cohort(store, cohort_name).samples.filter(pl.col("image").is_not_null()).sort("sample")
    features = open_features(store, feature_set.name, only=samples["image"].to_list())
    has = features.has(samples["image"].to_list())
    probabilities = np.full((samples.height, len(kept.spec.classes)), np.nan, np.float32)
    for places in _chunks(np.flatnonzero(has), batch_size):
        probabilities[places] = _apply(kept, _tokens(features, samples["image"].gather(places).to_list(), kept))
    missing = f"no tokens in {feature_set.name}. {feature_set.how_to_fill(cohort_name)}"
    failures = [None if there else missing for there in has]
    said = _frame(kept, "sample", samples["sample"].to_list(), probabilities, failures)
    return said.insert_column(1, _parts(store, kept, samples["image"]))


def image_files(folder: Path) -> tuple[list[Path], list[Path]]:
    """The image files of a folder and its subfolders by their names, and the other files; hidden ones are neither.

    A file without a suffix is an image if it begins as DICOM does, for archives name such files by numbers.

    Raises:
        DataError: no folder, or no image in it.
    """
    if not folder.exists():
        raise DataError(f"{folder} does not exist: name a folder of images with --images.")
    if not folder.is_dir():
        raise DataError(f"{folder} is a file: name the folder that holds it with --images.")
    files = sorted(p for p in folder.rglob("*") if p.is_file() and not p.name.startswith("."))
    images = [path for path in files if _is_image(path)]
    if not images:
        raise DataError(
            f"{folder} holds no images ({len(files)} other files): name a folder with files that end in "
            f"{', '.join(_SUFFIXES)}."
        )
    return images, sorted(set(files) - set(images))


_SUFFIXES = (".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp", ".webp", ".dcm")


def _is_image(path: Path) -> bool:
    if path.suffix and not path.suffix[1:].isdecimal():
        return path.suffix.lower() in _SUFFIXES
    with path.open("rb") as file:
        return file.read(132)[128:] == b"DICM"


def _parts(store: Store, kept: KeptHead, images: pl.Series) -> pl.Series:
    """What each image was to the run, by item: another cohort may share its images."""
    spec, cohort = kept.spec, load_cohort(store, kept.spec.cohort)
    sides = load_parts(store, spec.cohort, spec.split_key)
    # With an inner part, `n_train` is without it, and the inner part chose the epoch: it counts as trained on.
    n_train = max(spec.n_train, math.floor(spec.fraction * len(sides["train"])))
    trained, tested = set(sides["train"][:n_train]), set(sides["test"])
    parts = {}
    for sample, image in cohort.samples.select("sample", "image").iter_rows():
        part = "train" if sample in trained else "test" if sample in tested else "unused"
        # An image of several samples counts as what gives most away.
        parts[image] = min(part, parts.get(image, part), key=("train", "test", "unused").index)
    return pl.Series("part", [parts.get(image) for image in images], dtype=pl.String)


def _kept(store: Store, run_id: str) -> KeptHead:
    kept = load_kept(store, run_id)
    if kept is None:
        if run_id not in FinishedRuns(store).refresh():
            known = sorted(kept_runs(store))
            has = f"Heads are kept of: {', '.join(known[:10])}." if known else "It keeps no heads yet."
            raise DataError(f'the store has no run {run_id!r}. {has} Runs: radfs query "FROM results".')
        raise DataError(
            f"the store keeps no head of run {run_id!r}. Run its grid with --keep-heads: what is done is trained "
            "again for its head."
        )
    if tuple(kept.features) != ("image",):
        raise DataError(
            f"run {run_id} is of method {kept.spec.method!r}, whose head reads {' and '.join(kept.features)}: only "
            "heads that read images alone can be asked about images. Use a run of another method: any that serves "
            "images alone (docs/methods.md)."
        )
    return kept


def _tokens(features: Features, items: list[str], kept: KeptHead) -> np.ndarray:
    if get_head(kept.spec.head).reads_cls:
        return features.cls_tokens(items)[:, None]
    return features.image_tokens(items)


def _apply(kept: KeptHead, tokens: np.ndarray) -> np.ndarray:
    """Probabilities [m, C] for image tokens [m, n, d]."""
    dtype = torch.bfloat16 if kept.spec.precision == "bf16" else torch.float32
    data = HeadData({"image": TokenTable.dense(tokens, dtype=dtype)}, np.zeros(len(tokens), np.int64))
    return apply_head(kept.state, head_config(kept.spec), data, np.arange(len(tokens)))


def _chunks(places: np.ndarray, size: int) -> Iterator[np.ndarray]:
    yield from (places[start : start + size] for start in range(0, len(places), size))


def _frame(
    kept: KeptHead, what: str, names: list[str], probabilities: np.ndarray, failures: Sequence[str | None]
) -> pl.DataFrame:
    columns = {f"p_{name}": probabilities[:, i] for i, name in enumerate(kept.spec.classes)}
    frame = pl.DataFrame({what: names, **columns, "failure": pl.Series(failures, dtype=pl.String)})
    return frame.with_columns(pl.col(*columns).fill_nan(None))
