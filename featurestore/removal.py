"""Taking things out of a store on purpose: feature sets and the texts of reports."""

from .claims import list_claims
from .errors import StoreError
from .featureset import FeatureSet
from .fsio import remove_folder


def remove_feature_set(feature_set: FeatureSet) -> None:
    """Remove a feature set with all of its files. In one step it is gone for everybody; then its bytes are freed.

    Raises:
        StoreError: a process is extracting into it.
    """
    busy = [claim for claim in list_claims(feature_set) if claim.is_alive()]
    if busy:
        raise StoreError(
            f"feature set {feature_set.name}: a live process is making its shard {busy[0].shard}. "
            "Stop the extraction first."
        )
    remove_folder(feature_set.path)
