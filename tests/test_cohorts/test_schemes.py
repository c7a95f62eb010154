"""Split schemes: by image, folds, a fixed test part, a held-out part; what each promises, and what none can do."""

import math
from collections import Counter
from fractions import Fraction

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cohorts.scheme import SplitScheme
from cohorts.splits import make_split
from featurestore.errors import DataError

from .test_splits import labels_of_subjects, samples_of, seeds

SCHEMES = (
    SplitScheme(),
    SplitScheme(test_share=0.1, test="fixed"),
    SplitScheme(folds=2),
    SplitScheme(folds=5),
    SplitScheme(test_share=0.25, held_out_share=0.25),
    SplitScheme(unit="image"),
    SplitScheme(unit="image", folds=3),
    SplitScheme(unit="image", test_share=0.25, held_out_share=0.1, test="fixed"),
)


@given(labels_of_subjects, seeds, st.sampled_from(SCHEMES), st.floats(0.01, 1))
@settings(max_examples=300, deadline=None)
def test_no_unit_is_in_two_parts_for_any_seed_scheme_and_fraction(subjects, seed, scheme, fraction):
    samples = samples_of(subjects)
    unit_of = dict(zip(samples["sample"], samples["subject" if scheme.unit == "subject" else "sample"], strict=True))
    if len(set(unit_of.values())) < 5:
        return  # too few for five folds: a test below
    split = make_split(samples, seed=seed, scheme=scheme, classes=3)
    assert sorted(split.train + split.test + split.held_out) == sorted(samples["sample"])
    assert split.train
    assert split.test
    assert bool(split.held_out) == bool(scheme.held_out_share)
    units = [{unit_of[s] for s in part} for part in split.parts().values()]
    assert len(set.union(*units)) == sum(map(len, units))
    n = math.floor(Fraction(str(fraction)) * len(split.train))
    if n:
        assert split.subset(fraction) == split.train[:n]
    assert [unit_of[s] for s in split.train] == [u if scheme.unit == "subject" else f"c/{u}" for u in split.units]


@given(labels_of_subjects, st.integers(0, 1000), st.integers(2, 5))
@settings(max_examples=80, deadline=None)
def test_folds_of_a_repetition_test_every_sample_once(subjects, repetition, folds):
    samples = samples_of(subjects)
    if len(subjects) < folds:
        return
    scheme = SplitScheme(folds=folds)
    seeds = range(repetition * folds, (repetition + 1) * folds)
    splits = [make_split(samples, seed=seed, scheme=scheme, classes=3) for seed in seeds]
    assert sorted(s for split in splits for s in split.test) == sorted(samples["sample"])


def test_folds_have_about_the_same_size_and_labels_and_differ_between_repetitions():
    samples = samples_of([[s % 2] * (1 + s % 3) for s in range(100)])
    label_of = dict(samples.select("sample", "label").iter_rows())
    tests = [set(make_split(samples, seed=seed, scheme=SplitScheme(folds=5), classes=2).test) for seed in range(10)]
    for test in tests:
        assert abs(len(test) - samples.height / 5) <= 3
        assert abs(Counter(label_of[s] for s in test)[1] / len(test) - 0.5) < 0.1
    assert not any(test in tests[:5] for test in tests[5:])


def test_a_fixed_test_part_is_that_of_seed_0_and_the_training_order_follows_the_seed():
    samples = samples_of([[s % 2] for s in range(100)])
    fixed, free = SplitScheme(test="fixed"), SplitScheme()
    first, second = (make_split(samples, seed=seed, scheme=fixed, classes=2) for seed in (0, 1))
    assert first == make_split(samples, seed=0, scheme=free, classes=2)
    assert second.test == first.test
    assert set(second.train) == set(first.train)
    assert second.subset(0.2) != first.subset(0.2)


def test_by_image_the_training_side_has_exactly_the_floor_of_its_share():
    """Readmission of the paper: 5,651 images at 75/25 are 4,238 for training; the units are images, not patients."""
    samples = samples_of([[s % 2] * 3 for s in range(1884)]).head(5651)
    split = make_split(samples, seed=0, scheme=SplitScheme(test_share=0.25, unit="image"), classes=2)
    assert len(split.train) == 4238
    shared = {s.rpartition("-")[0] for s in split.train} & {s.rpartition("-")[0] for s in split.test}
    assert len(shared) > 500, "by image, patients do stand on both sides: that is what the paper did"


def test_5x1200_as_in_table_3_trains_on_800_a_class():
    samples = samples_of([[s % 5] for s in range(6000)])
    scheme = SplitScheme(test_share=1 / 6, held_out_share=1 / 6)
    split = make_split(samples, seed=0, scheme=scheme, classes=5)
    label_of = dict(samples.select("sample", "label").iter_rows())
    for part, n in ((split.train, 800), (split.test, 200), (split.held_out, 200)):
        assert Counter(label_of[s] for s in part) == dict.fromkeys(range(5), n)
    assert [len(split.subset(f)) for f in (0.025, 0.05, 0.1, 0.25, 0.5, 1)] == [100, 200, 400, 1000, 2000, 4000]


def test_the_number_of_other_samples_of_a_patient_moves_no_image():
    """By image every sample falls by its own hash: more images of others change the cut, never the order."""
    samples = samples_of([[s % 2] * 2 for s in range(50)])
    scheme = SplitScheme(unit="image")
    split = make_split(samples, seed=0, scheme=scheme, classes=2)
    again = make_split(samples.with_columns(subject=pl.lit("one")), seed=0, scheme=scheme, classes=2)
    assert again == split


@pytest.mark.parametrize(
    ("scheme", "message"),
    [
        ({"unit": "patient"}, "split unit 'patient' is not known: use subject or image"),
        ({"test": "once"}, "test 'once' is not known: use per-seed or fixed"),
        ({"test_share": 0}, r"test share 0 is outside \(0, 1\)"),
        ({"folds": 1}, "folds 1 is not allowed: two are the least"),
        ({"folds": 5, "test": "fixed"}, "no fixed test part"),
        ({"folds": 5, "held_out_share": 0.1}, "no held-out share"),
        ({"held_out_share": 0.8}, r"at least 0 and below 0\.8"),
        ({"held_out_share": -0.1}, "at least 0"),
    ],
)
def test_a_scheme_that_nobody_can_follow_is_an_error(scheme, message):
    with pytest.raises(DataError, match=message):
        SplitScheme(**scheme)


def test_more_folds_than_subjects_are_an_error():
    samples = samples_of([[0, 1], [1], [0]])
    with pytest.raises(DataError, match=r"4 samples of 3 subjects cannot be split by subject, 5 folds.* so 5 subjects"):
        make_split(samples, seed=0, scheme=SplitScheme(folds=5), classes=2)


def test_a_scheme_survives_its_file():
    for scheme in SCHEMES:
        assert SplitScheme.of(scheme.what()) == scheme
    assert len({str(scheme) for scheme in SCHEMES}) == len(SCHEMES)
