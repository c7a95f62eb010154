"""What a cell of a published table may hold: parsers from text to values, each with its expectation in words.

A parser takes stripped text that is never blank and gives a value, or null where the text is none.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import polars as pl


@dataclass(frozen=True)
class Cell:
    """How one column is read.

    Attributes:
        column: its name in the file.
        expected: what a cell holds, in words that follow "is not".
        parse: see the module.
        blank: what a blank cell is: "fault", or "null": nothing is known. "ignore": nor is an unreadable one a fault.
    """

    column: str
    expected: str
    parse: Callable[[pl.Expr], pl.Expr]
    blank: str = "fault"


def pattern(column: str, regex: str, expected: str, *, blank: str = "fault") -> Cell:
    """Text of one form, such as an id; the whole cell must match."""
    return Cell(column, expected, lambda text: pl.when(text.str.contains(f"^(?:{regex})$")).then(text), blank)


def text(column: str) -> Cell:
    """Any text; blank is nothing."""
    return Cell(column, "text", lambda text: text, "null")


def whole(column: str, low: int, high: int, *, blank: str = "fault") -> Cell:
    """A whole number from `low` to `high`."""

    def parse(text: pl.Expr) -> pl.Expr:
        number = text.cast(pl.Float64, strict=False)
        fits = number.is_between(low, high) & (number == number.floor())
        return pl.when(fits).then(number).cast(pl.Int64)

    return Cell(column, f"a whole number from {low} to {high}", parse, blank)


def word(column: str, meanings: Mapping[str, object], dtype: pl.DataType, *, blank: str = "fault") -> Cell:
    """One of a few words, in any case of letters; each stands for a value."""

    def parse(text: pl.Expr) -> pl.Expr:
        return text.str.to_uppercase().replace_strict(dict(meanings), default=None, return_dtype=dtype)

    return Cell(column, f"one of {', '.join(meanings)}", parse, blank)


def day(column: str, *, blank: str = "fault") -> Cell:
    """A date as MIMIC-CXR writes it: 21800506."""

    def parse(text: pl.Expr) -> pl.Expr:
        digits = pl.when(text.str.contains(r"^\d{8}(\.0)?$")).then(text.str.slice(0, 8))
        return digits.str.to_date("%Y%m%d", strict=False)

    return Cell(column, "a date YYYYMMDD", parse, blank)


def clock(column: str, *, blank: str = "fault") -> Cell:
    """A time of day as MIMIC-CXR writes it: HHMMSS.fff without leading zeros, 80556.875 for 08:05:56."""

    def parse(text: pl.Expr) -> pl.Expr:
        number = pl.when(text.str.contains(r"^\d{1,6}(\.\d+)?$")).then(text.str.extract(r"^(\d+)"))
        return number.str.zfill(6).str.to_time("%H%M%S", strict=False)

    return Cell(column, "a time HHMMSS.fff", parse, blank)


def moment(column: str, *, blank: str = "fault") -> Cell:
    """A date and time, 2180-05-06 22:23:00; seconds, fractions and the time itself may be absent."""

    def parse(text: pl.Expr) -> pl.Expr:
        formats = ("%Y-%m-%d %H:%M:%S", "%Y-%m-%d %H:%M", "%Y-%m-%d")
        plain = text.str.replace("T", " ", literal=True).str.replace(r"\.\d+$", "")
        return pl.coalesce(plain.str.to_datetime(f, time_unit="us", strict=False) for f in formats)

    return Cell(column, "a time YYYY-MM-DD HH:MM:SS", parse, blank)
