"""Extraction: items -> encoder -> feature set. The one place that knows both encoders and the store.

    decode and preprocess (threads) -> forward in batches -> shard in memory -> durable files (`making`)

Batches never cross a shard and an image that fails keeps its place in its batch, so the bytes of a row depend on its
shard alone, not on when, after which interruption, or by how many threads it was made. One bad item never stops a
run: its reason is recorded by id, and it is tried again when its file or text has changed, or on request.
"""

import hashlib
import os
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from PIL import Image

from .encoders import Encoder, EncoderSpec, build, resolve, weights_sha256
from .errors import DataError, ItemError, unknown_name
from .featureset import FeatureSet, ShardPlan, create_feature_set
from .images import decode_image, read_file
from .items import list_items, text_hash
from .layout import FeatureLayout, shard_rows_for
from .making import make_missing
from .sources import source_stamp
from .store import Store
from .views import INFERRED
from .writer import ShardWriter


@dataclass
class ExtractReport:
    """What an extraction did.

    Attributes:
        feature_set: `encoder@key`.
        asked: items asked for.
        already: of these, committed before.
        known_failures: of these, failures of an earlier run that were not tried again.
        extracted: items asked for whose tokens this run committed.
        resumed: items beyond those asked for, which stood in the same unfinished shards.
        elsewhere: items of shards that other processes made meanwhile.
        failed: reasons by item id, of this run.
        truncated: reports longer than the context length, of this run.
        seconds: duration, the encoder's loading included.
    """

    feature_set: str
    asked: int
    already: int = 0
    known_failures: int = 0
    extracted: int = 0
    resumed: int = 0
    elsewhere: int = 0
    failed: dict[str, str] = field(default_factory=dict)
    truncated: int = 0
    seconds: float = 0.0


_GONE = "the item is no longer in the store"
_TEXT_GONE = "its text was removed from the store"
_TEXT_DAMAGED = "its text in the store is not what was put there (its sha256 differs); build its cohort again"

Progress = Callable[[int, int, int], None]
"""Called with (items done, items to do, items failed) while a run goes on."""


def extract_features(
    store: Store,
    backbone: str,
    *,
    weights: str | Path | None = None,
    variant: Mapping[str, str] | None = None,
    items: Sequence[str] | None = None,
    preset: str = "float16",
    retry_failed: bool = False,
    device: str = "auto",
    batch_size: int = 32,
    workers: int | None = None,
    on_progress: Progress | None = None,
) -> ExtractReport:
    """Embed what is missing, and only that.

    Args:
        store: an open store.
        backbone: name of an encoder (`radfs backbones` lists them).
        weights: a file to use in place of the encoder's published weights.
        variant: choices that are not to be at their default, such as {"preprocessing": "authors"}.
        items: ids to embed; None for every item of the encoder's modality.
        preset: name of the codec that the tokens are kept with, one of `codecs.CODECS`.
        retry_failed: try recorded failures again though their source is unchanged.
        device: where the encoder runs: cpu, cuda, cuda:1, ...; auto takes a GPU where there is one.
        batch_size: items a forward pass.
        workers: threads that decode and preprocess; None for the number of cores.
        on_progress: told after every batch.

    Raises:
        UnknownNameError: no such encoder or variant, or an id that the store does not know.
        DataError: nothing of this modality in the store, or the encoder's weights are not here.
        StoreError: items are still missing after several rounds, or the set was removed meanwhile.
    """
    start = time.monotonic()
    spec = resolve(backbone, weights=weights, variant=variant)
    wanted = wanted_items(store, spec, items)
    feature_set = create_feature_set(store, layout_of(spec, dtype=preset))
    before = feature_set.status(wanted)["state"]
    _refuse_removed_texts(wanted.filter(before == "missing"))
    report = ExtractReport(feature_set.name, len(wanted), already=int((before == "done").sum()))
    report.known_failures = 0 if retry_failed else int((before == "failed").sum())
    with ThreadPoolExecutor(workers or os.cpu_count() or 1) as readers:
        run = _Run(store, feature_set, spec, report, readers, device, batch_size, on_progress, set(wanted["item"]))
        make_missing(feature_set, wanted, run, retry_failed=retry_failed)
    report.seconds = time.monotonic() - start
    return report


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
    """The items to embed, columns of `STORED_SCHEMA`: these, or all of the encoder's modality. Errors as above."""
    known = list_items(store, modality=spec.modality, only=items)
    if items is not None:
        ids = pl.DataFrame({"item": list(dict.fromkeys(items))}, schema={"item": pl.String})
        strange = ids.join(known, on="item", how="anti")["item"]
        if len(strange):
            raise unknown_name(f"{spec.modality} item", strange[0], list_items(store, modality=spec.modality)["item"])
        known = ids.join(known, on="item", how="left", maintain_order="left").select(known.columns)
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


