"""Train and test sides of a cohort, by subject, and nested training subsets that are balanced by label.

Everything follows from hashes of (seed, stream, subject or sample), so a split is the same on every platform, for
every order of the rows, and under every version of polars and numpy. Knows samples, subjects and labels; not where
they lie, nor what is trained on them.
"""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property
from itertools import accumulate

import polars as pl

from featurestore.errors import DataError
from featurestore.fsio import write_parquet
from featurestore.keys import content_key, seeded_order_key
from featurestore.store import Store

from .cohort import Cohort

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
"""One row a sample of a stored split: `part` is train or test, `rank` its place in that part's seeded order."""


@dataclass(frozen=True)
class Split:
    """The two sides of one seed: sample ids, each side in its seeded, label-balanced order of subjects.

    Attributes:
        train: ids of the training samples.
        test: ids of the test samples.
        subjects: the subject of each training sample, in the order of `train`; a subject's samples are neighbours.
        labels: the class of each training sample, in the order of `train`.
    """

    train: tuple[str, ...]
    test: tuple[str, ...]
    subjects: tuple[str, ...]
    labels: tuple[int, ...]

    @cached_property
    def key(self) -> str:
        """The content hash of both sides and their order."""
        return content_key({"train": self.train, "test": self.test})

    def subset(self, fraction: float) -> tuple[str, ...]:
        """The first floor(`fraction` * n) training samples, so that a smaller subset lies inside a larger one.

        `fraction` counts as the decimal number that was written: 0.29 of 100 is 29, though 0.29 * 100 < 29 in binary.

        Raises:
            DataError: `fraction` is not in (0, 1], or is too small for one sample.
        """
        if not 0 < fraction <= 1:
            raise DataError(f"fraction {fraction} is outside (0, 1]: give the share of the training samples to use.")
        n = math.floor(_decimal(fraction) * len(self.train))
        if n == 0:
            raise DataError(
                f"fraction {fraction} of {len(self.train)} training samples is no sample at all. "
                f"Use at least {math.ceil(1e6 / len(self.train)) / 1e6:g}."
            )
        return self.train[:n]

    def inner(self, fraction: float, share: float = 0.2) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """The samples of `subset(fraction)` in two parts: to train on, and to choose on (an epoch, an option).

        So that the test part is never the one that chose. A subject stands in one part only, and in the same one at
        every fraction: both parts of a smaller fraction lie inside those of a larger one.

        Args:
            fraction: of the training samples, both parts together.
            share: of them, what goes to the validation part: about so much of every class, in whole subjects.

        Returns:
            Ids of the training part and of the validation part, each in the order of `train`.

        Raises:
            DataError: `fraction` or `share` is out of range, or a part would be empty.
        """
        if not 0 < share < 1:
            raise DataError(f"validation share {share} is outside (0, 1): 0.2 keeps one training sample in five.")
        if share not in self._chosen:
            self._chosen[share] = self._validation_subjects(_decimal(share))
        chosen = self._chosen[share]
        subset = self.subset(fraction)
        parts: tuple[list[str], list[str]] = ([], [])
        for sample, subject in zip(subset, self.subjects, strict=False):
            parts[subject in chosen].append(sample)
        for what, part in zip(("training", "validation"), parts, strict=True):
            if not part:
                raise DataError(
                    f"fraction {fraction}: none of its {len(subset)} training samples is left for the {what} part at "
                    f"validation share {share}. Use a larger fraction, or another share."
                )
        return tuple(parts[0]), tuple(parts[1])

    @cached_property
    def _chosen(self) -> dict[float, set[str]]:
        """What `_validation_subjects` gave, by share: a grid asks for every run."""
        return {}

    def _validation_subjects(self, share: Fraction) -> set[str]:
        """The training subjects that go to the validation part.

        Decided one by one in the order of `train`, each from what came before it, so that a prefix decides alike.
        A subject of m samples goes if its stratum k (that of its most frequent label) lags behind:
        share * (n_k + m) + phase_k * m >= v_k + m, for n_k samples of the stratum so far, v_k of them gone. One phase
        for all would let every stratum wait for the same moment; with phases spread over [0, 1 - share) the parts have
        the right size together, the rarest class comes first, and the first subject of a class always trains.
        """
        rows: dict[str, list[int]] = {}
        for subject, label in zip(self.subjects, self.labels, strict=True):
            rows.setdefault(subject, []).append(label)
        total = Counter(self.labels)
        rarest_first = sorted(total, key=lambda k: (total[k], k))
        c = len(total)
        phase = {k: (1 - share) * Fraction(2 * (c - i) - 1, 2 * c) for i, k in enumerate(rarest_first)}
        n, gone = Counter[int](), Counter[int]()
        chosen = set()
        for subject, labels in rows.items():
            k, m = _stratum(Counter(labels), total), len(labels)
            n[k] += m
            if share * n[k] + phase[k] * m >= gone[k] + m:
                gone[k] += m
                chosen.add(subject)
        return chosen


