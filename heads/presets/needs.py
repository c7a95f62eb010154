"""What a store lacks for some grids, and the commands that get it: cohorts, weights, tokens, all at once. No torch.

needs = find_needs(store, preset.grids())
needs.lines()      # for a person; [] where nothing is missing
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from cohorts.cohort import list_cohorts, load_cohort
from featurestore.encoders import EncoderSpec, get_spec, is_available
from featurestore.encoders.weights import how_to_get
from featurestore.errors import UnknownNameError
from featurestore.featureset import FeatureSet, find_feature_sets
from featurestore.items import list_items
from featurestore.store import Store

from ..grid import Grid

VIEWS = 4
"""Cached views that an extraction is told to make: they gave what a fresh crop in every step gives (docs/limits.md)."""

_MIMIC = "--mimic-cxr-jpg DIR --mimic-cxr DIR"
_INSPECT = "--inspect DIR --radiographs DIR"
_BUILD = {
    "mimic-5x1200": _MIMIC,
    "mimic-age": f"{_MIMIC} --mimic-iv DIR",
    "mimic-discharge-3d": f"{_MIMIC} --mimic-iv DIR",
    **dict.fromkeys(("inspect-readmission-12m", "inspect-ph-12m", "inspect-pe"), _INSPECT),
}
"""The folders that the builder of each cohort of the paper takes."""

SOURCES = {
    "--mimic-cxr-jpg": "MIMIC-CXR-JPG 2.1.0, https://physionet.org/content/mimic-cxr-jpg/2.1.0",
    "--mimic-cxr": "MIMIC-CXR 2.1.0 (reports), https://physionet.org/content/mimic-cxr/2.1.0",
    "--mimic-iv": "MIMIC-IV 3.1, https://physionet.org/content/mimiciv/3.1",
    "--inspect": "INSPECT, https://stanfordaimi.azurewebsites.net (tables and CT volumes)",
    "--radiographs": "made from INSPECT's CT volumes: radfs cohort drr",
}
"""Where the data of each folder is downloaded. All of it is credentialed."""


@dataclass
class Needs:
    """What is missing.

    Attributes:
        cohorts: names of cohorts.
        weights: encoders whose weights are not here, and whose tokens are not in the store either.
        tokens: (cohort, encoder, views) whose tokens are not complete.
        ready: a cohort that is here -> the encoders whose tokens of it are complete.
    """

    cohorts: list[str] = field(default_factory=list)
    weights: list[EncoderSpec] = field(default_factory=list)
    tokens: list[tuple[str, str, int]] = field(default_factory=list)
    ready: dict[str, list[str]] = field(default_factory=dict)

    def __bool__(self) -> bool:
        """Whether anything is missing."""
        return bool(self.cohorts or self.weights or self.tokens)

    def lines(self) -> list[str]:
        """What is missing and how to get it, for a person."""
        return [*self._cohort_lines(), *self._weight_lines(), *self._token_lines()]

    def _cohort_lines(self) -> Iterator[str]:
        if not self.cohorts:
            return
        yield "cohorts that are not in the store:"
        for name in self.cohorts:
            options = _BUILD.get(name)
            if options is None:
                yield f"  {name}: build it with `radfs cohort build --help`"
            else:
                yield f"  {name}: radfs cohort build {name} {options} --preset paper"
        flags = {flag for name in self.cohorts for flag in _BUILD.get(name, "").split() if flag.startswith("--")}
        for flag, source in SOURCES.items():
            if flag in flags:
                yield f"    {flag}: {source}"

    def _weight_lines(self) -> Iterator[str]:
        if self.weights:
            yield "weights that are not here:"
        for spec in self.weights:
            yield f"  {spec.name}: {how_to_get(spec)}"

    def _token_lines(self) -> Iterator[str]:
        if self.tokens:
            yield "tokens that are not in the store:"
        groups: dict[tuple[str, int], list[str]] = {}
        for cohort, encoder, views in self.tokens:
            groups.setdefault((cohort, views), []).append(encoder)
        for (cohort, views), encoders in groups.items():
            options = f" --views {views}" if views else ""
            yield f"  radfs extract --backbone {','.join(encoders)} --cohort {cohort}{options}"

    def runnable(self, grids: Sequence[Grid]) -> str:
        """The overrides under which the grids could run now on what is there; empty where nothing can."""
        for cohort, encoders in self.ready.items():
            modalities = {modality for grid in grids for modality in grid.modalities()}
            of = {m: [n for n in encoders if _modality(n) == m] for m in ("image", "text")}
            if all(of[modality] for modality in modalities):
                keys = {"cohort": [cohort], "backbone": of["image"], "text_encoder": of["text"]}
                asked = {"image": "backbone", "text": "text_encoder"}
                used = ["cohort", *(asked[m] for m in ("image", "text") if m in modalities)]
                return " ".join(f"--set {key}={','.join(keys[key])}" for key in used)
        return ""


def _modality(encoder: str) -> str:
    return get_spec(encoder.partition("@")[0]).modality


def find_needs(store: Store | None, grids: Sequence[Grid]) -> Needs:
    """What the store lacks for all runs of the grids; a store that does not exist yet (None) lacks everything.

    Raises:
        DamageError: a cohort or a feature set of the store cannot be read.
    """
    needs, here = Needs(), list_cohorts(store) if store else []
    weights: dict[str, EncoderSpec] = {}
    seen: set[tuple[str, str, int]] = set()
    for grid in grids:
        needs.cohorts += [name for name in grid.cohort if name not in here and name not in needs.cohorts]
        for modality in grid.modalities():
            views = VIEWS if modality == "image" and grid.views == "augmented" else 0
            for encoder in grid.encoders(modality):
                sets = find_feature_sets(store, encoder) if store else []
                if not sets and (spec := _unavailable(encoder)):
                    weights[spec.name] = spec
                for cohort in grid.cohort:
                    if (cohort, encoder, views) in seen:
                        continue
                    seen.add((cohort, encoder, views))
                    if store and cohort in here and _is_whole(store, sets, cohort, modality, augmented=views > 0):
                        needs.ready.setdefault(cohort, []).append(encoder)
                    else:
                        needs.tokens.append((cohort, encoder, views))
    needs.weights = list(weights.values())
    return needs


def _unavailable(encoder: str) -> EncoderSpec | None:
    """The spec of an encoder whose weights are not on this machine."""
    try:
        spec = get_spec(encoder.partition("@")[0])
    except UnknownNameError:
        return None  # imported: there are no weights to get
    return None if is_available(spec) else spec


def _is_whole(store: Store, sets: Sequence[FeatureSet], cohort: str, modality: str, *, augmented: bool) -> bool:
    """Whether some feature set has tokens, or a recorded failure, of every item of this modality of the cohort."""
    items = load_cohort(store, cohort).samples[modality].drop_nulls().unique().to_list()
    stored = list_items(store, modality=modality, only=items)
    for one in sets:
        views = [0, max(one.views(), default=0)] if augmented else [0]
        enough = not augmented or views[-1] > 0
        if enough and all((one.status(stored, view)["state"] != "missing").all() for view in views):
            return True
    return False
