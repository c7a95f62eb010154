"""Classes and bins from label columns."""

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cohorts.labels import as_bins, as_classes, as_numbers
from featurestore.errors import DataError


def classes_of(*values: str) -> tuple[str, ...]:
    return as_classes(pl.Series(values), column="y").classes


def test_numbers_are_one_class_however_they_are_written():
    labels = as_classes(pl.Series(["1.0", "0", "1", "0.0", "-0", "1e0"]), column="y")
    assert labels.classes == ("0", "1")
    assert labels.codes == [1, 0, 1, 0, 0, 1]


@pytest.mark.parametrize(
    ("values", "classes"),
    [
        (("10", "9", "2"), ("2", "9", "10")),
        (("0.5", "1", "-3"), ("-3", "0.5", "1")),
        (("stage 10", "stage 2"), ("stage 2", "stage 10")),
        (("yes", "no"), ("no", "yes")),
        (("B", "a"), ("a", "B")),
        (("3", "high"), ("3", "high")),
        (("inf", "1"), ("1", "inf")),
    ],
)
def test_classes_stand_in_natural_order(values, classes):
    assert classes_of(*values) == classes


def test_one_class_is_an_error():
    with pytest.raises(DataError, match="one class only in the 3 usable rows"):
        classes_of("1", "1.0", "1")


def test_many_numbers_ask_for_bins():
    with pytest.raises(DataError, match=r"21 distinct numbers.*--bins 5"):
        classes_of(*(str(i) for i in range(21)))
    assert len(classes_of(*(str(i) for i in range(20)))) == 20


def test_many_words_are_no_classes_unless_it_is_said():
    with pytest.raises(
        DataError, match=r"21 distinct values in 22 rows \('id-0' 2, .*Is it the right.*--max-classes 21"
    ):
        classes_of("id-0", *(f"id-{i}" for i in range(21)))
    words = pl.Series([f"id-{i}" for i in range(21)])
    assert len(as_classes(words, column="label", most=21).classes) == 21


def test_a_long_text_that_is_no_class_is_never_shown():
    with pytest.raises(DataError, match="all of them long texts") as error:
        classes_of(*(f"Mr. Smith has effusion number {i}" for i in range(21)))
    assert "Smith" not in str(error.value)


def test_bins_hold_about_equally_many_and_say_their_edges():
    labels = as_bins(pl.Series([float(x) for x in range(100)]), 4, column="age")
    assert labels.classes == ("[0, 25)", "[25, 50)", "[50, 75)", "[75, 99]")
    assert labels.edges == (0, 25, 50, 75, 99)
    assert [labels.codes.count(k) for k in range(4)] == [25] * 4


def test_bins_keep_equal_values_together():
    labels = as_bins(pl.Series([1.0, 1, 1, 2, 2, 3]), 2, column="y")
    assert labels.codes == [0, 0, 0, 1, 1, 1]
    assert labels.classes == ("[1, 2)", "[2, 3]")


@given(st.lists(st.floats(-1e6, 1e6), min_size=2, max_size=60), st.integers(2, 6))
@settings(max_examples=80, deadline=None)
def test_bins_are_never_empty_and_never_split_a_value(values, bins):
    series = pl.Series(values, dtype=pl.Float64)
    try:
        labels = as_bins(series, bins, column="y")
    except DataError:
        ordered = sorted(values)
        assert len({ordered[k * len(values) // bins] for k in range(bins)}) < bins
        return
    assert set(labels.codes) == set(range(bins))
    assert len(set(labels.classes)) == bins
    for value, code in zip(values, labels.codes, strict=True):
        assert labels.edges[code] <= value <= labels.edges[code + 1]
        assert code == bins - 1 or value < labels.edges[code + 1]


def test_too_many_bins_name_how_many_are_possible():
    values = pl.Series([0.0] * 50 + [1.0] * 25 + [2.0] * 25)
    with pytest.raises(DataError, match="At most 2 bins are possible"):
        as_bins(values, 5, column="y")
    assert as_bins(values, 2, column="y").classes == ("[0, 1)", "[1, 2]")


def test_values_that_are_nearly_all_equal_cannot_be_cut():
    with pytest.raises(DataError, match="No cut"):
        as_bins(pl.Series([5.0] * 99 + [6.0]), 2, column="y")


def test_one_bin_is_an_error():
    with pytest.raises(DataError, match="two bins are the least"):
        as_bins(pl.Series([1.0, 2.0]), 1, column="y")


def test_what_is_no_finite_number_is_null():
    assert as_numbers(pl.Series(["1", "1.5e2", "x", "nan", "inf", ""])).to_list() == [1, 150, None, None, None, None]
