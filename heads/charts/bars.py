"""Bars with error bars: methods, or text encoders, side by side for every backbone (Figures 5, 6, 8 to 11, 19, 20)."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import polars as pl

from .layout import (
    METRIC_NAMES,
    PANEL,
    Row,
    assemble,
    columns_for,
    legend,
    panels_of,
    scales,
    seeds_caption,
    subtitle,
    with_intervals,
    y_limits,
)
from .series import Series, looks_of, series_of
from .theme import Look, in_order, label

if TYPE_CHECKING:
    import altair as alt

_PAGE = 1200
"""Pixels that panels side by side may take."""


def bars(
    summary: pl.DataFrame,
    *,
    metric: str = "auroc",
    level: float = 0.95,
    group: str = "backbone",
    bar: str = "method",
    panel: Sequence[str] = ("cohort", "fraction"),
    title: str | None = None,
    caption: Sequence[str] | None = None,
    extra: Sequence[str] = (),
    columns: int | None = None,
    size: tuple[int, int] | None = None,
) -> "alt.VConcatChart":
    """Mean test metric as bars with intervals over seeds, one group a backbone and one bar a method.

    The axis begins where the values do, and the caption says so: differences between methods are small against 1. A bar
    carries the shape of its method at its foot, as in the legend.

    Args:
        summary: rows of the view `summary`, all or some. Rows without a `group` (text-only) are left out.
        metric: auroc or auprc.
        level: of the confidence intervals, between 0 and 1.
        group: the column of the x axis.
        bar: the column whose values are bars of a group; text_encoder: of students, with the image-only baseline.
        panel: the columns whose combinations are panels.
        title: above the panels; None: what is drawn.
        caption: lines below them; None: seeds, intervals, epochs, axis.
        extra: further lines of caption.
        columns: panels side by side; None: as many as fit.
        size: width and height of a panel in pixels; None: as wide as its bars need.

    Raises:
        DataError: no rows.
        UnknownNameError: another metric.
    """
    import altair as alt

    rows = [row for row in with_intervals(summary, metric, level) if row[group] is not None]
    parts = panels_of(rows, panel)
    panels = [(name, part, series_of(part, x=group, line=bar, panel=panel)) for name, part in parts]
    looks = looks_of([one for _, _, series in panels for one in series])
    n_groups = max(len({row[group] for row in part}) for part in (part for _, part in parts))
    width, height = size or (max(PANEL[0], n_groups * (17 * len(looks) + 26)), PANEL[1])
    n_columns = columns_for(len(panels), columns, most=max(1, _PAGE // (width + 60)))
    key = legend(list(looks), n_columns * (width + 60))
    drawn, begins = [], []
    for name, part, series in panels:
        limits = y_limits(part)
        begins.append(limits[0])
        layers = _layers(series, looks, group=group, metric=metric, limits=limits, key=key, width=width)
        heading = alt.TitleParams(name, subtitle=subtitle(part, metric))
        drawn.append(alt.layer(*layers).properties(width=width, height=height, title=heading))
    below = seeds_caption(rows, metric, level, "Error bars") if caption is None else list(caption)
    if caption is None and max(begins) > 0:
        below.append("The axis does not begin at 0.")
    heading = title or f"Test {METRIC_NAMES[metric]} by {bar.replace('_', ' ')} and {group}"
    return assemble(drawn, title=heading, caption=[*below, *extra], columns=n_columns, width=width)


def _layers(
    series: Sequence[Series],
    looks: dict[str, Look],
    *,
    group: str,
    metric: str,
    limits: tuple[float, float],
    key: "alt.Legend",
    width: int,
) -> list["alt.Chart"]:
    import altair as alt

    values = [_bar(row, one.label, group, limits[0]) for one in series for row in one.rows]
    data = alt.InlineData(values=values)
    groups = [label(group, value) for value in in_order(group, [row[group] for one in series for row in one.rows])]
    colours, shapes, _ = scales(list(looks), list(looks.values()))
    fits = max(map(len, groups)) * 6.5 < width / len(groups)
    axis = alt.Axis(title=None, labelAngle=0 if fits else -25, domain=False, ticks=False)
    x = alt.X("group:N", sort=groups, axis=axis, scale=alt.Scale(paddingInner=0.22, paddingOuter=0.1))
    offset = alt.XOffset("line:N", sort=list(looks), scale=alt.Scale(domain=list(looks), paddingInner=0.06))
    scale = alt.Scale(domain=list(limits), zero=False, nice=False)
    said = f"mean test {METRIC_NAMES[metric]}"
    y = alt.Y("value:Q", title=said, axis=alt.Axis(tickCount=6), scale=scale)
    colour = alt.Color("line:N", scale=colours, legend=key)
    shape = alt.Shape("line:N", scale=shapes, legend=key)
    tips = [alt.Tooltip(name, title=said, format=form) for name, said, form in _TIPS]
    base = alt.Chart(data)
    with_interval = base.transform_filter("isValid(datum.low)")
    ends = alt.Y("low:Q", title=said)
    return [
        base.mark_bar().encode(x=x, xOffset=offset, y=y, y2="floor:Q", color=colour, tooltip=tips),
        with_interval.mark_rule(style="ink", strokeWidth=1.4).encode(x=x, xOffset=offset, y=ends, y2="high:Q"),
        with_interval.mark_tick(style="ink", width=7, thickness=1.4).encode(x=x, xOffset=offset, y=ends),
        with_interval.mark_tick(style="ink", width=7, thickness=1.4).encode(
            x=x, xOffset=offset, y=alt.Y("high:Q", title=said)
        ),
        base.mark_point(filled=True, color="#ffffff", size=38, opacity=1, yOffset=-9).encode(
            x=x, xOffset=offset, y=alt.Y("floor:Q", title=said), shape=shape
        ),
    ]


_TIPS = (
    *(("group:N", "of", ""), ("line:N", "bar", ""), ("n_train:Q", "training samples", ",")),
    *(("value:Q", "mean", ".3f"), ("low:Q", "interval from", ".3f"), ("high:Q", "to", ".3f")),
    *(("n_seeds:Q", "seeds", ""), ("epochs:Q", "epochs", "")),
)


def _bar(row: Row, name: str, group: str, floor: float) -> dict[str, Any]:
    kept = ("value", "low", "high", "n_seeds", "n_train", "epochs")
    return {"group": label(group, row[group]), "line": name, "floor": floor, **{name: row[name] for name in kept}}
