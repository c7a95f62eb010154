"""Comparisons that a grid file declares: one family, over which Holm's correction counts."""

import numpy as np
import pytest

from featurestore.errors import DataError, UnknownNameError
from featurestore.store import open_store
from heads.catalog import open_catalog
from heads.compare import compare
from heads.family import compare_family
from heads.grid import read_grid
from heads.stats import holm

from .invented import invent_seeds

GRID = """
[grid]
cohort = "toy"
backbone = "tiny"
method = "image"
fraction = [0.5, 1.0]
seed = 5
"""
DECLARED = """
[[compare]]
method = "distill"
against = "image"
[[compare]]
by = "method"
level = "distill"
against = "self-distill"
metric = "brier"
"""


@pytest.fixture(scope="module")
def catalog(tmp_path_factory):
    store = open_store(tmp_path_factory.mktemp("family") / "store", create=True)
    for fraction in (0.25, 0.5, 1.0):  # the first is not in the grid
        for method, quality in (("image", 1.0), ("distill", 2.0), ("self-distill", 1.2)):
            invent_seeds(store, 5, quality=quality, fraction=fraction, method=method)
    catalog = open_catalog(store)
    catalog.fold()
    return catalog


@pytest.fixture
def write(tmp_path):
    def write(text):
        path = tmp_path / "grid.toml"
        path.write_text(text)
        return path

    return write


def test_holm_counts_all_lines_of_the_family(catalog, write):
    first, second = compare_family(catalog, write(GRID + DECLARED))
    assert first.table["fraction"].to_list() == second.table["fraction"].to_list() == [0.5, 1.0]
    assert second.metric == "brier"
    p = np.concatenate([one.table["patients_p"].to_numpy() for one in (first, second)])
    adjusted = np.concatenate([one.table["patients_p_holm"].to_numpy() for one in (first, second)])
    np.testing.assert_allclose(adjusted, holm(p))
    (said,) = [note for note in first.notes if "Holm over" in note and "patients" in note]
    assert "Holm over the 4 lines of the family declared in grid.toml" in said
    alone = compare(catalog, level="distill", against="image", where="fraction >= 0.5")
    assert alone.table["patients_p"].to_list() == first.table["patients_p"].to_list()


def test_a_declaration_changes_no_run(write):
    assert read_grid(write(GRID + DECLARED)) == read_grid(write(GRID))


@pytest.mark.parametrize(
    ("declared", "message"),
    [
        ("", "declares no comparison"),
        ("[compare]\nmethod = 'distill'", "declares no comparison"),
        ("[[compare]]\nmethod = 'distill'\nversus = 'image'", "unknown key in .*'versus'"),
        ("[[compare]]\nmethod = 3", "method = 3: must be a text"),
        ("[[compare]]\nby = 'backbone'\nmethod = 'image'", "takes level, not method"),
        ("[[compare]\n", "cannot be read as a grid"),
    ],
)
def test_what_is_declared_wrongly_is_said(catalog, write, declared, message):
    with pytest.raises((DataError, UnknownNameError), match=message):
        compare_family(catalog, write(GRID + declared))
