"""Classes from the values of a label column: as they stand, or numbers cut into bins.

Knows a column of values; not the table around it.
"""

import math
import re
from bisect import bisect_left, bisect_right
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from itertools import pairwise

import polars as pl

from featurestore.errors import DataError

MAX_CLASSES = 20
"""More distinct values than this are ids, a quantity or free text, not classes, unless somebody says so."""

_SHOWN_VALUES, _SHOWN_LENGTH = 4, 20


@dataclass(frozen=True)
class Labels:
    """Class names in order, the class of every value, and the bin edges where numbers were cut."""

    classes: tuple[str, ...]
    codes: list[int]
    edges: tuple[float, ...] | None = None


def as_classes(values: pl.Series, *, column: str, most: int = MAX_CLASSES) -> Labels:
    """Each distinct value is a class; the last in natural order is the positive one where there are two.

    Numbers are compared as numbers: "1" and "1.0" are one class, and 2 comes before 10.

    Args:
        values: strings, stripped, none missing.
        column: name for errors.
        most: how many classes there may be.

    Raises:
        DataError: one class only, or more than `most`.
    """
    numbers = as_numbers(values)
    numeric = numbers.null_count() == 0
    names = [number_text(x) for x in numbers] if numeric else values.to_list()
    distinct = set(names)
    if len(distinct) > most:
        advice = "Cut it into bins of equal size, such as --bins 5. Else" if numeric else "Is it the right column? Else"
        raise DataError(
            f"label column {column!r} has {len(distinct)} distinct {'numbers' if numeric else 'values'} in "
            f"{len(names)} rows{_frequent(names)}: more than the {most} that are taken for classes. {advice} say that "
            f"they are classes: --max-classes {len(distinct)}."
        )
    if len(distinct) < 2:
        raise DataError(
            f"label column {column!r} has one class only in the {len(names)} usable rows: there is nothing to learn. "
            "Choose another label, or more rows."
        )
    classes = tuple(sorted(distinct, key=float if numeric else _natural))
    code = {name: i for i, name in enumerate(classes)}
    return Labels(classes, [code[name] for name in names])


def as_bins(numbers: pl.Series, bins: int, *, column: str) -> Labels:
    """Cut numbers into bins that hold about equally many: bin k begins at the value of rank floor(k * n / bins).

    Bins are closed on the left, and the last one on the right too: "[0, 34)", ..., "[71, 95]". The edges are the
    smallest value, the beginnings of bins 1 and up, and the greatest value.

    Args:
        numbers: finite numbers, at least one.
        bins: how many.
        column: name for errors.

    Raises:
        DataError: `bins` < 2, or so many equal values that a bin would be empty; says how many bins are possible.
    """
    if bins < 2:
        raise DataError(f"bins {bins} is not allowed: two bins are the least.")
    ordered = sorted(numbers.to_list())
    starts = _starts(ordered, bins)
    if starts is None:
        possible = next((k for k in range(min(bins - 1, len(ordered)), 1, -1) if _starts(ordered, k)), None)
        advice = f"At most {possible} bins are possible." if possible else "No cut into bins is possible."
        raise DataError(
            f"label column {column!r} cannot be cut into {bins} equal-frequency bins: too many equal values. {advice}"
        )
    edges = (ordered[0], *starts, ordered[-1])
    texts = [number_text(x) for x in edges]
    classes = tuple(f"[{low}, {high}{']' if i == bins - 1 else ')'}" for i, (low, high) in enumerate(pairwise(texts)))
    codes = [sum(x >= start for start in starts) for x in numbers]
    return Labels(classes, codes, edges)


def quantile_edges(numbers: pl.Series, bins: int, *, column: str) -> tuple[float, ...]:
    """The edges of equal-frequency bins as `pandas.qcut` sets them: quantiles k/bins by linear interpolation.

    Raises:
        DataError: two edges fall together.
    """
    ordered = sorted(numbers.to_list())
    edges = []
    for k in range(bins + 1):
        place = Fraction(k * (len(ordered) - 1), bins)
        low = math.floor(place)
        high = min(low + 1, len(ordered) - 1)
        below, above = Fraction(ordered[low]), Fraction(ordered[high])
        edges.append(float(below + (place - low) * (above - below)))
    if len(set(edges)) <= bins:
        raise DataError(f"{column} cannot be cut into {bins} equal-frequency bins: too many equal values.")
    return tuple(edges)


def as_intervals(numbers: pl.Series, edges: Sequence[float], *, closed: str) -> Labels:
    """Classes by given edges; a value on an inner edge goes to the bin that is `closed` on that side.

    What lies below the first or above the last edge goes to the outermost bins, whose outer edges belong to them.

    Args:
        numbers: none missing.
        edges: ascending, at least three.
        closed: "left": bins [a, b). "right": bins (a, b].
    """
    inner = edges[1:-1]
    count = bisect_right if closed == "left" else bisect_left
    texts = [number_text(x) for x in edges]
    opening, closing = ("[", ")") if closed == "left" else ("(", "]")
    last = len(edges) - 2
    names = tuple(
        f"{opening if i else '['}{low}, {high}{closing if i < last else ']'}"
        for i, (low, high) in enumerate(pairwise(texts))
    )
    return Labels(names, [count(inner, x) for x in numbers], tuple(edges))


def _frequent(names: Sequence[str]) -> str:
    """The most frequent values with their counts; none that is long, for it may be a report."""
    short = [pair for pair in Counter(names).most_common() if len(pair[0]) <= _SHOWN_LENGTH][:_SHOWN_VALUES]
    return f" ({', '.join(f'{name!r} {n}' for name, n in short)}, ...)" if short else ", all of them long texts"


def as_numbers(values: pl.Series) -> pl.Series:
    """Strings as finite floats; null where a string is none."""
    numbers = values.cast(pl.Float64, strict=False)
    return numbers.set(~numbers.is_finite(), None)


def number_text(x: float) -> str:
    """A number as a class name: whole numbers without a point, others as short as they can be told apart."""
    return str(int(x)) if math.isfinite(x) and x == int(x) else repr(x)


def _starts(ordered: Sequence[float], bins: int) -> list[float] | None:
    """Where bins 1 and up begin; None if two bins would begin at one value, or bin 0 would be empty."""
    starts = [ordered[k * len(ordered) // bins] for k in range(1, bins)]
    return starts if len({ordered[0], *starts}) == bins else None


def _natural(name: str) -> tuple[list[tuple[int, int, str]], str]:
    pieces = [p for p in re.split(r"([0-9]+)", name.casefold()) if p]
    return [(0, int(p), "") if p.isdecimal() else (1, 0, p) for p in pieces], name
