"""What peers report, beside what we measured: rows of a CSV file, in a table of their own, `peer_results`.

    report = import_peer(store, "peer.csv", label="Peer et al., 2025")

One truth file a label, `peers/<name>.parquet`. Nothing of it ever enters `runs`, `results` or a comparison.
"""

import csv
import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl

from featurestore.catalog import Column, Table
from featurestore.errors import DataError, unknown_name
from featurestore.fsio import read_parquet, write_parquet
from featurestore.keys import content_key
from featurestore.store import Store

_SHOWN = 10
_BLANK = frozenset({"", "na", "n/a", "nan", "null", "none", "-"})

PEER_RESULTS = Table(
    name="peer_results",
    comment="What others report, as `radfs import --results` took it: their numbers, on their rows. Never part of "
    "`results`, and paired with nothing.",
    truth="peers/*.parquet",
    columns=(
        Column("label", "TEXT", "whose results these are, as given at the import"),
        Column("line", "BIGINT", "line of the CSV file, from 2"),
        Column("method", "TEXT", "the peer's word for the method; radfs's own where they mean the same"),
        Column("backbone", "TEXT", "image encoder; null where not told"),
        Column("text_encoder", "TEXT", "text encoder; null where not told"),
        Column("cohort", "TEXT", "name of the cohort; where it is one of this store, figures show both"),
        Column("fraction", "DOUBLE", "share of the training samples used; null where not told"),
        Column("n_train", "BIGINT", "samples trained on; null where not told"),
        Column("n_test", "BIGINT", "test samples; null where not told"),
        Column("seed", "BIGINT", "seed, where the row is one run; null for a mean"),
        Column("n_seeds", "BIGINT", "runs behind a mean; null where not told"),
        *(
            Column(f"{metric}{part}", "DOUBLE", f"{metric.upper()} as reported{meaning}; null where not told")
            for metric in ("auroc", "auprc")
            for part, meaning in (
                ("", ""),
                ("_sd", ": standard deviation over seeds"),
                ("_ci_low", ": lower end of the interval"),
                ("_ci_high", ": upper end of the interval"),
            )
        ),
        Column("note", "TEXT", "where the number stands, such as a table of a paper; null where not told"),
    ),
)
"""The table of the catalog."""


@dataclass(frozen=True)
class PeerReport:
    """What an import did.

    Attributes:
        label: whose results.
        rows: how many.
        ignored: columns of the file that mean nothing here.
        outcome: "imported", "replaced", or "unchanged".
        cohorts: cohort -> rows of it.
    """

    label: str
    rows: int
    ignored: tuple[str, ...]
    outcome: str
    cohorts: Mapping[str, int]


def import_peer(store: Store, file: Path, *, label: str, replace: bool = False) -> PeerReport:
    """Take the rows of a CSV file into `peer_results`. All of the file is checked first.

    Args:
        store: an open store.
        file: CSV in UTF-8 with a heading. Columns are those of `peer_results` but `label` and `line`, in any order.
            Needed are method, cohort, one of fraction and n_train, and one of auroc and auprc, in every row.
        label: whose results these are.
        replace: put them in the place of others of the same label.

    Raises:
        DataError: a file that cannot be read, rows that are refused (each with its line), or a label that is there.
        UnknownNameError: a needed column is missing; names the nearest.
    """
    label = label.strip()
    if not label:
        raise DataError('whose results are these? Name them with --label "Peer et al.".')
    heading, rows = _read(file)
    names = [column.name for column in PEER_RESULTS.columns]
    for needed in ("method", "cohort"):
        if needed not in heading:
            raise unknown_name(f"column of {file.name}", needed, heading)
    for one_of in (("fraction", "n_train"), ("auroc", "auprc")):
        if not set(one_of) & set(heading):
            raise DataError(f"{file}: has neither a column {one_of[0]} nor {one_of[1]}; give one. {_columns()}")
    parsed = _parsed(file, heading, rows)
    frame = pl.DataFrame(
        [[label, line, *(values.get(name) for name in names[2:])] for line, values in parsed],
        schema=_SCHEMA,
        orient="row",
    )
    path = store.peers / f"{content_key(label)}.parquet"
    outcome = "imported"
    if path.exists():
        if read_parquet(path).equals(frame):
            outcome = "unchanged"
        elif not replace:
            raise DataError(f"the store has other results of {label!r}: take another --label, or --replace them.")
        else:
            outcome = "replaced"
    if outcome != "unchanged":
        write_parquet(path, frame)
    ignored = tuple(name for name in heading if name not in names[2:])
    cohorts = dict(frame.group_by("cohort", maintain_order=True).len().iter_rows())
    return PeerReport(label, frame.height, ignored, outcome, cohorts)


