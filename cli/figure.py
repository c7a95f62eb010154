"""`radfs figure` and `radfs table`: the paper's figures and tables, and charts of whatever the store holds."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from .options import DEFAULT_STORE, SetOption, StoreOption

if TYPE_CHECKING:
    from heads.presets.draw import Drawing
    from heads.presets.tables import Table

TABLE_FORMATS = ("markdown", "latex", "csv", "table")


def figure(
    what: Annotated[
        str,
        typer.Argument(
            help="paper:NAME (see `radfs grid list`; paper:fig4: all its panels; paper:all); or curves, bars, slopes, "
            "heatmap of the store's runs."
        ),
    ],
    *,
    set_: SetOption = None,
    grid: Annotated[
        Path | None, typer.Option("--grid", help="With curves, bars, slopes, heatmap: the runs of this grid file.")
    ] = None,
    where: Annotated[
        str | None,
        typer.Option("--where", metavar="SQL", help="Likewise: only runs of `results` for which this holds."),
    ] = None,
    of: Annotated[
        str | None, typer.Option("--of", help="With slopes and heatmap: the method.", show_default="distill")
    ] = None,
    against: Annotated[
        str | None, typer.Option("--against", help="With slopes and heatmap: its baseline.", show_default="image")
    ] = None,
    metric: Annotated[str | None, typer.Option("--metric", help="auroc or auprc.", show_default="the paper's")] = None,
    level: Annotated[
        float | None, typer.Option("--level", help="Of the intervals, such as 0.95.", show_default="the paper's")
    ] = None,
    form: Annotated[
        str | None, typer.Option("--format", help="svg, png, pdf, or html.", show_default="that of --out, or svg")
    ] = None,
    out: Annotated[Path | None, typer.Option("--out", help="The file.", show_default="./NAME.FORMAT")] = None,
    dark: Annotated[bool, typer.Option("--dark", help="For a dark page.")] = False,
    store: StoreOption = DEFAULT_STORE,
) -> None:
    """Draw a figure of the paper from the store's results, or a chart of your own. It says what is missing.

    Example: `radfs figure paper:fig5c --format pdf`
    """
    from featurestore.errors import DataError
    from featurestore.store import open_store
    from heads.catalog import open_catalog
    from heads.charts.save import check_format
    from heads.presets import parse_overrides
    from heads.presets.resolve import PREFIX

    if form is not None and out is not None and check_format(Path(f"a.{form}")) != check_format(out):
        raise DataError(f"--format {form} and --out {out} differ: give one of the two.")
    name = what.removeprefix(PREFIX)
    path = out or Path(f"{name}.{form or 'svg'}")
    check_format(path)
    asked = {"--grid": grid, "--where": where, "--of": of, "--against": against}
    given = [option for option, value in asked.items() if value is not None]
    if what.startswith(PREFIX) and given:
        raise DataError(
            f"{given[0]} does not go with a figure of the paper: use --set, or curves, bars, slopes, heatmap."
        )
    catalog, overrides = open_catalog(open_store(store)), parse_overrides(set_ or [])
    catalog.fold()
    if what.startswith(PREFIX):
        _of_paper(catalog, name, path, overrides, metric, level, dark=dark, one_file=out is not None)
        return
    options = {key: value for key, value in (("of", of), ("against", against)) if value is not None}
    drawing = _of_store(catalog, what, grid, where, overrides, metric or "auroc", level or 0.95, options)
    _save(drawing, what, path, dark=dark)


def _of_paper(
    catalog: Any,
    name: str,
    path: Path,
    overrides: dict[str, Any],
    metric: str | None,
    level: float | None,
    *,
    dark: bool,
    one_file: bool,
) -> None:
    """Draw one figure, or a file for each of several; of these, one without runs does not stop the others."""
    from featurestore.errors import DataError
    from heads.presets import get_preset, matching_presets
    from heads.presets.draw import draw_preset

    presets = [get_preset(one) for one in matching_presets(name)]
    if len(presets) > 1 and one_file:
        raise DataError(f"paper:{name} is {len(presets)} figures: leave out --out, or name one of them.")
    presets = [one for one in presets if len(presets) == 1 or not one.is_table]
    empty = 0
    for preset in presets:
        try:
            drawing = draw_preset(catalog, preset, overrides=overrides, metric=metric, level=level)
        except DataError as error:
            if len(presets) == 1:
                raise
            typer.echo(f"error: {error}", err=True)
            empty += 1
            continue
        target = path if len(presets) == 1 else path.with_stem(preset.name)
        _save(drawing, f"paper:{preset.name}", target, dark=dark)
    if empty:
        raise typer.Exit(1)


def _save(drawing: "Drawing", what: str, path: Path, *, dark: bool) -> None:
    from heads.charts import save_chart

    save_chart(drawing.chart, path, dark=dark)
    for note in drawing.notes:
        typer.echo(note)
    typer.echo(f"{what} -> {path}")


def _of_store(
    catalog: Any,
    form: str,
    grid: Path | None,
    where: str | None,
    overrides: dict[str, Any],
    metric: str,
    level: float,
    options: dict[str, str],
) -> "Drawing":
    from featurestore.errors import DataError
    from heads.grid import read_grid
    from heads.presets.draw import draw_results

    if overrides and grid is None:
        raise DataError("--set changes keys of a grid: name one with --grid, or choose runs with --where.")
    if options and form not in ("slopes", "heatmap"):
        raise DataError(f"--of and --against go with slopes and heatmap, not with {form}.")
    chosen = None if grid is None else read_grid(grid, overrides)
    return draw_results(catalog, form, grid=chosen, where=where, metric=metric, level=level, options=options)


def table(
    what: Annotated[str, typer.Argument(help="paper:NAME, such as paper:table2; see `radfs grid list`.")],
    *,
    set_: SetOption = None,
    form: Annotated[str, typer.Option("--format", help="table, markdown, latex or csv.")] = "table",
    store: StoreOption = DEFAULT_STORE,
) -> None:
    """Print a table of the paper: Tables 1 and 8 from the encoders' specs, the others from the store.

    Example: `radfs table paper:table2 --format latex`
    """
    from featurestore.errors import unknown_name
    from featurestore.store import open_store
    from heads.catalog import open_catalog
    from heads.presets import parse_overrides
    from heads.presets.resolve import one_preset
    from heads.presets.tables import preset_table

    if form not in TABLE_FORMATS:
        raise unknown_name("--format", form, TABLE_FORMATS)
    preset, overrides = one_preset(what), parse_overrides(set_ or [])
    if not (preset.is_table and preset.parts):
        print_table(preset_table(None, None, preset), form)
        return
    opened = open_store(store)
    catalog = open_catalog(opened)
    catalog.fold()
    print_table(preset_table(opened, catalog, preset, overrides), form)


def print_table(made: "Table", form: str) -> None:
    """Print a table in a form of TABLE_FORMATS; its notes to stderr where a program reads."""
    import polars as pl

    from .output import print_lines
    from .paper_table import latex_table, markdown_table

    if form == "csv":
        columns = dict(zip(made.headings, zip(*made.lines, strict=True), strict=True))
        typer.echo(pl.DataFrame(columns).write_csv(), nl=False)
    elif form == "table":
        print_lines(made.headings, made.lines)
    else:
        typer.echo((markdown_table if form == "markdown" else latex_table)(made.headings, made.lines))
    for note in made.notes:
        typer.echo(note, err=form in ("csv", "latex"))
