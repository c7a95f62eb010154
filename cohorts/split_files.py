"""Splits as files: the truth files of those that were trained on."""

import polars as pl

from featurestore.fsio import write_parquet
from featurestore.store import Store

from .cohort import Cohort
from .splits import Split

SPLIT_SCHEMA = pl.Schema(
    {
        "split": pl.String,
        "cohort": pl.String,
        "seed": pl.Int64,
        "sample": pl.String,
        "part": pl.String,
        "rank": pl.Int32,
    }
)
"""One row a sample of a stored split: `rank` is its place in the part's seeded order."""


def save_split(store: Store, cohort: Cohort, split: Split, seed: int) -> None:
    """Write the truth file of a split, `cohorts/<name>/splits/<key>.parquet`, unless it is there."""
    path = store.cohorts / cohort.name / "splits" / f"{split.key}.parquet"
    if path.exists():
        return
    rows = [
        (split.key, cohort.name, seed, sample, part, rank)
        for part, ids in split.parts().items()
        for rank, sample in enumerate(ids)
    ]
    write_parquet(path, pl.DataFrame(rows, schema=SPLIT_SCHEMA, orient="row"))
