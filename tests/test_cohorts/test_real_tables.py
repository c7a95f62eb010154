"""The tables of the public test data: what is known of them comes out as counts."""

import pytest

from cohorts import build_table, load_cohort

SETS = {
    "nih": ("nih-cxr14-64px", "id"),
    "hannover": ("hannover-covid19", "image_id"),
}


def build(store, folder, of: str, label: str, **options):
    path, id_col = SETS[of]
    return build_table(
        store,
        f"{of}-{label.replace('_', '-')}",
        records=folder / path / "records.csv",
        image_col="file",
        text_col="rendered_text",
        subject_col="patient_id",
        id_col=id_col,
        label_col=label,
        **options,
    )


@pytest.mark.parametrize(
    ("of", "label", "bins", "classes", "rows", "subjects", "without_text"),
    [
        ("nih", "abnormal", None, 2, 1000, 264, 0),
        ("nih", "next_abnormal", None, 2, 748, 141, 0),
        ("nih", "age", 5, 5, 1000, 264, 0),
        ("nih", "sex", None, 2, 1000, 264, 0),
        ("nih", "view", None, 2, 1000, 264, 0),
        ("hannover", "in_icu_at_image", None, 2, 243, 71, 63),
        ("hannover", "projection", None, 2, 243, 71, 63),
    ],
)
def test_counts_of_the_real_tables(store, real_data, of, label, bins, classes, rows, subjects, without_text):
    report = build(store, real_data, of, label, bins=bins)
    assert (report.n_samples, report.n_subjects, len(report.class_counts)) == (rows, subjects, classes)
    assert sum(len(ids) for ids in report.excluded.values()) == report.flow[0].n_before - rows
    cohort = load_cohort(store, report.name)
    assert cohort.samples["text"].null_count() == without_text
    assert cohort.samples["image"].null_count() == 0
    split = cohort.split(0)
    assert abs(len(split.test) / rows - 0.2) < 0.05
    assert cohort.samples.filter(cohort.samples["sample"].is_in(split.subset(0.1)))["label"].n_unique() == classes


def test_a_table_with_other_text_columns_and_few_rows(store, real_data):
    """Real clinical notes; ids with dots and spaces, an outcome that is missing in some rows."""
    report = build_table(
        store,
        "ccby",
        records=real_data / "covid-chestxray-ccby" / "records.csv",
        image_col="file",
        text_col="text",
        subject_col="patient_id",
        id_col="id",
        label_col="finding",
    )
    assert report.n_samples == 8
    assert len(report.class_counts) > 2
