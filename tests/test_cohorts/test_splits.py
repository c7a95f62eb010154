"""Splits: no leak, nested, exact, balanced, and the same on every platform."""

import math
import time
from collections import Counter
from fractions import Fraction

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cohorts.scheme import SplitScheme
from cohorts.splits import make_split
from featurestore.errors import DataError
from featurestore.keys import content_key


def samples_of(subjects: list[list[int]]) -> pl.DataFrame:
    """A samples table from the labels of each subject."""
    rows = [(f"c/{s}-{i}", f"p{s}", label) for s, labels in enumerate(subjects) for i, label in enumerate(labels)]
    return pl.DataFrame(rows, schema={"sample": pl.String, "subject": pl.String, "label": pl.Int32}, orient="row")


labels_of_subjects = st.lists(st.lists(st.integers(0, 2), min_size=1, max_size=6), min_size=2, max_size=30)
seeds = st.integers(0, 2**32)


@given(labels_of_subjects, seeds, st.sampled_from([0.05, 0.2, 0.5, 0.9]))
@settings(max_examples=80, deadline=None)
def test_every_sample_is_on_one_side_and_every_subject_too(subjects, seed, test_share):
    samples = samples_of(subjects)
    split = make_split(samples, seed=seed, scheme=SplitScheme(test_share), classes=3)
    assert sorted(split.train + split.test) == sorted(samples["sample"])
    assert split.train
    assert split.test
    subject_of = dict(samples.select("sample", "subject").iter_rows())
    assert not {subject_of[s] for s in split.train} & {subject_of[s] for s in split.test}


@given(labels_of_subjects, seeds, st.floats(0.001, 1), st.floats(0.001, 1))
@settings(max_examples=80, deadline=None)
def test_subsets_nest_and_have_exactly_floor_of_fraction_times_n(subjects, seed, one, other):
    split = make_split(samples_of(subjects), seed=seed, scheme=SplitScheme(0.2), classes=3)
    small, large = sorted([one, other])
    if math.floor(Fraction(str(small)) * len(split.train)) < 1:
        return
    inner, outer = split.subset(small), split.subset(large)
    assert inner == outer[: len(inner)]
    assert len(outer) == math.floor(Fraction(str(large)) * len(split.train))
    assert split.subset(1.0) == split.train


@given(labels_of_subjects, seeds, st.randoms(use_true_random=False))
@settings(max_examples=40, deadline=None)
def test_the_order_of_rows_does_not_matter(subjects, seed, random):
    samples = samples_of(subjects)
    order = list(range(samples.height))
    random.shuffle(order)
    ways = (samples, samples[order])
    one, other = (make_split(s, seed=seed, scheme=SplitScheme(0.2), classes=3) for s in ways)
    assert one == other
    assert one.key == other.key


@given(
    st.lists(st.tuples(st.integers(0, 3), st.integers(1, 5)), min_size=2, max_size=60).filter(
        lambda subjects: len(subjects) > 1
    ),
    seeds,
)
@settings(max_examples=80, deadline=None)
def test_label_shares_of_every_prefix_stay_within_the_size_of_the_largest_subject(subjects, seed):
    """One label a subject: never ahead by more than M, never behind by more than (classes - 1) * M."""
    classes, largest = 4, max(size for _, size in subjects)
    samples = samples_of([[label] * size for label, size in subjects])
    split = make_split(samples, seed=seed, scheme=SplitScheme(0.3), classes=classes)
    label_of = dict(samples.select("sample", "label").iter_rows())
    for side in (split.train, split.test):
        if side == split.test:
            total = Counter(samples["label"].to_list())
            n_all = samples.height
        else:
            total = Counter(label_of[s] for s in side)
            n_all = len(side)
        taken: Counter[int] = Counter()
        for n, sample in enumerate(side, start=1):
            taken[label_of[sample]] += 1
            for k in range(classes):
                ahead = taken[k] - total[k] / n_all * n
                assert -(classes - 1) * largest - 1e-9 <= ahead <= largest + 1e-9


def test_prefixes_stay_balanced_when_subjects_have_mixed_labels():
    samples = samples_of([[(s * 7 + i * i) % 5 % 3 for i in range(1 + s % 6)] for s in range(400)])
    split = make_split(samples, seed=3, scheme=SplitScheme(0.2), classes=3)
    label_of = dict(samples.select("sample", "label").iter_rows())
    whole = Counter(label_of.values())
    for fraction in (0.05, 0.1, 0.3):
        subset = split.subset(fraction)
        part = Counter(label_of[s] for s in subset)
        assert all(abs(part[k] / len(subset) - whole[k] / len(label_of)) < 0.06 for k in range(3))


