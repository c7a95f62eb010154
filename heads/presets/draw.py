"""Drawing a preset, or any grid, from results. No torch, no store: rows of the catalog in, a chart out.

drawing = draw_preset(open_catalog(store), get_preset("fig5c"))
save_chart(drawing.chart, "fig5c.svg")
drawing.notes       # what is missing, in words
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import polars as pl

from featurestore.catalog import Catalog
from featurestore.errors import DataError, counted, unknown_name

from ..charts import bars, curves, heatmap, slopes
from ..grid import Grid
from ..measure import select_runs
from ..selection import FoundRuns, find_runs, summarise
from .preset import Preset, preset_names
from .resolve import as_flags, as_text

if TYPE_CHECKING:
    import altair as alt

_INFERRED = {
    "select": "which epoch is reported",
    "level": "the interval",
    "form": "the form of the figure",
    "backbone": "the backbones",
    "fraction": "the training sizes",
    "cohort": "the order of the panels",
    "seed": "the number of seeds",
    "epochs": "the epochs",
    "temperature": "the temperature",
    "method": "the baseline",
}
"""Inferred keys as a caption says them."""

FORMS = ("curves", "bars", "slopes", "heatmap")


@dataclass(frozen=True)
class Drawing:
    """A chart, and what is to be said about it.

    Attributes:
        chart: to be saved.
        notes: what is missing or left out.
    """

    chart: "alt.VConcatChart"
    notes: tuple[str, ...]


def draw_preset(
    catalog: Catalog,
    preset: Preset,
    *,
    overrides: Mapping[str, Any] | None = None,
    metric: str | None = None,
    level: float | None = None,
) -> Drawing:
    """A figure of the paper in the paper's form, from what the store has of its runs.

    Args:
        catalog: of the store, up to date.
        preset: a figure.
        overrides: other values for keys of its grids; the caption says so.
        metric: auroc or auprc in place of the paper's.
        level: of the intervals, in place of the paper's.

    Raises:
        DataError: a table, or no run at all; names the command that trains.
        UnknownNameError: another metric.
    """
    if preset.is_table:
        raise DataError(f"paper:{preset.name} is a table: radfs table paper:{preset.name}")
    found = find_preset_runs(catalog, preset, overrides)
    title = _title(preset, overrides or {})
    options: dict[str, Any] = dict(preset.draw.options) | {"title": title}
    chosen = metric or preset.draw.metric
    extra = [f"Not the paper's: {_words(overrides)}."] if overrides else []
    inferred = [_INFERRED.get(key, key) for key in preset.inferred if key not in (overrides or {})]
    extra += [f"The paper does not say, so it was inferred: {', '.join(inferred)}."] if inferred else []
    if found.missing:
        extra.append(f"Drawn from {found.rows.height:,} of {counted(found.expected, 'run')}.")
    train = f"Train the rest: radfs train --grid paper:{preset.name}{as_flags(overrides or {})}"
    try:
        chart = draw(catalog, found.rows, preset.draw.form, chosen, level or preset.draw.level, extra, options)
    except DataError as error:
        if not found.missing:
            raise
        raise DataError(f"paper:{preset.name}: {error} {'; '.join(map(str.strip, notes_of(found)))}. {train}") from None
    return Drawing(chart, (*notes_of(found), train) if found.missing else notes_of(found))


def _title(preset: Preset, overrides: Mapping[str, Any]) -> str:
    """The preset's, which names a cohort of the paper behind its colon; another cohort is named in its place."""
    if "cohort" in overrides:
        cohorts = overrides["cohort"]
        names = cohorts if isinstance(cohorts, str) else ", ".join(cohorts)
        return f"{preset.title.partition(': ')[0]} (as in the paper, on {names})"
    return f"{preset.title} (changed)" if overrides else preset.title


def find_preset_runs(catalog: Catalog, preset: Preset, overrides: Mapping[str, Any] | None) -> FoundRuns:
    """The runs of a preset that the store has.

    Raises:
        DataError: there is none.
    """
    found = find_runs(catalog.query("SELECT * FROM results"), preset.grids(overrides))
    if found.rows.is_empty():
        raise DataError(
            f"paper:{preset.name}: the store has none of its {counted(found.expected, 'run')}. Train them: "
            f"radfs train --grid paper:{preset.name}{as_flags(overrides or {})}"
        )
    return found


def draw_results(
    catalog: Catalog,
    form: str,
    *,
    grid: Grid | None = None,
    where: str | None = None,
    metric: str = "auroc",
    level: float = 0.95,
    options: Mapping[str, Any] | None = None,
) -> Drawing:
    """A chart of whatever the store holds, or of the runs of one grid.

    Args:
        catalog: of the store, up to date.
        form: one of FORMS.
        grid: whose runs; None: all.
        where: an SQL condition on `results`.
        metric: auroc or auprc.
        level: of the intervals.
        options: further arguments of the chart, such as of and against.

    Raises:
        DataError: no run, or SQL that is refused.
        UnknownNameError: another form or metric.
    """
    if form not in FORMS:
        raise unknown_name("form of chart", form, (*FORMS, *(f"paper:{name}" for name in preset_names())))
    rows, notes = select_runs(catalog, where), ()
    if grid is not None:
        found = find_runs(rows, [grid])
        if found.rows.is_empty():
            raise DataError("the store has no run of this grid. Run `radfs train --grid FILE` first.")
        rows, notes = found.rows, notes_of(found)
    return Drawing(draw(catalog, rows, form, metric, level, (), options or {}), notes)


def draw(
    catalog: Catalog,
    rows: pl.DataFrame,
    form: str,
    metric: str,
    level: float,
    extra: Sequence[str],
    options: Mapping[str, Any],
) -> "alt.VConcatChart":
    """The chart of a form of these rows of `results`, with further lines of caption."""
    if form == "slopes":
        return slopes(rows, metric=metric, extra=extra, **options)
    if form == "heatmap":
        runs = rows["run"].implode()
        pairs = catalog.query("SELECT * FROM paired").filter(
            pl.col("run").is_in(runs) & pl.col("baseline_run").is_in(runs)
        )
        return heatmap(pairs, metric=metric, level=level, extra=extra, **options)
    chart = curves if form == "curves" else bars
    return chart(summarise(rows), metric=metric, level=level, extra=extra, **options)


def notes_of(found: FoundRuns) -> tuple[str, ...]:
    """What a drawing lacks, in words."""
    notes = []
    if found.missing:
        n = found.expected - found.rows.height
        shown = found.missing[:12]
        more = [f"  and {len(found.missing) - len(shown)} more lines"] if len(found.missing) > len(shown) else []
        notes += [f"missing: {n:,} of {counted(found.expected, 'run')}", *(f"  {line}" for line in shown), *more]
    if found.left_out:
        notes.append(f"left out: {counted(found.left_out, 'run')} on other common rows of the cohort")
    return tuple(notes)


def _words(overrides: Mapping[str, Any] | None) -> str:
    return ", ".join(f"{key} {as_text(value)}" for key, value in (overrides or {}).items())
