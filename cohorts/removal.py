"""Taking a cohort out of a store."""

from featurestore.fsio import remove_folder
from featurestore.store import Store

from .cohort import read_pointer


def remove_cohort(store: Store, name: str) -> None:
    """Remove a cohort: its samples, labels and splits. Items, tokens and results of runs stay.

    Raises:
        UnknownNameError: no such cohort.
    """
    read_pointer(store, name)
    remove_folder(store.cohorts / name)
