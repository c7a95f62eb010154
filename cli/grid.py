"""`radfs grid`: the paper's figures and tables as grids."""

from typing import Annotated

import typer

from .once import App
from .options import CsvOption, JsonOption, SetOption

app = App(no_args_is_help=True, help="The paper's figures and tables as grids: list and show them.")


@app.command("list")
def list_(*, csv: CsvOption = False, as_json: JsonOption = False) -> None:
    """List the presets: what each trains, how many runs that is, and how many of its values had to be inferred.

    Runs are of the preset alone; equal runs of several presets are trained once.

    Example: `radfs grid list`
    """
    import polars as pl

    from heads.presets.show import preset_rows

    from .output import print_frame

    print_frame(pl.DataFrame(preset_rows()), csv=csv, as_json=as_json)


@app.command("show")
def show(
    name: Annotated[str, typer.Argument(help="paper:NAME, such as paper:fig5c; see `radfs grid list`.")],
    *,
    set_: SetOption = None,
) -> None:
    """Print a preset as a grid file, with a reason beside every value that the paper does not give.

    Example: `radfs grid show paper:fig5c > mine.toml`
    """
    from heads.presets import parse_overrides
    from heads.presets.resolve import one_preset
    from heads.presets.show import preset_lines

    overrides = parse_overrides(set_ or [])
    for line in preset_lines(one_preset(name), overrides):
        typer.echo(line)
