"""How charts look: colours, shapes and dashes of every method and encoder, fonts, and the light and the dark variant.

A name looks the same in every chart. Colour never says it alone: lines have shapes and dashes, bars carry the shape of
their method, and legends show both. No Altair here: `config` is a plain Vega-Lite configuration.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

PALETTE = ("#0072B2", "#E69F00", "#009E73", "#D55E00", "#CC79A7", "#56B4E9", "#7F7F7F")
"""Okabe and Ito's colours, told apart with any kind of colour vision; grey for their black, lost on a dark page."""

METHOD_PALETTE = ("#7F7F7F", "#E69F00", "#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9")
"""The same colours for methods: the image-only baseline is grey."""

SHAPES = ("circle", "square", "triangle-up", "diamond", "triangle-down", "cross", "triangle-right", "stroke")
DASHES = ((1, 0), (6, 3), (2, 2), (8, 3, 2, 3), (12, 4))
FONT = "Helvetica, Arial, 'Liberation Sans', 'DejaVu Sans', sans-serif"
DIVERGING = ("#B35806", "#F1A340", "#F7F7F7", "#67A9CF", "#2166AC")
"""From losses through nothing to gains, for any kind of colour vision."""

UP, DOWN = "#0072B2", "#D55E00"


@dataclass(frozen=True)
class Look:
    """How one name is drawn: a colour, a shape of points, a dash of lines (lengths in pixels of line and gap)."""

    colour: str
    shape: str
    dash: tuple[int, ...]


LABELS: dict[str, dict[str, str]] = {
    "method": {
        "image": "image only",
        "self-distill": "self-distillation",
        "distill": "distillation",
        "teacher": "teacher (image and report)",
        "text": "text only",
        "feature-distill": "feature distillation",
        "tram": "TRAM",
        "image-long": "image only, longer",
        "distill-shuffled": "distillation, shuffled reports",
        "distill-constant": "distillation, constant teacher",
        "teacher-shuffled": "teacher, shuffled reports",
    },
    "backbone": {
        "rad-dino": "RAD-DINO",
        "c2l": "C2L",
        "medical-mae": "Medical MAE",
        "mrm": "MRM",
        "biovil-t": "BioViL-T",
        "gloria": "GLoRIA",
        "biomedclip": "BiomedCLIP",
    },
    "text_encoder": {
        "biovil-t-bert": "BioViL-T BERT",
        "cxr-bert-general": "CXR-BERT-general",
        "bio-clinicalbert": "Bio_ClinicalBERT",
    },
    "head": {"attention": "attention head", "mean": "mean - LP", "cls": "CLS - LP"},
}
"""The names that charts write out, in the order in which they stand there; others follow under their own names."""

_KNOWN: dict[str, Callable[[], Iterable[str]]] = {}


def _known(kind: str) -> list[str]:
    """All names of a kind in a fixed order: the paper's, then the rest of the table."""
    from featurestore.encoders import ENCODERS

    from ..kinds import HEADS
    from ..methods import METHODS

    tables = {"method": METHODS, "head": HEADS, "backbone": ENCODERS, "text_encoder": ENCODERS}
    return list(dict.fromkeys([*LABELS.get(kind, ()), *tables.get(kind, ())]))


def label(kind: str, name: object) -> str:
    """The name as charts write it: "image only" for the method image."""
    if kind == "fraction" and isinstance(name, float):
        return f"{100 * name:g}%"
    return LABELS.get(kind, {}).get(str(name), str(name))


def in_order(kind: str, names: Iterable[Any]) -> list[Any]:
    """Distinct names in the order of charts; numbers by size, unknown names last, by the alphabet."""
    place = {name: i for i, name in enumerate(_known(kind))}
    distinct = [name for name in dict.fromkeys(names) if name is not None]
    return sorted(distinct, key=lambda name: (place.get(name, len(place)), name))


def looks(kind: str, names: Sequence[Any]) -> list[Look]:
    """The look of each name: fixed by its place among all names of its kind; unknown ones take what is free next."""
    known = _known(kind)
    places = {name: i for i, name in enumerate(known)}
    for name in in_order(kind, names):
        places.setdefault(name, len(places))
    return distinct([_look(kind, name, places[name]) for name in names])


def distinct(given: Sequence[Look]) -> list[Look]:
    """The looks, with another shape and dash where colour alone would tell two apart.

    Up to eight names differ in their shapes; more of them in shape and dash together.
    """
    found: list[Look] = []
    few = len(given) <= len(SHAPES)
    for look in given:
        taken = {other.shape if few else (other.shape, other.dash) for other in found}
        at, dash = SHAPES.index(look.shape), DASHES.index(look.dash)
        tries = (
            replace(look, shape=SHAPES[(at + i) % len(SHAPES)], dash=DASHES[(dash + i) % len(DASHES)])
            for i in range(len(SHAPES) * len(DASHES))
        )
        found.append(next((one for one in tries if (one.shape if few else (one.shape, one.dash)) not in taken), look))
    return found


def _look(kind: str, name: object, place: int) -> Look:
    palette = METHOD_PALETTE if kind == "method" else PALETTE
    turn, colour = divmod(place, len(palette))
    dash = DASHES[turn % len(DASHES)] if kind != "backbone" else DASHES[_dash_of_objective(str(name))]
    return Look(palette[colour], SHAPES[(place + turn) % len(SHAPES)], dash)


def _dash_of_objective(encoder: str) -> int:
    """Of a backbone the dash says how it was trained: images alone, with reports beside, aligned with reports."""
    from featurestore.encoders import get_spec
    from featurestore.errors import UnknownNameError

    try:
        objective = get_spec(encoder.partition("@")[0]).objective
    except UnknownNameError:
        return 4
    return {"image-ssl": 0, "text-supervised": 3, "aligned": 1}.get(objective, 2)


def config(*, dark: bool = False) -> dict[str, Any]:
    """The Vega-Lite configuration of every chart; `dark`: for a dark page."""
    page, ink, faint, line = (
        ("#16181d", "#e8e8e8", "#a8a8a8", "#3a3d45") if dark else ("#ffffff", "#222222", "#666666", "#e3e3e3")
    )
    axis = {
        **{"labelColor": ink, "titleColor": ink, "titleFontWeight": "normal", "labelFontSize": 11, "titleFontSize": 12},
        **{"gridColor": line, "domainColor": faint, "tickColor": faint, "labelOverlap": False},
    }
    return {
        "background": page,
        "font": FONT,
        "padding": 12,
        "view": {"stroke": None},
        "axis": axis,
        "axisX": {"grid": False},
        "legend": {
            **{
                "labelColor": ink,
                "titleColor": ink,
                "labelFontSize": 12,
                "labelLimit": 0,
                "symbolSize": 90,
                "symbolOpacity": 1,
            },
            **{"orient": "top", "direction": "horizontal", "symbolStrokeWidth": 0, "offset": 10, "titleFontSize": 12},
        },
        "title": {
            **{"color": ink, "subtitleColor": faint, "anchor": "start", "fontSize": 13, "subtitleFontSize": 11},
            **{"frame": "group", "offset": 8, "subtitlePadding": 4},
        },
        "style": {
            "chance": {"color": faint, "strokeDash": [4, 3]},
            "note": {"color": faint, "fontSize": 10},
            "ink": {"color": ink},
            "frame": {"stroke": ink, "strokeWidth": 2},
        },
        "concat": {"spacing": 28},
    }
