"""Export: the tokens of a feature set as a file that other tools open. The licence travels with them.

    F.npy          rows in the order of item ids: [N, n, d], class tokens [N, d]; beside it F.ids.txt (one id a line)
                   and F.json. Reports are ragged, and padding them would pass off filler as words: theirs is the flat
                   [all tokens, d], report i being the rows F.offsets.npy[i] to F.offsets.npy[i + 1]
    F.parquet      columns `item` and `embedding`, a list of d or a list of such lists
    F.hf or F/     a folder that `datasets.load_dataset` opens: README.md and data/*.parquet
    F.safetensors  `embeddings`, for reports `offsets` as with .npy; the ids in the metadata, a JSON list

Each of them can be imported again (`importing`) and gives the same bytes. Knows no cohorts: whoever calls says which
licences the data of the items have, and what is not known to be open is not exported without the user's word.
"""

import re
import shutil
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import DataError, unknown_name
from ..featureset import FeatureSet, find_feature_sets, list_feature_sets
from ..fsio import fsync_folder
from ..reader import Features, open_features
from ..store import Store
from .files import WRITERS, Batch, Shape, Writer

_BATCH_BYTES = 16 * 2**20
"""Of one batch. Writing nested lists as Parquet takes ten times as much for a moment."""

_OPEN_LICENCE = re.compile(
    r"(CC0|CC-BY|CC-BY-SA|CC-BY-ND|CC-BY-NC|CC-BY-NC-SA|CC-BY-NC-ND|PDDL|ODC-BY|ODBL|APACHE|BSD-2-CLAUSE|BSD-3-CLAUSE)"
    r"(-\d\.\d)?|MIT|PUBLIC-DOMAIN"
)
"""What anybody may pass on, if under conditions. Matched as a whole: what is added to it may take it back."""

Progress = Callable[[int, int], None]
"""Called with (items written, items to write) while an export goes on."""


@dataclass
class ExportReport:
    """What an export did.

    Attributes:
        feature_set: `encoder@key`.
        files: what was made.
        items: items exported.
        without_tokens: items asked for that the set has no tokens of.
        licence: of the encoder's weights, as far as it is known.
        data_licences: of the data, by cohort.
        seconds: duration.
    """

    feature_set: str
    files: list[Path]
    items: int
    without_tokens: int
    licence: str
    data_licences: dict[str, str]
    seconds: float = 0.0


def export_features(
    store: Store,
    backbone: str,
    out: str | Path,
    *,
    licences: Callable[[list[str], str], Mapping[str, str]],
    items: Sequence[str] | None = None,
    view: int = 0,
    cls: bool = False,
    have_the_right: bool = False,
    on_progress: Progress | None = None,
) -> ExportReport:
    """Write the tokens of a feature set to a file, by the ending of its name.

    Args:
        store: an open store.
        backbone: an encoder, or a feature set `encoder@key`.
        out: the file, or a folder ending in `.hf` or `/`. It must not exist.
        licences: gives the licences of the data that these items (of this modality) are, by cohort.
        items: ids; None for all that have tokens. They are written in the order of ids.
        view: 0 is the clean one.
        cls: the class tokens in place of the patch tokens.
        have_the_right: the user may pass on what is not known to be open.
        on_progress: told after every batch.

    Raises:
        UnknownNameError: no such feature set.
        DataError: several sets of this encoder, nothing to export, `out` exists or has an unknown ending, or the data
            are not known to be open and `have_the_right` was not said; names the licence and the cohort.
    """
    start = time.monotonic()
    target, writer_class = _target(str(out))
    feature_set = _feature_set(store, backbone)
    features = open_features(store, feature_set.name, view=view, only=items)
    ids = features.items
    if not ids:
        raise DataError(f"feature set {feature_set.name} has no tokens of these items in view {view}.")
    if cls and not feature_set.layout.has_cls:
        raise DataError(f"feature set {feature_set.name} has no class token: leave --cls away.")
    found = dict(licences(ids, feature_set.modality))
    closed = _closed(feature_set, found)
    if closed and not have_the_right:
        raise DataError(
            f"{'; '.join(closed)}. Embeddings of such data are derived data and fall under the same terms. If you may "
            "pass them on to whoever gets the file, say so with --i-have-the-right; if the data are open, state their "
            "licence when you build the cohort (--licence CC0-1.0)."
        )
    about = _document(features, cls=cls, items=len(ids), licences=found, credentialed=bool(closed))
    files = _write(features, ids, writer_class, target, about, cls=cls, on_progress=on_progress)
    missing = 0 if items is None else len(set(items)) - len(ids)
    licence = str(about["licence"])
    return ExportReport(feature_set.name, files, len(ids), missing, licence, found, time.monotonic() - start)


def is_open(licence: str) -> bool:
    """Whether a licence, as somebody stated it, is known to let anybody pass the data on."""
    stated = licence.strip().upper().removesuffix("(SYNTHETIC)").strip()
    return _OPEN_LICENCE.fullmatch(re.sub(r"[\s_]+", "-", stated)) is not None


