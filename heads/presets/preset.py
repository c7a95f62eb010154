"""A preset: what a figure or table of the paper trains, how it is drawn, what of it is inferred. No torch, no store.

A file has `[grid]` and `[train]` as a grid file has; `[[parts]]` where several grids make one figure, each with the
keys in which it differs; `[draw]`, how it is drawn; `[inferred]`, a reason for every value that the paper does not
give. `same_as` takes all that a file does not say from another preset: runs of equal grids are the same runs.
"""

import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from importlib.resources import files
from typing import Any

from featurestore.encoders import get_spec
from featurestore.errors import DataError, RadfsError, UnknownNameError, unknown_name

from ..grid import GRID_KEYS, REQUIRED_KEYS, TRAIN_KEYS, Grid
from ..kinds import HEADS

_FOLDER = files("heads.presets")
FIGURES = ("curves", "bars", "slopes")
TABLES = ("models", "pretraining", "sizes", "text-image")
_SECTIONS = ("title", "shows", "same_as", "grid", "train", "parts", "draw", "inferred")
_DRAWN_KEYS = ("level", "form", "x", "line", "bar", "panel")
"""Keys of [draw] that may be inferred."""


@dataclass(frozen=True, kw_only=True)
class Draw:
    """How a preset is drawn.

    Attributes:
        form: a chart of FIGURES, or a table of TABLES.
        metric: auroc or auprc.
        level: of the confidence intervals.
        options: further arguments of the chart.
        encoders: of a table of encoders.
    """

    form: str
    metric: str = "auroc"
    level: float = 0.95
    options: Mapping[str, Any] = field(default_factory=dict)
    encoders: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Preset:
    """A figure or table of the paper.

    Attributes:
        name: fig4a, table2, ...
        title: as the paper numbers it.
        shows: what one sees, in one line.
        parts: keys of [grid] and [train] of each grid; none for a table of encoders.
        draw: how it is drawn.
        inferred: key of a grid or of the drawing -> why it has this value, where the paper gives none.
        same_as: the preset whose runs these are, if it is another's.
    """

    name: str
    title: str
    shows: str
    parts: tuple[Mapping[str, Any], ...]
    draw: Draw
    inferred: Mapping[str, str]
    same_as: str | None

    @property
    def is_table(self) -> bool:
        """Whether it is a table, not a figure."""
        return self.draw.form in TABLES

    def grids(self, overrides: Mapping[str, Any] | None = None) -> tuple[Grid, ...]:
        """Its grids, each once, with other values for some keys.

        A part whose heads read class tokens is left out where the overrides leave it no encoder that has them.

        Raises:
            DataError, UnknownNameError: an override that a grid refuses; the message begins with the preset.
        """
        overrides = overrides or {}
        try:
            grids = [Grid(**part) for part in overridden(self.parts, overrides)]
        except RadfsError as error:
            hint = ""
            if "epochs has no number" in str(error):
                hint = " Give them too: --set epochs=50, or --set epochs=0.1:100,0.5:50."
            raise type(error)(f"paper:{self.name}: {error}{hint}") from None
        return tuple(dict.fromkeys(grids))

    @property
    def cohorts(self) -> tuple[str, ...]:
        """Names of its cohorts."""
        return tuple(dict.fromkeys(name for grid in self.grids() for name in grid.cohort))

    @property
    def encoders(self) -> tuple[str, ...]:
        """Names of its encoders, images' first."""
        grids = self.grids()
        found = [name for modality in ("image", "text") for grid in grids for name in _read(grid, modality)]
        return tuple(dict.fromkeys(found)) or self.draw.encoders


def _read(grid: Grid, modality: str) -> tuple[str, ...]:
    return grid.encoders(modality) if modality in grid.modalities() else ()


