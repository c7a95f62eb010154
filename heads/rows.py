"""The common rows of a cohort within a grid: the samples that every method of the grid can use. No torch.

A sample counts if it has what the neediest method reads and if its items are committed in every feature set of the
grid. Samples may be lost to a missing report, to a recorded failure, or to an imported set that lacks them, and are
counted; an item that nobody has tried to extract is an error, so that a half-extracted set never shrinks a study in
silence.
"""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import polars as pl

from cohorts.cohort import Cohort, load_cohort
from featurestore.errors import DataError
from featurestore.featureset import FeatureSet, find_feature_sets, list_feature_sets
from featurestore.items import list_items
from featurestore.keys import content_key
from featurestore.store import Store

from .grid import Grid
from .kinds import get_head


@dataclass(frozen=True)
class CommonRows:
    """What a grid trains and tests on in one cohort.

    Attributes:
        cohort: the whole cohort.
        features: modality -> its feature sets, in the order of the grid.
        samples: the common rows, columns of `Cohort.samples`, in the order of sample ids.
        content: name of a feature set -> content hash of what it was made from, over the common rows.
        lost: why samples of the cohort are missing, and how many for that reason, in order of examination.
        views: name of a feature set of images -> its augmented views, where the grid asks for them; else 0.
    """

    cohort: Cohort
    features: dict[str, tuple[FeatureSet, ...]]
    samples: pl.DataFrame
    content: dict[str, str]
    lost: tuple[tuple[str, int], ...]
    views: dict[str, int]

    @cached_property
    def key(self) -> str:
        """Content hash of the ids of the common rows."""
        return content_key(self.samples["sample"].to_list())

    @cached_property
    def places(self) -> dict[str, int]:
        """Sample -> its place in the common rows."""
        return {sample: i for i, sample in enumerate(self.samples["sample"])}

    @cached_property
    def labels(self) -> np.ndarray:
        """int64 [N], classes; of a multi-label task int64 [N, C], findings 0, 1 or -1 where nobody knows."""
        if self.cohort.task == "multilabel":
            return np.array(self.samples["findings"].to_list(), dtype=np.int64)
        return self.samples["label"].to_numpy().astype(np.int64)


def find_common_rows(store: Store, grid: Grid, cohort_name: str) -> CommonRows:
    """The common rows of one cohort of a grid.

    Raises:
        DataError: an encoder has no feature set here or several, items have not been extracted yet, or no row is left;
            names the command that mends it.
        UnknownNameError: no such cohort.
    """
    cohort = load_cohort(store, cohort_name)
    samples, lost = _with_items(cohort, grid.modalities())
    features = {m: _feature_sets(store, m, grid.encoders(m), cohort_name) for m in grid.modalities()}
    views: dict[str, int] = {}
    for modality, feature_sets in features.items():
        for feature_set in feature_sets:
            _refuse_without_class_token(feature_set, grid)
            views[feature_set.name] = _count_views(feature_set, grid)
            for view in range(views[feature_set.name] + 1):
                asked = list_items(store, modality=modality, only=samples[modality].to_list())
                status = feature_set.status(asked, view).select(pl.col("item").alias(modality), "state", "content")
                samples, failed = _committed(samples, status, feature_set, cohort_name, view)
                why = "not in" if feature_set.is_imported else "failed in"
                lost.append((f"{why} {feature_set.name}" + (f", view {view}" if view else ""), failed))
                _refuse_empty(samples, cohort, lost)
            if modality == "text":
                _refuse_other_reports(samples, feature_set, cohort_name)
    content = {s.name: content_key(samples[s.name].to_list()) for sets in features.values() for s in sets}
    return CommonRows(cohort, features, samples.select(cohort.samples.columns), content, tuple(lost), views)


def _refuse_without_class_token(feature_set: FeatureSet, grid: Grid) -> None:
    heads = [name for name in grid.head if get_head(name).reads_cls]
    if heads and feature_set.modality == "image" and not feature_set.layout.has_cls:
        raise DataError(
            f"head {heads[0]!r} reads class tokens, and feature set {feature_set.name} has none: its encoder gives "
            "patch tokens alone. Use head mean, or an encoder with a class token (`radfs backbones` tells)."
        )