def _read(file: Path) -> tuple[list[str], list[tuple[int, list[str]]]]:
    """The heading, and the rows with their line numbers; blank lines are passed over."""
    try:
        with file.open(encoding="utf-8-sig", newline="") as opened:
            reader = csv.reader(opened, strict=True)
            lines = [(reader.line_num, row) for row in reader if any(cell.strip() for cell in row)]
    except OSError as error:
        raise DataError(f"cannot read {file}: {error.strerror or error}.") from None
    except UnicodeDecodeError:
        raise DataError(f"{file} is not a text file in UTF-8: save it as CSV UTF-8.") from None
    except csv.Error as error:
        raise DataError(f"{file} is no CSV: {error}.") from None
    if len(lines) < 2:
        raise DataError(f"{file} has no rows below a heading. {_columns()}")
    heading = [cell.strip().lower() for cell in lines[0][1]]
    twice = {name for name in heading if heading.count(name) > 1}
    if twice:
        raise DataError(f"{file}: its heading has the column {min(twice)!r} twice.")
    return heading, lines[1:]


def _parsed(file: Path, heading: list[str], rows: list[tuple[int, list[str]]]) -> list[tuple[int, dict[str, Any]]]:
    parsed, bad = [], []
    for line, cells in rows:
        try:
            parsed.append((line, _row(heading, cells)))
        except ValueError as error:
            bad.append(f"line {line}: {error}")
    if bad:
        more = f"\n  and {len(bad) - _SHOWN} more" if len(bad) > _SHOWN else ""
        shown = "\n  ".join(bad[:_SHOWN])
        raise DataError(
            f"{file}: {len(bad)} of {len(rows)} rows are refused, so nothing was imported:\n  {shown}{more}"
        )
    return parsed


def _row(heading: list[str], cells: list[str]) -> dict[str, Any]:
    """The values of a row by column. ValueError with the column, the value and what was allowed."""
    if len(cells) != len(heading):
        raise ValueError(f"has {len(cells)} cells, and the heading has {len(heading)}")
    values: dict[str, Any] = {}
    for name, cell in zip(heading, map(str.strip, cells), strict=True):
        if name in _PARSERS and cell.lower() not in _BLANK:
            values[name] = _PARSERS[name](name, cell)
    for needed in ("method", "cohort"):
        if needed not in values:
            raise ValueError(f"{needed} is blank")
    for one_of in (("fraction", "n_train"), ("auroc", "auprc")):
        if not set(one_of) & set(values):
            raise ValueError(f"{' and '.join(one_of)} are both blank")
    for metric in ("auroc", "auprc"):
        low, high = (values.get(f"{metric}_ci_{end}") for end in ("low", "high"))
        if low is not None and high is not None and low > high:
            raise ValueError(f"{metric}_ci_low {low:g} is above {metric}_ci_high {high:g}")
    return values


def _text(name: str, cell: str) -> str:
    if re.search(r"[\x00-\x1f]", cell):
        raise ValueError(f"{name} {cell!r} holds control characters")
    return cell


def _count(name: str, cell: str) -> int:
    least = 0 if name == "seed" else 1
    if not re.fullmatch(r"[0-9]+", cell) or int(cell) < least:
        raise ValueError(f"{name} {cell!r} is not a whole number from {least} on")
    return int(cell)


def _share(name: str, cell: str) -> float:
    try:
        value = float(cell)
    except ValueError:
        value = math.nan
    low, high = (-1, 2) if name.endswith(("_ci_low", "_ci_high")) else (0, 1)  # ends of intervals may lie outside
    if not low <= value <= high or (name == "fraction" and value == 0):
        allowed = "above 0 and at most 1" if name == "fraction" else f"from {low} to {high}"
        percent = " (a percentage? divide it by 100)" if 1 < value <= 100 else ""
        raise ValueError(f"{name} {cell!r} is not a number {allowed}{percent}")
    return value


_OF_TYPE: Mapping[str, Callable[[str, str], Any]] = {"TEXT": _text, "BIGINT": _count, "DOUBLE": _share}
_PARSERS = {column.name: _OF_TYPE[column.type] for column in PEER_RESULTS.columns[2:]}
_TYPES = {"TEXT": pl.String(), "BIGINT": pl.Int64(), "DOUBLE": pl.Float64()}
_SCHEMA = pl.Schema({column.name: _TYPES[column.type] for column in PEER_RESULTS.columns})


def _columns() -> str:
    return f"Known columns: {', '.join(_PARSERS)}."
