"""What all charts share: rows with intervals, panels, scales, captions, and putting panels together."""

import math
import textwrap
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import polars as pl

from featurestore.errors import DataError, unknown_name

from ..schema import STATISTICS
from .theme import DASHES, Look, in_order, label

if TYPE_CHECKING:
    import altair as alt

METRIC_NAMES = {"auroc": "AUROC", "auprc": "AUPRC"}
PANEL = (300, 230)
"""Width and height of a panel in pixels."""

Row = dict[str, Any]


def check_rows(frame: pl.DataFrame, metric: str, known: Sequence[str] = STATISTICS) -> None:
    """Rows there are, and the metric is one of those that the tables hold.

    Raises:
        DataError: no rows.
        UnknownNameError: another metric.
    """
    if metric not in known:
        raise unknown_name("metric", metric, known)
    if frame.is_empty():
        raise DataError("there are no results to draw. Run `radfs train --grid grid.toml` first.")


def with_intervals(summary: pl.DataFrame, metric: str, level: float) -> list[Row]:
    """Rows of the view `summary` with `value`, `low` and `high`: mean and Student t interval over seeds.

    The interval is cut to what the metric can be, 0 to 1; `low` and `high` are None for one seed.
    """
    from scipy.stats import t

    check_rows(summary, metric)
    if not 0 < level < 1:
        raise DataError(f"the level {level} of an interval is not allowed: give a number between 0 and 1.")
    rows = []
    for row in summary.to_dicts():
        mean, low, high = row[f"{metric}_mean"], None, None
        if row["n_seeds"] > 1:
            half = float(t.ppf((1 + level) / 2, row["n_seeds"] - 1)) * row[f"{metric}_sd"] / math.sqrt(row["n_seeds"])
            low, high = max(0.0, mean - half), min(1.0, mean + half)
        rows.append({**row, "value": mean, "low": low, "high": high})
    return rows


def panels_of(rows: Sequence[Row], by: Sequence[str]) -> list[tuple[str, list[Row]]]:
    """Title and rows of every panel: one for each combination of the columns `by` that there is."""
    found: list[tuple[str, list[Row]]] = []

    def divide(rows: Sequence[Row], left: Sequence[str], titles: tuple[str, ...]) -> None:
        if not left:
            found.append((", ".join(titles), list(rows)))
            return
        column, *rest = left
        for value in in_order(column, [row[column] for row in rows]):
            divide([row for row in rows if row[column] == value], rest, (*titles, label(column, value)))

    divide(rows, by, ())
    return found


def subtitle(rows: Sequence[Row], metric: str) -> str:
    """What the metric means for the classes of these rows, and the training samples of one fraction."""
    n_classes = {len(row["classes"]) for row in rows}
    kind = "two classes" if n_classes == {2} else f"{max(n_classes)} classes, {METRIC_NAMES[metric]} micro-averaged"
    if len({row["fraction"] for row in rows}) > 1:
        return kind
    return f"{kind}; {between([row['n_train'] for row in rows], '{:,.0f}'.format)} training samples"


def y_limits(rows: Sequence[Row], *, include: float | None = None) -> tuple[float, float]:
    """Ends of an axis of a metric: multiples of 0.05, 0.02 or 0.01 around all intervals."""
    ends = [end for row in rows for end in (row["value"], row.get("low"), row.get("high")) if end is not None]
    if include is not None:
        ends.append(include)
    low, high = min(ends), max(ends)
    step = 0.05 if high - low > 0.2 else 0.02 if high - low > 0.06 else 0.01
    pad = 0.03 * (high - low) + 0.002
    return max(0.0, math.floor((low - pad) / step) * step), min(1.0, math.ceil((high + pad) / step) * step)


def shows_chance(rows: Sequence[Row], metric: str) -> bool:
    """Whether an axis is drawn down to an AUROC of 0.5: where the values are near enough for it to help."""
    return metric == "auroc" and min(row["value"] for row in rows) < 0.65


def size_ticks(sizes: Sequence[int], width: int) -> list[int]:
    """The sizes whose labels fit on a log axis of this width in pixels; the larger of two that collide."""
    span = math.log(sizes[-1] / sizes[0]) or 1.0
    shown, last = [], math.inf
    for size in reversed(sizes):
        place = width * 0.9 * math.log(size / sizes[0]) / span
        if last - place > 6.5 * len(f"{size:,}") + 5:
            shown.append(size)
            last = place
    return shown[::-1]


def scales(labels: Sequence[str], looks: Sequence[Look]) -> tuple["alt.Scale", "alt.Scale", "alt.Scale"]:
    """Scales of colour, shape and dash, fixed for every label."""
    import altair as alt

    names = list(labels)
    return (
        alt.Scale(domain=names, range=[look.colour for look in looks]),
        alt.Scale(domain=names, range=[look.shape for look in looks]),
        alt.Scale(domain=names, range=[list(look.dash or DASHES[0]) for look in looks]),
    )


def legend(labels: Sequence[str], width: int) -> "alt.Legend":
    """A legend above the panels: one row where that fits the width in pixels, else as many columns as do."""
    import altair as alt

    widths = [len(name) * 6.6 + 40 for name in labels]
    in_one_row = sum(widths) <= width
    return alt.Legend(title=None, columns=alt.Undefined if in_one_row else max(1, int(width // max(widths))))


def assemble(
    panels: Sequence["alt.LayerChart"], *, title: str | None, caption: Sequence[str], columns: int, width: int
) -> "alt.VConcatChart":
    """Panels side by side, the title above them and the caption below, wrapped to their width."""
    import altair as alt

    lines = [line for text in caption for line in textwrap.wrap(text, max(48, int(columns * (width + 60) / 5.4)))]
    below = alt.TitleParams(lines, orient="bottom", fontSize=11, fontWeight="normal", offset=14, lineHeight=15)
    grid = alt.concat(*panels, columns=columns, title=below if lines else alt.Undefined)
    heading = alt.TitleParams(title, fontSize=16, offset=12) if title else alt.Undefined
    return alt.vconcat(grid, title=heading)


def columns_for(n_panels: int, asked: int | None, most: int = 3) -> int:
    """How many panels stand side by side: what was asked for, else a near square of at most `most`."""
    return max(1, min(asked or min(most, math.ceil(math.sqrt(n_panels))), n_panels))


def seeds_caption(rows: Sequence[Row], metric: str, level: float, interval: str) -> list[str]:
    """What values and intervals are: seeds, epochs, and how the epoch was chosen."""
    seeds = [row["n_seeds"] for row in rows]
    values = f"Mean test {METRIC_NAMES[metric]} over {between(seeds)} seed{'' if set(seeds) == {1} else 's'}."
    if set(seeds) != {1}:
        values += (
            f" {interval}: {100 * level:g}% confidence interval of that mean (Student t over seeds), cut at 0 and 1."
        )
    return [values, epochs_caption(rows)]


def epochs_caption(rows: Sequence[Row]) -> str:
    """How many epochs there were, and how the one that is drawn was chosen."""
    chosen = {
        "last": f"after the last epoch (of {between([row['epochs'] for row in rows])}): no epoch was selected",
        "inner": "of the epoch that is best on an inner validation part",
    }
    how = sorted({row.get("selected_by") or "last" for row in rows}, reverse=True)
    return f"Values {' or '.join(chosen[one] for one in how)}."


def between(values: Sequence[float], write: Callable[[float], str] = lambda value: f"{value:g}") -> str:
    """The values in words: one, or the smallest and the largest."""
    low, high = min(values), max(values)
    return write(low) if low == high else f"{write(low)} to {write(high)}"
