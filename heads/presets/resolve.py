"""What `--grid` and `--set` name: grids of files, and grids of the paper's presets. No torch.

named = name_grids(["paper:fig5c"], ["backbone=efficientnet-lite0"])
"""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ..grid import Grid, read_grid
from .overrides import parse_overrides
from .preset import Preset, get_preset, matching_presets

PREFIX = "paper:"


@dataclass(frozen=True)
class NamedGrids:
    """The grids of one name.

    Attributes:
        name: a path, or paper:NAME.
        grids: one, or several of a preset.
        preset: the preset, if it is one.
    """

    name: str
    grids: tuple[Grid, ...]
    preset: Preset | None = None


def name_grids(names: Sequence[str | os.PathLike[str]], written: Sequence[str] = ()) -> list[NamedGrids]:
    """The grids of every name, with the overrides; `paper:fig4` is all its panels, `paper:all` every preset.

    Raises:
        DataError, UnknownNameError: see `read_grid`, `parse_overrides`, `Preset.grids`.
    """
    overrides = parse_overrides(written)
    found: list[NamedGrids] = []
    for name in map(str, names):
        if not name.startswith(PREFIX):
            found.append(NamedGrids(name, (read_grid(name, overrides),)))
            continue
        presets = map(get_preset, matching_presets(name.removeprefix(PREFIX)))
        found += [NamedGrids(f"{PREFIX}{one.name}", one.grids(overrides), one) for one in presets]
    return found


def one_preset(name: str) -> Preset:
    """The preset that `paper:NAME`, or NAME alone, names.

    Raises:
        UnknownNameError: none, or a group of several.
    """
    return get_preset(name.removeprefix(PREFIX))


def as_flags(overrides: Mapping[str, Any]) -> str:
    """The overrides as they are typed: " --set cohort=a --set fraction=0.5,1.0"."""
    return "".join(f" --set {key}={as_text(value)}" for key, value in overrides.items())


def as_text(value: Any) -> str:
    """An override's value as it is typed."""
    if isinstance(value, Mapping):
        return ",".join(f"{key}:{one}" for key, one in value.items())
    return ",".join(map(str, value)) if isinstance(value, (list, tuple)) else str(value)
