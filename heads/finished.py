"""Which runs a store has results of already, from the truth files below `results/`. No torch."""

from pathlib import Path

import polars as pl

from featurestore.errors import DamageError
from featurestore.store import Store

from .schema import COMMIT_FILE


class FinishedRuns:
    """The ids of the runs whose results are in a store; each look reads only parts that are new."""

    def __init__(self, store: Store) -> None:
        self._folder = store.results
        self._parts: set[Path] = set()
        self._ids: set[str] = set()

    def refresh(self) -> set[str]:
        """The ids as of now.

        Raises:
            DamageError: a part cannot be read.
        """
        for path in sorted(set(self._folder.glob(f"*/{COMMIT_FILE}")) - self._parts):
            self._ids.update(_read_ids(path))
            self._parts.add(path)
        return self._ids


def _read_ids(path: Path) -> list[str]:
    try:
        return pl.read_parquet(path, columns=["run"])["run"].to_list()
    except (OSError, pl.exceptions.PolarsError) as error:
        raise DamageError(
            f"results part {path.parent.name} cannot be read ({type(error).__name__}). Delete its folder below "
            "results/; the next `radfs train` of the same grid makes its runs again."
        ) from error
