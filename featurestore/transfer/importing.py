"""Import: embeddings made elsewhere become a feature set, beside those that extraction makes. Never sees an encoder.

Everything that can be told without the values (ids, shapes, widths, licences) is checked before anything is written,
and what the set holds already is compared with the source first. The rest is as in extraction: whole shards, claimed,
each committed once; an item whose values are not finite is recorded as failed and the rest goes on; an import that
was interrupted resumes.
"""

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import polars as pl

from ..codecs import get_codec
from ..errors import DataError, ItemError
from ..featureset import FeatureSet, ShardPlan, create_feature_set
from ..items import list_items
from ..layout import FeatureLayout, shard_rows_for
from ..making import Target, make_missing, one_by_one
from ..reader import Features
from ..sources import file_hash, source_stamp
from ..store import Store
from ..writer import ShardWriter
from .foreign import Choice, Foreign, open_foreign
from .match import match_items

_SHARD_ROWS = 4096
"""Most rows of a shard: more than in extraction, because a kill loses seconds, not minutes."""

_CONTEXT = 512
"""Least length that a report may have in a set, so that a second cohort with longer ones still fits."""

_BATCH_BYTES = 32 * 2**20
_ELSEWHERE = "an interrupted import planned it and its source was another one; import that source again"

Progress = Callable[[int, int, int], None]
"""Called with (items done, items to do, items failed) while an import goes on."""


@dataclass
class ImportReport:
    """What an import did.

    Attributes:
        feature_set: `encoder@key`.
        in_source: items of the source.
        unknown: of these, left out because the store does not know them.
        already: of these, in the set before, with the same values.
        known_failures: of these, failed in an earlier import and no better now.
        imported: items that this import committed.
        elsewhere: items of shards that other processes made meanwhile.
        failed: reasons by item id, of this import.
        seconds: duration.
    """

    feature_set: str
    in_source: int
    unknown: int = 0
    already: int = 0
    known_failures: int = 0
    imported: int = 0
    elsewhere: int = 0
    failed: dict[str, str] = field(default_factory=dict)
    seconds: float = 0.0


def import_features(
    store: Store,
    source: Path,
    *,
    encoder: str,
    modality: Literal["image", "text"],
    revision: str | None = None,
    choice: Choice | None = None,
    dataset: str | None = None,
    licence: str | None = None,
    credentialed: bool = False,
    preset: str = "float16",
    skip_unknown: bool = False,
    on_progress: Progress | None = None,
) -> ImportReport:
    """Take embeddings made elsewhere into the store. What is in the set already is compared and left alone.

    Args:
        store: an open store that knows the items.
        source: a file or folder, one of `foreign.READERS`.
        encoder: the name under which they are found; the set is `encoder@key`.
        modality: what was embedded.
        revision: which version of the encoder, weights and preprocessing made them; another one is another set.
        choice: the file of ids, and names within a container that holds several arrays.
        dataset: put before ids that are bare keys.
        licence: of the embeddings; without it, what an export of radfs says.
        credentialed: they derive from data whose use was granted to named persons.
        preset: how the values are stored, one of `codecs.CODECS`.
        skip_unknown: leave out items that the store does not know.
        on_progress: told after every shard.

    Raises:
        DataError: the source cannot be read (`foreign.open_foreign`), its ids are unknown, its shapes or licence do not
            fit the set, or the set holds other values of an item.
        StoreError: items are still missing after several rounds, or the set was removed meanwhile.
        UnknownNameError: no such preset.
    """
    start = time.monotonic()
    get_codec(preset)
    with open_foreign(source, choice) as foreign:
        items, places = match_items(store, foreign, modality, dataset, skip_unknown=skip_unknown)
        about = {
            "licence": licence or foreign.tags.get("licence") or "not stated",
            "credentialed": credentialed or bool(foreign.tags.get("credentialed")),
        }
        layout = _layout(foreign, places, items["item"], encoder, modality, revision, about, preset)
        feature_set = create_feature_set(store, layout)
        _refuse_other_set(feature_set, layout)
        report = ImportReport(feature_set.name, len(foreign), unknown=len(foreign) - len(items))
        places_by_item = dict(zip(items["item"], places, strict=True))
        _Run(store, feature_set, foreign, places_by_item, report, on_progress).all(items)
    report.seconds = time.monotonic() - start
    return report


def _layout(
    foreign: Foreign,
    places: Sequence[int],
    items: pl.Series,
    encoder: str,
    modality: Literal["image", "text"],
    revision: str | None,
    about: dict[str, Any],
    preset: str,
) -> FeatureLayout:
    """The layout that holds the source's items, checked."""
    lengths = foreign.lengths[places]
    longest = int(lengths.max(initial=0))
    if not longest:
        raise DataError("the source has no embedding of any of these items.")
    what: dict[str, Any] = {"modality": modality, "dim": foreign.dim}
    if modality == "image":
        odd = np.flatnonzero((lengths != longest) & (lengths > 0))
        if len(odd):
            raise DataError(
                f"item {items[int(odd[0])]} has {lengths[odd[0]]} tokens and others {longest}: the images of one "
                "encoder have the same number of tokens."
            )
        tokens, description = longest, f"{longest} tokens x {foreign.dim}, made elsewhere"
        what["tokens"] = tokens
    else:
        if foreign.dense and longest > 1:
            raise DataError(
                f"the reports stand in an array of {longest} tokens each, so most were padded, and padding would count "
                "as words. Save the real tokens back to back, [all tokens, dim], and their N + 1 bounds as `offsets`."
            )
        tokens, description = max(_CONTEXT, 1 << (longest - 1).bit_length()), f"tokens x {foreign.dim}, made elsewhere"
    layout = FeatureLayout(
        encoder=encoder,
        modality=modality,
        dim=foreign.dim,
        tokens=tokens,
        has_cls=False,
        shard_rows=shard_rows_for(modality=modality, tokens=tokens, dim=foreign.dim, most=_SHARD_ROWS),
        what={"imported": what, "revision": revision or "not stated"},
        about={**about, "description": description},
        dtype=preset,
    )
    try:
        return FeatureLayout.from_metadata(layout.metadata())
    except ValueError as error:
        raise DataError(f"these embeddings cannot be kept: {error}.") from error


