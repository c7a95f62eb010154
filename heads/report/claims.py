"""What the intervals allow one to claim, in words: a sentence a comparison, made from its numbers and nothing else."""

from collections.abc import Mapping, Sequence
from typing import Any

import polars as pl

from featurestore.catalog import Catalog
from featurestore.errors import DataError, UnknownNameError

from ..charts.theme import label
from ..compare import QUESTIONS, Comparison, compare
from ..stats import least_sign_flip_p
from ..views import OPTIONS
from .parts import Points, Section, Table

FEW_SEEDS = 5
"""Fewer seeds than this give an interval of Student's t that hardly says anything."""

_SQL = """SELECT cohort, backbone, fraction, seed, auroc, baseline_auroc, auroc_difference FROM paired
WHERE method = '{level}' AND baseline_method = '{against}' AND run IN (SELECT run FROM results WHERE {where})
  AND baseline_run IN (SELECT run FROM results WHERE {where}) ORDER BY ALL"""


def claims(catalog: Catalog, where: str) -> Section | None:
    """Sentences and a table for every ready-made comparison that the runs allow."""
    parts: list[Points | Table] = []
    sql: dict[str, str] = {}
    notes: dict[str, None] = {}
    commands = []
    for name, sides in QUESTIONS.items():
        try:
            by = sides.get("by", "method")
            found = compare(catalog, by=by, level=sides["level"], against=sides["against"], where=where)
        except (DataError, UnknownNameError):  # nothing to pair, such as methods that were not run
            continue
        told = _told(found)
        parts.append(Points(_title(sides), tuple(f"{setting}: {in_short(rows)}" for setting, rows in told.items())))
        lines = [f"{setting}, {sentence(row, found.level)}" for setting, rows in told.items() for row in rows]
        parts.append(Points(f"Size by size: {_title(sides)}", tuple(lines), folded=True))
        parts.append(_table(found, f"As numbers: {_title(sides)}"))
        notes |= dict.fromkeys(found.notes)
        commands.append(f"radfs compare {name}")
        if "by" not in sides:
            sql[f"each seed: {_title(sides)}"] = _SQL.format(where=where, **sides)
    if not parts:
        return None
    return Section(
        "claims",
        "What may be claimed, and what not",
        words=(
            "Each sentence is made from lines of the table under it. An interval over seeds speaks of this data set "
            "under other seeds. An interval over patients speaks of other patients of the same kind, and is the one "
            "that a claim about a method needs. Neither speaks of other hospitals, scanners or years.",
        ),
        parts=(*parts, Points("What the columns of the tables mean, and warnings", tuple(notes))),
        sql=sql,
        commands=tuple(commands),
    )


def _told(found: Comparison) -> dict[str, list[dict[str, Any]]]:
    """The lines of every cohort and choice of encoders and head, each with its verdict."""
    groups: dict[str, list[dict[str, Any]]] = {}
    apart = _apart(found.table)
    for row in found.table.to_dicts():
        setting = ", ".join([_setting(row), *(f"{name.replace('_', ' ')} {row[name]}" for name in apart)])
        groups.setdefault(setting, []).append({**row, "verdict": _verdict(row, 1 - found.level)})
    return groups


def _apart(table: pl.DataFrame) -> list[str]:
    """The options, of either side, in which lines of one setting and fraction differ."""
    others = [option for option in OPTIONS if option != "head"]
    options = [name for option in others for name in (option, f"baseline_{option}") if name in table.columns]
    which = ["cohort", "backbone", "text_encoder", "head", "fraction", "fixed_split"]
    which = [name for name in which if name in table.columns]
    differing = table.group_by(which).agg(pl.col(options).n_unique()).select(pl.col(options).max() > 1)
    return [name for name in options if differing[name][0]]


def in_short(rows: Sequence[Mapping[str, Any]]) -> str:
    """What the lines of one setting come to: the span of the differences, and which sizes allow which claim.

    Args:
        rows: of `Comparison.table`, with the name of their verdict, `verdict`.
    """
    differences = [row["difference"] for row in rows if row.get("difference") is not None]
    if not differences:
        return "no seed has a value for both."
    ends = sorted({f"{difference:+.3f}" for difference in (min(differences), max(differences))}, key=float)
    said = [f"{' to '.join(ends)} AUROC."]
    for verdict, words in _IN_SHORT.items():
        sizes = [f"{100 * row['fraction']:g}%" for row in rows if row["verdict"] == verdict]
        if sizes:
            said.append(f"{words} at {'every size' if len(sizes) == len(rows) else ', '.join(sizes)}.")
    return " ".join(said)


