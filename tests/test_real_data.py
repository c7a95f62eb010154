"""The README's walk-through on real radiographs, in small: both larger sets, both embedded encoders, by patient."""

import polars as pl
import pytest

from cohorts import build_table, load_cohort
from featurestore import extract_features, open_features
from featurestore.encoders import get_spec, is_available
from heads import Grid, open_catalog, train_grid

pytestmark = [
    pytest.mark.weights,
    pytest.mark.skipif(
        not all(is_available(get_spec(name)) for name in ("efficientnet-lite0", "minilm")), reason="needs radfs[demo]"
    ),
]
ENCODERS = {"backbone": "efficientnet-lite0", "text_encoder": "minilm"}
SETS = {
    "nih": ("nih-cxr14-64px", "id", ["abnormal", "next_abnormal", "age", "sex", "view"]),
    "hannover": ("hannover-covid19", "image_id", ["in_icu_at_image", "projection"]),
}


@pytest.mark.parametrize("dataset", SETS)
def test_every_task_of_a_real_set_trains_and_can_be_asked(dataset, store, real_data, tmp_path):
    folder, id_col, labels = SETS[dataset]
    table = pl.read_csv(real_data / folder / "records.csv", infer_schema_length=0)
    patients = table["patient_id"].unique(maintain_order=True).to_list()[:60]
    some = table.filter(pl.col("patient_id").is_in(patients))
    some.write_csv(tmp_path / "records.csv")
    cohorts = [f"{dataset}-{label.replace('_', '-')}" for label in labels]
    for name, label in zip(cohorts, labels, strict=True):
        build_table(
            store,
            name,
            dataset=dataset,
            records=tmp_path / "records.csv",
            image_root=real_data / folder,
            image_col="file",
            text_col="rendered_text",
            label_col=label,
            subject_col="patient_id",
            id_col=id_col,
            bins=3 if label == "age" else None,
        )
    for encoder in ENCODERS.values():
        report = extract_features(store, encoder)
        assert report.failed == {}
    images = load_cohort(store, cohorts[-1]).samples["image"]
    assert open_features(store, extract_features(store, "efficientnet-lite0").feature_set).has(images).all()

    grid = Grid(cohort=cohorts, **ENCODERS, method=["image", "text"], fraction=[0.5, 1.0], seed=[0], epochs=1)
    trained = train_grid(store, grid)
    assert (trained.trained, trained.failed) == (4 * len(labels), [])
    catalog = open_catalog(store)
    both_sides = """
        SELECT count(*) FROM splits a JOIN splits b ON a.cohort = b.cohort AND a.split = b.split
        JOIN samples s ON s.sample = a.sample AND s.cohort = a.cohort
        JOIN samples t ON t.sample = b.sample AND t.cohort = b.cohort
        WHERE a.part = 'train' AND b.part = 'test' AND s.subject = t.subject"""
    assert catalog.query(both_sides).item() == 0
    assert catalog.query("SELECT count(*) FROM results WHERE auroc BETWEEN 0 AND 1").item() == 4 * len(labels)
    same_rows = "SELECT count(DISTINCT split) FROM results GROUP BY cohort"
    assert set(catalog.query(same_rows).to_series()) == {1}
