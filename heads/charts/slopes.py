"""Slopes: each seed's value under one method after the other, to see whether all seeds agree (Figures 12 to 14)."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import polars as pl

from featurestore.errors import DataError

from .layout import METRIC_NAMES, Row, assemble, check_rows, columns_for, epochs_caption, panels_of, subtitle, y_limits
from .theme import DOWN, UP, label

if TYPE_CHECKING:
    import altair as alt


def slopes(
    results: pl.DataFrame,
    *,
    of: str = "distill",
    against: str = "image",
    methods: Sequence[str] | None = None,
    metric: str = "auroc",
    panel: Sequence[str] = ("cohort", "fraction", "backbone"),
    title: str | None = None,
    caption: Sequence[str] | None = None,
    extra: Sequence[str] = (),
    columns: int | None = None,
    size: tuple[int, int] = (150, 190),
) -> "alt.VConcatChart":
    """One line a seed through the methods, marked by whether `of` is above `against` on that seed; means as wide bars.

    Args:
        results: rows of the view `results`; one run a method, seed and panel.
        of: the method that is judged.
        against: the method that it is judged by.
        methods: the methods from left to right; None: against and of.
        metric: auroc, auprc, or their macro-averages.
        panel: the columns whose combinations are panels; and text_encoder, where there are several.
        title: above the panels; None: what is drawn.
        caption: lines below them; None: what a line is.
        extra: further lines of caption.
        columns: panels side by side; None: up to four.
        size: width and height of a panel in pixels.

    Raises:
        DataError: no rows, no seed with both methods, or several runs of one method and seed in a panel.
        UnknownNameError: another metric.
    """
    import altair as alt

    from ..schema import METRICS

    check_rows(results, metric, tuple(METRICS))
    shown = list(methods or (against, of))
    rows = [{**row, "value": row[metric]} for row in results.to_dicts() if row["method"] in shown]
    rows = _filled(_filled(rows, "backbone"), "text_encoder")
    if len({row["text_encoder"] for row in rows}) > 1:
        panel = tuple(dict.fromkeys([*panel, "text_encoder"]))
    panels = [(name, part, _seeds(name, part, of, against)) for name, part in panels_of(rows, panel)]
    panels = [one for one in panels if one[2]]
    if not panels:
        raise DataError(f"no seed has results of both {of} and {against}. Run `radfs train` with both methods.")
    n_columns = columns_for(len(panels), columns, most=4)
    width = max(size[0], 70 * (len(shown) - 1))
    name = METRIC_NAMES.get(metric, metric)
    drawn = []
    for heading, part, by_seed in panels:
        kept = [row for row in part if row["seed"] in by_seed]
        layers = _layers(kept, by_seed, shown, of, against, name, y_limits(kept))
        *where, which = heading.split(", ")
        told = alt.TitleParams(which, subtitle=[", ".join(where), subtitle(kept, metric)])
        drawn.append(alt.layer(*layers).properties(width=width, height=size[1], title=told))
    said = [
        f"One line a seed, its test {name}; wide bars: means. Each panel has an axis of its own.",
        epochs_caption([row for _, part, _ in panels for row in part]),
    ]
    return assemble(
        drawn,
        title=title or f"Test {name} seed by seed",
        caption=[*(said if caption is None else caption), *extra],
        columns=n_columns,
        width=width,
    )


def _filled(rows: Sequence[Row], column: str) -> list[Row]:
    """The rows; those whose method reads by no such encoder once for every one that others of their cohort read by."""
    known: dict[str, set[str]] = {}
    for row in rows:
        known.setdefault(row["cohort"], set()).update({row[column]} - {None})
    return [
        {**row, column: name}
        for row in rows
        for name in ([row[column]] if row[column] or not known[row["cohort"]] else sorted(known[row["cohort"]]))
    ]


def _seeds(panel: str, rows: Sequence[Row], of: str, against: str) -> dict[int, bool]:
    """The seeds of a panel that both methods have, and whether `of` is above."""
    values: dict[str, dict[int, float]] = {}
    for row in rows:
        seen = values.setdefault(row["method"], {})
        if row["seed"] in seen:
            raise DataError(
                f"{panel}: several runs of {row['method']} with seed {row['seed']}, whose settings differ. Choose "
                'among them with --where, by what `radfs query "FROM summary"` shows, such as "epochs = 20".'
            )
        seen[row["seed"]] = row["value"]
    first, second = values.get(of, {}), values.get(against, {})
    return {seed: first[seed] > second[seed] for seed in sorted(first) if seed in second}


def _layers(
    rows: Sequence[Row],
    above: dict[int, bool],
    methods: Sequence[str],
    of: str,
    against: str,
    metric: str,
    limits: tuple[float, float],
) -> list["alt.Chart"]:
    import altair as alt

    shown = [label("method", name) for name in methods if name in {row["method"] for row in rows}]
    verdicts = [f"{label('method', of)} above {label('method', against)}", "not above"]
    named = _named_seeds(rows, methods, 0.055 * (limits[1] - limits[0]))
    data = alt.InlineData(values=[_point(row, verdicts[0 if above[row["seed"]] else 1], named) for row in rows])
    axis = alt.Axis(title=None, labelAngle=-20, labelExpr="split(datum.label, ' (')[0]", domain=False)
    x = alt.X("method:N", sort=shown, scale=alt.Scale(domain=shown, type="point", padding=0.35), axis=axis)
    scale = alt.Scale(domain=list(limits), zero=False, nice=False)
    y = alt.Y("value:Q", title=f"test {metric}", axis=alt.Axis(tickCount=5), scale=scale)
    key = alt.Legend(title=None, columns=1 if sum(map(len, verdicts)) > 60 else 2)
    colour = alt.Color("verdict:N", scale=alt.Scale(domain=verdicts, range=[UP, DOWN]), legend=key)
    shape = alt.Shape("verdict:N", scale=alt.Scale(domain=verdicts, range=["circle", "triangle-down"]), legend=key)
    dash = alt.StrokeDash("verdict:N", scale=alt.Scale(domain=verdicts, range=[[1, 0], [5, 3]]), legend=key)
    base = alt.Chart(data)
    tips = ["seed:O", "method:N", alt.Tooltip("value:Q", format=".3f")]
    return [
        base.mark_tick(style="ink", width=26, thickness=3, orient="horizontal").encode(
            x=x, y=alt.Y("mean(value):Q", title=f"test {metric}")
        ),
        base.mark_line(strokeWidth=1.5).encode(x=x, y=y, detail="seed:N", color=colour, strokeDash=dash),
        base.mark_point(filled=True, size=45, opacity=1).encode(x=x, y=y, color=colour, shape=shape, tooltip=tips),
        base.mark_text(style="note", align="left", dx=9).encode(x=x, y=y, text="name:N"),
    ]


def _named_seeds(rows: Sequence[Row], methods: Sequence[str], apart: float) -> tuple[str, set[int]]:
    """The right-most method there is, and its seeds whose numbers can stand beside their points without colliding."""
    there = {row["method"] for row in rows}
    right = [name for name in methods if name in there][-1]
    named, last = set(), -1.0
    for row in sorted((row for row in rows if row["method"] == right), key=lambda row: row["value"]):
        if row["value"] - last >= apart:
            named.add(row["seed"])
            last = row["value"]
    return right, named


def _point(row: Row, verdict: str, named: tuple[str, set[int]]) -> dict[str, Any]:
    right, seeds = named
    name = f"seed {row['seed']}" if row["method"] == right and row["seed"] in seeds else ""
    kept = {key: row[key] for key in ("seed", "value")}
    return {"method": label("method", row["method"]), "verdict": verdict, "name": name, **kept}
