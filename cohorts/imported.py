"""Splits that came from elsewhere, as rows, and the split of one seed among them. Knows no files."""

from collections.abc import Mapping

import polars as pl

from featurestore.errors import DataError

from .scheme import SplitScheme
from .splits import PARTS, Split, as_split, ordered

IMPORTED_SCHEMA = pl.Schema({"seed": pl.Int64, "part": pl.String, "rank": pl.Int32, "sample": pl.String})
"""One row a sample of an imported split. `seed` is null where one split is for all seeds; `rank` is the place in the
part's order, null where the file gave none: the order then comes from the seed. `part` is one of `splits.PARTS`."""

PART_WORDS: Mapping[str, str] = {
    **{part: part for part in PARTS},
    **dict.fromkeys(("validate", "validation", "valid", "val", "dev", "held_out", "held-out"), "held out"),
}
"""Our name of a part by what others call it: what is neither trained nor tested on goes by many names."""


def imported_split(
    imported: pl.DataFrame, samples: pl.DataFrame, *, seed: int, classes: int, scheme: SplitScheme
) -> Split:
    """The imported split of one seed, as far as it is of these samples.

    Args:
        imported: columns of `IMPORTED_SCHEMA`.
        samples: columns `sample`, `subject`, `label`; samples that no part names are left out.
        seed: of the split, and of the training order where no ranks were imported.
        classes: number of classes.
        scheme: for its unit.

    Raises:
        DataError: no split of this seed was imported.
    """
    rows = imported.filter(pl.col("seed").is_null() | (pl.col("seed") == seed))
    if rows.is_empty():
        known = ", ".join(map(str, sorted(set(imported["seed"]))))
        raise DataError(f"no split of seed {seed} was imported: the seeds are {known}. Choose seeds among them.")
    rows = rows.join(samples.select("sample"), on="sample", how="semi").sort("rank", "sample")
    parts = {part: tuple(rows.filter(part=part)["sample"]) for part in PARTS}
    if rows["rank"].null_count():
        train = samples.join(rows.filter(part="train"), on="sample", how="semi")
        parts["train"] = ordered(train, seed=seed, classes=classes, unit=scheme.unit)
    return as_split(samples, train=parts["train"], test=parts["test"], held_out=parts["held out"], unit=scheme.unit)
