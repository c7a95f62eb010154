"""Extraction: items -> encoders -> feature sets. The one place that knows both encoders and the store.

Images go through all encoders in one pass (`imagepass`), so that each file is decoded once; what a shard becomes
depends on its items alone, so a set is the same whether it was made alone, beside others, at once or after a kill.
"""

import os
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import polars as pl

from .encoders import EncoderSpec, is_available, list_specs, resolve, weights_sha256
from .errors import DataError, unknown_name
from .featureset import create_feature_set
from .items import list_items
from .layout import FeatureLayout, shard_rows_for
from .makers import ExtractReport, Filled, ImageMaker, Progress, TextMaker
from .making import Target, make_missing
from .store import Store
from .views import INFERRED

MOST_VIEWS = 999


def extract_features(
    store: Store,
    backbone: str,
    *,
    weights: str | Path | None = None,
    variant: Mapping[str, str] | None = None,
    precision: str = "float32",
    long_text: str = "truncate",
    views: int = 0,
    items: Sequence[str] | None = None,
    preset: str = "float16",
    retry_failed: bool = False,
    device: str = "auto",
    batch_size: int = 32,
    workers: int | None = None,
    on_progress: Progress | None = None,
) -> ExtractReport:
    """Embed what is missing with one encoder, and only that.

    Args:
        store: an open store.
        backbone: name of an encoder (`radfs backbones` lists them).
        weights: a file to use in place of the encoder's published weights.
        variant: choices that are not to be at their default, such as {"preprocessing": "authors"}.
        precision: what the network computes in: float32, bfloat16 or float16. A set each.
        long_text: reports beyond the context length are cut ("truncate") or read in overlapping windows ("window").
        items: ids to embed; None for every item of the encoder's modality.
        others: as `extract_many`.

    Raises:
        UnknownNameError: no such encoder, variant or precision, or an id that the store does not know.
        DataError, StoreError: as `extract_many`.
    """
    spec = resolve(backbone, weights=weights, variant=variant, precision=precision, long_text=long_text)
    (report,) = extract_many(
        store,
        [spec],
        views=views,
        items=None if items is None else {spec.modality: items},
        preset=preset,
        retry_failed=retry_failed,
        device=device,
        batch_size=batch_size,
        workers=workers,
        on_progress=on_progress,
    )
    return report


def extract_many(
    store: Store,
    specs: Sequence[EncoderSpec],
    *,
    views: int = 0,
    items: Mapping[str, Sequence[str]] | None = None,
    preset: str = "float16",
    retry_failed: bool = False,
    device: str = "auto",
    batch_size: int = 32,
    workers: int | None = None,
    on_progress: Progress | None = None,
) -> list[ExtractReport]:
    """Embed what is missing with several encoders: images with all of them in one pass, then reports with each.

    Args:
        store: an open store.
        specs: the encoders (`encoders.resolve` makes them of names).
        views: augmented views of each image beside the clean one (`views`); more of them later adds only the new ones.
        items: ids to embed, by modality; None for every item.
        preset: name of the codec that the tokens are kept with, one of `codecs.CODECS`.
        retry_failed: try recorded failures again though their source is unchanged.
        device: where the encoders run: cpu, cuda, cuda:1, ...; auto takes a GPU where there is one.
        batch_size: items a forward pass.
        workers: threads that read, decode and prepare; None for the number of cores.
        on_progress: told after every batch.

    Returns:
        A report for each feature set, in the order of `specs`.

    Raises:
        UnknownNameError: an id that the store does not know.
        DataError: nothing of a modality in the store, an encoder's weights are not here, or views of reports.
        StoreError: items are still missing after several rounds, or a set was removed meanwhile.
    """
    start = time.monotonic()
    device = resolve_device(device)
    if not 0 <= views <= MOST_VIEWS:
        raise DataError(f"{views} views: give a number from 0 to {MOST_VIEWS}.")
    if views and all(spec.modality == "text" for spec in specs):
        raise DataError("augmented views are of images, and no encoder here reads any: leave --views out.")
    wanted = {spec.modality: wanted_items(store, spec, (items or {}).get(spec.modality)) for spec in specs}
    sets: dict[str, Filled] = {}
    for spec in specs:
        some = views if spec.modality == "image" else 0
        filled = _begin(store, spec, wanted[spec.modality], some, preset, retry_failed=retry_failed)
        sets.setdefault(filled.feature_set.name, filled)
    images = {name: filled for name, filled in sets.items() if filled.spec.modality == "image"}
    passes = [(TextMaker, {name: filled}) for name, filled in sets.items() if name not in images]
    with ThreadPoolExecutor(workers or os.cpu_count() or 1) as readers:
        for maker, some in [(ImageMaker, images), *passes]:
            targets = [
                Target(filled.feature_set, wanted[filled.spec.modality], view)
                for filled in some.values()
                for view in range(filled.report.views + 1)
            ]
            making = maker(store, some, readers, device, batch_size, on_progress)
            make_missing(targets, making, retry_failed=retry_failed)
    for filled in sets.values():
        filled.report.seconds = time.monotonic() - start
    return [filled.report for filled in sets.values()]


