"""What describes a sample beside its label (sex, age), cleaned: an impossible value is left blank and named by id."""

import polars as pl

from .labels import as_numbers

OLDEST = 120
"""Years; nobody lived much longer, and what is above it in real tables is a slip (NIH ChestX-ray14 had ages of 414)."""

_SHOWN_IDS = 5
_SEXES = {"f": "F", "female": "F", "m": "M", "male": "M"}


def clean_attributes(frame: pl.DataFrame) -> tuple[pl.DataFrame, tuple[str, ...]]:
    """Sex as F or M where it is one of them, age as years from 0 to `OLDEST` or null; and a line that names odd ages.

    Args:
        frame: columns `id`, `sex` and `age`, all text.
    """
    age = as_numbers(frame["age"])
    age = age.set(~age.is_between(0, OLDEST), None)
    odd = frame.filter(frame["age"].is_not_null() & age.is_null())["id"].to_list()
    sex = pl.col("sex").str.to_lowercase().replace_strict(_SEXES, default=pl.col("sex"))
    frame = frame.with_columns(sex, age.alias("age"))
    if not odd:
        return frame, ()
    more = f" and {len(odd) - _SHOWN_IDS:,} more" if len(odd) > _SHOWN_IDS else ""
    shown = ", ".join(odd[:_SHOWN_IDS])
    return frame, (f"age left blank, no number of 0 to {OLDEST} years: {len(odd):,} samples ({shown}{more})",)