def sentence(row: Mapping[str, Any], level: float) -> str:
    """What one line of a comparison allows one to say.

    Args:
        row: of `Comparison.table`.
        level: confidence level of the intervals.
    """
    n, difference = row["n_seeds"], row.get("difference")
    said = f"{100 * row['fraction']:g}% of the training samples"
    if difference is None:
        return f"{said}: no seed has a value for both, so nothing can be said."
    said += f" ({row['n_train']:,.0f}): {_by(difference)}"
    seeds, patients = _ends(row, "seeds"), _ends(row, "patients")
    if seeds is None:
        return f"{said} on the one seed there is. Another seed may turn it round: nothing can be claimed."
    spans = f"over {n} seeds {_span(seeds)}, over patients {_span(patients) if patients else 'none'}"
    few = f" {n} seeds are too few for any claim." if n < FEW_SEEDS else ""
    words = _WORDS[_verdict(row, 1 - level)]
    finds = row.get("detectable")
    if words == _WORDS["none"] and finds:
        words += f" A true difference of {finds:.3f} would be found 8 times in 10, a smaller one less often."
    return f"{said} ({level:.0%} intervals: {spans}). {words}{few}"


_WORDS = {
    "holds": "Both intervals exclude 0: it holds for other seeds, and likely for other patients of the same kind.",
    "few": "Both intervals exclude 0. With so few seeds no sign-flip test can bear that out: train more.",
    "hint": "Both intervals exclude 0, but not after Holm's correction over the lines of the table: a hint.",
    "here": "In this data set it does not hang on the seed. Whether other patients would show it is open: that "
    "interval contains 0.",
    "here alone": "In this data set it does not hang on the seed. Whether other patients would show it is open: there "
    "is no interval for that.",
    "turns": "The interval over seeds contains 0, so other seeds may turn it round: no claim.",
    "none": "No difference is shown, nor that there is none.",
    "": "Nothing can be claimed from one seed.",
}
"""What a line allows one to say, by the name of its verdict."""

_IN_SHORT = {
    "holds": "It holds for other seeds, and likely for other patients,",
    "few": "Both intervals exclude 0, with too few seeds to bear it out,",
    "hint": "A hint, not more,",
    "here": "Shown for this data set alone, open for other patients,",
    "here alone": "Shown for this data set alone",
    "turns": "Other seeds may turn it round",
    "none": "No difference is shown, nor that there is none,",
    "": "Nothing can be claimed",
}
"""The same for several sizes together."""


def _verdict(row: Mapping[str, Any], alpha: float) -> str:
    """The name of what a line allows one to say: a key of `_WORDS`."""
    seeds, patients = _ends(row, "seeds"), _ends(row, "patients")
    if seeds is None:
        return ""
    if _excludes(seeds) and patients is not None and _excludes(patients):
        if row["patients_p_holm"] >= alpha:
            return "hint"
        return "few" if least_sign_flip_p(row["n_seeds"]) > alpha else "holds"
    if _excludes(seeds):
        return "here" if patients else "here alone"
    return "turns" if patients is not None and _excludes(patients) else "none"


def _title(sides: Mapping[str, str]) -> str:
    kind = sides.get("by", "method")
    return f"{label(kind, sides['level'])} against {label(kind, sides['against'])}"


def _setting(row: Mapping[str, Any]) -> str:
    """The cohort, encoders and head of a line."""
    encoders = []
    for kind in ("backbone", "text_encoder"):
        name = row.get(kind) or row.get(f"baseline_{kind}")
        encoders += [label(kind, name)] if name else []
    head = f", {row['head']} head" if row.get("head") not in (None, "attention") else ""
    return f"{row['cohort']}, {' + '.join(encoders)}{head}"


def _by(difference: float) -> str:
    if abs(difference) < 0.0005:
        return "level to three digits of AUROC"
    return f"{'above' if difference > 0 else 'below'} by {abs(difference):.3f} AUROC"


def _ends(row: Mapping[str, Any], over: str) -> tuple[float, float] | None:
    low, high = row.get(f"{over}_low"), row.get(f"{over}_high")
    return None if low is None or high is None else (low, high)


def _excludes(ends: tuple[float, float]) -> bool:
    return ends[0] > 0 or ends[1] < 0


def _span(ends: tuple[float, float]) -> str:
    return f"{ends[0]:+.3f} to {ends[1]:+.3f}"


_WHICH = ("cohort", "backbone", "text_encoder", "head", "fraction", "n_train", "n_seeds")
_NUMBERS = ("value", "baseline_value", "difference", "seeds_p", "patients_p", "patients_p_holm", "detectable")


def _table(found: Comparison, title: str) -> Table:
    rows = found.table.to_dicts()
    which = [name for name in _WHICH if any(row.get(name) is not None for row in rows)]
    lines = []
    for row in rows:
        cells = [
            "" if row[name] is None else f"{row[name]:g}" if name in _WHICH[4:] else str(row[name]) for name in which
        ]
        spans = ["" if ends is None else _span(ends) for ends in (_ends(row, "seeds"), _ends(row, "patients"))]
        numbers = ["" if row.get(name) is None else f"{row[name]:.3f}" for name in _NUMBERS]
        lines.append((*cells, *numbers[:3], *spans, *numbers[3:]))
    headings = (*which, *_NUMBERS[:3], "seeds_low to seeds_high", "patients_low to patients_high", *_NUMBERS[3:])
    numeric = tuple(name not in _WHICH[:4] for name in headings)
    return Table(title, headings, tuple(lines), numeric, folded=True)
