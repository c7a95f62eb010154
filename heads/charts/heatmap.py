"""Heat map: what a method gains over its baseline, for every backbone and fraction."""

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import polars as pl

from featurestore.errors import DataError

from .layout import METRIC_NAMES, Row, assemble, check_rows, columns_for, panels_of
from .theme import DIVERGING, in_order, label

if TYPE_CHECKING:
    import altair as alt


def heatmap(
    paired: pl.DataFrame,
    *,
    of: str = "distill",
    against: str = "image",
    metric: str = "auroc",
    level: float = 0.95,
    panel: Sequence[str] = ("cohort",),
    title: str | None = None,
    caption: Sequence[str] | None = None,
    extra: Sequence[str] = (),
    columns: int | None = None,
    cell: tuple[int, int] = (76, 34),
) -> "alt.VConcatChart":
    """Mean paired difference of a metric, a cell a backbone and fraction; framed where its interval excludes 0.

    Args:
        paired: rows of the view `paired`.
        of: the method.
        against: its baseline.
        metric: auroc or auprc.
        level: of the confidence intervals over seeds, between 0 and 1.
        panel: the columns whose combinations are panels; and text_encoder, where there are several.
        title: above the panels; None: what is drawn.
        caption: lines below them; None: what a cell is.
        extra: further lines of caption.
        columns: panels side by side; None: as many as fit.
        cell: width and height of a cell in pixels.

    Raises:
        DataError: no rows, no pair of the two methods, or several pairs of one seed in a cell.
        UnknownNameError: another metric.
    """
    import altair as alt

    check_rows(paired, metric)
    pairs = paired.filter((pl.col("method") == of) & (pl.col("baseline_method") == against))
    pairs = pairs.with_columns(backbone=pl.coalesce("backbone", "baseline_backbone")).drop_nulls("backbone")
    if pairs.is_empty():
        raise DataError(f"no seed has results of both {of} and {against}. Run `radfs train` with both methods.")
    if "text_encoder" in pairs.columns and pairs["text_encoder"].n_unique() > 1:
        panel = tuple(dict.fromkeys([*panel, "text_encoder"]))
    _refuse_several(pairs, panel)
    rows = _cells(pairs, f"{metric}_difference", level, panel)
    reach = max(0.001, *(abs(row["value"]) for row in rows))
    parts = panels_of(rows, panel)
    n_columns = columns_for(len(parts), columns, most=2)
    drawn = []
    for name, part in parts:
        chart = alt.layer(*_layers(part, reach, f"{METRIC_NAMES[metric]} gained"))
        widths = len({row["fraction"] for row in part}), len({row["backbone"] for row in part})
        drawn.append(chart.properties(width=cell[0] * widths[0], height=cell[1] * widths[1], title=name))
    first, second = label("method", of), label("method", against)
    said = [
        f"{METRIC_NAMES[metric]} of {first} less that of {second}, mean over pairs with the same seed and samples.",
        f"Framed: the {100 * level:g}% confidence interval (Student t over seeds) excludes 0. Of many cells some do by "
        "chance.",
    ]
    return assemble(
        drawn,
        title=title or f"Gain of {first} over {second}",
        caption=[*(said if caption is None else caption), *extra],
        columns=n_columns,
        width=max(220, cell[0] * max(len({row["fraction"] for row in part}) for _, part in parts)),
    )


def _refuse_several(pairs: pl.DataFrame, panel: Sequence[str]) -> None:
    """A mean over several settings of one seed would take them for seeds."""
    cell = list(dict.fromkeys([*panel, "cohort", "backbone", "fraction", "seed"]))
    several = pairs.group_by(cell, maintain_order=True).len()
    several = several.filter(pl.col("len") > 1)
    if several.height:
        row = several.row(0, named=True)
        raise DataError(
            f"{row['cohort']}, {100 * row['fraction']:g}%, {row['backbone']}: {row['len']} pairs with seed "
            f"{row['seed']}, of runs whose settings differ. Choose among them with --where, by what "
            '`radfs query "FROM summary"` shows, such as "epochs = 20".'
        )


def _cells(pairs: pl.DataFrame, difference: str, level: float, panel: Sequence[str]) -> list[Row]:
    from scipy.stats import t

    keys = list(dict.fromkeys([*panel, "backbone", "fraction"]))
    column = pl.col(difference)
    means = pairs.group_by(keys).agg(
        value=column.mean(), sd=column.std(), n_seeds=column.len(), n_train=pl.col("n_train").mean()
    )
    rows = []
    for row in means.sort(keys).to_dicts():
        n, sure = row["n_seeds"], False
        if n > 1:
            half = float(t.ppf((1 + level) / 2, n - 1)) * row["sd"] / math.sqrt(n)
            sure = abs(row["value"]) > half
        rows.append({**row, "sure": sure})
    return rows


def _layers(rows: Sequence[Row], reach: float, what: str) -> list["alt.Chart"]:
    import altair as alt

    columns = [_column(row) for row in sorted(rows, key=lambda row: row["fraction"])]
    names = [label("backbone", name) for name in in_order("backbone", [row["backbone"] for row in rows])]
    data = alt.InlineData(values=[_value(row, reach) for row in rows])
    x = alt.X(
        "fraction:N",
        sort=list(dict.fromkeys(columns)),
        axis=alt.Axis(title="training samples", labelAngle=0, domain=False, ticks=False),
    )
    y = alt.Y("backbone:N", sort=names, axis=alt.Axis(title=None, domain=False, ticks=False, labelPadding=6))
    scale = alt.Scale(domain=[-reach, -reach / 2, 0, reach / 2, reach], range=list(DIVERGING))
    key = alt.Legend(title=what, format="+.3f", gradientLength=160, titleOrient="left", symbolOpacity=1)
    base = alt.Chart(data)
    tips = ["backbone:N", "fraction:N", alt.Tooltip("value:Q", format="+.4f"), "n_seeds:Q"]
    framed = base.transform_filter(alt.datum.sure)
    ink = alt.condition(alt.datum.strong, alt.value("#ffffff"), alt.value("#222222"))
    return [
        base.mark_rect().encode(x=x, y=y, color=alt.Color("value:Q", scale=scale, legend=key), tooltip=tips),
        framed.mark_rect(style="frame", fillOpacity=0).encode(x=x, y=y),
        base.mark_text(fontSize=11).encode(x=x, y=y, text=alt.Text("value:Q", format="+.3f"), color=ink),
    ]


def _column(row: Row) -> str:
    return f"{round(row['n_train']):,} ({100 * row['fraction']:g}%)"


def _value(row: Row, reach: float) -> dict[str, Any]:
    strong = abs(row["value"]) > 0.7 * reach
    kept = {name: row[name] for name in ("value", "n_seeds", "sure")}
    return {"backbone": label("backbone", row["backbone"]), "fraction": _column(row), "strong": strong, **kept}
