"""What a page of results is made of: sections with words, figures, tables, and the SQL behind them. Knows no HTML."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import polars as pl

from featurestore.catalog import Catalog

if TYPE_CHECKING:
    import altair as alt

_COLUMNS = 3
NARROW = (212, 190)
"""Width and height of a panel on a phone, in pixels."""


@dataclass(frozen=True)
class Table:
    """A table: cells are texts; `numeric` columns stand to the right; a `folded` one is opened by the reader."""

    caption: str
    headings: tuple[str, ...]
    lines: tuple[tuple[str, ...], ...]
    numeric: tuple[bool, ...]
    folded: bool = False


@dataclass(frozen=True)
class Figure:
    """A chart.

    Attributes:
        title: above it.
        alt: what it shows, for those who do not see it.
        caption: below it.
        specs: metric ("" where it has none) -> "wide" and "narrow" -> Vega-Lite, without a configuration.
    """

    title: str
    alt: str
    caption: tuple[str, ...]
    specs: Mapping[str, Mapping[str, Mapping[str, Any]]]


@dataclass(frozen=True)
class Points:
    """A list of sentences under a heading; a `folded` one is opened by the reader."""

    title: str
    points: tuple[str, ...]
    folded: bool = False


@dataclass(frozen=True)
class FlowStep:
    """One step of a flow chart: what it leaves out and how many rows it left; `percent` of the first step's rows."""

    name: str
    what: str
    rows: str
    left_out: str
    percent: float


@dataclass(frozen=True)
class Flow:
    """A flow chart: the steps of a cohort's building that left rows out; `note` names those that found nothing."""

    title: str
    steps: tuple[FlowStep, ...]
    note: str


@dataclass(frozen=True)
class Section:
    """A part of the page.

    Attributes:
        key: its anchor.
        title: its heading.
        words: paragraphs.
        parts: what follows them, in this order.
        sql: title -> the question whose answer stands here.
        commands: what gives the same on the command line.
    """

    key: str
    title: str
    words: tuple[str, ...] = ()
    parts: tuple[Figure | Flow | Points | Table, ...] = ()
    sql: Mapping[str, str] = field(default_factory=dict)
    commands: tuple[str, ...] = ()

    @property
    def figures(self) -> dict[str, Figure]:
        """Its figures by the anchors of their charts."""
        return {f"{self.key}-{i}": part for i, part in enumerate(self.parts) if isinstance(part, Figure)}


class Asked:
    """Asks a catalog, and remembers what was asked under a title: the numbers of a page and their SQL never part."""

    def __init__(self, catalog: Catalog) -> None:
        self.catalog = catalog
        self.sql: dict[str, str] = {}

    def __call__(self, title: str, sql: str) -> pl.DataFrame:
        """The answer, its SQL kept."""
        self.sql[title] = sql.strip()
        return self.catalog.query(sql)


def table_of(frame: pl.DataFrame, caption: str, *, folded: bool = False) -> Table:
    """A frame as a table; columns without any value are left out, and what all lines share is said once, above.

    Args:
        frame: its rows.
        caption: above it.
        folded: whether the reader opens it.
    """
    names = [name for name in frame.columns if frame[name].null_count() < frame.height or frame.height == 0]
    cells = {name: [cell(value) for value in frame[name].to_list()] for name in names}
    shared = [name for name in names if frame.height > 2 and len(set(cells[name])) == 1]
    if shared:
        caption += f" (all lines: {'; '.join(f'{_heading(name)} {cells[name][0]}' for name in shared)})"
    varying = [name for name in names if name not in shared]
    return Table(
        caption,
        headings=tuple(map(_heading, varying)),
        lines=tuple(zip(*(cells[name] for name in varying), strict=True)),
        numeric=tuple(frame.schema[name].is_numeric() for name in varying),
        folded=folded,
    )


def _heading(name: str) -> str:
    return name.replace("_", " ")


def cell(value: Any) -> str:
    """A value as people read it."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, float):
        large, small = abs(value) >= 1000, 0 < abs(value) < 0.001
        return f"{value:,.0f}" if large else f"{value:.3g}" if small or value == int(value) else f"{value:.3f}"
    if isinstance(value, list):
        return ", ".join(map(str, value))
    return str(value)


def figure(
    title: str,
    alt: str,
    caption: Sequence[str],
    draw: "Mapping[str, Callable[..., alt.TopLevelMixin]]",
    *,
    panel: tuple[int, int] | None = None,
    narrow: tuple[int, int] | None = NARROW,
) -> Figure:
    """A figure of one chart a metric.

    Args:
        title, alt, caption: as of Figure.
        draw: metric -> what draws it, given `columns` and `size`.
        panel: size of a panel on a wide page; None: the chart's own.
        narrow: size of a panel on a phone; None: the chart has no `size`.
    """
    on_phone = {"columns": 1, **({"size": narrow} if narrow else {})}
    wide = {"columns": _COLUMNS, **({"size": panel} if panel else {})}
    specs = {
        metric: {"wide": _plain(chart(**wide), alt), "narrow": _plain(chart(**on_phone), alt)}
        for metric, chart in draw.items()
    }
    return Figure(title, alt, tuple(caption), specs)


def _plain(chart: "alt.TopLevelMixin", alt: str) -> dict[str, Any]:
    """A chart's specification with its description, and without the title that the page writes itself."""
    spec = {**chart.to_dict(), "description": alt, "background": "transparent"}
    spec.pop("title", None)
    spec.pop("config", None)
    return spec
