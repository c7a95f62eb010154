"""Which seeds of one setting belong together: those with a split of their own, or those that share one. No torch."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

Row = TypeVar("Row", bound=Mapping[str, Any])


def split_families(rows: Sequence[Row]) -> list[tuple[int | None, list[Row]]]:
    """The runs (or pairs of runs) of one setting, those with a split of their own apart from those that share one.

    As in the view `summary`: a run whose seed is also its split's seed may belong to either, or to both.

    Args:
        rows: with the keys seed and split_seed.

    Returns:
        pairs of (the one split_seed, or None where each seed has its own split; rows in the order of their seeds).
    """
    own = [row for row in rows if row["seed"] == row["split_seed"]]
    seeds_of = Counter(row["split_seed"] for row in rows)
    families: list[tuple[int | None, list[Row]]] = []
    alone = [row for row in own if len(own) > 1 or seeds_of[row["split_seed"]] == 1]
    if alone:
        families.append((None, alone))
    for split_seed, n in sorted(seeds_of.items()):
        sharing = [row for row in rows if row["split_seed"] == split_seed and (row["seed"] != split_seed or n > 1)]
        if sharing:
            families.append((split_seed, sharing))
    return [(split, sorted(members, key=lambda row: row["seed"])) for split, members in families]
