"""Train and test sides of a cohort, by subject, and nested training subsets that are balanced by label.

Everything follows from hashes of (seed, stream, unit or sample), so a split is the same on every platform, for every
order of the rows, and under every version of polars and numpy. Knows samples, subjects and labels; not where they
lie, nor what is trained on them.
"""

import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from functools import cached_property
from itertools import accumulate
from typing import Any

import polars as pl

from featurestore.errors import DataError
from featurestore.keys import content_key, seeded_order_key

from .scheme import BY_SUBJECT, SplitScheme

PARTS = ("train", "test", "held out")
"""Names of the parts of a split in files and tables."""


@dataclass(frozen=True)
class Split:
    """The parts of one seed: sample ids, each part in its seeded, label-balanced order of units.

    The unit of splitting is the subject, the stay in hospital, or the sample itself where images are split one by one
    (`SplitScheme.unit`).

    Attributes:
        train: ids of the training samples.
        test: ids of the test samples.
        held_out: ids of the samples that are set aside (`SplitScheme.held_out_share`); mostly none.
        units: the unit of each training sample, in the order of `train`; the samples of a unit are neighbours.
        labels: the class of each training sample, in the order of `train`.
        n_train: fraction -> number of training samples, where it is declared (`SplitScheme.n_train`).
    """

    train: tuple[str, ...]
    test: tuple[str, ...]
    held_out: tuple[str, ...]
    units: tuple[str, ...]
    labels: tuple[int, ...]
    n_train: Mapping[float, int] = field(default_factory=dict)

    @property
    def key(self) -> str:
        """The content hash of all that decides who is trained on: `parts_key`, and the numbers that are declared."""
        if not self.n_train:
            return self.parts_key
        return content_key({"parts": self.parts_key, "n_train": sorted(self.n_train.items())})

    @cached_property
    def parts_key(self) -> str:
        """The content hash of all parts and their order; ids count without the data set of `dataset/key`."""
        return content_key({part: [local_id(sample) for sample in ids] for part, ids in self.parts().items()})

    def parts(self) -> dict[str, tuple[str, ...]]:
        """The ids of every part, by its name (`PARTS`)."""
        return dict(zip(PARTS, (self.train, self.test, self.held_out), strict=True))

    def subset(self, fraction: float) -> tuple[str, ...]:
        """The first floor(`fraction` * n) training samples, so that a smaller subset lies inside a larger one.

        `fraction` counts as the decimal number that was written: 0.29 of 100 is 29, though 0.29 * 100 < 29 in binary.
        Where a number is declared for it (`n_train`), that counts.

        Raises:
            DataError: `fraction` is not in (0, 1], is too small for one sample, or has more declared than there are.
        """
        if fraction in self.n_train:
            return self.first(self.n_train[fraction])
        if not 0 < fraction <= 1:
            raise DataError(f"fraction {fraction} is outside (0, 1]: give the share of the training samples to use.")
        n = math.floor(_decimal(fraction) * len(self.train))
        if n == 0:
            raise DataError(
                f"fraction {fraction} of {len(self.train)} training samples is no sample at all. "
                f"Use at least {math.ceil(1e6 / len(self.train)) / 1e6:g}."
            )
        return self.train[:n]

    def first(self, n: int) -> tuple[str, ...]:
        """The first `n` training samples.

        Raises:
            DataError: there are not so many.
        """
        if not 0 < n <= len(self.train):
            raise DataError(f"n_train {n:,} is not possible: the split has 1 to {len(self.train):,} training samples.")
        return self.train[:n]

    def inner(self, fraction: float, share: float = 0.2) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """The samples of `subset(fraction)` in two parts: to train on, and to choose on (an epoch, an option).

        So that the test part is never the one that chose. A subject (a unit) stands in one part only, and in the same
        one at every fraction: both parts of a smaller fraction lie inside those of a larger one.

        Args:
            fraction: of the training samples, both parts together.
            share: of them, what goes to the validation part: about so much of every class, in whole units.

        Returns:
            Ids of the training part and of the validation part, each in the order of `train`.

        Raises:
            DataError: `fraction` or `share` is out of range, or a part would be empty.
        """
        if not 0 < share < 1:
            raise DataError(f"validation share {share} is outside (0, 1): 0.2 keeps one training sample in five.")
        if share not in self._chosen:
            self._chosen[share] = self._validation_units(_decimal(share))
        chosen = self._chosen[share]
        subset = self.subset(fraction)
        parts: tuple[list[str], list[str]] = ([], [])
        for sample, unit in zip(subset, self.units, strict=False):
            parts[unit in chosen].append(sample)
        for what, part in zip(("training", "validation"), parts, strict=True):
            if not part:
                raise DataError(
                    f"fraction {fraction}: none of its {len(subset)} training samples is left for the {what} part at "
                    f"validation share {share}. Use a larger fraction, or another share."
                )
        return tuple(parts[0]), tuple(parts[1])

    @cached_property
    def _chosen(self) -> dict[float, set[str]]:
        """What `_validation_units` gave, by share: a grid asks for every run."""
        return {}

    def _validation_units(self, share: Fraction) -> set[str]:
        """The training units that go to the validation part.

        Decided one by one in the order of `train`, each from what came before it, so that a prefix decides alike.
        A unit of m samples goes if its stratum k (that of its most frequent label) lags behind:
        share * (n_k + m) + phase_k * m >= v_k + m, for n_k samples of the stratum so far, v_k of them gone. One phase
        for all would let every stratum wait for the same moment; with phases spread over [0, 1 - share) the parts have
        the right size together, the rarest class comes first, and the first unit of a class always trains.
        """
        rows: dict[str, list[int]] = {}
        for unit, label in zip(self.units, self.labels, strict=True):
            rows.setdefault(unit, []).append(label)
        total = Counter(self.labels)
        rarest_first = sorted(total, key=lambda k: (total[k], k))
        c = len(total)
        phase = {k: (1 - share) * Fraction(2 * (c - i) - 1, 2 * c) for i, k in enumerate(rarest_first)}
        n, gone = Counter[int](), Counter[int]()
        chosen = set()
        for unit, labels in rows.items():
            k, m = _stratum(Counter(labels), total), len(labels)
            n[k] += m
            if share * n[k] + phase[k] * m >= gone[k] + m:
                gone[k] += m
                chosen.add(unit)
        return chosen