def test_the_test_side_is_nearest_to_the_share_in_whole_subjects():
    samples = samples_of([[s % 2] * (1 + s % 4) for s in range(50)])
    split = make_split(samples, seed=0, scheme=SplitScheme(0.2), classes=2)
    target = math.ceil(0.2 * samples.height)
    assert abs(len(split.test) - target) <= 2  # half of the largest subject


def test_one_giant_subject_leaves_both_sides_filled():
    samples = samples_of([[0, 1] * 50, [1]])
    for seed in range(5):
        split = make_split(samples, seed=seed, scheme=SplitScheme(0.2), classes=2)
        assert {len(split.train), len(split.test)} == {1, 100}


def test_the_same_rows_on_every_platform():
    """A changed hash means that every result ever stored was trained on other rows: never change it lightly."""
    samples = samples_of([[s % 3, (s * s) % 3, 1][: 1 + s % 3] for s in range(60)])
    split = make_split(samples, seed=7, scheme=SplitScheme(0.2), classes=3)
    assert split.test[:3] == PINNED_TEST
    assert split.key == PINNED_KEY
    assert content_key(split.subset(0.3)) == PINNED_SUBSET
    assert content_key(split.inner(0.5)) == PINNED_INNER


PINNED_TEST = ("c/39-0", "c/34-0", "c/34-1")
PINNED_KEY = "33ae62543c3e95a0"
PINNED_SUBSET = "1c2a0dede913c617"
PINNED_INNER = "4a8f69477005264f"


def test_another_seed_gives_another_split_and_the_streams_are_independent():
    samples = samples_of([[s % 2] for s in range(200)])
    one, other = (make_split(samples, seed=seed, scheme=SplitScheme(0.2), classes=2) for seed in (0, 1))
    assert set(one.test) != set(other.test)
    # Were the training order that of the split, it would go on where the test side stops for any test share.
    longer = make_split(samples, seed=0, scheme=SplitScheme(0.3), classes=2)
    assert one.test == longer.test[: len(one.test)]
    assert one.train[:20] != longer.test[len(one.test) :][:20]


def test_the_name_of_the_cohort_does_not_move_samples():
    samples = samples_of([[s % 2, 1] for s in range(40)])
    renamed = samples.with_columns(pl.col("sample").str.replace("c/", "another/"))
    one, other = (make_split(s, seed=0, scheme=SplitScheme(0.2), classes=2) for s in (samples, renamed))
    assert [s.partition("/")[2] for s in one.train] == [s.partition("/")[2] for s in other.train]


shares = st.sampled_from([0.1, 0.2, 0.25, 0.5])


@given(labels_of_subjects, seeds, st.floats(0.05, 1), shares)
@settings(max_examples=80, deadline=None)
def test_the_inner_parts_are_the_subset_and_share_no_subject_with_each_other_or_the_test(
    subjects, seed, fraction, share
):
    samples = samples_of(subjects)
    split = make_split(samples, seed=seed, scheme=SplitScheme(0.2), classes=3)
    try:
        subset = split.subset(fraction)
        train, validation = split.inner(fraction, share)
    except DataError:
        return  # too small: the tests below hold the messages
    subject_of = dict(samples.select("sample", "subject").iter_rows())
    sides = [{subject_of[s] for s in part} for part in (train, validation, split.test)]
    assert sorted(train + validation) == sorted(subset)
    assert len(set.union(*sides)) == sum(map(len, sides))
    assert [s for s in subset if s in set(train)] == list(train)


@given(labels_of_subjects, seeds, st.floats(0.05, 1), st.floats(0.05, 1), shares)
@settings(max_examples=80, deadline=None)
def test_the_inner_parts_nest(subjects, seed, one, other, share):
    split = make_split(samples_of(subjects), seed=seed, scheme=SplitScheme(0.2), classes=3)
    small, large = sorted([one, other])
    try:
        inside = split.inner(small, share)
    except DataError:
        return
    outside = split.inner(large, share)
    for inner, outer in zip(inside, outside, strict=True):
        assert inner == outer[: len(inner)]


@pytest.mark.parametrize("classes", [2, 5])
@pytest.mark.parametrize("share", [0.1, 0.2, 0.25])
def test_the_validation_part_has_its_share_of_every_class_from_small_fractions_on(classes, share):
    """5x1200 in small; with one phase for all classes, every fifth of round-robin subjects would be of one class."""
    samples = samples_of([[s % classes] for s in range(1500)])
    split = make_split(samples, seed=1, scheme=SplitScheme(0.2), classes=classes)
    label_of = dict(samples.select("sample", "label").iter_rows())
    for fraction in (0.05, 0.1, 0.3, 1.0):
        train, validation = split.inner(fraction, share)
        n = len(train) + len(validation)
        assert abs(len(validation) - share * n) <= 1.5
        counts = Counter(label_of[s] for s in validation)
        assert all(abs(counts[k] - share * n / classes) <= 1 for k in range(classes))


