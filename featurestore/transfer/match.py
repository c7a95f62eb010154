"""Which items of a store the embeddings of a foreign source belong to."""

import polars as pl

from ..errors import DataError
from ..items import list_datasets, list_items
from ..store import Store
from .foreign import Foreign

_SHOWN = 3


def match_items(
    store: Store, foreign: Foreign, modality: str, dataset: str | None, *, skip_unknown: bool
) -> tuple[pl.DataFrame, list[int]]:
    """The store's items among those of a source, in the source's order, and the place of each in the source.

    Args:
        store: an open store.
        foreign: the open source.
        modality: image or text.
        dataset: put before ids that are bare keys.
        skip_unknown: leave out what the store does not know.

    Raises:
        DataError: an id repeats once it is whole; ids are unknown and not to be left out, or all of them are.
    """
    names = [_full_id(item, dataset) for item in foreign.ids]
    asked = pl.DataFrame({"item": names, "place": range(len(names))}, schema={"item": pl.String, "place": pl.Int64})
    repeated = asked.filter(asked["item"].is_duplicated())["item"]
    if len(repeated):
        raise DataError(f"id {repeated[0]} stands more than once in the source, with and without its dataset.")
    known = asked.join(list_items(store, modality=modality, only=names), on="item", maintain_order="left")
    unknown = asked.join(known, on="item", how="anti", maintain_order="left")["item"].to_list()
    if unknown and not (skip_unknown and len(known)):
        more = f" and {len(unknown) - _SHOWN:,} more" if len(unknown) > _SHOWN else ""
        raise DataError(
            f"{len(unknown):,} of {len(names):,} ids are no {modality} items of this store: "
            f"{', '.join(unknown[:_SHOWN])}{more}. {_next_step(store, modality, unknown[0], dataset, len(known))}"
        )
    return known.drop("place"), known["place"].to_list()


def _full_id(item: str, dataset: str | None) -> str:
    return item if dataset is None or item.startswith(f"{dataset}/") else f"{dataset}/{item}"


def _next_step(store: Store, modality: str, unknown: str, dataset: str | None, known: int) -> str:
    datasets = list_datasets(store)
    fitting = [f for f in datasets if len(list_items(store, modality=modality, only=[f"{f}/{unknown}"]))]
    if dataset is None and fitting:
        return f"They are bare keys: give --dataset {fitting[0]}."
    build = "Build a cohort that has them first (`radfs cohort build --help`)"
    if known:
        return f"{build}, or leave them out by --skip-unknown."
    return f"{build}; the store has items of {', '.join(datasets) or 'no dataset'}."