def make_split(samples: pl.DataFrame, *, seed: int, classes: int, scheme: SplitScheme = BY_SUBJECT) -> Split:
    """Split samples for one seed, as a scheme says.

    Units stand in a seeded order in which every prefix has about the label shares of the whole (`_balanced`). The
    test part takes whole units from the front until it is nearest to the number that is wanted, N - floor((1 -
    test_share) * N), so that the training side has the floor of its share; what is held out comes next; of K folds
    each takes the next K-th. The rest is put into an order of its own, independent of the first, of which
    `Split.subset` takes prefixes.

    Where each seed draws its own samples (`SplitScheme.balance`), all of this is done to those that it drew.

    Args:
        samples: columns `sample`, `subject`, `label` (0 to classes - 1), one row a sample; for splits by admission
            `admission` too.
        seed: the seed of the run (or of the splits, where a grid fixes them).
        classes: number of classes.
        scheme: how to split.

    Raises:
        DataError: a sample without subject (or admission) or twice, a label outside the classes, too few units.
    """
    if scheme.imported is not None or scheme.unit == "official":
        raise DataError("imported and official splits are read, not made: use Cohort.split.")
    if scheme.balance is not None:
        samples = _drawn(samples, seed=seed, more=scheme.balance)
    units = _units(samples, classes, scheme.unit)
    _check_enough(units, samples, scheme)
    test, held_out = _sides(units, samples.height, seed=seed, classes=classes, scheme=scheme)
    aside = [sample for unit in (*test, *held_out) for sample, _ in units[unit]]
    train = samples.filter(~pl.col("sample").is_in(pl.Series(aside, dtype=pl.String).implode()))
    return as_split(
        samples,
        unit=scheme.unit,
        train=ordered(train, seed=seed, classes=classes, unit=scheme.unit),
        test=_sample_order(units, test, seed=seed),
        held_out=_sample_order(units, held_out, seed=seed),
    )


