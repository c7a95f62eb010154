"""Figures of results, drawn from the view `summary` alone: no torch, no store, matplotlib only when a figure is drawn.

learning_curves(open_catalog(store).query("SELECT * FROM summary"), "curves.png")
"""

import math
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import polars as pl

from featurestore.errors import DataError

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
"""Okabe and Ito's palette: told apart with any kind of colour vision."""

_MARKERS = ("o", "s", "^", "D", "v", "P", "X")
_INK, _FAINT = "#222222", "#767676"
_TITLE = "Test AUROC by number of training samples"
_SETTINGS = (
    *("image_features", "text_features", "head", "lr", "batch_size", "dropout", "precision", "numerics"),
    *("fixed_split", "common_rows", "content", "cohort_key"),
)
"""What may differ between two lines of one method and encoder."""


@dataclass(frozen=True)
class _Line:
    """One line of a panel: rows of `summary` in the order of n_train."""

    label: str
    rows: tuple[dict[str, Any], ...]


def learning_curves(summary: pl.DataFrame, path: str | os.PathLike[str]) -> None:
    """Draw mean test AUROC against the number of training samples, with 95% intervals: a panel a cohort.

    Args:
        summary: rows of the view `summary`, all or some.
        path: where to write the picture; its suffix says the format (.png, .svg, .pdf).

    Raises:
        DataError: no rows, or a suffix that matplotlib does not know.
    """
    if summary.is_empty():
        raise DataError("there are no results to draw. Run `radfs train --grid grid.toml` first.")
    figure = _draw(summary)
    path = Path(path)
    formats = figure.canvas.get_supported_filetypes()
    if path.suffix.lower().removeprefix(".") not in formats:
        raise DataError(f"cannot write {path.name}: give one of the suffixes .{', .'.join(sorted(formats))}.")
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=200, facecolor="white")


def _draw(summary: pl.DataFrame) -> "Figure":
    from matplotlib.figure import Figure
    from matplotlib.layout_engine import ConstrainedLayoutEngine

    rows = summary.sort("cohort", "method", "backbone", "text_encoder", "n_train", "epochs").to_dicts()
    panels = {cohort: _lines([r for r in rows if r["cohort"] == cohort]) for cohort in {r["cohort"]: 0 for r in rows}}
    styles = _styles(line.label for lines in panels.values() for line in lines)
    n_columns = min(3, math.ceil(math.sqrt(len(panels))))
    n_rows = math.ceil(len(panels) / n_columns)
    legend_columns = max(1, int(62 * n_columns / (max(map(len, styles)) + 5)))
    top, bottom = 0.52 + 0.24 * math.ceil(len(styles) / legend_columns), 0.46
    width, height = max(5.6, 4.3 * n_columns), top + 3.2 * n_rows + bottom
    figure = Figure(figsize=(width, height))
    layout = ConstrainedLayoutEngine(rect=(0, bottom / height, 1, 1 - (top + bottom) / height), w_pad=0.08, h_pad=0.08)
    figure.set_layout_engine(layout)
    axes = figure.subplots(n_rows, n_columns, sharey=True, squeeze=False).flatten()
    for axis, (cohort, lines) in zip(axes, panels.items(), strict=False):
        _draw_panel(axis, cohort, lines, styles)
    for axis in axes[len(panels) :]:
        axis.remove()
    for axis in axes[::n_columns]:
        axis.set_ylabel("Mean test AUROC", color=_INK)
    axes[0].set_ylim(*_y_limits(rows))
    left = 0.12 / width
    figure.text(left, 1 - 0.12 / height, _TITLE, fontsize=13, fontweight="bold", color=_INK, va="top")
    handles, labels = _legend_entries(axes[: len(panels)])
    anchor = {"loc": "upper left", "bbox_to_anchor": (left, 1 - 0.40 / height), "borderaxespad": 0, "borderpad": 0.2}
    figure.legend(handles, labels, ncols=legend_columns, frameon=False, fontsize=9.5, **anchor)
    figure.text(left, 0.09 / height, _footnote(rows), fontsize=7.5, color=_FAINT, va="bottom", linespacing=1.4)
    return figure


def _draw_panel(axis: "Axes", cohort: str, lines: Sequence[_Line], styles: dict[str, tuple[str, str, str]]) -> None:
    for line in lines:
        colour, marker, dash = styles[line.label]
        x = [row["n_train"] for row in line.rows]
        mean = [row["auroc_mean"] for row in line.rows]
        low, high = (_interval_end(line.rows, end) for end in ("auroc_ci_low", "auroc_ci_high"))
        if len(x) > 1:
            axis.fill_between(x, low, high, color=colour, alpha=0.16, linewidth=0)
        else:
            axis.vlines(x, low, high, color=colour, alpha=0.5, linewidth=2)
        look = {"color": colour, "marker": marker, "linestyle": dash, "linewidth": 1.9, "markersize": 5.5}
        axis.plot(x, mean, label=line.label, clip_on=False, **look)
    _style_panel(axis, sorted({round(row["n_train"]) for line in lines for row in line.rows}))
    classes = lines[0].rows[0]["classes"]
    kind = "two classes" if len(classes) == 2 else f"{len(classes)} classes, one-versus-rest, micro-averaged"
    axis.set_title(cohort, fontsize=11, color=_INK, loc="left", pad=18)
    axis.text(0, 1.025, kind, transform=axis.transAxes, fontsize=8, color=_FAINT)
    axis.axhline(0.5, color=_FAINT, linewidth=1, linestyle=(0, (4, 3)), zorder=1)
    # Pooled one-versus-rest scores of unequal classes lie above 0.5 without any skill.
    note = "chance" if len(classes) == 2 else "chance if classes are equally frequent"
    below = {"xytext": (-3, -3), "textcoords": "offset points", "ha": "right", "va": "top"}
    axis.annotate(note, (1, 0.5), xycoords=("axes fraction", "data"), fontsize=7.5, color=_FAINT, **below)