@dataclass
class _Run:
    """One extraction under way."""

    store: Store
    feature_set: FeatureSet
    spec: EncoderSpec
    report: ExtractReport
    readers: ThreadPoolExecutor
    device: str
    batch_size: int
    on_progress: Progress | None
    asked: set[str]
    sources: dict[str, dict[str, Any]] = field(default_factory=dict)
    total: int = 0
    seen: int = 0

    @cached_property
    def encoder(self) -> Encoder:
        """Loaded when something is to be encoded."""
        return build(self.spec, device=resolve_device(self.device))

    def begin(self, plans: Sequence[ShardPlan]) -> None:
        planned = [item for plan in plans for item in plan.items]
        known = list_items(self.store, modality=self.spec.modality, only=planned)
        self.sources = known.rows_by_key("item", named=True, unique=True)
        self.total += len(planned)

    def fill(self, writer: ShardWriter) -> None:
        if self.spec.modality == "text":
            self._fill_texts(writer)
        else:
            self._fill_images(writer)

    def finish(self, writer: ShardWriter, *, committed: bool) -> None:
        if not committed:
            self.report.elsewhere += len(writer.plan.items)
            return
        self.report.failed.update(writer.failed)
        made = set(writer.plan.items) - set(writer.failed)
        self.report.extracted += len(made & self.asked)
        self.report.resumed += len(made - self.asked)
        self.report.truncated += writer.truncated

    def skip(self, items: int) -> None:
        self.report.elsewhere += items
        self._tell(items)

    def _fill_images(self, writer: ShardWriter) -> None:
        blank = self.encoder.prepare(Image.new("RGB", (64, 64)))
        items = writer.plan.items
        prepared = _ahead(self.readers, self._prepare_image, items, 4 * self.batch_size)
        for start in range(0, len(items), self.batch_size):
            batch = [next(prepared) for _ in items[start : start + self.batch_size]]
            tokens = self.encoder.encode([blank if p.value is None else p.value for p in batch])
            patches = tokens.patches.cpu().numpy()
            cls = None if tokens.cls is None else tokens.cls.cpu().numpy()
            for i, source in enumerate(batch):
                _put(writer, start + i, source, patches[i], cls=None if cls is None else cls[i])
            self._tell(len(batch), writer)

    def _fill_texts(self, writer: ShardWriter) -> None:
        prepared = list(self.readers.map(self._prepare_text, writer.plan.items))
        for position, source in enumerate(prepared):
            if source.value is None:
                writer.fail(position, source.reason, content=source.content, stamp=source.stamp)
        # Reports of like length share a batch: less padding, and the order is the shard's own.
        order = sorted((i for i, p in enumerate(prepared) if p.value is not None), key=lambda i: len(prepared[i].value))
        self._tell(len(prepared) - len(order), writer)
        for start in range(0, len(order), self.batch_size):
            batch = order[start : start + self.batch_size]
            encoded = self.encoder.encode([prepared[i].value for i in batch])
            tokens, lengths = encoded.tokens.numpy(), encoded.lengths.tolist()
            for i, position in enumerate(batch):
                row = tokens[i, : lengths[i]]
                _put(writer, position, prepared[position], row, truncated=bool(encoded.truncated[i]))
            self._tell(len(batch), writer)

    def _prepare_image(self, item: str) -> "_Prepared":
        if item not in self.sources:
            return _Prepared(None, None, _GONE)
        content = None
        path = self.sources[item]["path"]
        stamp = source_stamp(path)  # before it is read: a file that changes meanwhile is then seen to have changed
        try:
            data = read_file(path)
            content = hashlib.sha256(data).hexdigest()
            return _Prepared(content, self.encoder.prepare(decode_image(data)), stamp=stamp)
        except ItemError as error:
            return _Prepared(content, None, str(error), stamp)
        except Exception as error:
            # Bytes from outside can make a decoder raise anything; a run of a million goes on all the same.
            return _Prepared(content, None, f"unexpected {type(error).__name__} while decoding", stamp)

    def _prepare_text(self, item: str) -> "_Prepared":
        if item not in self.sources:
            return _Prepared(None, None, _GONE)
        text, content = self.sources[item]["text"], self.sources[item]["text_sha256"]
        if text is None:
            return _Prepared(None, None, _TEXT_GONE)
        if text_hash(text) != content:
            return _Prepared(content, None, _TEXT_DAMAGED)
        try:
            return _Prepared(content, self.encoder.prepare(text))
        except ItemError as error:
            return _Prepared(content, None, str(error))
        except Exception as error:
            return _Prepared(content, None, f"unexpected {type(error).__name__} while tokenising")

    def _tell(self, more: int, writer: ShardWriter | None = None) -> None:
        self.seen += more
        if self.on_progress is not None:
            failed = len(self.report.failed) + (len(writer.failed) if writer is not None else 0)
            self.on_progress(self.seen, self.total, failed)


@dataclass(frozen=True)
class _Prepared:
    """One item ready for the encoder, or why it is not."""

    content: str | None
    value: Any
    reason: str = ""
    stamp: str | None = None


def _put(
    writer: ShardWriter,
    position: int,
    source: _Prepared,
    tokens: np.ndarray,
    *,
    cls: np.ndarray | None = None,
    truncated: bool = False,
) -> None:
    if source.value is None:
        writer.fail(position, source.reason, content=source.content, stamp=source.stamp)
        return
    try:
        writer.put(position, tokens, content=source.content, stamp=source.stamp, cls=cls, truncated=truncated)
    except ItemError as error:
        writer.fail(position, str(error), content=source.content, stamp=source.stamp)


def _ahead(
    pool: ThreadPoolExecutor, prepare: Callable[[str], _Prepared], items: Sequence[str], ahead: int
) -> Iterator[_Prepared]:
    """`prepare` of every item in order, at most `ahead` of them done or under way before they are asked for."""
    waiting: deque[Future[_Prepared]] = deque()
    for item in items:
        waiting.append(pool.submit(prepare, item))
        if len(waiting) >= ahead:
            yield waiting.popleft().result()
    while waiting:
        yield waiting.popleft().result()
