"""A preset as text: a grid file with a reason beside every inferred value. No torch."""

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from ..grid import GRID_KEYS, TRAIN_KEYS
from ..selection import count_runs
from .preset import Preset, get_preset, overridden, preset_names


def preset_lines(preset: Preset, overrides: Mapping[str, Any] | None = None) -> Iterator[str]:
    """The preset as TOML; of a preset of one grid it is a grid file."""
    grids = preset.grids(overrides)
    yield f"# {preset.title}"
    yield f"# {preset.shows}."
    if preset.same_as:
        yield f"# The runs of paper:{preset.same_as} where their settings are equal."
    yield f"# {drawn(preset)}"
    if preset.parts:
        yield f"# {count_runs(grids):,} runs, with the teachers of students."
    if overrides:
        yield f"# Not the paper's: {', '.join(overrides)}."
    reasons = {key: why for key, why in preset.inferred.items() if key not in (overrides or {})}
    for key in ("form", "level"):
        if key in reasons:
            yield f"# inferred, {key}: {reasons.pop(key)}"
    parts = list(dict.fromkeys(_part_text(part, reasons) for part in overridden(preset.parts, overrides or {})))
    for number, text in enumerate(parts, 1):
        yield "" if len(parts) == 1 else f"\n# grid {number} of {len(parts)}: a file of its own"
        yield text


def drawn(preset: Preset) -> str:
    """How it is drawn, in words."""
    draw = preset.draw
    if preset.is_table:
        return f"A table: radfs table paper:{preset.name}"
    interval = "" if draw.form == "slopes" else f", {100 * draw.level:g}% confidence intervals"
    return f"Drawn as {draw.form} of {draw.metric}{interval}: radfs figure paper:{preset.name}"


def _part_text(part: Mapping[str, Any], reasons: Mapping[str, str]) -> str:
    lines = []
    for section, keys in (("grid", GRID_KEYS), ("train", TRAIN_KEYS)):
        lines += ["", f"[{section}]"] if lines else [f"[{section}]"]
        for key in keys:
            if key in part:
                lines += [f"# inferred: {reasons[key]}"] if key in reasons else []
                lines.append(f"{key} = {_toml(part[key])}")
    return "\n".join(lines)


def _toml(value: Any) -> str:
    if isinstance(value, Mapping):
        return "{ " + ", ".join(f"{json.dumps(str(key))} = {_toml(one)}" for key, one in value.items()) + " }"
    if isinstance(value, (list, tuple)):
        return "[" + ", ".join(_toml(one) for one in value) + "]"
    return json.dumps(value)  # strings, numbers and booleans are written as TOML writes them


def preset_rows(names: Sequence[str] | None = None) -> list[dict[str, Any]]:
    """One row a preset: name, what it shows, cohorts, encoders, runs, and how many values are inferred."""
    rows = []
    for name in names or preset_names():
        preset = get_preset(name)
        rows.append(
            {
                "name": f"paper:{name}",
                "what": preset.title.partition(". ")[2],
                "form": preset.draw.form,
                "cohorts": ", ".join(preset.cohorts) if len(preset.cohorts) < 4 else f"{len(preset.cohorts)} cohorts",
                "encoders": len(preset.encoders),
                "runs": count_runs(preset.grids()),
                "same_as": preset.same_as or "",
                "inferred": len(preset.inferred),
            }
        )
    return rows