def _refuse_other_set(feature_set: FeatureSet, layout: FeatureLayout) -> None:
    """Refuse to add to a set that was there with another licence, or in which the reports do not fit."""
    for key in ("licence", "credentialed"):
        held, given = feature_set.layout.about.get(key), layout.about[key]
        if held != given:
            raise DataError(
                f"{layout.name} is there with {key} {held!r} and this import says {given!r}. Say the same "
                "(--licence, --credentialed), or give another --revision, which makes a set of its own."
            )
    if feature_set.layout.tokens < layout.tokens:
        raise DataError(
            f"{layout.name} holds reports of up to {feature_set.layout.tokens} tokens, and one here is longer. "
            "Give another --revision, which makes a set of its own."
        )


@dataclass
class _Run:
    """One import under way."""

    store: Store
    feature_set: FeatureSet
    foreign: Foreign
    places: dict[str, int]
    report: ImportReport
    on_progress: Progress | None
    sources: dict[str, dict[str, Any]] = field(default_factory=dict)
    total: int = 0
    seen: int = 0

    def all(self, items: pl.DataFrame) -> None:
        """Compare what is there, and make the rest."""
        status = self.feature_set.status(items)
        self._compare(status)
        self.report.already = int((status["state"] == "done").sum())
        better = [item for item in status.filter(pl.col("state") == "failed")["item"] if self._is_storable(item)]
        self.report.known_failures = int((status["state"] == "failed").sum()) - len(better)
        wanted = items.filter((status["state"] == "missing") | items["item"].is_in(better))
        make_missing([Target(self.feature_set, wanted)], self, retry_failed=True)

    def begin(self, plans: Sequence[ShardPlan]) -> None:
        planned = [item for plan in plans for item in plan.items]
        known = list_items(self.store, modality=self.feature_set.modality, only=planned)
        self.sources = known.rows_by_key("item", named=True, unique=True)
        self.total += len(planned)

    def fill(self, groups: Iterator[Sequence[ShardWriter]]) -> Iterator[ShardWriter]:
        return one_by_one(groups, self._fill)

    def _fill(self, writer: ShardWriter) -> None:
        for position, item in enumerate(writer.plan.items):
            if item not in self.places or item not in self.sources:
                writer.fail(position, _ELSEWHERE)  # without a hash: it counts as missing, and is taken when it comes
                continue
            content, stamp = _source_now(self.sources[item])
            try:
                writer.put(position, self.foreign.read(self.places[item]), content=content, stamp=stamp)
            except ItemError as error:
                writer.fail(position, str(error), content=content, stamp=stamp)

    def finish(self, writer: ShardWriter, *, committed: bool) -> None:
        if committed:
            asked = {item: reason for item, reason in writer.failed.items() if item in self.places}
            self.report.failed.update(asked)
            self.report.imported += len(writer.plan.items) - len(writer.failed)
        else:
            self.report.elsewhere += len(writer.plan.items)
        self._tell(len(writer.plan.items))

    def skip(self, feature_set: FeatureSet, items: int) -> None:
        self.report.elsewhere += items
        self._tell(items)

    def _tell(self, more: int) -> None:
        self.seen += more
        if self.on_progress is not None:
            self.on_progress(self.seen, self.total, len(self.report.failed))

    def _stored_form(self, item: str) -> np.ndarray:
        """The item's values as the set gives them back."""
        codec = self.feature_set.layout.codec
        return codec.decode(codec.encode(self.foreign.read(self.places[item])))

    def _is_storable(self, item: str) -> bool:
        try:
            self._stored_form(item)
        except ItemError:
            return False
        return True

    def _compare(self, status: pl.DataFrame) -> None:
        """Refuse a source that says other things of an item than the set."""
        for item, held in _stored(Features(self.feature_set, status), status):
            try:
                given = self._stored_form(item)
            except ItemError:
                given = None
            if given is None or given.shape != held.shape or given.tobytes() != held.tobytes():
                raise DataError(
                    f"item {item}: {self.feature_set.name} holds other values than this source. If another version of "
                    "the encoder made these, say so with --revision: they get a set of their own."
                )


def _stored(features: Features, status: pl.DataFrame) -> Iterator[tuple[str, np.ndarray]]:
    """The tokens of every item that the set holds, in the order of `status`."""
    items = status.filter(pl.col("state") == "done")["item"].to_list()
    layout = features.feature_set.layout
    step = max(1, _BATCH_BYTES // (layout.tokens * layout.dim * features.dtype.itemsize))
    for start in range(0, len(items), step):
        batch = items[start : start + step]
        if layout.modality == "image":
            yield from zip(batch, features.image_tokens(batch), strict=True)
        else:
            flat, offsets = features.text_tokens(batch)
            yield from zip(batch, np.split(flat, offsets[1:-1]), strict=True)


def _source_now(source: dict[str, Any]) -> tuple[str | None, str | None]:
    """(sha256 of the image file or report, stamp of the file); None where the file cannot be read."""
    if source["path"] is None:
        return source["text_sha256"], None
    stamp = source_stamp(source["path"])
    return file_hash(source["path"]), stamp
