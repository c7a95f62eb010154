"""The paper's figures and tables as grids: one TOML file each, beside this one; another file is another preset.

    preset = get_preset("fig5c")
    for grid in preset.grids(overrides={"backbone": "efficientnet-lite0"}): train_grid(store, grid)

What the paper does not say is in `[inferred]`, with the reason. No torch, no store.
"""

from .overrides import parse_overrides
from .preset import Draw, Preset, get_preset, matching_presets, preset_names

__all__ = ["Draw", "Preset", "get_preset", "matching_presets", "parse_overrides", "preset_names"]
