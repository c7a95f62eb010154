"""`radfs`: the command line's root, and how errors are shown.

Importing this loads typer and nothing heavy: every command imports what it needs when it runs.
"""

import os
import sys
from typing import Annotated

import typer

from . import (
    backbones,
    care,
    cohort,
    compare,
    demo,
    doctor,
    estimate,
    extract,
    figure,
    grid,
    info,
    predict,
    query,
    recode,
    report,
    runs,
    train,
    transfer,
    weights,
)
from .once import App

app = App(
    name="radfs",
    no_args_is_help=True,
    rich_markup_mode="markdown",
    pretty_exceptions_enable=False,
    help="Embed radiology images and reports once, train thousands of small heads on their tokens, ask in SQL.",
    epilog="Start with `radfs demo`. The store is --store, else $RADFS_STORE, else ./radfs-store.",
)

_show_traceback = False


def _version(value: bool) -> None:
    if value:
        from importlib.metadata import version

        typer.echo(f"radfs {version('radfs')}")
        raise typer.Exit


@app.callback()
def _root(
    context: typer.Context,
    *,
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")] = False,
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
    store: Annotated[str | None, typer.Option("--store", hidden=True)] = None,
) -> None:
    global _show_traceback
    if store is not None:
        from featurestore.errors import DataError

        command = context.invoked_subcommand or "COMMAND"
        raise DataError(f"--store stands behind the command: radfs {command} ... --store {store}")
    _show_traceback = debug


app.command("demo")(demo.demo)
app.add_typer(cohort.app, name="cohort")
app.add_typer(backbones.app, name="backbones")
app.add_typer(weights.app, name="weights")
app.command("extract")(extract.extract)
app.command("train")(train.train)
app.add_typer(grid.app, name="grid")
app.command("predict")(predict.predict)
app.command("query")(query.query)
app.command("metrics")(compare.metrics)
app.command("compare")(compare.compare)
app.command("report")(report.report)
app.command("show")(runs.show)
app.command("rerun")(runs.rerun)
app.command("figure")(figure.figure)
app.command("table")(figure.table)
app.command("info")(info.info)
app.command("estimate")(estimate.estimate)
app.command("import")(transfer.import_)
app.command("export")(transfer.export)
app.command("recode")(recode.recode)
app.command("verify")(care.verify)
app.command("gc")(care.gc)
app.command("rm")(care.rm)
app.command("reindex")(care.reindex)
app.command("doctor")(doctor.doctor)


def main() -> None:
    """The entry point: errors that a user can mend are one line on stderr and exit code 1."""
    from featurestore.errors import RadfsError

    # Must stand before torch is loaded. Threads that spin while they wait make each other 4 to 20 times slower on a
    # machine that others use too (docs/LOG.md).
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

    try:
        app()
    except RadfsError as error:
        if _show_traceback:
            raise
        typer.echo(f"error: {error}", err=True)
        sys.exit(1)
    except OSError as error:
        if _show_traceback or isinstance(error, BrokenPipeError) or error.filename is None:
            raise
        typer.echo(
            f"error: {error.filename}: {error.strerror}. Check the path, and that you may write there.", err=True
        )
        sys.exit(1)


if __name__ == "__main__":
    main()
