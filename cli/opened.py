"""A store that a command names, open, with its catalog up to date."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from featurestore.catalog import Catalog
    from featurestore.store import Store


def open_with_catalog(store: str) -> "tuple[Store, Catalog]":
    """The store at `store`, and its catalog, brought up to date."""
    from featurestore.store import open_store
    from heads.catalog import open_catalog

    opened = open_store(store)
    catalog = open_catalog(opened)
    catalog.fold()
    return opened, catalog
