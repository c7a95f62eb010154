"""Taking things out of a store on purpose: feature sets and the texts of reports."""

from .claims import list_claims
from .errors import StoreError
from .featureset import FeatureSet
from .fsio import remove_folder


def remove_feature_set(feature_set: FeatureSet) -> None:
    """Remove a feature set with all of its files. In one step it is gone for everybody; then its bytes are freed.

    Raises:
        StoreError: a process has a claim on one of its shards, and is not known to be dead.
    """
    busy = [claim for claim in list_claims(feature_set) if claim.is_alive() is not False]
    if busy:
        raise StoreError(
            f"feature set {feature_set.name}: a process here or on another machine is making its shard "
            f"{busy[0].shard}. Stop the extraction first; if it is long gone, `radfs gc` takes its claim away."
        )
    remove_folder(feature_set.path)
