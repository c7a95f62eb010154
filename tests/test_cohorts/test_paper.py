"""The paper's tasks in numbers: fractions of cohorts of its sizes against Tables 3 to 7."""

import json
import math
from dataclasses import replace
from fractions import Fraction
from functools import cache
from itertools import pairwise

import polars as pl
import pytest

from cohorts.cohort import Cohort, cohort_key
from cohorts.paper import PAPER_TASKS
from cohorts.scheme import SplitScheme
from cohorts.splits import make_split
from cohorts.tasks.common import default_scheme
from featurestore.errors import DataError


def samples(n, classes, *, per_subject=1):
    """As many samples as the paper's cohort, classes in turn."""
    return pl.DataFrame(
        {
            "sample": [f"d/i{i:05d}" for i in range(n)],
            "subject": [f"p{i // per_subject:05d}" for i in range(n)],
            "label": [i // per_subject % classes for i in range(n)],
        }
    )


@cache
def split_of(task):
    scheme = default_scheme(task, "paper")
    classes = {"mimic-5x1200": 5, "mimic-age": 5}.get(task, 2)
    per_subject = 1 if scheme.unit == "image" else 2
    frame = samples(PAPER_TASKS[task].n_samples, classes, per_subject=per_subject)
    return frame, make_split(frame, seed=0, classes=classes, scheme=scheme)


@pytest.mark.parametrize("task", ["mimic-5x1200", "mimic-age", "inspect-readmission-12m"])
def test_the_floor_of_every_fraction_is_the_number_of_the_table(task):
    _, split = split_of(task)
    sizes = PAPER_TASKS[task].sizes
    assert {s.fraction: len(split.subset(s.fraction)) for s in sizes} == PAPER_TASKS[task].n_train


def test_where_no_floor_fits_the_table_the_numbers_are_those_of_the_shares():
    _, split = split_of("inspect-ph-12m")
    assert len(split.train) == 4_086
    found = {s.fraction: len(split.subset(s.fraction)) for s in PAPER_TASKS["inspect-ph-12m"].sizes}
    assert found == {0.05: 204, 0.1: 408, 0.175: 715, 0.25: 1021, 0.5: 2043}  # the paper: 1022 and 2044
    _, split = split_of("mimic-discharge-3d")
    assert abs(len(split.train) - 16_641) <= 1  # whole subjects, here of two images
    found = [len(split.subset(s.fraction)) for s in PAPER_TASKS["mimic-discharge-3d"].sizes]
    assert found == [83, 166, 416, 832, 1664, 4160]  # the paper: 82, 165, 416, 829, 1662, 4145


@pytest.mark.parametrize("task", [name for name, task in PAPER_TASKS.items() if task.sizes])
def test_declared_numbers_are_the_paper_s_exactly_and_stay_nested(task):
    frame, plain = split_of(task)
    sizes = PAPER_TASKS[task].sizes
    scheme = replace(default_scheme(task, "paper"), n_train=tuple(PAPER_TASKS[task].n_train.items()))
    cohort = Cohort("paper", "rows", "binary", tuple("abcde"), scheme, "none", frame, task, {})
    split = cohort.split(0)
    taken = [split.subset(size.fraction) for size in sizes]
    assert [len(ids) for ids in taken] == [size.n for size in sizes]
    assert all(large[: len(small)] == small for small, large in pairwise(taken))
    assert len(split.subset(0.15)) == math.floor(Fraction(15, 100) * len(split.train)), "elsewhere the floor"
    assert split.parts_key == plain.parts_key == plain.key != split.key
    inner = split.inner(sizes[-1].fraction)
    assert len(inner[0] + inner[1]) == sizes[-1].n
    part = cohort.split(0, frame.head(frame.height // 2))
    assert part.n_train == {}, "of half the samples, the paper's n would be another fraction"


def test_a_declared_number_beyond_the_pool_is_refused():
    _, split = split_of("inspect-ph-12m")
    with pytest.raises(DataError, match="n_train 99,999 is not possible: the split has 1 to 4,086"):
        replace(split, n_train={0.5: 99_999}).subset(0.5)


@pytest.mark.parametrize("n_train", [((0.5, 9), (0.25, 20)), ((0.1, 20), (0.2, 20)), ((0.5, 0),), ((1.5, 3),)])
def test_declared_numbers_that_would_not_nest_are_refused(n_train):
    with pytest.raises(DataError, match="must ascend"):
        SplitScheme(n_train=n_train)


def test_a_scheme_with_declared_numbers_comes_back_from_json_and_is_another_scheme():
    scheme = SplitScheme(n_train=((0.25, 1022), (0.5, 2044)))
    assert SplitScheme.of(json.loads(json.dumps(scheme.what()))) == scheme
    assert cohort_key("rows", scheme) != cohort_key("rows", SplitScheme())
    assert str(scheme).endswith("n_train declared: 1,022 at 0.25, 2,044 at 0.5")


def test_5x1200_has_800_200_and_200_of_every_class():
    frame, split = split_of("mimic-5x1200")
    of = dict(frame.select("sample", "label").iter_rows())
    for part, n in ((split.train, 800), (split.held_out, 200), (split.test, 200)):
        assert [sum(of[s] == k for s in part) for k in range(5)] == [n] * 5
    frame, split = (
        samples(6_000, 5),
        make_split(samples(6_000, 5), seed=3, classes=5, scheme=default_scheme("mimic-5x1200")),
    )
    assert [sum(of[s] == k for s in split.train) for k in range(5)] == [1_000] * 5


def test_pulmonary_embolism_trains_on_three_quarters():
    _, split = split_of("inspect-pe")
    assert (len(split.train), len(split.test)) == (7_031, 2_344)


def test_the_tables_have_the_epochs_and_seeds_of_the_paper():
    assert {name: task.seeds for name, task in PAPER_TASKS.items() if task.seeds != 5} == {
        "inspect-readmission-12m": 10
    }
    assert PAPER_TASKS["mimic-age"].epochs == {0.01: 150, 0.025: 100, 0.05: 100, 0.1: 50}
    assert PAPER_TASKS["mimic-5x1200"].temperature == 2.5
