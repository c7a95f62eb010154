"""Writing a chart to a file: SVG, PNG, PDF, or HTML that works without a network. Altair's own files, no browser."""

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from featurestore.errors import DataError

from .theme import config

if TYPE_CHECKING:
    import altair as alt

FORMATS = ("svg", "png", "pdf", "html")


def themed(chart: "alt.TopLevelMixin", *, dark: bool = False) -> dict[str, Any]:
    """The chart's Vega-Lite specification with the light or the dark configuration."""
    return {**chart.to_dict(), "config": config(dark=dark)}


def save_chart(chart: "alt.TopLevelMixin", path: str | os.PathLike[str], *, dark: bool = False) -> None:
    """Write a chart; the suffix says the format. A PNG has two pixels a point.

    Args:
        chart: of this package, or any of Altair's.
        path: of the file; folders on the way are made.
        dark: for a dark page.

    Raises:
        DataError: a suffix that is none of `FORMATS`, or a file that cannot be written.
    """
    path = Path(path)
    kind = check_format(path)
    import vl_convert

    spec = themed(chart, dark=dark)
    if kind == "svg":
        written = vl_convert.vegalite_to_svg(spec).encode()
    elif kind == "png":
        written = vl_convert.vegalite_to_png(spec, scale=2)
    elif kind == "pdf":
        written = vl_convert.vegalite_to_pdf(spec)
    else:
        written = vl_convert.vegalite_to_html(spec, bundle=True).encode()
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(written)
    except OSError as error:
        raise DataError(f"cannot write {path}: {error.strerror or error}.") from None


def check_format(path: Path) -> str:
    """The format that a path's suffix names: one of `FORMATS`.

    Raises:
        DataError: another suffix, or none.
    """
    kind = path.suffix.lower().removeprefix(".")
    if kind not in FORMATS:
        raise DataError(f"cannot write {path.name}: give one of the suffixes .{', .'.join(FORMATS)}.")
    return kind
