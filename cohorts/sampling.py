"""Seeded choices among rows, by hashes of ids: the same on every platform, for every order of the rows and library.

Knows rows with an id; not what they are.
"""

import polars as pl

from featurestore.errors import DataError
from featurestore.keys import seeded_order_key

from .flow import Flow


def places(ids: pl.Series, *, seed: int, stream: str) -> pl.Series:
    """The place of every id in a seeded random order: a text to sort by. A null has none."""
    return pl.Series([None if i is None else seeded_order_key(seed, stream, i).hex() for i in ids], dtype=pl.String)


def first_of_each(frame: pl.DataFrame, group: str, order: tuple[str, ...]) -> pl.Series:
    """Whether a row is the first of its group in this order of columns."""
    ordered = frame.with_row_index("_at").sort(*order, "_at", nulls_last=True)
    chosen = ordered.unique(group, keep="first", maintain_order=True)["_at"]
    return pl.Series("chosen", pl.select(pl.int_range(frame.height)).to_series().is_in(chosen.implode()))


def take(
    frame: pl.DataFrame, flow: Flow, n: int, *, seed: int, stream: str, step: str, reason: str, group: str | None = None
) -> pl.DataFrame:
    """Keep `n` rows at random, of the whole frame or of each value of a column; where there are fewer, all."""
    frame = frame.with_columns(places(frame["id"], seed=seed, stream=stream).alias("_place"))
    rank = pl.col("_place").rank("ordinal")
    rank = rank if group is None else rank.over(group)
    return flow.drop(frame, rank > n, step=step, reason=f"{reason} (cohort seed {seed})").drop("_place")


def down_to(
    frame: pl.DataFrame, flow: Flow, n: int | None, *, seed: int, asked: bool
) -> tuple[pl.DataFrame, tuple[str, ...]]:
    """A seeded subsample of `n` rows, None for all; with a warning where there are fewer.

    Args:
        frame: the rows.
        flow: where the step is counted.
        n: how many.
        seed: of the draw.
        asked: the user named the number, so that fewer rows are an error.

    Raises:
        DataError: fewer rows than were asked for.
    """
    if n is None:
        return frame, ()
    if frame.height < n and asked:
        raise DataError(
            f"target_n {n:,}: only {frame.height:,} rows are left to draw from. {flow.summary()} were left out."
        )
    notes = ()
    if frame.height < n:
        notes = (f"WARNING: {frame.height:,} samples, fewer than the paper's {n:,}",)
    reason = f"not among the {n:,} samples drawn at random"
    return take(frame, flow, n, seed=seed, stream="target", step="target size", reason=reason), notes
