"""The paper's tables from specs, cohorts and results: headings and cells of text. No torch.

table = preset_table(store, open_catalog(store), get_preset("table2"))
table.headings, table.lines, table.notes
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import polars as pl

from cohorts.cohort import list_cohorts, load_cohort
from cohorts.paper import PAPER_TASKS
from featurestore.catalog import Catalog
from featurestore.encoders import EncoderSpec, get_spec
from featurestore.encoders.spec import ImagePreprocessing
from featurestore.errors import DataError
from featurestore.store import Store

from ..charts.theme import label
from ..grid import Grid
from ..selection import find_runs, summarise
from .draw import find_preset_runs, notes_of
from .preset import Preset

COHORT_LABELS = {
    "mimic-5x1200": "M 5x1200",
    "mimic-age": "Age",
    "mimic-discharge-3d": "3-Day",
    "inspect-ph-12m": "12-Month PH",
    "inspect-readmission-12m": "Readmission",
}
"""Headings of Table 2."""

YES, NO = "yes", "no"


@dataclass(frozen=True)
class Table:
    """A table as text.

    Attributes:
        headings: of its columns.
        lines: its cells.
        notes: what it shows and what it lacks.
    """

    headings: tuple[str, ...]
    lines: tuple[tuple[str, ...], ...]
    notes: tuple[str, ...] = ()


def preset_table(
    store: Store | None, catalog: Catalog | None, preset: Preset, overrides: Mapping[str, Any] | None = None
) -> Table:
    """A table of the paper, from what there is.

    Args:
        store: with the cohorts; None for a table of encoders.
        catalog: of the store, up to date; None likewise.
        preset: a table.
        overrides: other values for keys of its grids.

    Raises:
        DataError: a figure, or no run at all.
    """
    form = preset.draw.form
    if not preset.is_table:
        raise DataError(f"paper:{preset.name} is a figure: radfs figure paper:{preset.name}")
    if form == "models":
        return models_table([get_spec(name) for name in preset.draw.encoders])
    if form == "pretraining":
        return pretraining_table([get_spec(name) for name in preset.draw.encoders])
    assert store is not None
    assert catalog is not None
    if form == "sizes":
        return sizes_table(store, catalog, preset, overrides)
    return text_image_table(catalog, preset, overrides)


def models_table(specs: list[EncoderSpec]) -> Table:
    """Table 1: what the encoders are and what they were pre-trained with and on."""
    headings = ("Model", "Type", "Size", "Image SSL", "Text", "MIMIC", "CheXpert", "Other")
    lines = []
    for spec in specs:
        on = _seen(spec)
        text = {"text-supervised": YES, "aligned": f"{YES}, aligned"}.get(spec.objective, NO)
        ssl = YES if spec.objective in ("image-ssl", "text-supervised") else NO
        other = YES if on["NIH-CXR"] == YES or on["Other"] == YES else NO
        lines.append(
            (label("backbone", spec.name), _type(spec), _size(spec), ssl, text, on["MIMIC"], on["CheXpert"], other)
        )
    note = "Size: the side that the network sees, after cropping, in pixels (the paper prints 512 for BioViL-T)."
    return Table(headings, tuple(lines), (note,))


def pretraining_table(specs: list[EncoderSpec]) -> Table:
    """Table 8: the data sets that the encoders were pre-trained on."""
    headings = ("Model", "MIMIC", "CheXpert", "NIH-CXR", "Other")
    lines = [(label("backbone", spec.name), *(_seen(spec)[name] for name in headings[1:])) for spec in specs]
    return Table(headings, tuple(lines))


def _seen(spec: EncoderSpec) -> dict[str, str]:
    """Whether the weights have seen each data set of Table 8."""
    names = [name.partition(" (")[0] for name in spec.pretraining]
    known = {"MIMIC": "MIMIC-CXR", "CheXpert": "CheXpert", "NIH-CXR": "NIH-CXR"}
    seen = {short: YES if name in names else NO for short, name in known.items()}
    return seen | {"Other": YES if set(names) - set(known.values()) else NO}


def _type(spec: EncoderSpec) -> str:
    """ViT-B/14 or ResNet-50, of the architecture's name."""
    name = spec.architecture.name.lower()
    if "resnet" in name:
        return f"ResNet-{name.partition('resnet')[2][:2]}"
    preprocessing, grid = spec.preprocessing, spec.tokens.grid
    assert isinstance(preprocessing, ImagePreprocessing)
    assert grid is not None
    if spec.tokens.has_cls and spec.tokens.dim == 768:
        return f"ViT-B/{preprocessing.crop_px // grid[0]}"
    return spec.architecture.name