def test_the_rarest_class_is_in_both_inner_parts_from_its_second_subject_on():
    samples = samples_of([[int(s % 10 == 0)] for s in range(500)])
    split = make_split(samples, seed=0, scheme=SplitScheme(0.2), classes=2)
    label_of = dict(samples.select("sample", "label").iter_rows())
    places = [i for i, s in enumerate(split.train) if label_of[s] == 1]
    for n_rare in (2, 3, 10):
        train, validation = split.inner((places[n_rare - 1] + 1) / len(split.train))
        assert {label_of[s] for s in train} == {label_of[s] for s in validation} == {0, 1}


def test_inner_parts_by_hand():
    """Ten subjects of one sample, two classes of 4 and 4 training samples: phases 0.6 and 0.2 at a share of 0.2.

    Class 0 (of equals the first comes first): 0.2 * n + 0.6 >= 1 at n = 2; class 1: 0.2 * n + 0.2 >= 1 at n = 4.
    """
    samples = samples_of([[s % 2] for s in range(10)])
    split = make_split(samples, seed=0, scheme=SplitScheme(0.2), classes=2)
    assert Counter(split.labels) == {0: 4, 1: 4}
    of_class = [[s for s, label in zip(split.train, split.labels, strict=True) if label == k] for k in (0, 1)]
    _, validation = split.inner(1.0)
    assert set(validation) == {of_class[0][1], of_class[1][3]}


def test_a_fraction_too_small_for_both_inner_parts_is_an_error():
    split = make_split(samples_of([[s % 2] for s in range(50)]), seed=0, scheme=SplitScheme(0.2), classes=2)
    with pytest.raises(DataError, match="none of its 1 training samples is left for the validation part"):
        split.inner(0.03)


@pytest.mark.parametrize("share", [0, 1, -0.1, float("nan")])
def test_a_validation_share_outside_0_to_1_is_an_error(share):
    split = make_split(samples_of([[0], [1], [0]]), seed=0, scheme=SplitScheme(0.3), classes=2)
    with pytest.raises(DataError, match="validation share"):
        split.inner(1.0, share)


def test_fractions_count_as_written_in_decimals():
    samples = samples_of([[s % 2] for s in range(125)])
    split = make_split(samples, seed=0, scheme=SplitScheme(0.2), classes=2)
    assert len(split.train) == 100
    assert int(0.29 * 100) == 28
    assert len(split.subset(0.29)) == 29


@pytest.mark.parametrize("fraction", [0, -0.1, 1.0001, 5, float("nan")])
def test_a_fraction_outside_0_to_1_is_an_error(fraction):
    split = make_split(samples_of([[0], [1], [0]]), seed=0, scheme=SplitScheme(0.3), classes=2)
    with pytest.raises(DataError, match=r"outside \(0, 1\]"):
        split.subset(fraction)


def test_a_fraction_of_no_sample_names_the_least():
    split = make_split(samples_of([[s % 2] for s in range(50)]), seed=0, scheme=SplitScheme(0.2), classes=2)
    with pytest.raises(DataError, match=r"at least 0\.025"):
        split.subset(0.02)
    assert len(split.subset(0.025)) == 1


@pytest.mark.parametrize(
    ("samples", "message"),
    [
        (samples_of([[0, 1]]), "2 samples of 1 subject cannot be split .* so 2 subjects are the least"),
        (samples_of([[0], [3]]), "label outside 0 to 1"),
        (samples_of([[0], [1]]).with_columns(subject=pl.lit(None, pl.String)), "has no subject"),
        (pl.concat([samples_of([[0], [1]])] * 2), "more than once"),
    ],
)
def test_samples_that_cannot_be_split_are_an_error(samples, message):
    with pytest.raises(DataError, match=message):
        make_split(samples, seed=0, scheme=SplitScheme(0.2), classes=2)


@pytest.mark.parametrize("test_share", [0, 1, -1, float("nan")])
def test_a_test_share_outside_0_to_1_is_an_error(test_share):
    with pytest.raises(DataError, match="test share"):
        make_split(samples_of([[0], [1]]), seed=0, scheme=SplitScheme(test_share), classes=2)


def test_35_000_samples_split_in_no_time():
    samples = samples_of([[(s + i) % 5 for i in range(1 + s % 3)] for s in range(17_500)])
    start = time.process_time()
    split = make_split(samples, seed=0, scheme=SplitScheme(0.1), classes=5)
    assert time.process_time() - start < 5  # about 0.5 s on a quiet core
    assert len(split.train) + len(split.test) == samples.height > 34_990