def make_split(samples: pl.DataFrame, *, seed: int, test_share: float, classes: int) -> Split:
    """Split samples by subject, for one seed.

    Subjects stand in a seeded order in which every prefix has about the label shares of the whole (`_balanced`). The
    test side takes whole subjects from the front until it is nearest to floor(test_share * N) samples. The rest is
    put into an order of its own, independent of the first, of which `Split.subset` takes prefixes.

    Args:
        samples: columns `sample`, `subject`, `label` (0 to classes - 1), one row a sample.
        seed: the seed of the run (or of the splits, where a grid fixes them).
        test_share: share of the samples on the test side, in (0, 1).
        classes: number of classes.

    Raises:
        DataError: a sample without subject or twice, a label outside the classes, fewer than two subjects.
    """
    if not 0 < test_share < 1:
        raise DataError(f"test share {test_share} is outside (0, 1): 0.2 keeps one sample in five for the test.")
    subjects = _subjects(samples, classes)
    if len(subjects) < 2:
        raise DataError(
            f"{samples.height} samples of {len(subjects)} subject cannot be split: a subject is never on both sides, "
            "so two subjects are the least."
        )
    order = _balanced(subjects, seed=seed, stream="split", classes=classes)
    target = math.floor(_decimal(test_share) * samples.height)
    sizes = list(accumulate(len(subjects[s]) for s in order))
    n_test = min(range(1, len(order)), key=lambda n: abs(sizes[n - 1] - target))
    train = {s: subjects[s] for s in order[n_test:]}
    train_order = _balanced(train, seed=seed, stream="subset", classes=classes)
    return as_split(
        samples,
        train=_sample_order(train, train_order, seed=seed),
        test=_sample_order(subjects, order[:n_test], seed=seed),
    )


def as_split(samples: pl.DataFrame, *, train: tuple[str, ...], test: tuple[str, ...]) -> Split:
    """The split with these sides, whose subjects and labels stand in `samples` (columns as in `make_split`)."""
    known = {sample: (subject, label) for sample, subject, label in samples.select(_COLUMNS).iter_rows()}
    return Split(
        train=train,
        test=test,
        subjects=tuple(known[sample][0] for sample in train),
        labels=tuple(known[sample][1] for sample in train),
    )


def save_split(store: Store, cohort: Cohort, split: Split, seed: int) -> None:
    """Write the truth file of a split, `cohorts/<name>/splits/<key>.parquet`, unless it is there."""
    path = store.cohorts / cohort.name / "splits" / f"{split.key}.parquet"
    if path.exists():
        return
    parts = [("train", split.train), ("test", split.test)]
    rows = [
        (split.key, cohort.name, seed, sample, part, rank) for part, ids in parts for rank, sample in enumerate(ids)
    ]
    write_parquet(path, pl.DataFrame(rows, schema=SPLIT_SCHEMA, orient="row"))


_COLUMNS = ("sample", "subject", "label")
_Subjects = Mapping[str, Sequence[tuple[str, int]]]
"""(sample, label) of every sample, by subject."""


def _subjects(samples: pl.DataFrame, classes: int) -> _Subjects:
    subjects: dict[str, list[tuple[str, int]]] = {}
    seen: set[str] = set()
    for sample, subject, label in samples.select(_COLUMNS).iter_rows():
        if subject is None:
            raise DataError(f"sample {sample} has no subject: without one it could stand on both sides of a split.")
        if label is None or not 0 <= label < classes:
            raise DataError(f"sample {sample} has a label outside 0 to {classes - 1}.")
        if sample in seen:
            raise DataError(f"sample {sample} stands more than once in the cohort.")
        seen.add(sample)
        subjects.setdefault(subject, []).append((sample, label))
    return subjects


def _balanced(subjects: _Subjects, *, seed: int, stream: str, classes: int) -> list[str]:
    """The subjects in a seeded order whose prefixes have about the label shares of the whole.

    A subject belongs to the stratum of its most frequent label. Each step takes the next subject, in hash order, of
    the stratum whose label lags most: the largest share_k * n - taken_k, counted in samples and kept in integers
    (total_k * n - taken_k * N), so that no rounding can decide a tie.

    Where each subject has one label only, no label is ever ahead of its share by more than M samples, nor behind by
    more than (classes - 1) * M, for M the size of the largest subject: who is taken was not ahead before, and the
    deficits sum to zero.
    """
    counts = {s: Counter(label for _, label in rows) for s, rows in subjects.items()}
    total = sum(counts.values(), Counter[int]())
    strata: list[list[str]] = [[] for _ in range(classes)]
    for subject, count in counts.items():
        strata[_stratum(count, total)].append(subject)
    for stratum in strata:
        # Backwards, so that the next subject is popped from the end.
        stratum.sort(key=lambda s: (seeded_order_key(seed, stream, s), s), reverse=True)

    n_all, n, taken, order = total.total(), 0, [0] * classes, []
    waiting = [k for k in range(classes) if strata[k]]
    while waiting:
        k = max(waiting, key=lambda k: (total[k] * n - taken[k] * n_all, -k))
        subject = strata[k].pop()
        order.append(subject)
        for label, m in counts[subject].items():
            taken[label] += m
            n += m
        if not strata[k]:
            waiting.remove(k)
    return order


def _stratum(count: Counter[int], total: Counter[int]) -> int:
    """The most frequent label of a subject; of equals the one that is rarest in all."""
    return min(count, key=lambda k: (-count[k], total[k], k))


def _sample_order(subjects: _Subjects, order: Sequence[str], *, seed: int) -> tuple[str, ...]:
    """The samples of `subjects` in this `order`; inside a subject by hash.

    The hash leaves the data set out of `dataset/key`, so that the same rows under another name are split alike.
    """

    def place(sample: str) -> tuple[bytes, str]:
        return seeded_order_key(seed, "sample", sample.partition("/")[2] or sample), sample

    return tuple(sample for s in order for sample in sorted((name for name, _ in subjects[s]), key=place))


def _decimal(share: float) -> Fraction:
    return Fraction(str(float(share)))
