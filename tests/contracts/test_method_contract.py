"""What every method of the table must do: a new method is covered by its line there."""

import numpy as np
import pytest

from heads.catalog import open_catalog
from heads.grid import Grid
from heads.methods import METHODS, get_method
from heads.train import train_grid

from ..test_heads.stores import make_store


@pytest.mark.parametrize("name", METHODS)
def test_a_method_describes_itself(name):
    method = get_method(name)
    assert method.name == name
    assert method.reads
    assert set(method.reads) <= {"image", "text"}
    assert len(set(method.reads)) == len(method.reads)
    assert method.summary.endswith(".")


@pytest.mark.parametrize("name", METHODS)
def test_a_method_trains_and_its_results_are_finite(name, tmp_path):
    store = make_store(tmp_path / "store")
    grid = Grid(
        cohort="toy", method=name, backbone="tiny", text_encoder="tiny-text", fraction=[0.3, 1.0], seed=2, epochs=2
    )
    report = train_grid(store, grid)
    assert (report.trained, report.failed) == (4, [])
    results = open_catalog(store).query("SELECT auroc, auroc_macro, auprc, auprc_macro FROM results")
    assert len(results) == 4
    assert np.isfinite(results.to_numpy()).all()


@pytest.mark.parametrize("name", METHODS)
def test_a_run_names_the_encoders_that_its_method_reads_and_no_others(name, tmp_path):
    store = make_store(tmp_path / "store")
    keys = {"cohort": "toy", "method": name, "backbone": "tiny", "text_encoder": "tiny-text"}
    train_grid(store, Grid(**keys, fraction=1.0, seed=1, epochs=1))
    row = open_catalog(store).query("SELECT backbone, text_encoder FROM results").row(0)
    assert [value is not None for value in row] == [m in get_method(name).reads for m in ("image", "text")]
