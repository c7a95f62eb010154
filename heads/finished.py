"""Which runs a store has results of already, from the truth files below `results/`. No torch."""

import polars as pl

from featurestore.errors import DamageError
from featurestore.fsio import read_parquet
from featurestore.remote import StorePath, each
from featurestore.store import Store

from .schema import COMMIT_FILE


class FinishedRuns:
    """The ids of the runs whose results are in a store; each look reads only parts that are new.

    Attributes:
        inner_auroc: run -> the best AUROC on its inner validation part, of the runs that have one.
    """

    def __init__(self, store: Store) -> None:
        self._folder = store.results
        self._parts: set[StorePath] = set()
        self._ids: set[str] = set()
        self.inner_auroc: dict[str, float] = {}

    def refresh(self) -> set[str]:
        """The ids as of now.

        Raises:
            DamageError: a part cannot be read.
        """
        new = sorted(part for part in self._folder.glob("*") if part not in self._parts)
        for part, found in zip(new, each(lambda part: _read_runs(part / COMMIT_FILE), new), strict=True):
            if found is not None:
                self._ids.update(found["run"])
                self.inner_auroc.update(found.drop_nulls().iter_rows())
                self._parts.add(part)
        return self._ids


def _read_runs(path: StorePath) -> pl.DataFrame | None:
    """The runs of a part, columns `run` and `inner_auroc`; None if it is not committed yet."""
    try:
        return read_parquet(path, columns=["run", "inner_auroc"])
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, pl.exceptions.PolarsError) as error:
        raise DamageError(
            f"results part {path.parent.name} cannot be read ({type(error).__name__}). Delete its folder below "
            "results/; the next `radfs train` of the same grid makes its runs again."
        ) from error
