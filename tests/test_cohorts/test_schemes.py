"""Split schemes: by image, folds, a fixed test part, a held-out part; what each promises, and what none can do."""

import hashlib
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
    SplitScheme(unit="admission"),
    SplitScheme(unit="admission", folds=3),
    SplitScheme(balance=0),
    SplitScheme(balance=2, unit="image", held_out_share=0.1),
)


def with_admissions(samples: pl.DataFrame) -> pl.DataFrame:
    """Every two samples of a subject are of one stay."""
    number = pl.col("sample").str.extract(r"-(\d+)$").cast(pl.Int64) // 2
    return samples.with_columns(pl.format("{}/{}", "subject", number).alias("admission"))


def unit_ids(samples: pl.DataFrame, scheme: SplitScheme) -> dict[str, str]:
    """What must not be parted, by sample."""
    return dict(zip(samples["sample"], samples["sample" if scheme.unit == "image" else scheme.unit], strict=True))


@given(labels_of_subjects, seeds, st.sampled_from(SCHEMES), st.floats(0.01, 1))
@settings(max_examples=300, deadline=None)
def test_no_unit_is_in_two_parts_for_any_seed_scheme_and_fraction(subjects, seed, scheme, fraction):
    samples = with_admissions(samples_of(subjects))
    unit_of = unit_ids(samples, scheme)
    if len(set(unit_of.values())) < 5:
        return  # too few for five folds: a test below
    try:
        split = make_split(samples, seed=seed, scheme=scheme, classes=3)
    except DataError:
        assert scheme.balance is not None, "a seed may draw too few"
        return
    inside = sorted(split.train + split.test + split.held_out)
    label_of = dict(samples.select("sample", "label").iter_rows())
    if scheme.balance is None:
        assert inside == sorted(samples["sample"])
    else:
        everyone, drawn = Counter(label_of.values()), Counter(label_of[s] for s in inside)
        most = min(everyone.values()) + scheme.balance
        assert drawn == {label: min(n, most) for label, n in everyone.items()}
        assert len(inside) == len(set(inside))
    assert split.train
    assert split.test
    assert bool(split.held_out) == bool(scheme.held_out_share)
    units = [{unit_of[s] for s in part} for part in split.parts().values()]
    assert len(set.union(*units)) == sum(map(len, units))
    n = math.floor(Fraction(str(fraction)) * len(split.train))
    if n:
        assert split.subset(fraction) == split.train[:n]
    assert [unit_of[s] for s in split.train] == [f"c/{u}" if scheme.unit == "image" else u for u in split.units]


@given(labels_of_subjects, seeds, st.lists(st.floats(0.05, 1), min_size=2, max_size=2))
@settings(max_examples=80, deadline=None)
def test_by_admission_stays_are_whole_subsets_nest_and_every_seed_agrees_with_itself(subjects, seed, fractions):
    samples = with_admissions(samples_of(subjects))
    scheme = SplitScheme(unit="admission")
    if samples["admission"].n_unique() < 2:
        return
    split = make_split(samples, seed=seed, scheme=scheme, classes=3)
    again = make_split(samples.sample(fraction=1, shuffle=True, seed=seed % 2**31), seed=seed, scheme=scheme, classes=3)
    assert again == split
    small, large = (len(split.train) * fraction for fraction in sorted(fractions))
    if small >= 1:
        assert split.first(int(large))[: int(small)] == split.first(int(small))
    stay_of = dict(samples.select("sample", "admission").iter_rows())
    assert not {stay_of[s] for s in split.train} & {stay_of[s] for s in split.test}


def test_by_admission_other_stays_of_a_patient_may_be_on_the_other_side():
    samples = with_admissions(samples_of([[s % 2] * 6 for s in range(60)]))
    split = make_split(samples, seed=0, scheme=SplitScheme(unit="admission"), classes=2)
    subject_of = dict(samples.select("sample", "subject").iter_rows())
    shared = {subject_of[s] for s in split.train} & {subject_of[s] for s in split.test}
    assert len(shared) > 10
    assert split.key != make_split(samples, seed=0, scheme=SplitScheme(), classes=2).key


def test_by_admission_a_sample_without_one_is_an_error():
    samples = with_admissions(samples_of([[0], [1], [0]]))
    samples = samples.with_columns(pl.when(pl.col("sample") != "c/1-0").then("admission").alias("admission"))
    with pytest.raises(DataError, match="sample c/1-0 has no admission"):
        make_split(samples, seed=0, scheme=SplitScheme(unit="admission"), classes=2)


def test_a_draw_for_each_seed_by_hand():
    """Three of class 1 and nine of class 0: each seed takes the four of class 0 that its hashes put first."""
    samples = samples_of([[1]] * 3 + [[0]] * 9)
    names = [f"{s}-0" for s in range(3, 12)]
    drawn = {}
    for seed in range(5):
        split = make_split(samples, seed=seed, scheme=SplitScheme(0.25, balance=1), classes=2)
        first = sorted(names, key=lambda name: hashlib.sha256(f"{seed}/balance/{name}".encode()).digest())[:4]
        drawn[seed] = set(split.train + split.test)
        assert drawn[seed] == {f"c/{name}" for name in (*first, "0-0", "1-0", "2-0")}
        assert (len(split.train), len(split.test)) == (5, 2)
    assert len(set(map(frozenset, drawn.values()))) > 1


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
        ({"unit": "patient"}, "split unit 'patient' is not known: use subject, admission, image, official"),
        ({"balance": -1}, r"a draw for each seed \(-1 more"),
        ({"balance": 0, "folds": 5}, "no folds and no fixed test part"),
        ({"balance": 0, "test": "fixed"}, "no folds and no fixed test part"),
        ({"unit": "official", "folds": 5}, "says itself what is tested"),
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
