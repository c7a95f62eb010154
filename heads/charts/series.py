"""The lines of a chart: rows of `summary` that belong together, a name that tells them from the others, and a look."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from .layout import Row
from .theme import Look, distinct, in_order, label, looks

_SETTINGS = (
    *("method", "backbone", "image_features", "views", "text_encoder", "text_features", "head"),
    *("lr", "batch_size", "dropout", "imitation", "temperature", "teacher_epoch", "precision", "numerics"),
    *("selected_by", "fixed_split", "common_rows", "content", "cohort_key"),
)
"""What may differ between two lines of one name, and is then told in the legend."""

_GO_WITH = {"backbone": ("image_features", "content"), "text_encoder": ("text_features", "content")}
"""What differs by itself where a column does."""


@dataclass(frozen=True)
class Series:
    """One line of a panel.

    Attributes:
        label: its name in the legend.
        key: kind and value of the name that gives it its look.
        rows: of `summary`, in the order of the x axis.
    """

    label: str
    key: tuple[str, object]
    rows: tuple[Row, ...]


def series_of(rows: Sequence[Row], *, x: str, line: str | None, panel: Sequence[str]) -> list[Series]:
    """The lines of one panel.

    Args:
        rows: of the panel.
        x: the column of the x axis.
        line: the column whose values are lines; None: methods and encoders, as far as they differ.
        panel: the columns that are one value in the panel.
    """
    free = {name for column in (x, *panel) for name in (column, *_GO_WITH.get(column, ()))}
    settings = tuple(name for name in _SETTINGS if name not in free)
    names = [_name(row, rows, line) for row in rows]
    repeated = len({(name, row[x], *_values(row, settings)) for name, row in zip(names, rows, strict=True)}) < len(rows)
    groups: dict[tuple[object, ...], list[Row]] = {}
    for name, row in zip(names, rows, strict=True):
        told = (*_values(row, settings), row.get("epochs") if repeated else None)
        groups.setdefault((*name, *told), []).append(row)
    made = []
    for key, members in groups.items():
        namesakes = [other for other in groups if other[0] == key[0]]
        differing = {
            what: value
            for i, (what, value) in enumerate(zip((*settings, "epochs"), key[3:], strict=True), start=3)
            if len({other[i] for other in namesakes}) > 1
        }
        members.sort(key=lambda row: row[x])
        made.append(Series(", ".join([str(key[0]), *_told(differing)]), (str(key[1]), key[2]), tuple(members)))
    return sorted(made, key=lambda one: (one.key[0] != "method", *_place(one, made), one.label))


def _told(differing: Mapping[str, object]) -> Iterator[str]:
    """Settings as a legend tells them: names alone, and feature sets only where their encoders do not say it."""
    implied = {name for column in differing for name in _GO_WITH.get(column, ())}
    for what, value in differing.items():
        if what in _GO_WITH or what in ("method", "head"):
            yield label(what, value)
        elif what not in implied:
            yield f"{what} {value}"


def _place(series: Series, among: Sequence[Series]) -> tuple[str, int]:
    kind, value = series.key
    return kind, in_order(kind, [one.key[1] for one in among if one.key[0] == kind]).index(value)


def looks_of(series: Sequence[Series]) -> dict[str, Look]:
    """The look of every label: that of its method or encoder, and another dash where two would be the same."""
    by_label = {one.label: one.key for one in series}
    kinds: dict[str, list[object]] = {}
    for kind, value in by_label.values():
        kinds.setdefault(kind, []).append(value)
    look_of = {
        (kind, value): look
        for kind, values in kinds.items()
        for distinct_values in [in_order(kind, values)]
        for value, look in zip(distinct_values, looks(kind, distinct_values), strict=True)
    }
    return dict(zip(by_label, distinct([look_of[key] for key in by_label.values()]), strict=True))


def _values(row: Row, settings: Sequence[str]) -> tuple[object, ...]:
    return tuple(row.get(name) for name in settings)


def _name(row: Row, rows: Sequence[Row], line: str | None) -> tuple[str, str, object]:
    """A row's name in the legend, and kind and value of what gives it its look."""
    if line is not None and row[line] is None:  # the image-only baseline of several text encoders
        return label("method", row["method"]), "method", row["method"]
    if line is not None:
        return label(line, row[line]), line, row[line]
    encoders = [label(kind, row[kind]) for kind in ("backbone", "text_encoder") if row[kind] is not None]
    method, several = label("method", row["method"]), len({other["method"] for other in rows}) > 1
    name = f"{method}: {' + '.join(encoders)}" if several else " + ".join(encoders)
    if several and len({other["backbone"] for other in rows if other["backbone"]}) < 2:
        return name, "method", row["method"]
    kind = "backbone" if row["backbone"] is not None else "text_encoder"
    return name, kind, row[kind]
