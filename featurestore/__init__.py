"""The feature store: items, encoders, and token embeddings on disk. Knows items, not labels.

Names load when they are first asked for, so that importing one light part never loads Polars or torch.
"""

import os
from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .extract import ExtractReport, extract_features
    from .featureset import FeatureSet, find_feature_sets, list_feature_sets
    from .items import add_items, list_items
    from .reader import Features, open_features
    from .store import Store, open_store
    from .stream import FeatureStream, stream_features

# Nothing is sent anywhere about what is done with patients' data: Hugging Face's libraries read these when they load.
os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
os.environ.setdefault("DO_NOT_TRACK", "1")

__all__ = [
    "ExtractReport",
    "FeatureSet",
    "FeatureStream",
    "Features",
    "Store",
    "add_items",
    "extract_features",
    "find_feature_sets",
    "list_feature_sets",
    "list_items",
    "open_features",
    "open_store",
    "stream_features",
]

_MODULES = {
    "extract": ("ExtractReport", "extract_features"),
    "featureset": ("FeatureSet", "find_feature_sets", "list_feature_sets"),
    "items": ("add_items", "list_items"),
    "reader": ("Features", "open_features"),
    "store": ("Store", "open_store"),
    "stream": ("FeatureStream", "stream_features"),
}


def __getattr__(name: str) -> Any:
    for module, names in _MODULES.items():
        if name in names:
            return getattr(import_module(f".{module}", __name__), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
