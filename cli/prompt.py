"""The prompt of `radfs query`: one question after another, each over a connection that is closed again at once.

It keeps no history on disk: questions may name patients.
"""

import sys
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

import typer

if TYPE_CHECKING:
    from featurestore.catalog import Catalog

HELP = """Ask in SQL; a question may go over several lines and ends with a semicolon or an empty line.
.tables         tables and views
.columns NAME   columns of one, with their meaning
.help  .quit    (or Ctrl-D)"""

_FIRST, _MORE = "radfs> ", "  ...> "


def prompt(catalog: "Catalog") -> None:
    """Answer questions from the terminal until the end of the input; an error does not end it."""
    from featurestore.errors import RadfsError

    from .output import print_frame

    _complete_with(_names(catalog))
    typer.echo("Ask in SQL, ended by a semicolon. .tables lists what there is, .help says more, Ctrl-D leaves.")
    for question in questions(input):
        try:
            if question.startswith("."):
                _command(catalog, question)
            else:
                catalog.fold()  # what was trained meanwhile
                print_frame(catalog.query(question))
        except RadfsError as error:
            typer.echo(f"error: {error}", err=True)
        except KeyboardInterrupt:
            typer.echo("interrupted", err=True)


def questions(read: Callable[[str], str]) -> Iterator[str]:
    """The questions that lines make, until the end of the input or .quit.

    Args:
        read: gives the next line for a prompt; raises EOFError at the end, KeyboardInterrupt to begin anew.
    """
    lines: list[str] = []
    while True:
        try:
            line = read(_MORE if lines else _FIRST)
        except KeyboardInterrupt:
            typer.echo()
            lines = []
            continue
        except EOFError:
            typer.echo()
            if lines:
                yield "\n".join(lines)
            return
        if not lines and line.strip() in (".quit", ".exit", "quit", "exit"):
            return
        if not lines and line.lstrip().startswith("."):
            yield line.strip()
            continue
        if line.strip():
            lines.append(line)
        if lines and (not line.strip() or line.rstrip().endswith(";")):
            yield "\n".join(lines)
            lines = []


def _command(catalog: "Catalog", command: str) -> None:
    import polars as pl

    from featurestore.errors import unknown_name

    from .output import print_frame

    word, _, name = command.partition(" ")
    entries = {entry.name: entry for entry in (*catalog.views, *catalog.tables)}
    if word == ".help":
        typer.echo(HELP)
    elif word == ".tables":
        print_frame(
            pl.DataFrame([(e.name, e.comment) for e in entries.values()], schema=["name", "what"], orient="row")
        )
    elif word == ".columns":
        if (name := name.strip()) not in entries:
            raise unknown_name("table", name, entries)
        rows = [(c.name, c.type, c.comment) for c in entries[name].columns]
        print_frame(pl.DataFrame(rows, schema=["column", "type", "meaning"], orient="row"))
    else:
        raise unknown_name("command", word, (".tables", ".columns", ".help", ".quit"))


def _names(catalog: "Catalog") -> list[str]:
    entries = (*catalog.views, *catalog.tables)
    return sorted({entry.name for entry in entries} | {c.name for entry in entries for c in entry.columns})


def _complete_with(names: list[str]) -> None:
    """Let the tab key complete names of tables and columns, where the terminal can."""
    if not sys.stdin.isatty():
        return
    try:
        import readline
    except ImportError:  # not on every platform
        return

    def complete(text: str, state: int) -> str | None:
        found = [name for name in names if name.startswith(text)]
        return found[state] if state < len(found) else None

    readline.set_completer(complete)
    readline.parse_and_bind("tab: complete")
