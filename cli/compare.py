"""`radfs compare` and `radfs metrics`: tables that can go into a paper, with what they speak about."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from .opened import open_with_catalog
from .options import DEFAULT_STORE, StoreOption

if TYPE_CHECKING:
    import polars as pl

    from heads.compare import Comparison

WhereOption = Annotated[
    str | None, typer.Option("--where", metavar="SQL", help="Only runs of the view `results` for which this holds.")
]
EpochOption = Annotated[
    str,
    typer.Option(
        "--epoch", help="chosen (as in results), or best: chosen on the test samples, so its values are too high."
    ),
]
ConfidenceOption = Annotated[
    float, typer.Option("--confidence", help="Of the intervals; 1 less this is the tests' level.")
]
FormatOption = Annotated[str, typer.Option("--format", help="table, markdown, latex, csv or json.")]
EPOCHS = ("chosen", "best")
FORMATS = ("table", "markdown", "latex", "csv", "json")


def compare(
    question: Annotated[
        str | None,
        typer.Argument(
            help="A ready-made comparison: distill-image, distill-self, distill-shuffled, student-teacher, "
            "teacher-image, teacher-text, text-image, ssl-aligned.",
            show_default=False,
        ),
    ] = None,
    *,
    by: Annotated[
        str | None, typer.Option("--by", help="What is compared: method (default), backbone, objective, head, lr, ...")
    ] = None,
    method: Annotated[
        str | None, typer.Option("--method", help="The method compared; with --by something else, the runs' method.")
    ] = None,
    level: Annotated[
        str | None, typer.Option("--level", help="The value of --by compared. Default: every one.")
    ] = None,
    against: Annotated[
        str | None, typer.Option("--against", help="The baseline. Default: image for methods, else every other value.")
    ] = None,
    grid: Annotated[
        Path | None, typer.Option("--grid", help="Print the comparisons that this grid file declares, as one family.")
    ] = None,
    metric: Annotated[str, typer.Option("--metric", help="auroc, auprc_macro, brier, sensitivity:0.95, ...")] = "auroc",
    subgroup: Annotated[
        str | None, typer.Option("--subgroup", help="One line a subgroup of the test samples: sex,age_bin,view.")
    ] = None,
    where: WhereOption = None,
    epoch: EpochOption = "chosen",
    confidence: ConfidenceOption = 0.95,
    form: FormatOption = "table",
    store: StoreOption = DEFAULT_STORE,
) -> None:
    """Paired differences between runs on the same samples and seeds, with intervals, tests and what they speak about.

    Example: `radfs compare --method distill --against image`
    """
    from heads.compare import QUESTIONS, compare

    _one_of("format", form, FORMATS)
    if grid is not None:
        _print_family(store, grid, confidence, form, others=(question, by, method, level, against, subgroup, where))
        return
    asked: dict[str, str | None] = {"by": by, "level": level, "against": against}
    if question is not None:
        from featurestore.errors import DataError, unknown_name

        if question not in QUESTIONS:
            raise unknown_name("comparison", question, QUESTIONS)
        if any((by, level, against, method)):
            raise DataError(f"{question!r} says what is compared: leave --by, --method, --level and --against out.")
        asked |= QUESTIONS[question]
    elif by in (None, "method"):
        asked["level"] = level or method
    elif method is not None:
        of_method = "method = '{}'".format(method.replace("'", "''"))
        where = f"({where}) AND {of_method}" if where else of_method
    result = compare(
        open_with_catalog(store)[1],
        by=asked["by"] or "method",
        level=asked["level"],
        against=asked["against"],
        metric=metric,
        where=where,
        subgroups=_names(subgroup),
        epoch=_one_of("epoch", epoch, EPOCHS),
        confidence=confidence,
    )
    _print(result.table, result.notes, _title(result), form)


def metrics(
    *,
    metric: Annotated[
        str,
        typer.Option(
            "--metric",
            help="Names, comma-separated; sensitivity:0.95 is at that specificity, auroc_class is of each class.",
        ),
    ] = "auroc,auprc,brier,log_loss,calibration_error,accuracy,sensitivity",
    by: Annotated[
        str | None, typer.Option("--by", help="One line a subgroup of the test samples: sex,age_bin,view.")
    ] = None,
    where: WhereOption = None,
    epoch: EpochOption = "chosen",
    confidence: ConfidenceOption = 0.95,
    form: FormatOption = "table",
    store: StoreOption = DEFAULT_STORE,
) -> None:
    """Any metric of stored predictions, with intervals, for all test samples or for subgroups. Trains nothing.

    Example: `radfs metrics --metric auroc,brier --by sex,age_bin --where "fraction = 1"`
    """
    from heads.metric_table import metric_table

    _one_of("format", form, FORMATS)

    table, notes = metric_table(
        open_with_catalog(store)[1],
        _names(metric),
        by=_names(by),
        where=where,
        epoch=_one_of("epoch", epoch, EPOCHS),
        confidence=confidence,
    )
    _print(table, notes, "", form)


def _print_family(store: str, grid: Path, confidence: float, form: str, *, others: tuple[str | None, ...]) -> None:
    import polars as pl

    from featurestore.errors import DataError
    from heads.family import compare_family

    if any(others):
        raise DataError("--grid prints what the file declares: leave every other choice of what is compared out.")
    found = compare_family(open_with_catalog(store)[1], grid, confidence=confidence)
    if form in ("csv", "json"):  # one table for programs
        tables = [one.table.with_columns(compared_by=pl.lit(one.by), metric=pl.lit(one.metric)) for one in found]
        _print(pl.concat(tables, how="diagonal_relaxed"), (), "", form)
        return
    for i, one in enumerate(found):
        typer.echo("\n" if i else "", nl=False)
        _print(one.table, one.notes, _title(one), form)


def _title(comparison: "Comparison") -> str:
    return f"difference of {comparison.metric}, {comparison.by} less baseline_{comparison.by}"


def _names(listed: str | None) -> list[str]:
    return [name.strip() for name in listed.split(",") if name.strip()] if listed else []


def _one_of(kind: str, value: str, known: tuple[str, ...]) -> str:
    from featurestore.errors import unknown_name

    if value not in known:
        raise unknown_name(kind, value, known)
    return value


def _print(table: "pl.DataFrame", notes: tuple[str, ...], title: str, form: str) -> None:
    """Programs get the whole table; people get what all lines share above it, and the notes below."""
    from .output import print_frame, print_lines
    from .paper_table import latex_table, markdown_table, shared_and_lines

    if form in ("csv", "json"):
        print_frame(table, csv=form == "csv", as_json=form == "json")
        return
    shared, headings, lines = shared_and_lines(table)
    same = "; ".join(f"{name} {value}" for name, value in shared.items())
    above = [line for line in (title, f"All lines: {same}." if same else "") if line]
    if form == "latex":
        typer.echo(
            "\n".join([*(f"% {line}" for line in above), latex_table(headings, lines), *(f"% {n}" for n in notes)])
        )
        return
    typer.echo("\n".join([*above, ""]))
    if form == "markdown":
        typer.echo(markdown_table(headings, lines))
    else:
        print_lines(headings, lines)
    for note in notes:
        typer.echo(f"\n{note}")
