"""Lines with bands: a metric against the number of training samples, or against the temperature of distillation."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import polars as pl

from featurestore.errors import DataError

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
    shows_chance,
    size_ticks,
    subtitle,
    with_intervals,
    y_limits,
)
from .series import Series, looks_of, series_of
from .theme import Look, label

if TYPE_CHECKING:
    import altair as alt

_X = {"n_train": "training samples (log scale)", "temperature": "temperature τ (log scale)"}

_ALONE = (440, 280)
"""Width and height of the only panel."""

_POOLED = "* If classes are equally frequent: pooled scores of unequal classes lie above 0.5 without any skill."


def curves(
    summary: pl.DataFrame,
    *,
    metric: str = "auroc",
    level: float = 0.95,
    x: str = "n_train",
    line: str | None = None,
    panel: Sequence[str] = ("cohort",),
    title: str | None = None,
    caption: Sequence[str] | None = None,
    extra: Sequence[str] = (),
    columns: int | None = None,
    size: tuple[int, int] = PANEL,
) -> "alt.VConcatChart":
    """Mean test metric against `x` on a log axis, with intervals over seeds as bands (Figures 4, 7 and 15 to 18).

    Args:
        summary: rows of the view `summary`, all or some.
        metric: auroc or auprc.
        level: of the confidence intervals, between 0 and 1.
        x: n_train, or temperature; then rows without one, such as the image-only baseline's, are level lines.
        line: the column whose values are lines; None: methods and encoders.
        panel: the columns whose combinations are panels.
        title: above the panels; None: what is drawn.
        caption: lines below them; None: seeds, intervals and epochs.
        extra: further lines of caption.
        columns: panels side by side; None: as many as fit.
        size: width and height of a panel in pixels.

    Raises:
        DataError: no rows; none with a temperature.
        UnknownNameError: another metric.
    """
    import altair as alt

    if x not in _X:
        raise DataError(f"x = {x!r} is not allowed: give n_train or temperature.")
    rows = with_intervals(summary, metric, level)
    level_rows = [row for row in rows if row.get(x) is None]
    rows = [row for row in rows if row.get(x) is not None]
    if not rows:
        raise DataError(f"no row has a {x} to draw against.")
    panels = [(name, part, series_of(part, x=x, line=line, panel=panel)) for name, part in panels_of(rows, panel)]
    looks = looks_of([one for _, _, series in panels for one in series])
    n_columns = columns_for(len(panels), columns)
    below = seeds_caption(rows + level_rows, metric, level, "Bands") if caption is None else list(caption)
    if shows_chance(rows, metric) and any(len(row["classes"]) > 2 for row in rows):
        below.append(_POOLED)
    if len(panels) == 1 and size == PANEL:
        size = _ALONE
    shared = "cohort" not in panel
    drawn = []
    for name, part, series in panels:
        levels = [row for row in level_rows if all(row[column] == part[0][column] for column in panel)]
        limits = _limits(rows + level_rows if shared else part + levels, metric)
        key = legend(list(looks), n_columns * (size[0] + 60))
        layers = _layers(series, levels, looks, x=x, line=line, metric=metric, limits=limits, key=key, size=size)
        heading = alt.TitleParams(name, subtitle=subtitle(part, metric))
        drawn.append(alt.layer(*layers).properties(width=size[0], height=size[1], title=heading))
    what = "the number of training samples" if x == "n_train" else "the temperature of distillation"
    heading = title or f"Test {METRIC_NAMES[metric]} by {what}"
    return assemble(drawn, title=heading, caption=[*below, *extra], columns=n_columns, width=size[0])


def _limits(rows: Sequence[Row], metric: str) -> tuple[float, float]:
    return y_limits(rows, include=0.5 if shows_chance(rows, metric) else None)


def _layers(
    series: Sequence[Series],
    levels: Sequence[Row],
    looks: dict[str, Look],
    *,
    x: str,
    line: str | None,
    metric: str,
    limits: tuple[float, float],
    key: "alt.Legend",
    size: tuple[int, int],
) -> list["alt.Chart"]:
    import altair as alt

    points = [_point(row, one.label, x) for one in series for row in one.rows]
    data = alt.InlineData(values=points)
    places = sorted({point["x"] for point in points})
    ticks = size_ticks(places, size[0]) if x == "n_train" else places
    axis = alt.Axis(values=ticks, format="," if x == "n_train" else "~g", title=_X[x])
    wide = 1.18 if places[0] < places[-1] else 2.0
    x_axis = alt.X(
        "x:Q", axis=axis, scale=alt.Scale(type="log", domain=[places[0] / wide, places[-1] * wide], nice=False)
    )
    scale = alt.Scale(domain=list(limits), zero=False, nice=False)
    said = f"mean test {METRIC_NAMES[metric]}"
    y_axis = alt.Y("value:Q", title=said, axis=alt.Axis(tickCount=6), scale=scale)
    colours, shapes, dashes = scales(list(looks), list(looks.values()))
    colour = alt.Color("line:N", scale=colours, legend=key)
    shape, dash = alt.Shape("line:N", scale=shapes, legend=key), alt.StrokeDash("line:N", scale=dashes, legend=key)
    tips = [alt.Tooltip(name, title=said, format=form) for name, said, form in _TIPS]
    with_band = alt.Chart(data).transform_filter("isValid(datum.low)")
    layers = [
        with_band.mark_area(opacity=0.15).encode(x=x_axis, y=alt.Y("low:Q", title=said), y2="high:Q", color=colour),
        alt.Chart(data).mark_line(strokeWidth=2).encode(x=x_axis, y=y_axis, color=colour, strokeDash=dash),
        alt.Chart(data)
        .mark_point(filled=True, size=55, opacity=1)
        .encode(x=x_axis, y=y_axis, color=colour, shape=shape, tooltip=tips),
    ]
    if len(places) == 1:
        layers[0] = with_band.mark_rule(opacity=0.6, strokeWidth=2).encode(
            x=x_axis, y=alt.Y("low:Q", title=said), y2="high:Q", color=colour
        )
    layers += [_level_line(row, line, colours, series, said) for row in levels]
    if limits[0] <= 0.5 <= limits[1] and metric == "auroc":
        layers += _chance(points[0]["n_classes"], places[-1] * wide, said)
    return layers


_TIPS = (
    *(("line:N", "line", ""), ("n_train:Q", "training samples", ","), ("x:Q", "x", "~g")),
    *(("value:Q", "mean", ".3f"), ("low:Q", "interval from", ".3f"), ("high:Q", "to", ".3f")),
    *(("n_seeds:Q", "seeds", ""), ("epochs:Q", "epochs", "")),
)


def _point(row: Row, name: str, x: str) -> dict[str, Any]:
    kept = ("value", "low", "high", "n_seeds", "n_train", "epochs")
    place = round(row[x]) if x == "n_train" else row[x]
    return {
        "x": place,
        "line": name,
        "n_classes": len(row["classes"]),
        **{name: row[name] for name in kept},
    }


def _level_line(row: Row, line: str | None, colours: "alt.Scale", series: Sequence[Series], said: str) -> "alt.Chart":
    """A dashed level line of a method that has no x, in the colour of the line of its encoder."""
    import altair as alt

    column = line or "backbone"
    names = [one.label for one in series if one.rows[0][column] == row[column]] or [label(column, row[column])]
    data = alt.InlineData(values=[{"value": row["value"], "line": names[0], "method": label("method", row["method"])}])
    return (
        alt.Chart(data)
        .mark_rule(strokeDash=[2, 3], strokeWidth=1.6)
        .encode(
            y=alt.Y("value:Q", title=said),
            color=alt.Color("line:N", scale=colours),
            tooltip=["method:N", "line:N", "value:Q"],
        )
    )


def _chance(n_classes: int, right: float, said: str) -> list["alt.Chart"]:
    """The level of chance, its name outside the panel where no line can cross it."""
    import altair as alt

    data = alt.InlineData(values=[{"value": 0.5, "x": right, "note": "chance" if n_classes == 2 else "chance*"}])
    base = alt.Chart(data)
    return [
        base.mark_rule(style="chance").encode(y="value:Q"),
        base.mark_text(style="note", align="left", dx=5).encode(x="x:Q", y="value:Q", text="note:N"),
    ]
