"""Which licences the data of some items have: what an export asks before anything leaves the store."""

from collections.abc import Sequence

import polars as pl

from featurestore.store import Store

from .cohort import list_cohorts, load_cohort

NO_COHORT = "none"
UNKNOWN = "unknown"


def data_licences(store: Store, items: Sequence[str], modality: str) -> dict[str, str]:
    """The stated licence of every cohort that has one of these items, by the cohort's name.

    Items that no cohort of today has stand under `NO_COHORT`, their licence being `UNKNOWN`.

    Args:
        store: an open store.
        items: ids.
        modality: image or text.
    """
    left = pl.Series("item", items, dtype=pl.String)
    asked = left
    licences = {}
    for name in list_cohorts(store):
        cohort = load_cohort(store, name)
        held = cohort.samples[modality].drop_nulls()
        if asked.is_in(held.implode()).any():
            licences[name] = cohort.licence
            left = left.filter(~left.is_in(held.implode()))
    if len(left):
        licences[NO_COHORT] = UNKNOWN
    return licences
