"""How a cohort is to be split: the choice that a cohort declares, in one frozen value that enters its key.

Knows shares, units and folds; not how they are drawn (`splits` does that).
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from itertools import pairwise
from typing import Any

from featurestore.errors import DataError

UNITS = ("subject", "admission", "image", "official")
TESTS = ("per-seed", "fixed")


@dataclass(frozen=True)
class SplitScheme:
    """How the samples of a cohort fall into parts, seed by seed. Checked when it is made.

    Attributes:
        test_share: share of the samples on the test side, in (0, 1); not read where `folds` are given.
        unit: "subject": a patient is never on both sides. "admission": a stay in hospital is never on both sides, but
            other stays of its patient may be. "image": samples fall one by one, as in the paper, so that a patient
            with several images may stand on both sides. "official": the parts of the data's publishers, in which
            patients are whole (`official_split`).
        test: "per-seed": each seed has a test part of its own. "fixed": all seeds share that of seed 0 and differ in
            the order in which training samples are taken.
        folds: K of a grouped k-fold: the test part of seed s is fold s mod K of repetition s div K.
        held_out_share: share of the samples that is set aside with the test part and neither trained nor tested on,
            before any fraction is taken: the paper's 200 a class of 5x1200 (Table 3).
        balance: each seed draws, of every class, as many samples as the smallest class has, plus this many where there
            are more; the others are in no part of its split. None: all samples are in a part.
        imported: hash of the imported splits that stand in place of all of the above, else None.
        n_train: (fraction, number of training samples) where a number is declared in place of the floor, such as that
            of a published table; both ascend, so that subsets stay nested.
    """

    test_share: float = 0.2
    unit: str = "subject"
    test: str = "per-seed"
    folds: int | None = None
    held_out_share: float = 0.0
    balance: int | None = None
    imported: str | None = None
    n_train: tuple[tuple[float, int], ...] = ()

    def __post_init__(self) -> None:
        """Refuse a scheme that nobody can follow, with the value and what is allowed."""
        if not 0 < self.test_share < 1:
            raise DataError(
                f"test share {self.test_share} is outside (0, 1): 0.2 keeps one sample in five for the test."
            )
        if self.unit not in UNITS:
            raise DataError(f"split unit {self.unit!r} is not known: use {', '.join(UNITS)}.")
        if self.test not in TESTS:
            raise DataError(f"test {self.test!r} is not known: use {' or '.join(TESTS)}.")
        if not 0 <= self.held_out_share < 1 - self.test_share:
            raise DataError(
                f"held-out share {self.held_out_share} is not allowed: with a test share of {self.test_share} it must "
                f"be at least 0 and below {1 - self.test_share:g}, so that something is left to train on."
            )
        for (less, fewer), (more, n) in pairwise(((0, 0), *self.n_train)):
            if not (less < more <= 1 and fewer < n):
                raise DataError(
                    f"n_train {n} at fraction {more:g} is not allowed: fractions in (0, 1] and their numbers of "
                    "training samples must ascend, so that a smaller subset lies inside a larger one."
                )
        if self.balance is not None and (self.balance < 0 or self.test == "fixed" or self.folds is not None):
            raise DataError(
                f"a draw for each seed ({self.balance} more than the smallest class has) must be of 0 or more, and "
                "goes with no folds and no fixed test part: those are of the same samples for every seed."
            )
        if self.unit == "official" and (self.folds is not None or self.test == "fixed" or self.held_out_share):
            raise DataError("the official split says itself what is tested and held out: name no folds, no fixed test.")
        if self.folds is None:
            return
        if self.folds < 2:
            raise DataError(f"folds {self.folds} is not allowed: two are the least.")
        if self.test == "fixed" or self.held_out_share:
            raise DataError("folds go with no fixed test part and no held-out share: every sample is tested once.")

    def what(self) -> dict[str, Any]:
        """The scheme as plain JSON values, for the cohort's file and key."""
        return asdict(self)

    @classmethod
    def of(cls, values: Mapping[str, Any]) -> "SplitScheme":
        """The scheme of what `what` gave."""
        return cls(**{**values, "n_train": tuple((fraction, n) for fraction, n in values["n_train"])})

    def __str__(self) -> str:
        """One line for a person: `by subject, test share 0.2, a test part for each seed`."""
        declared = ", ".join(f"{n:,} at {fraction:g}" for fraction, n in self.n_train)
        declared = f", n_train declared: {declared}" if declared else ""
        more = f" and {self.balance} more" if self.balance else ""
        drawn = "" if self.balance is None else f", each seed draws as many of every class{more}"
        if self.imported is not None:
            what = "official split of the publishers" if self.unit == "official" else "imported"
            return f"{what} ({self.imported}){drawn}{declared}"
        by = f"by {self.unit}"
        if self.folds is not None:
            return f"{by}, {self.folds} folds{declared}"
        held = f", held-out share {self.held_out_share:g}" if self.held_out_share else ""
        test = "one test part for all seeds" if self.test == "fixed" else "a test part for each seed"
        return f"{by}, test share {self.test_share:g}{held}, {test}{drawn}{declared}"


BY_SUBJECT = SplitScheme()
"""What a cohort has unless told otherwise."""
