"""A table of numbers as people print it: what all lines share is said once, intervals are one cell, digits are few."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import polars as pl

INTERVALS = {"seeds": ("seeds_low", "seeds_high"), "patients": ("patients_low", "patients_high")}
"""Cells that two columns make."""

_P = ("seeds_p", "seeds_p_holm", "patients_p", "patients_p_holm")
_RESULTS = frozenset({"n_seeds", "value", "baseline_value", "difference", "higher", *INTERVALS, *_P, "detectable"})

_HASHES = frozenset({"teacher_setting", "baseline_teacher_setting"})
"""Shown only where nothing else tells two lines apart."""


def shared_and_lines(frame: "pl.DataFrame") -> tuple[dict[str, str], list[str], list[list[str]]]:
    """What all lines share, by column; the headings of the others; and their cells.

    Columns without any value are left out, and of a pair such as backbone and baseline_backbone that is the same in
    every line one is enough.
    """
    rows = frame.to_dicts()
    columns = [name for name in frame.columns if any(_has_value(name, row) for row in rows)]
    for name in list(columns):
        if (
            name != "value"
            and f"baseline_{name}" in columns
            and all(row[name] == row[f"baseline_{name}"] for row in rows)
        ):
            columns.remove(f"baseline_{name}")
    for cell, (low, high) in INTERVALS.items():
        if low in columns:
            columns[columns.index(low)] = cell
            columns.remove(high)
    telling = [name for name in columns if name not in _RESULTS | _HASHES]
    if len({tuple(_cell(name, row) for name in telling) for row in rows}) == len(rows):
        columns = [name for name in columns if name not in _HASHES]
    lines = [[_cell(name, row) for name in columns] for row in rows]
    varying = [i for i, name in enumerate(columns) if name in _RESULTS or len({line[i] for line in lines}) > 1]
    shared = {name: lines[0][i] for i, name in enumerate(columns) if i not in varying}
    return shared, [columns[i] for i in varying], [[line[i] for i in varying] for line in lines]


def markdown_table(headings: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    """The table in Markdown."""
    rows = [headings, ["---"] * len(headings), *lines]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |" for row in rows)


def latex_table(headings: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    """The table as a LaTeX tabular, with the rules of booktabs."""
    head, *body = (" & ".join(map(_latex, row)) + r" \\" for row in (headings, *lines))
    columns = "l" * len(headings)
    return "\n".join(
        [rf"\begin{{tabular}}{{{columns}}}", r"\toprule", head, r"\midrule", *body, r"\bottomrule", r"\end{tabular}"]
    )


def _has_value(name: str, row: dict[str, Any]) -> bool:
    return row[name] is not None and row[name] != [] and (name, row[name]) != ("n_undefined", 0)


def _cell(name: str, row: dict[str, Any]) -> str:
    if name in INTERVALS:
        low, high = (row[end] for end in INTERVALS[name])
        return "" if low is None else f"{low:.3f} to {high:.3f}"
    value = row[name]
    if not _has_value(name, row):
        return ""
    if name in _P:
        return "<0.001" if value < 0.001 else f"{value:.3f}"
    if name == "higher":
        return f"{value}/{row['n_seeds']}"
    if name in ("difference", "value", "baseline_value", "detectable", "prevalence"):
        return f"{value:.3f}"
    if isinstance(value, float):
        return f"{value:.4g}"
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)


def _latex(text: str) -> str:
    special = {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "<": r"$<$"}
    return "".join(special.get(c, f"\\{c}" if c in "&%$#_{}" else c) for c in text)
