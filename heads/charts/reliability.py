"""Reliability curves: how often what was said to be so probable came true (DeGroot and Fienberg, 1983)."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import polars as pl

from .layout import PANEL, Row, assemble, check_rows, columns_for, legend, panels_of, scales
from .series import Series, looks_of, series_of
from .theme import Look

if TYPE_CHECKING:
    import altair as alt


def reliability(
    bins: pl.DataFrame,
    *,
    panel: Sequence[str] = ("cohort",),
    title: str | None = None,
    caption: Sequence[str] | None = None,
    columns: int | None = None,
    size: tuple[int, int] = (PANEL[1], PANEL[1]),
) -> "alt.VConcatChart":
    """Observed share against mean predicted probability, a point a bin and a line a method or encoder.

    Args:
        bins: one row a line and bin: `p` (mean probability), `observed` (share that came true), `n` (predictions), and
            columns of `summary` that tell the lines.
        panel: the columns whose combinations are panels.
        title: above the panels; None: what is drawn.
        caption: lines below them; None: what a point is.
        columns: panels side by side; None: as many as fit.
        size: width and height of a panel in pixels.

    Raises:
        DataError: no rows.
    """
    import altair as alt

    check_rows(bins, "auroc")
    panels = [
        (name, series_of(part, x="p", line=None, panel=panel)) for name, part in panels_of(bins.to_dicts(), panel)
    ]
    looks = looks_of([one for _, series in panels for one in series])
    n_columns = columns_for(len(panels), columns)
    key = legend(list(looks), n_columns * (size[0] + 60))
    drawn = []
    for name, series in panels:
        layers = _layers(series, looks, key)
        drawn.append(alt.layer(*layers).properties(width=size[0], height=size[1], title=name))
    below = ["A point is a bin of predicted probabilities; on the dashed line they mean what they say."]
    return assemble(
        drawn,
        title=title or "Calibration",
        caption=below if caption is None else list(caption),
        columns=n_columns,
        width=size[0],
    )


def _layers(series: Sequence[Series], looks: dict[str, Look], key: "alt.Legend") -> list["alt.Chart"]:
    import altair as alt

    data = alt.InlineData(values=[_point(row, one.label) for one in series for row in one.rows])
    scale = alt.Scale(domain=[0, 1], nice=False)
    x = alt.X("p:Q", scale=scale, axis=alt.Axis(title="predicted probability", tickCount=5))
    y = alt.Y("observed:Q", scale=scale, axis=alt.Axis(title="share that came true", tickCount=5))
    colours, shapes, dashes = scales(list(looks), list(looks.values()))
    colour = alt.Color("line:N", scale=colours, legend=key)
    shape, dash = alt.Shape("line:N", scale=shapes, legend=key), alt.StrokeDash("line:N", scale=dashes, legend=key)
    tips = [
        alt.Tooltip("line:N", title="line"),
        alt.Tooltip("p:Q", title="mean predicted", format=".3f"),
        alt.Tooltip("observed:Q", title="came true", format=".3f"),
        alt.Tooltip("n:Q", title="predictions", format=","),
    ]
    right = alt.InlineData(values=[{"p": 0, "observed": 0}, {"p": 1, "observed": 1}])
    base = alt.Chart(data)
    return [
        alt.Chart(right).mark_line(style="chance").encode(x=x, y=y),
        base.mark_line(strokeWidth=2).encode(x=x, y=y, color=colour, strokeDash=dash),
        base.mark_point(filled=True, size=45, opacity=1).encode(x=x, y=y, color=colour, shape=shape, tooltip=tips),
    ]


def _point(row: Row, name: str) -> dict[str, Any]:
    return {"line": name, **{key: row[key] for key in ("p", "observed", "n")}}
