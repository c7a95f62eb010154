"""The tasks of the paper in numbers: samples, splits, fractions, training samples and epochs (Tables 3 to 7).

Frozen data without any code of a cohort, so that grids can read it. The floor of a fraction of the training samples
gives the tables' numbers for 5x1200, Age and Readmission; for 3-Day Discharge and 12-Month PH it misses some by a few,
whatever the size of the pool: `PaperTask.n_train` has the printed numbers, which `--preset paper` declares.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction


@dataclass(frozen=True)
class Size:
    """One row of Tables 3 to 7: fraction of the training samples, how many that was, and epochs."""

    fraction: float
    n: int
    epochs: int


@dataclass(frozen=True)
class PaperTask:
    """One task of the paper.

    Attributes:
        n_samples: images in the cohort.
        test_share: share of the images that is withheld for each seed, exact.
        held_out_share: share that is in no part, so that the training pool is what the table says.
        unit: "image" or "subject": what the splits of the paper look drawn by (`docs/cohorts.md`).
        seeds: how many.
        temperature: of the distillation.
        sizes: the rows of the table; none for a task that has no table.
    """

    n_samples: int
    test_share: Fraction
    unit: str
    temperature: float
    sizes: tuple[Size, ...] = ()
    held_out_share: Fraction = Fraction(0)
    seeds: int = 5

    @property
    def n_train(self) -> Mapping[float, int]:
        """The paper's own number of training samples at every fraction, in ascending order."""
        return {size.fraction: size.n for size in self.sizes}

    @property
    def epochs(self) -> Mapping[float, int]:
        """Epochs at every fraction."""
        return {size.fraction: size.epochs for size in self.sizes}


def _sizes(*rows: tuple[float, int, int]) -> tuple[Size, ...]:
    return tuple(Size(*row) for row in rows)


PAPER_TASKS: Mapping[str, PaperTask] = {
    "mimic-5x1200": PaperTask(
        6_000,
        Fraction(1, 6),
        "image",
        2.5,
        _sizes(
            (0.025, 100, 100), (0.05, 200, 100), (0.1, 400, 100), (0.25, 1000, 50), (0.5, 2000, 50), (1.0, 4000, 50)
        ),
        held_out_share=Fraction(1, 6),
    ),
    "mimic-age": PaperTask(
        35_242,
        Fraction(1, 10),
        "image",
        0.25,
        _sizes((0.01, 317, 150), (0.025, 792, 100), (0.05, 1585, 100), (0.1, 3171, 50)),
    ),
    "mimic-discharge-3d": PaperTask(
        18_490,
        Fraction(1, 10),
        "subject",
        0.25,
        _sizes(
            (0.005, 82, 100), (0.01, 165, 100), (0.025, 416, 100), (0.05, 829, 50), (0.1, 1662, 50), (0.25, 4145, 50)
        ),
    ),
    "inspect-readmission-12m": PaperTask(
        5_651,
        Fraction(1, 4),
        "image",
        0.25,
        _sizes((0.05, 211, 100), (0.1, 423, 100), (0.175, 741, 100), (0.25, 1059, 100), (0.5, 2119, 50)),
        seeds=10,
    ),
    "inspect-ph-12m": PaperTask(
        5_449,
        Fraction(1, 4),
        "image",
        0.25,
        _sizes((0.05, 204, 100), (0.1, 408, 100), (0.175, 715, 100), (0.25, 1022, 100), (0.5, 2044, 50)),
    ),
    "inspect-pe": PaperTask(9_375, Fraction(1, 4), "image", 0.25),
}
"""By the name of the cohort builder."""