def ordered(samples: pl.DataFrame, *, seed: int, classes: int, unit: str) -> tuple[str, ...]:
    """The ids of these training samples in the seeded, balanced order that `make_split` would give them."""
    units = _units(samples, classes, unit)
    return _sample_order(units, _balanced(units, seed=seed, stream="subset", classes=classes), seed=seed)


def as_split(
    samples: pl.DataFrame,
    *,
    train: tuple[str, ...],
    test: tuple[str, ...],
    held_out: tuple[str, ...] = (),
    unit: str = "subject",
) -> Split:
    """The split with these parts, whose subjects and labels stand in `samples` (columns as in `make_split`)."""
    known = {sample: (of, label) for sample, of, label in _rows(samples, unit)}
    return Split(
        train=train,
        test=test,
        held_out=held_out,
        units=tuple(known[sample][0] for sample in train),
        labels=tuple(known[sample][1] for sample in train),
    )


def units_of(samples: pl.DataFrame, unit: str) -> dict[str, str]:
    """The unit of every sample; columns as in `make_split`."""
    return {sample: of for sample, of, _ in _rows(samples, unit)}


def local_id(sample: str) -> str:
    """A sample's id without its data set, `dataset/key`: the same rows under another name are split alike."""
    return sample.partition("/")[2] or sample


_Units = Mapping[str, Sequence[tuple[str, int]]]
"""(sample, label) of every sample, by unit."""


def _units(samples: pl.DataFrame, classes: int, unit: str) -> _Units:
    units: dict[str, list[tuple[str, int]]] = {}
    seen: set[str] = set()
    for sample, of, label in _rows(samples, unit):
        if of is None:
            what = "admission" if unit == "admission" else "subject"
            raise DataError(f"sample {sample} has no {what}: without one it could stand on both sides of a split.")
        if label is None or not 0 <= label < classes:
            raise DataError(f"sample {sample} has a label outside 0 to {classes - 1}.")
        if sample in seen:
            raise DataError(f"sample {sample} stands more than once in the cohort.")
        seen.add(sample)
        units.setdefault(of, []).append((sample, label))
    return units


def _rows(samples: pl.DataFrame, unit: str) -> Iterator[tuple[str, Any, int]]:
    """(sample, its unit, its label) of every sample; the unit is null where it is not known."""
    column = "admission" if unit == "admission" else "subject"
    rows = samples.select("sample", column, "label").iter_rows()
    if unit != "image":
        return rows
    return ((sample, None if subject is None else local_id(sample), label) for sample, subject, label in rows)


def _drawn(samples: pl.DataFrame, *, seed: int, more: int) -> pl.DataFrame:
    """The samples of one seed: of every class as many as the smallest has, and so many more, by hash."""
    places = [seeded_order_key(seed, "balance", local_id(sample)).hex() for sample in samples["sample"]]
    least = min(samples.group_by("label").len()["len"], default=0)
    placed = samples.with_columns(pl.Series("_place", places, pl.String))
    return placed.filter(pl.col("_place").rank("ordinal").over("label") <= least + more).drop("_place")


def _check_enough(units: _Units, samples: pl.DataFrame, scheme: SplitScheme) -> None:
    least = scheme.folds or (3 if scheme.held_out_share else 2)
    if len(units) < least:
        raise DataError(
            f"{samples.height} samples of {len(units)} {scheme.unit}{'' if len(units) == 1 else 's'} cannot be split "
            f"{scheme}: no {scheme.unit} is in two parts, so {least} {scheme.unit}s are the least."
        )


