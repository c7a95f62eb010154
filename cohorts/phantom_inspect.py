"""A miniature tree of INSPECT in the layout of June 2025, of made-up patients, with radiographs instead of CT volumes.

With the untidy parts: censored studies, studies without a label, without a CT, without an impression or a time, several
studies of one patient, values in capitals. See `phantom_mimic` for what such trees are for.
"""

import csv
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np

from featurestore.keys import stream_seed

from .phantom_draw import FINDINGS, Finding, draw_chest
from .phantom_folder import refuse_existing
from .phantom_text import write_sections

_LABELS = (
    *("impression_id", "pe_positive_nlp", "pe_positive", "pe_acute", "pe_subsegmentalonly"),
    *(f"{months}_month_{what}" for what in ("mortality", "readmission") for months in (1, 6, 12)),
    "12_month_PH",
)
_MAPPING = (
    *("impression_id", "image_id", "person_id", "procedure_DATETIME", "note_DATETIME", "note_id"),
    "procedure_occurrence_id",
)


@dataclass(frozen=True)
class InspectTree:
    """Where the tables and the radiographs lie."""

    tables: Path
    radiographs: Path


PARTS = ("inspect", "radiographs")
"""The folders of a tree."""


def inspect_tree(folder: Path, **options: Any) -> InspectTree:
    """The tree in `folder`; written with these options (`write_inspect_tree`) unless it is there."""
    if (folder / PARTS[-1]).exists():
        return InspectTree(*(folder / part for part in PARTS))
    return write_inspect_tree(folder, **options)


def write_inspect_tree(folder: Path, *, studies: int = 120, seed: int = 0, image_px: int = 64) -> InspectTree:
    """Write `folder`/inspect with its tables and `folder`/radiographs as `radfs cohort drr` would make them.

    Args:
        folder: is made; `PARTS` must not be there yet.
        studies: number of CT studies; about every third patient has two.
        seed: of everything.
        image_px: height and width of the radiographs.

    Raises:
        DataError: one of the folders is there: it may be somebody's real download.
    """
    from PIL import Image

    refuse_existing(folder, PARTS)
    tree = InspectTree(*(folder / part for part in PARTS))
    for path in (tree.tables, tree.radiographs):
        path.mkdir(parents=True, exist_ok=True)
    labels, mapping, splits, impressions = [], [], [], []
    for k in range(studies):
        rng = np.random.Generator(np.random.PCG64(stream_seed(seed, f"phantom-inspect/{k}")))
        study, image, person = 30_000 + k, f"PE{0x452000 + 17 * k:x}", 115_000_000 + k - k % 3 % 2
        findings = {f: Finding(max(0.0, float(rng.standard_normal())), 1) for f in FINDINGS}
        state = findings["cardiomegaly"].severity + findings["effusion"].severity
        row: dict[str, object] = {name: _value(rng, 0.08) for name in _LABELS}
        row |= {"impression_id": study, "pe_positive_nlp": _value(rng, 0.2), "pe_acute": ""}
        row |= {"12_month_readmission": _outcome(rng, state), "12_month_PH": _outcome(rng, state)}
        if k % 31 == 8:
            row["pe_positive_nlp"] = row["12_month_PH"] = ""
        labels.append(row)
        at = datetime(2015, 1, 1) + timedelta(minutes=int(rng.integers(2_000_000)))
        times = {"procedure_DATETIME": "" if k % 19 == 4 else at, "note_DATETIME": at}
        mapping.append({"impression_id": study, "image_id": image, "person_id": person, "note_id": k, **times})
        part = ("train", "train", "train", "valid", "test")[person % 5]
        splits.append({"impression_id": study, "split": part, "person_id": person})
        words = write_sections(rng, findings)
        impressions.append({"impression_id": study, "impressions": "" if k % 37 == 9 else words.impression})
        if k % 29 != 6:  # a few CT files are absent
            pixels = draw_chest(rng, findings, image_px)
            Image.fromarray(pixels).save(tree.radiographs / f"{image}.jpg", quality=95)
    for name, columns, rows in (
        ("labels", _LABELS, labels),
        ("study_mapping", _MAPPING, mapping),
        ("splits", ("impression_id", "split", "person_id"), splits),
        ("impressions", ("impression_id", "impressions"), impressions),
    ):
        _write_tsv(tree.tables / f"{name}_20250611.tsv", columns, rows)
    return tree


def _value(rng: np.random.Generator, share: float) -> str:
    return "TRUE" if rng.random() < share else "FALSE"


def _outcome(rng: np.random.Generator, state: float) -> str:
    """TRUE the likelier the worse the state; every sixth of the others is censored."""
    if rng.random() < min(0.9, 0.08 + 0.18 * state):
        return "TRUE"
    return "Censored" if rng.random() < 1 / 6 else "FALSE"


def _write_tsv(path: Path, columns: Sequence[str], rows: Sequence[Mapping[str, object]]) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, columns, restval="", lineterminator="\n", delimiter="\t")
        writer.writeheader()
        writer.writerows(rows)