def _style_panel(axis: "Axes", sizes: Sequence[int]) -> None:
    """A log axis whose ticks are the real numbers of training samples."""
    from matplotlib.ticker import FixedFormatter, FixedLocator, NullLocator

    axis.set_xscale("log")
    axis.xaxis.set_major_locator(FixedLocator(sizes))
    axis.xaxis.set_major_formatter(FixedFormatter(_tick_labels(sizes)))
    axis.xaxis.set_minor_locator(NullLocator())
    axis.set_xlim(sizes[0] / 1.18, sizes[-1] * 1.18)
    axis.set_xlabel("Training samples (log scale)", color=_INK)
    axis.tick_params(colors=_INK, labelsize=9)
    axis.grid(axis="y", color="#E6E6E6", linewidth=0.8)
    axis.set_axisbelow(True)
    for side in ("top", "right"):
        axis.spines[side].set_visible(False)
    for side in ("left", "bottom"):
        axis.spines[side].set_color("#999999")


def _tick_labels(sizes: Sequence[int]) -> list[str]:
    """The sizes as text, with those left blank that would run into a larger one's label."""
    span = math.log(sizes[-1] / sizes[0]) or 1.0
    labels, last = [], math.inf
    for size in reversed(sizes):
        place = math.log(size / sizes[0]) / span
        fits = last - place > 0.025 * len(f"{size:,}") + 0.02
        labels.append(f"{size:,}" if fits else "")
        last = place if fits else last
    return labels[::-1]


def _lines(rows: Sequence[dict[str, Any]]) -> list[_Line]:
    """The lines of one panel, each named by method and encoders, and by those settings in which namesakes differ."""
    groups: dict[tuple[Any, ...], list[dict[str, Any]]] = {}
    repeated = _settings_repeat(rows)
    for row in rows:
        settings = (*(row[name] for name in _SETTINGS), row["epochs"] if repeated else None)
        groups.setdefault((_name(row), *settings), []).append(row)
    lines = []
    for key, members in groups.items():
        namesakes = [other for other in groups if other[0] == key[0]]
        differing = [
            f"{name} {value}"
            for i, (name, value) in enumerate(zip((*_SETTINGS, "epochs"), key[1:], strict=True), start=1)
            if len({other[i] for other in namesakes}) > 1
        ]
        lines.append(_Line(", ".join([key[0], *differing]), tuple(members)))
    return lines


def _settings_repeat(rows: Sequence[dict[str, Any]]) -> bool:
    """Whether some setting stands there with several numbers of epochs, so that epochs tell lines apart."""
    keys = [(_name(row), row["fraction"], *(row[name] for name in _SETTINGS)) for row in rows]
    return len(set(keys)) < len(keys)


def _name(row: dict[str, Any]) -> str:
    encoders = [row[key] for key in ("backbone", "text_encoder") if row[key] is not None]
    return f"{row['method']}: {' + '.join(encoders)}"


def _styles(labels: Iterable[str]) -> dict[str, tuple[str, str, str]]:
    """Colour, marker and dash of each label, the same in all panels."""
    n = len(_COLOURS)
    return {
        label: (_COLOURS[i % n], _MARKERS[i % n], ("-", "--", ":", "-.")[i // n % 4])
        for i, label in enumerate(dict.fromkeys(labels))
    }


def _legend_entries(axes: Iterable["Axes"]) -> tuple[list[Any], list[str]]:
    entries = {label: handle for axis in axes for handle, label in zip(*axis.get_legend_handles_labels(), strict=True)}
    return list(entries.values()), list(entries)


def _interval_end(rows: Sequence[dict[str, Any]], end: str) -> list[float]:
    """One end of the intervals, cut to what an AUROC can be; the mean itself where one seed has no interval."""
    return [row["auroc_mean"] if row[end] is None else min(1.0, max(0.0, row[end])) for row in rows]


def _y_limits(rows: Sequence[dict[str, Any]]) -> tuple[float, float]:
    low = min(0.5, *_interval_end(rows, "auroc_ci_low"))
    high = max(0.5, *_interval_end(rows, "auroc_ci_high"))
    return max(0.0, math.floor((low - 0.01) * 20) / 20), min(1.005, math.ceil((high + 0.01) * 20) / 20)


def _footnote(rows: Sequence[dict[str, Any]]) -> str:
    seeds, epochs = (sorted({row[key] for row in rows}) for key in ("n_seeds", "epochs"))
    interval = "" if seeds == [1] else " Bands: 95% confidence interval of that mean (Student t over seeds)."
    return (
        f"Mean over {_range(seeds)} seed{'' if seeds == [1] else 's'}.{interval}\n"
        f"Values after the last epoch (of {_range(epochs)}): no epoch was selected."
    )


def _range(values: Sequence[int]) -> str:
    return str(values[0]) if values[0] == values[-1] else f"{values[0]} to {values[-1]}"
