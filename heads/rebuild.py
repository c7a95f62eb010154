"""A run of a store as a plan would have it, made again from its row of `runs` and the truth files. No torch.

Every hash that the run's row states is computed again, so what was replaced since is named before anything is trained.
"""

import json
from collections.abc import Mapping
from typing import Any

import numpy as np
import polars as pl

from cohorts.cohort import load_cohort
from cohorts.split_files import load_parts
from cohorts.splits import PARTS, Split
from featurestore.catalog import Catalog
from featurestore.errors import DamageError, DataError
from featurestore.featureset import FeatureSet, open_feature_set
from featurestore.keys import content_key
from featurestore.reader import open_features
from featurestore.store import Store

from .plan import Parts, PlannedRun
from .rows import CommonRows
from .spec import RunSpec
from .trace import run_row

_SETS = {"image": "image_features", "text": "text_features"}


def rebuild_run(store: Store, catalog: Catalog, run_id: str) -> PlannedRun:
    """The run, its teacher before it, on the samples and feature sets that it was trained on.

    Args:
        store: an open store.
        catalog: of the store, up to date.
        run_id: of a run in the table `runs`.

    Raises:
        DataError: what it was made from is not in the store any more, or was replaced; says what.
        UnknownNameError: its cohort or a feature set is gone.
        DamageError: its row contradicts itself.
    """
    row = run_row(catalog, run_id)
    rows = _common_rows(store, row)
    split = rows.cohort.split(row["split_seed"], rows.samples)
    _same(run_id, f"the split of seed {row['split_seed']}", split.key, row["split"])
    return _planned(catalog, row, rows, split)


def _common_rows(store: Store, row: Mapping[str, Any]) -> CommonRows:
    """The samples of a run, from its stored split, and the feature sets that its training takes."""
    cohort = load_cohort(store, row["cohort"])
    if cohort.key != row["cohort_key"]:
        raise DataError(
            f"run {row['run']}: cohort {cohort.name!r} was replaced since (its key is {cohort.key}, the run's was "
            f"{row['cohort_key']}). Build the cohort as it was, with --replace, to run it again."
        )
    parts = load_parts(store, cohort.name, row["split"])
    ids = [sample for part in PARTS for sample in parts[part]]
    samples = cohort.samples.filter(pl.col("sample").is_in(ids)).sort("sample")
    features = {m: open_feature_set(store, row[column]) for m, column in _SETS.items() if row[column] is not None}
    rows = CommonRows(
        cohort=cohort,
        features={modality: (feature_set,) for modality, feature_set in features.items()},
        samples=samples,
        content={s.name: _content(store, s, samples, row["run"]) for s in features.values()},
        lost=(),
        views={s.name: row["views"] if modality == "image" else 0 for modality, s in features.items()},
    )
    _same(row["run"], "the samples that its grid used", rows.key, row["common_rows"])
    return rows


def _content(store: Store, feature_set: FeatureSet, samples: pl.DataFrame, run_id: str) -> str:
    """Content hash of the images or reports behind the tokens of these samples."""
    items = samples[feature_set.modality].to_list()
    features = open_features(store, feature_set.name, only=items)
    missing = [item for item, has in zip(items, features.has(items), strict=True) if not has]
    if missing:
        raise DataError(
            f"run {run_id}: feature set {feature_set.name} has no tokens any more of {len(missing):,} of its "
            f"{len(items):,} samples, the first is {missing[0]}: they were removed, or the {feature_set.modality}s "
            f"were replaced. {feature_set.how_to_fill()}"
        )
    return content_key(features.content(items))


def _planned(catalog: Catalog, row: Mapping[str, Any], rows: CommonRows, split: Split) -> PlannedRun:
    spec = _spec(row)
    of_reads = {s.identity: rows.content[s.name] for sets in rows.features.values() for s in sets}
    for identity, content in zip(spec.features, spec.content, strict=True):
        _same(spec.run_id, f"what the tokens of {identity} were made from", of_reads.get(identity), content)
    train, inner = split.subset(spec.fraction), None
    if spec.n_inner:
        train, inner = split.inner(spec.fraction)
    parts = Parts(_places(rows, train), None if inner is None else _places(rows, inner), _places(rows, split.test))
    counts = (len(parts.train), 0 if parts.inner is None else len(parts.inner), len(parts.test))
    _same(spec.run_id, "the numbers of its samples", counts, (spec.n_train, spec.n_inner, spec.n_test))
    teacher = None
    if spec.teacher_run is not None:
        teacher = _planned(catalog, run_row(catalog, spec.teacher_run), rows, split)
    return PlannedRun(
        spec=spec,
        rows=rows,
        split=split,
        split_seed=row["split_seed"],
        parts=parts,
        features={modality: sets[0] for modality, sets in rows.features.items()},
        done=True,
        teacher=teacher,
    )


def _spec(row: Mapping[str, Any]) -> RunSpec:
    try:
        spec = RunSpec.of(json.loads(row["config"]))
    except (TypeError, ValueError) as error:
        raise DataError(
            f"run {row['run']} was made by another version of radfs ({row['radfs']}, commit {row['git_commit']}), "
            f"whose runs this one cannot read ({error}). Use that version."
        ) from None
    if spec.run_id != row["run"]:
        raise DamageError(f"run {row['run']}: its config has the hash {spec.run_id}: the results are damaged.")
    return spec


def _places(rows: CommonRows, samples: tuple[str, ...]) -> np.ndarray:
    return np.array([rows.places[sample] for sample in samples], dtype=np.int64)


def _same(run_id: str, what: str, now: object, then: object) -> None:
    if now != then:
        raise DataError(
            f"run {run_id}: {what} changed since: now {now}, then {then}. Data were replaced, so it cannot be run "
            "again from this store."
        )