def _target(out: str) -> tuple[Path, type[Writer]]:
    ending = ".hf" if out.endswith("/") else Path(out).suffix.lower()
    if ending not in WRITERS:
        raise DataError(f"--out {out}: the ending says the format; known: {', '.join(WRITERS)}, or a folder's `/`.")
    target = Path(out).absolute()
    if not target.parent.is_dir():
        raise DataError(f"there is no folder {target.parent}.")
    for path in (target, *WRITERS[ending].beside(target)):
        if path.exists():
            raise DataError(f"{path} exists. Name another file, or remove it.")
    return target, WRITERS[ending]


def _feature_set(store: Store, name: str) -> FeatureSet:
    found = find_feature_sets(store, name)
    if not found:
        raise unknown_name("feature set", name, [s.name for s in list_feature_sets(store)])
    if len(found) > 1:
        raise DataError(f"the store has several sets of {name}: {', '.join(s.name for s in found)}. Name one of them.")
    return found[0]


def _closed(feature_set: FeatureSet, licences: Mapping[str, str]) -> list[str]:
    """Why the data are not known to be open, one reason each."""
    closed: dict[str, list[str]] = {}
    for cohort, licence in licences.items():
        if not is_open(licence):
            closed.setdefault(licence, []).append(cohort)
    reasons = [
        f"cohort{'' if len(cohorts) == 1 else 's'} {', '.join(cohorts)} {'has' if len(cohorts) == 1 else 'have'} the "
        f"licence {licence!r}, which is not known to be open"
        for licence, cohorts in closed.items()
    ]
    if not licences:
        reasons.append("nobody says which licence the data have")
    if feature_set.layout.about.get("credentialed"):
        licence = feature_set.layout.about.get("licence")
        reasons.append(f"{feature_set.name} was imported as derived from credentialed data (licence: {licence})")
    return reasons


def _document(
    features: Features, *, cls: bool, items: int, licences: dict[str, str], credentialed: bool
) -> dict[str, Any]:
    """What travels with the tokens, as JSON."""
    layout = features.feature_set.layout
    return {
        "radfs_export": 1,
        "feature_set": features.name,
        "encoder": layout.encoder,
        "modality": layout.modality,
        "view": features.view,
        "array": "cls" if cls else "tokens",
        "items": items,
        "dim": layout.dim,
        "preset": layout.dtype,
        "licence": layout.about.get("licence") or "not stated",
        "data_licences": licences,
        "credentialed": credentialed,
        "revision": layout.what.get("revision"),
        "weights_sha256": layout.what.get("weights_sha256"),
        "preprocessing": layout.what.get("preprocessing"),
        "what": layout.what,
        "about": layout.about,
    }


def _write(
    features: Features,
    ids: list[str],
    writer_class: type[Writer],
    target: Path,
    about: dict[str, Any],
    *,
    cls: bool,
    on_progress: Progress | None,
) -> list[Path]:
    """Write into a temporary neighbour, batch by batch, then put the files in place."""
    layout = features.feature_set.layout
    places = features.locate(ids)
    text = layout.modality == "text"
    bounds = np.concatenate([[0], np.cumsum(places.tokens)]) if text else None
    shape = Shape(
        items=len(ids),
        tokens=None if cls or text or layout.tokens == 1 else layout.tokens,
        dim=layout.dim,
        dtype=features.dtype,
        offsets=bounds,
        bfloat16=layout.dtype == "bfloat16",
    )
    folder = target.with_name(f".{target.name}.{uuid.uuid4().hex[:12]}.partial")
    folder.mkdir()
    try:
        step = max(1, _BATCH_BYTES // (layout.tokens * layout.dim * features.dtype.itemsize))
        with writer_class(folder / target.name, ids, shape, about) as writer:
            for start in range(0, len(ids), step):
                part = places[start : start + step]
                if text:
                    batch = Batch(ids[start : start + step], *features.text_tokens(part))
                else:
                    rows = features.cls_tokens(part) if cls else features.image_tokens(part)
                    batch = Batch(ids[start : start + step], rows.reshape(len(part), *shape.row), None)
                writer.add(batch)
                if on_progress is not None:
                    on_progress(min(start + step, len(ids)), len(ids))
        return _put_in_place(folder, target.parent)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _put_in_place(folder: Path, parent: Path) -> list[Path]:
    """Give what was written its names, durably; a name that somebody took meanwhile is left alone."""
    for path in folder.rglob("*"):
        fsync_folder(path)  # opens and syncs a file just as well
    made = sorted(folder.iterdir())
    for path in made:
        if (parent / path.name).exists():
            raise DataError(f"{parent / path.name} exists: somebody made it meanwhile. Name another file.")
    final = [path.rename(parent / path.name) for path in made]
    fsync_folder(parent)
    return final