def choose_encoders(
    store: Store,
    words: str,
    *,
    weights: str | Path | None = None,
    variant: Mapping[str, str] | None = None,
    precision: str = "float32",
    long_text: str = "truncate",
) -> tuple[list[EncoderSpec], dict[str, str]]:
    """The encoders that these words mean: one, several with commas between, or `all`.

    `all` are those whose weights are here and for which the store has something to read; encoders for tests are not
    among them.

    Returns:
        Their specs; and, by name, why others are left out of `all`.

    Raises:
        UnknownNameError, DataError: as `encoders.resolve`; weights or a variant for several encoders; none at all.
    """
    names, left_out = [word.strip() for word in words.split(",")], {}
    if words == "all":
        real = [spec for spec in list_specs() if spec.objective != "none"]
        held = {modality: not list_items(store, modality=modality).is_empty() for modality in ("image", "text")}
        left_out = {
            spec.name: f"the store has no {spec.modality}s" if is_available(spec) else "weights are not here"
            for spec in real
            if not (is_available(spec) and held[spec.modality])
        }
        names = [spec.name for spec in real if spec.name not in left_out]
        if not names:
            raise DataError(
                "no encoder can run: " + "; ".join(f"{name}: {reason}" for name, reason in left_out.items()) + "."
            )
    if len(names) > 1 and (weights is not None or variant):
        raise DataError(f"--weights and --variant belong to one encoder, and these are {len(names)}: run it alone.")
    choices = {"weights": weights, "variant": variant, "precision": precision, "long_text": long_text}
    return [resolve(name, **choices) for name in dict.fromkeys(names)], left_out


def _begin(
    store: Store, spec: EncoderSpec, wanted: pl.DataFrame, views: int, preset: str, *, retry_failed: bool
) -> Filled:
    """The set that this encoder fills, made if need be, with the counts of what it holds already."""
    feature_set = create_feature_set(store, layout_of(spec, dtype=preset))
    report = ExtractReport(feature_set.name, len(wanted) * (views + 1), views)
    for view in range(views + 1):
        before = feature_set.status(wanted, view)["state"]
        _refuse_removed_texts(wanted.filter(before == "missing"))
        report.already += int((before == "done").sum())
        report.known_failures += 0 if retry_failed else int((before == "failed").sum())
    return Filled(feature_set, spec, set(wanted["item"]), report)


def _refuse_removed_texts(missing: pl.DataFrame) -> None:
    gone = missing.filter((pl.col("modality") == "text") & pl.col("text").is_null())["item"]
    if len(gone):
        raise DataError(
            f"the texts of {len(gone)} reports that are to be embedded were removed from the store (`radfs rm "
            f"--texts`), the first is {gone[0]}. Build their cohort again: that gives the texts anew."
        )


def layout_of(spec: EncoderSpec, *, shard_rows: int | None = None, dtype: str = "float16") -> FeatureLayout:
    """The layout of the feature set that this encoder makes with the weights that are installed here."""
    dim, usual = spec.tokens.dim, spec.context_length or spec.max_tokens
    about = {
        "licence": spec.licence,
        "description": spec.describe(),
        "pretraining": list(spec.pretraining),
        "variant": dict(spec.chosen),
    }
    return FeatureLayout(
        encoder=spec.name,
        modality=spec.modality,
        dim=dim,
        tokens=spec.max_tokens,
        has_cls=spec.tokens.has_cls,
        shard_rows=shard_rows or shard_rows_for(modality=spec.modality, tokens=usual, dim=dim),
        what=spec.key_config(weights_sha256(spec)),
        about=about | ({"views": INFERRED} if spec.modality == "image" else {}),
        dtype=dtype,
    )


def resolve_device(name: str) -> str:
    """The device that a name means here; `auto` takes a GPU where there is one. DataError for one that is not here."""
    import torch

    if name == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    try:
        kind = torch.device(name).type
    except RuntimeError as error:
        raise DataError(f"device {name!r} is unknown; give auto, cpu or cuda.") from error
    if kind == "cuda" and not torch.cuda.is_available():
        raise DataError(f"device {name!r} asks for a GPU and torch sees none here; give auto or cpu.")
    return name


def wanted_items(store: Store, spec: EncoderSpec, items: Sequence[str] | None) -> pl.DataFrame:
    """The items to embed, columns of `STORED_SCHEMA`, in the order of ids: these, or all of the encoder's modality.

    All encoders of one pass give rows in this order, so that an image comes to all of them at once. Errors as above.
    """
    known = list_items(store, modality=spec.modality, only=items)
    if items is not None:
        ids = pl.DataFrame({"item": list(dict.fromkeys(items))}, schema={"item": pl.String})
        strange = ids.join(known, on="item", how="anti")["item"]
        if len(strange):
            raise unknown_name(f"{spec.modality} item", strange[0], list_items(store, modality=spec.modality)["item"])
    if items is not None and known.is_empty():
        raise DataError(
            f"none of the items asked for is of modality {spec.modality}, which encoder {spec.name} reads: does the "
            f"cohort have {spec.modality}s?"
        )
    if known.is_empty():
        raise DataError(
            f"the store has no {spec.modality} items, which encoder {spec.name} reads. "
            "Build a cohort that has some (`radfs cohort build --help`)."
        )
    return known
