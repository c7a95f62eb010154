"""The catalog of a whole store: the tables and views of the feature store, of cohorts and of results. No torch."""

from cohorts import schema as cohorts_schema
from featurestore import schema as featurestore_schema
from featurestore.catalog import Catalog
from featurestore.store import Store

from . import schema, views
from .exchange.peers import PEER_RESULTS

TABLES = (*featurestore_schema.TABLES, *cohorts_schema.TABLES, *schema.TABLES, PEER_RESULTS)
VIEWS = (*featurestore_schema.VIEWS, *schema.VIEWS, *views.VIEWS)


def open_catalog(store: Store) -> Catalog:
    """The catalog of `store`; `fold` brings it up to date, `query` reads it."""
    return Catalog(store, TABLES, VIEWS)
