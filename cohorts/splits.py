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
    """The two sides of one seed: sample ids, each side in its seeded, label-balanced order of subjects."""

    train: tuple[str, ...]
    test: tuple[str, ...]

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
    return Split(
        train=_sample_order(train, train_order, seed=seed), test=_sample_order(subjects, order[:n_test], seed=seed)
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


_Subjects = Mapping[str, Sequence[tuple[str, int]]]
"""(sample, label) of every sample, by subject."""


def _subjects(samples: pl.DataFrame, classes: int) -> _Subjects:
    subjects: dict[str, list[tuple[str, int]]] = {}
    seen: set[str] = set()
    for sample, subject, label in samples.select("sample", "subject", "label").iter_rows():
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
    total = [0] * classes
    for count in counts.values():
        for label, n in count.items():
            total[label] += n
    strata: list[list[str]] = [[] for _ in range(classes)]
    for subject, count in counts.items():
        strata[min(count, key=lambda k: (-count[k], total[k], k))].append(subject)
    for stratum in strata:
        # Backwards, so that the next subject is popped from the end.
        stratum.sort(key=lambda s: (seeded_order_key(seed, stream, s), s), reverse=True)

    n_all, n, taken, order = sum(total), 0, [0] * classes, []
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


def _sample_order(subjects: _Subjects, order: Sequence[str], *, seed: int) -> tuple[str, ...]:
    """The samples of `subjects` in this `order`; inside a subject by hash.

    The hash leaves the data set out of `dataset/key`, so that the same rows under another name are split alike.
    """

    def place(sample: str) -> tuple[bytes, str]:
        return seeded_order_key(seed, "sample", sample.partition("/")[2] or sample), sample

    return tuple(sample for s in order for sample in sorted((name for name, _ in subjects[s]), key=place))


def _decimal(share: float) -> Fraction:
    return Fraction(str(float(share)))
