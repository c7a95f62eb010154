"""The comparisons that a grid file declares before it runs: one family, over which Holm's correction counts.

    [[compare]]
    method = "distill"
    against = "image"

No torch.
"""

import math
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import polars as pl

from featurestore.catalog import Catalog
from featurestore.errors import DataError, unknown_name

from .compare import Comparison, compare
from .grid import Grid, parse_grid
from .stats import holm
from .wording import notes

KEYS = ("by", "level", "method", "against", "metric", "subgroup")
"""Of a [[compare]] section; `method` is `level` by method, as on the command line."""


def compare_family(catalog: Catalog, path: Path, *, confidence: float = 0.95) -> list[Comparison]:
    """The comparisons of a grid file, on the grid's cohorts and fractions, with Holm over all of their lines.

    Args:
        catalog: of the store, up to date.
        path: the grid file.
        confidence: level of the intervals.

    Raises:
        DataError: the file cannot be read, declares no comparison or one that is refused; begins with the path.
    """
    try:
        tables = tomllib.loads(path.read_text("utf-8-sig"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise DataError(f"{path} cannot be read as a grid: {error}.") from None
    declared = tables.pop("compare", [])
    if not isinstance(declared, list) or not declared:
        raise DataError(
            f'{path} declares no comparison. Add sections [[compare]] with keys such as method = "distill" and '
            'against = "image", best before the grid runs.'
        )
    where = _where(parse_grid(tables))
    made = [compare(catalog, where=where, confidence=confidence, **_asked(section)) for section in declared]
    return _together(made, f"the family declared in {path.name}")


def _asked(section: object) -> dict[str, Any]:
    if not isinstance(section, Mapping):
        raise DataError(f"[[compare]] {section!r}: is a section with keys {', '.join(KEYS)}.")
    for key, value in section.items():
        if key not in KEYS:
            raise unknown_name("key in [[compare]]", key, KEYS)
        if not isinstance(value, (str, list)):
            raise DataError(f"[[compare]] {key} = {value!r}: must be a text.")
    asked = dict(section)
    if "method" in asked and asked.get("by", "method") == "method":
        asked["level"] = asked.pop("method")
    if "method" in asked:
        raise DataError("[[compare]] with by other than method takes level, not method.")
    subgroups = asked.pop("subgroup", [])
    return {**asked, "subgroups": [subgroups] if isinstance(subgroups, str) else subgroups}


def _where(grid: Grid) -> str:
    cohorts = ", ".join("'" + name.replace("'", "''") + "'" for name in grid.cohort)
    return f"cohort IN ({cohorts}) AND fraction IN ({', '.join(map(repr, grid.fraction))})"


def _together(made: Sequence[Comparison], family: str) -> list[Comparison]:
    """The same comparisons with Holm over the lines of all."""
    adjusted = {}
    for name in ("seeds_p", "patients_p"):
        p = pl.concat([comparison.table[name] for comparison in made]).fill_null(math.nan).to_numpy()
        adjusted[f"{name}_holm"] = pl.Series(holm(p), dtype=pl.Float64).fill_nan(None)
    result, start = [], 0
    lines = sum(comparison.table.height for comparison in made)
    for comparison in made:
        part = {name: series.slice(start, comparison.table.height) for name, series in adjusted.items()}
        start += comparison.table.height
        table = comparison.table.with_columns(**part)
        said = notes(
            table,
            metric=comparison.metric,
            by=comparison.by,
            level=comparison.level,
            epoch="chosen",
            lines=lines,
            family=family,
        )
        result.append(replace(comparison, table=table, notes=said))
    return result