def _size(spec: EncoderSpec) -> str:
    assert isinstance(spec.preprocessing, ImagePreprocessing)
    return str(spec.preprocessing.crop_px)


def sizes_table(store: Store, catalog: Catalog, preset: Preset, overrides: Mapping[str, Any] | None = None) -> Table:
    """Tables 3 to 7: fractions, training samples and epochs, the paper's beside those of the cohort and of the runs.

    The cohort's n is of all its samples, over the grid's seeds; that of the runs of rows that every method could use.
    """
    lines, notes = [], []
    for grid in preset.grids(overrides):
        found = find_runs(catalog.query("SELECT * FROM results"), [grid])
        notes += notes_of(found)
        for name in grid.cohort:
            lines += _size_lines(store, grid, name, found.rows.filter(pl.col("cohort") == name))
            if name not in list_cohorts(store):
                notes.append(f"cohort {name} is not in the store: radfs cohort build {name} --help")
    headings = (
        "Cohort",
        "Fraction",
        "#samples, paper",
        "#samples, cohort",
        "#samples, runs",
        "Epochs, paper",
        "Epochs, runs",
    )
    return Table(headings, tuple(lines), tuple(notes))


def _size_lines(store: Store, grid: Grid, name: str, rows: pl.DataFrame) -> list[tuple[str, ...]]:
    paper = PAPER_TASKS.get(name)
    cohort = load_cohort(store, name) if name in list_cohorts(store) else None
    seeds = grid.seed if grid.split_seed is None else (grid.split_seed,)
    splits = [cohort.split(seed) for seed in seeds] if cohort else []
    lines = []
    for fraction in grid.fraction:
        used = rows.filter(pl.col("fraction") == fraction)
        cells = (
            _cell(paper and paper.n_train.get(fraction)),
            _range([len(split.subset(fraction)) for split in splits]),
            _range(used["n_train"].to_list()),
            _cell(paper and paper.epochs.get(fraction)),
            _range(used["epochs"].to_list()),
        )
        lines.append((name, f"{100 * fraction:g}%", *cells))
    return lines


def _cell(value: int | None) -> str:
    return "" if value is None else f"{value:,}"


def _range(values: list[int]) -> str:
    if not values:
        return ""
    low, high = min(values), max(values)
    return f"{low:,}" if low == high else f"{low:,}-{high:,}"


def text_image_table(catalog: Catalog, preset: Preset, overrides: Mapping[str, Any] | None = None) -> Table:
    """Table 2: text-only and best image-only head of every cohort at its smaller and its larger fraction."""
    found = find_preset_runs(catalog, preset, overrides)
    summary = summarise(found.rows)
    fractions: dict[str, list[float]] = {}
    for grid in preset.grids(overrides):
        for name in grid.cohort:
            fractions.setdefault(name, []).extend(f for f in grid.fraction if f not in fractions.get(name, []))
    columns = [_text_image(summary, name, sorted(of)) for name, of in fractions.items()]
    most = max(map(len, columns))
    names = ("Fraction", "Text AUC (sd)", "Image AUC (sd)", "Image Model") * (most // 4)
    lines = [(row, *(column[i] if i < len(column) else "" for column in columns)) for i, row in enumerate(names)]
    headings = ("Dataset", *(COHORT_LABELS.get(name, name) for name in fractions))
    seeds = sorted(set(summary["n_seeds"].to_list()))
    notes = (
        f"Test AUROC x 100 after the last epoch, mean and standard deviation over {'-'.join(map(str, seeds))} seeds.",
        "Image: the backbone with the highest mean, chosen on the very samples that it is reported on.",
        *notes_of(found),
    )
    return Table(headings, tuple(lines), notes)


def _text_image(summary: pl.DataFrame, cohort: str, fractions: list[float]) -> list[str]:
    cells = []
    for fraction in fractions:
        here = summary.filter((pl.col("cohort") == cohort) & (pl.col("fraction") == fraction))
        text = here.filter(pl.col("method") == "text").sort("auroc_mean", descending=True)
        image = here.filter(pl.col("method") == "image").sort("auroc_mean", descending=True)
        best = label("backbone", image["backbone"][0]) if image.height else ""
        cells += [f"{100 * fraction:g}%", _mean_sd(text), _mean_sd(image), best]
    return cells


def _mean_sd(rows: pl.DataFrame) -> str:
    """Of the first row, in per cent."""
    if rows.is_empty():
        return ""
    mean, sd = rows["auroc_mean"][0], rows["auroc_sd"][0]
    return f"{100 * mean:.1f}" + ("" if sd is None else f" ({100 * sd:.1f})")
