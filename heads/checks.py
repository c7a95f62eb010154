"""Refuse, before anything runs, splits and fractions on which no metric is defined: a class would have no sample."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product

import numpy as np

from cohorts.splits import Split
from featurestore.errors import DataError

from .rows import CommonRows


@dataclass(frozen=True)
class _TrainingSide:
    """Labels of the training samples of one split, in the split's order."""

    seed: int
    split: Split
    labels: np.ndarray
    classes: int

    @property
    def needed(self) -> int:
        """How many of the first samples are needed until every class has one."""
        return max(int(np.argmax(self.labels == c)) for c in range(self.classes)) + 1

    def size(self, fraction: float) -> int:
        """Samples in the subset of this fraction, 0 where it is too small for one."""
        try:
            return len(self.split.subset(fraction))
        except DataError:
            return 0

    def works(self, fraction: float) -> bool:
        """Every class has a sample in the subset of this fraction."""
        return self.size(fraction) >= self.needed


def check_classes(
    rows: CommonRows, fractions: Sequence[float], splits: Mapping[int, Split], *, inner: bool = False
) -> None:
    """Refuse a test part, a training subset or an inner validation part in which a class has no sample.

    Of a multi-label task a part is refused where no finding is both present and absent in it.

    Args:
        rows: the common rows of a cohort.
        fractions: the grid's.
        splits: seed of the split -> split.
        inner: each training subset is cut into one to train on and an inner validation part.

    Raises:
        DataError: names cohort, seed, fraction, n and class, and what would work.
    """
    name, classes = rows.cohort.name, rows.cohort.classes
    if rows.cohort.task == "multilabel":
        _check_findings(rows, fractions, splits, inner=inner)
        return
    if len(classes) < 2:
        raise DataError(f"cohort {name} has one class only, {', '.join(classes)}: there is nothing to tell apart.")
    label_of = dict(rows.samples.select("sample", "label").iter_rows())
    sides = []
    for seed, split in splits.items():
        for part, samples in (("test", split.test), ("training", split.train)):
            _check_part(rows, [label_of[sample] for sample in samples], f"split seed {seed}", part)
        sides.append(_TrainingSide(seed, split, np.array([label_of[s] for s in split.train]), len(classes)))
    for side, fraction in product(sides, fractions):
        if not side.works(fraction):
            raise _empty_class_error(rows, side, fraction, _advice(sides, fractions))
        if inner:
            _check_inner(rows, side, fraction, label_of)


def _check_inner(rows: CommonRows, side: _TrainingSide, fraction: float, label_of: Mapping[str, int]) -> None:
    try:
        parts = side.split.inner(fraction)
    except DataError as error:
        raise DataError(f"cohort {rows.cohort.name}, split seed {side.seed}: {error}") from None
    for what, part in zip(("training", "inner validation"), parts, strict=True):
        absent = set(range(side.classes)) - {label_of[sample] for sample in part}
        if absent:
            raise DataError(
                f"cohort {rows.cohort.name}, split seed {side.seed}, fraction {fraction:g}: none of the {len(part)} "
                f"samples of the {what} part is of class {rows.cohort.classes[min(absent)]!r}. Use larger fractions, "
                'or select = "last", which sets no inner validation part aside.'
            )


def _check_findings(rows: CommonRows, fractions: Sequence[float], splits: Mapping[int, Split], *, inner: bool) -> None:
    for seed, split in splits.items():
        parts = {"test": split.test}
        for fraction in fractions:
            whole = {f"training (fraction {fraction:g})": split.subset(fraction)}
            halves = zip(("training", "inner validation"), split.inner(fraction), strict=True) if inner else ()
            parts |= {f"{what} (fraction {fraction:g})": ids for what, ids in halves} or whole
        for what, ids in parts.items():
            labels = rows.labels[[rows.places[sample] for sample in ids]]
            if not ((labels == 1).any(axis=0) & (labels == 0).any(axis=0)).any():
                raise DataError(
                    f"cohort {rows.cohort.name}, split seed {seed}: no finding is both present and absent in the "
                    f"{len(ids)} samples of the {what} part, so nothing can be measured. Use larger fractions, or "
                    "another split."
                )


def _check_part(rows: CommonRows, labels: Sequence[int], split: str, part: str) -> None:
    classes = rows.cohort.classes
    absent = set(range(len(classes))) - set(labels)
    if absent:
        raise DataError(
            f"cohort {rows.cohort.name}, {split}: none of the {len(labels)} {part} samples is of class "
            f"{classes[min(absent)]!r}. Try other seeds (or one split_seed for all), or build the cohort with fewer "
            "classes or another test share."
        )


def _empty_class_error(rows: CommonRows, side: _TrainingSide, fraction: float, advice: str) -> DataError:
    n = side.size(fraction)
    absent = set(range(side.classes)) - set(side.labels[:n].tolist())
    return DataError(
        f"cohort {rows.cohort.name}, split seed {side.seed}, fraction {fraction:g}: none of the {n} training samples "
        f"is of class {rows.cohort.classes[min(absent)]!r}; the first {side.needed} of {len(side.labels)} hold every "
        f"class. {advice}"
    )


def _advice(sides: Sequence[_TrainingSide], fractions: Sequence[float]) -> str:
    """The smallest fraction that works for every seed, and the smallest of the grid."""
    least = max(math.ceil(1e4 * side.needed / len(side.labels)) / 1e4 for side in sides)
    working = [f for f in fractions if all(side.works(f) for side in sides)]
    own = f"the smallest of this grid that works is {min(working):g}" if working else "none of this grid works"
    return f"For every seed: {own}, any from {least:g} on would."