def _count_views(feature_set: FeatureSet, grid: Grid) -> int:
    """How many augmented views training draws from."""
    if grid.views == "clean" or feature_set.modality == "text":
        return 0
    count = max(feature_set.views(), default=0)
    if count == 0:
        raise DataError(
            f'[train] views = "augmented": feature set {feature_set.name} has the clean view alone. Extract augmented '
            'views of it first (`radfs extract --help`), or use views = "clean".'
        )
    return count


def _feature_sets(store: Store, modality: str, names: tuple[str, ...], cohort_name: str) -> tuple[FeatureSet, ...]:
    found = tuple(_feature_set(store, name, cohort_name) for name in names)
    for i, feature_set in enumerate(found):
        if feature_set.modality != modality:
            raise DataError(f"feature set {feature_set.name} is of {feature_set.modality}s, not of {modality}s.")
        if feature_set in found[:i]:
            raise DataError(f"the grid names feature set {feature_set.name} twice: {', '.join(names)}.")
    return found


def _feature_set(store: Store, name: str, cohort_name: str) -> FeatureSet:
    """The one feature set that `name` (an encoder, or `encoder@key`) means in this store."""
    found = find_feature_sets(store, name)
    encoder = name.partition("@")[0]
    if not found:
        others = [s.name for s in list_feature_sets(store) if s.encoder == encoder]
        has = f" It has {', '.join(others)}." if others else ""
        raise DataError(f"the store has no tokens of {name}.{has} Run: {_extract_command(encoder, cohort_name)}")
    if len(found) > 1:
        names = ", ".join(s.name for s in found)
        raise DataError(f"the store has several feature sets of {name}: {names}. Name one of them in the grid.")
    return found[0]


def _extract_command(encoder: str, cohort_name: str) -> str:
    return f"radfs extract --backbone {encoder} --cohort {cohort_name}"


def _with_items(cohort: Cohort, modalities: tuple[str, ...]) -> tuple[pl.DataFrame, list[tuple[str, int]]]:
    """The samples that have an item of every modality read, in the order of ids, and how many have not."""
    samples, lost = cohort.samples.sort("sample"), []
    for modality in modalities:
        kept = samples.filter(pl.col(modality).is_not_null())
        lost.append((f"without {modality}", samples.height - kept.height))
        samples = kept
    _refuse_empty(samples, cohort, lost)
    return samples, lost


def _refuse_empty(samples: pl.DataFrame, cohort: Cohort, lost: list[tuple[str, int]]) -> None:
    if samples.is_empty():
        reasons = ", ".join(f"{n} {reason}" for reason, n in lost if n)
        raise DataError(
            f"cohort {cohort.name}: none of its {cohort.samples.height} samples can be used by every method of the "
            f"grid ({reasons}). Leave out the method that reads what is missing, or build the cohort with it."
        )


def _refuse_other_reports(samples: pl.DataFrame, feature_set: FeatureSet, cohort_name: str) -> None:
    """Refuse tokens of reports that are not those the cohort was built with (another cohort replaced them since)."""
    other = samples.filter(pl.col(feature_set.name) != pl.col("text_sha256"))
    if not other.is_empty():
        raise DataError(
            f"cohort {cohort_name}: the report of item {other['text'][0]} (and of {other.height - 1} more) was "
            "replaced since the cohort was built. Build the cohort again from its records with --replace."
        )


def _committed(
    samples: pl.DataFrame, status: pl.DataFrame, feature_set: FeatureSet, cohort_name: str, view: int
) -> tuple[pl.DataFrame, int]:
    """The samples whose item is committed in this set, with its content hash as a column, and how many are not.

    What was imported holds what it holds: an item that its makers left out, or that changed since, is not waited for.
    """
    joined = samples.join(status, on=feature_set.modality, how="left", maintain_order="left")
    untried = joined.filter(pl.col("state").is_null() | (pl.col("state") == "missing"))
    if not untried.is_empty() and (not feature_set.is_imported or feature_set.is_unfinished()):
        where = f"feature set {feature_set.name}" if view == 0 else f"view {view} of feature set {feature_set.name}"
        raise DataError(
            f"cohort {cohort_name}: {untried.height} of {samples.height} {feature_set.modality} items are not in "
            f"{where} yet, the first is {untried[feature_set.modality][0]}. {feature_set.how_to_fill(cohort_name)}"
        )
    done = joined.filter(pl.col("state") == "done").drop("state", feature_set.name, strict=False)
    done = done.rename({"content": feature_set.name})
    return done, joined.height - done.height