def overridden(parts: Sequence[Mapping[str, Any]], overrides: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The parts with the overrides, without those whose heads then have no class token to read."""
    changed = [{**part, **overrides} for part in parts]
    if "backbone" in overrides and "head" not in overrides:
        kept = [part for part in changed if not (_reads_cls(part) and _lacks_cls(part))]
        return kept or changed
    return changed


def _reads_cls(part: Mapping[str, Any]) -> bool:
    heads = part.get("head", ())
    return any(HEADS[name].reads_cls for name in ([heads] if isinstance(heads, str) else heads) if name in HEADS)


def _lacks_cls(part: Mapping[str, Any]) -> bool:
    backbones = part.get("backbone", ())
    for name in [backbones] if isinstance(backbones, str) else backbones:
        try:
            if not get_spec(str(name).partition("@")[0]).tokens.has_cls:
                return True
        except UnknownNameError:
            continue
    return False


def preset_names() -> list[str]:
    """The names of all presets in the order of the paper: figures, then tables."""
    names = [path.name.removesuffix(".toml") for path in _FOLDER.iterdir() if path.name.endswith(".toml")]
    return sorted(names, key=_order)


def matching_presets(name: str) -> list[str]:
    """The presets that a name means: itself, the panels of a figure (fig4: fig4a to fig4e), or `all`.

    Raises:
        UnknownNameError: no such preset, with the nearest names.
    """
    names = preset_names()
    if name in names:
        return [name]
    found = [one for one in names if name == "all" or (one[:-1] == name and one[-1].isalpha())]
    if not found:
        raise unknown_name("preset", name, [*names, "all"])
    return found


@cache
def get_preset(name: str) -> Preset:
    """The preset of this name.

    Raises:
        UnknownNameError: no such preset.
        DataError: its file is wrong.
    """
    tables = _tables(name)
    grid, train = tables.get("grid", {}), tables.get("train", {})
    shared = {**grid, **train}
    parts = [{**shared, **part} for part in tables.get("parts", [{}])] if shared else []
    draw = dict(tables["draw"])
    known = {key: draw.pop(key) for key in ("form", "metric", "level") if key in draw}
    preset = Preset(
        name=name,
        title=tables["title"],
        shows=tables["shows"],
        parts=tuple(parts),
        draw=Draw(**known, encoders=tuple(draw.pop("encoders", ())), options=draw),
        inferred=tables.get("inferred", {}),
        same_as=tables.get("same_as"),
    )
    _check(preset)
    return preset


def _tables(name: str) -> dict[str, Any]:
    """The file of a preset, with what `same_as` gives it."""
    path = _FOLDER / f"{name}.toml"
    if name not in preset_names():
        raise unknown_name("preset", name, preset_names())
    tables = tomllib.loads(path.read_text("utf-8"))
    for section in tables:
        if section not in _SECTIONS:
            raise unknown_name("section", section, _SECTIONS)
    if "same_as" not in tables:
        return tables
    other = _tables(tables["same_as"])
    reasons = {key: why for key, why in other.get("inferred", {}).items() if key not in _DRAWN_KEYS}
    for section, theirs in (("grid", other.get("grid", {})), ("train", other.get("train", {})), ("inferred", reasons)):
        tables[section] = {**theirs, **tables.get(section, {})}
    if "parts" in other:
        tables.setdefault("parts", other["parts"])
    return tables


def _check(preset: Preset) -> None:
    if preset.draw.form not in (*FIGURES, *TABLES):
        raise unknown_name("form of [draw]", preset.draw.form, (*FIGURES, *TABLES))
    for part in preset.parts:
        for key in part:
            if key not in (*GRID_KEYS, *TRAIN_KEYS):
                raise unknown_name(f"key of preset {preset.name}", key, (*GRID_KEYS, *TRAIN_KEYS))
        for key in REQUIRED_KEYS:
            if key not in part:
                raise DataError(f"preset {preset.name}: {key} is missing.")
    for key in preset.inferred:
        if key not in (*GRID_KEYS, *TRAIN_KEYS, *_DRAWN_KEYS):
            raise unknown_name(f"inferred key of preset {preset.name}", key, (*GRID_KEYS, *TRAIN_KEYS, *_DRAWN_KEYS))


def _order(name: str) -> tuple[str, int, str]:
    """Figures before tables, by number, then by panel."""
    kind = name.rstrip("abcdefgh").rstrip("0123456789")
    digits = "".join(c for c in name if c.isdigit())
    return kind, int(digits or 0), name
