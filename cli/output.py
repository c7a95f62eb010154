"""Printing rows and progress: a table for people, CSV, JSON and Parquet for programs."""

import json
import math
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from featurestore.errors import DataError

if TYPE_CHECKING:
    import polars as pl


def print_frame(
    frame: "pl.DataFrame", *, csv: bool = False, as_json: bool = False, parquet: Path | None = None
) -> None:
    """Print a frame in the form asked for.

    Raises:
        DataError: more than one form asked for, or no folder to write to.
    """
    if csv + as_json + (parquet is not None) > 1:
        raise DataError("--csv, --json and --parquet exclude each other: ask for one.")
    if parquet is not None:
        write_frame(frame, parquet)
        typer.echo(f"{len(frame)} rows -> {parquet}")
    elif as_json:
        typer.echo(json.dumps(_plain(frame.to_dicts()), default=str, ensure_ascii=False, allow_nan=False))
    elif csv:
        typer.echo(_without_lists(frame).write_csv(), nl=False)
    else:
        _print_table(frame)


def write_frame(frame: "pl.DataFrame", path: Path) -> None:
    """Write a frame: CSV where the name ends so, else Parquet.

    Raises:
        DataError: no folder to write to.
    """
    if not path.absolute().parent.is_dir():
        raise DataError(f"cannot write {path}: there is no folder {path.absolute().parent}.")
    if path.suffix == ".csv":
        _without_lists(frame).write_csv(path)
    else:
        frame.write_parquet(path)


def _without_lists(frame: "pl.DataFrame") -> "pl.DataFrame":
    """The frame with lists as JSON text, for CSV has none."""
    import polars as pl

    nested = [name for name, dtype in frame.schema.items() if dtype.is_nested()]
    texts = {name: [None if v is None else json.dumps(_plain(v)) for v in frame[name].to_list()] for name in nested}
    return frame.with_columns(pl.Series(name, values, dtype=pl.String) for name, values in texts.items())


def _plain(value: Any) -> Any:
    """`value` as JSON knows it: no NaN, no infinity, whole and decimal numbers as numbers."""
    if isinstance(value, dict):
        return {key: _plain(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [_plain(inner) for inner in value]
    if isinstance(value, Decimal):
        return int(value) if value == value.to_integral_value() else float(value)
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


def _print_table(frame: "pl.DataFrame") -> None:
    numeric = [dtype.is_numeric() for dtype in frame.dtypes]
    print_lines(frame.columns, [[_cell(value) for value in row] for row in frame.iter_rows()], numeric=numeric)
    typer.echo(f"({len(frame)} row{'' if len(frame) == 1 else 's'})")


def print_lines(
    headings: Sequence[str], lines: Sequence[Sequence[str]], *, numeric: Sequence[bool] | None = None
) -> None:
    """Print cells as a table for people; `numeric` columns to the right."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(header_style="bold", box=None, pad_edge=False)
    for i, name in enumerate(headings):
        table.add_column(name, justify="right" if numeric and numeric[i] else "left", overflow="fold")
    for line in lines:
        table.add_row(*[Text(cell) for cell in line])
    # Piped to a file, a table keeps its width: a result must not be cut by a terminal that is not there.
    console = Console(soft_wrap=False, width=None if sys.stdout.isatty() else 10_000)
    console.print(table)


def _cell(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, float):
        return f"{value:.4g}"
    return str(value)


LINE_EVERY_S = 30.0
"""Between two lines of progress in a log file."""


class PlainProgress:
    """Progress as plain lines: after half a minute, every half a minute, and at the end of what took so long."""

    def __init__(self, what: str, unit: str) -> None:
        """Begin."""
        self._what, self._unit = what, unit
        self._start = self._told = time.monotonic()

    def __call__(self, done: int, total: int, failed: int) -> None:
        """So much is done."""
        now = time.monotonic()
        over = done == total and self._told > self._start
        if now - self._told < LINE_EVERY_S and not over:
            return
        self._told = now
        seconds = now - self._start
        bad = f", {failed:,} failed" if failed else ""
        left = f", about {(total - done) * seconds / done / 60:.0f} minutes left" if 0 < done < total else ""
        typer.echo(
            f"{self._what}: {done:,} of {total:,} {self._unit}{bad}, {done / seconds:.1f} a second{left}", err=True
        )


@contextmanager
def progress_bar(what: str, unit: str) -> Iterator[Callable[[int, int, int], None]]:
    """A bar on stderr with rate and time left; yields what takes (done, total, failed).

    Where stderr is no terminal, such as a log file: a line now and then, and one at the end.
    """
    if not sys.stderr.isatty():
        yield PlainProgress(what, unit)
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[rate]}"),
        TimeRemainingColumn(),
        TextColumn("{task.fields[failed]}", style="red"),
    )
    bar = Progress(*columns, console=Console(stderr=True))
    task = bar.add_task(what, total=None, rate="", failed="")

    def tell(done: int, total: int, failed: int) -> None:
        bar.start()  # not before there is something to say: an error right away would leave an empty line
        elapsed = bar.tasks[0].elapsed or 0.0
        rate = f"{done / elapsed:.1f} {unit}/s" if elapsed > 0.5 else ""
        bar.update(task, completed=done, total=total, rate=rate, failed=f"{failed} failed" if failed else "")

    try:
        yield tell
    finally:
        if bar.live.is_started:
            bar.stop()
