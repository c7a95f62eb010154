"""A cohort in words: how its rows came about, its classes, what each encoder has of it."""

from collections.abc import Iterator

import polars as pl

from featurestore.featureset import list_feature_sets
from featurestore.items import list_items
from featurestore.store import Store

from .cohort import Cohort, load_cohort, load_flow


def cohort_items(store: Store, name: str, modality: str) -> list[str]:
    """The ids of a cohort's images or reports (`modality`), each once, in the order of samples."""
    return load_cohort(store, name).samples[modality].drop_nulls().unique(maintain_order=True).to_list()


def describe_cohort(store: Store, name: str) -> list[str]:
    """Lines for a person.

    Raises:
        UnknownNameError: no such cohort.
    """
    cohort = load_cohort(store, name)
    counts = cohort.counts()
    lines = [
        f"cohort {cohort.name} (key {cohort.key}), made by {cohort.builder}; licence: {cohort.licence}",
        f"{counts['samples']:,} samples of {counts['subjects']:,} subjects; {counts['images']:,} with an image, "
        f"{counts['texts']:,} with a report",
        f"{cohort.task}; splits: {cohort.scheme}",
        *_subject_warning(cohort),
        "",
        "findings" if cohort.task == "multilabel" else "classes",
        *_class_lines(cohort),
        "",
        "how the rows came about",
        *_flow_lines(load_flow(store, name)),
        "",
        "encoders",
        *_coverage_lines(store, cohort),
    ]
    return lines


def _class_lines(cohort: Cohort) -> Iterator[str]:
    for number, (name, n) in enumerate(cohort.class_counts().items()):
        positive = "  (positive)" if cohort.task == "binary" and number == 1 else ""
        yield f"  {number}  {name}: {n:,} ({n / cohort.samples.height:.1%}){positive}"
    for number, (name, (present, absent, unknown)) in enumerate(cohort.finding_counts().items()):
        share = f" ({present / (present + absent):.1%} of those known)" if present + absent else ""
        yield f"  {number}  {name}: {present:,} present{share}, {absent:,} absent, {unknown:,} unknown"


def _subject_warning(cohort: Cohort) -> Iterator[str]:
    if cohort.builder == "table" and cohort.options.get("subject_col") is None:
        yield "WARNING: no subject column was named: every row counts as a patient, and if they repeat, the test leaks"


def _flow_lines(flow: pl.DataFrame) -> Iterator[str]:
    """The rows as they came, every step that left some out, and what is left."""
    for step in flow.iter_rows(named=True):
        lost = step["n_before"] - step["n_after"]
        if step["position"] == 0:
            yield f"  {step['n_after']:>9,}  {step['what']}"
        elif lost:
            yield f"  {-lost:>9,}  {step['step']}: {step['what']}"
    yield f"  {flow['n_after'][-1]:>9,}  samples"


def _coverage_lines(store: Store, cohort: Cohort) -> Iterator[str]:
    feature_sets = list_feature_sets(store)
    for feature_set in feature_sets:
        ids = cohort.samples[feature_set.modality].drop_nulls().unique()
        items = list_items(store, modality=feature_set.modality, only=ids.to_list())
        states = dict(feature_set.status(items)["state"].value_counts().iter_rows())
        parts = [f"{states.get('done', 0):,} of {len(ids):,} {feature_set.modality}s"]
        parts += [f"{n:,} {state}" for state, n in sorted(states.items()) if state != "done"]
        yield f"  {feature_set.name}: {', '.join(parts)}"
    if not feature_sets:
        yield "  none yet: radfs extract --backbone NAME"