def _sides(
    units: _Units, n_all: int, *, seed: int, classes: int, scheme: SplitScheme
) -> tuple[Sequence[str], Sequence[str]]:
    """The units of the test part and those held out."""
    if scheme.folds is not None:
        order = _balanced(units, seed=seed // scheme.folds, stream="split", classes=classes)
        targets = [n_all * k // scheme.folds for k in range(1, scheme.folds)]
        cuts = [0, *_cuts(units, order, targets), len(order)]
        fold = seed % scheme.folds
        return order[cuts[fold] : cuts[fold + 1]], ()
    order = _balanced(units, seed=0 if scheme.test == "fixed" else seed, stream="split", classes=classes)
    test, aside = _decimal(scheme.test_share), _decimal(scheme.test_share) + _decimal(scheme.held_out_share)
    # Counted from the training side, which has the floor of its share.
    n_test, n_aside = (n_all - math.floor((1 - share) * n_all) for share in (test, aside))
    if not scheme.held_out_share:
        (cut,) = _cuts(units, order, [n_test])
        return order[:cut], ()
    first, second = _cuts(units, order, [n_test, n_aside])
    return order[:first], order[first:second]


def _cuts(units: _Units, order: Sequence[str], targets: Sequence[int]) -> list[int]:
    """Where to cut the order, so that as many samples as each target says stand before it, as nearly as units allow.

    No part between two cuts is empty.
    """
    sizes = [0, *accumulate(len(units[unit]) for unit in order)]
    cuts: list[int] = []
    for left, target in zip(range(len(targets), 0, -1), targets, strict=True):
        possible = range(cuts[-1] + 1 if cuts else 1, len(order) - left + 1)
        cuts.append(min(possible, key=lambda n: abs(sizes[n] - target)))
    return cuts


def _balanced(units: _Units, *, seed: int, stream: str, classes: int) -> list[str]:
    """The units in a seeded order whose prefixes have about the label shares of the whole.

    A unit belongs to the stratum of its most frequent label. Each step takes the next one, in hash order, of
    the stratum whose label lags most: the largest share_k * n - taken_k, counted in samples and kept in integers
    (total_k * n - taken_k * N), so that no rounding can decide a tie.

    Where each unit has one label only, no label is ever ahead of its share by more than M samples, nor behind by more
    than (classes - 1) * M, for M the size of the largest unit: who is taken was not ahead before, and the deficits sum
    to zero.
    """
    counts = {unit: Counter(label for _, label in rows) for unit, rows in units.items()}
    total = sum(counts.values(), Counter[int]())
    strata: list[list[str]] = [[] for _ in range(classes)]
    for unit, count in counts.items():
        strata[_stratum(count, total)].append(unit)
    for stratum in strata:
        # Backwards, so that the next unit is popped from the end.
        stratum.sort(key=lambda unit: (seeded_order_key(seed, stream, unit), unit), reverse=True)

    n_all, n, taken, order = total.total(), 0, [0] * classes, []
    waiting = [k for k in range(classes) if strata[k]]
    while waiting:
        k = max(waiting, key=lambda k: (total[k] * n - taken[k] * n_all, -k))
        unit = strata[k].pop()
        order.append(unit)
        for label, m in counts[unit].items():
            taken[label] += m
            n += m
        if not strata[k]:
            waiting.remove(k)
    return order


def _stratum(count: Counter[int], total: Counter[int]) -> int:
    """The most frequent label of a unit; of equals the one that is rarest in all."""
    return min(count, key=lambda k: (-count[k], total[k], k))


def _sample_order(units: _Units, order: Sequence[str], *, seed: int) -> tuple[str, ...]:
    """The samples of these units in this order; inside a unit by hash."""

    def place(sample: str) -> tuple[bytes, str]:
        return seeded_order_key(seed, "sample", local_id(sample)), sample

    return tuple(sample for unit in order for sample in sorted((name for name, _ in units[unit]), key=place))


def _decimal(share: float) -> Fraction:
    return Fraction(str(float(share)))
