"""Multi-label cohorts: what every cell of a finding means, which rows are left out, keys, splits and the audit."""

import numpy as np
import pytest

from cohorts import audit_cohort, build_table, describe_cohort, load_cohort, load_excluded
from cohorts.multilabel import FindingColumns
from cohorts.split_files import export_splits, import_splits
from featurestore.errors import DataError, UnknownNameError
from featurestore.store import open_store

NAMES = ["edema", "mass"]
HEADER = "id,report,patient,edema,mass"
COLUMNS = {"text_col": "report", "subject_col": "patient", "id_col": "id"}


def write(folder, *cells: str, header: str = HEADER):
    """A table of one row and one patient for each pair of cells, with ids r0, r1, ..."""
    path = folder / "records.csv"
    rows = [f"r{i},Report {i}.,p{i},{pair}" for i, pair in enumerate(cells)]
    path.write_text("\n".join([header, *rows]) + "\n")
    return path


def findings(store, name: str) -> dict[str, list[int]]:
    return {
        sample.split("/")[1]: said
        for sample, said in load_cohort(store, name).samples.select("sample", "findings").rows()
    }


def test_what_every_cell_means(store, tmp_path):
    cells = ("1,0", "1.0,0.0", "TRUE,false", "Yes,NO", " 1 , 0 ", "0,1", "-1,1", "-1.0,0", ",1", "nan,0")
    report = build_table(store, "m", records=write(tmp_path, *cells), label_cols=NAMES, **COLUMNS)
    said = [[1, 0]] * 5 + [[0, 1], [-1, 1], [-1, 0], [-1, 1], [-1, 0]]
    assert findings(store, "m") == {f"r{i}": pair for i, pair in enumerate(said)}
    cohort = load_cohort(store, "m")
    assert (cohort.task, cohort.classes) == ("multilabel", ("edema", "mass"))
    assert cohort.samples.select("label", "label_name").null_count().row(0) == (10, 10)
    assert cohort.finding_counts() == report.finding_counts == {"edema": (5, 1, 4), "mass": (3, 7, 0)}
    assert report.class_counts == {}
    assert "  edema: 5, 1, 4" in report.lines()
    assert "  0  edema: 5 present (83.3% of those known), 1 absent, 4 unknown" in describe_cohort(store, "m")
    assert cohort.options["label_cols"] == NAMES


@pytest.mark.parametrize(
    ("options", "unsaid", "unsure"),
    [
        ({}, -1, -1),
        ({"blank": "absent"}, 0, -1),
        ({"uncertain": "positive"}, -1, 1),
        ({"uncertain": "negative", "blank": "absent"}, 0, 0),
    ],
)
def test_blank_and_uncertain_cells_mean_what_the_options_say(store, tmp_path, options, unsaid, unsure):
    records = write(tmp_path, "1,0", "0,1", ",1", "-1,1")
    build_table(store, "m", records=records, label_cols=NAMES, **COLUMNS, **options)
    assert findings(store, "m") == {"r0": [1, 0], "r1": [0, 1], "r2": [unsaid, 1], "r3": [unsure, 1]}


def test_rows_that_say_something_else_or_nothing_are_left_out_by_id(store, tmp_path):
    records = write(tmp_path, "1,0", "0,1", "maybe,1", "0,2", ",", "-1,", "1,1", "-2,inf")
    report = build_table(store, "m", records=records, label_cols=NAMES, **COLUMNS)
    assert report.excluded == {"unclear finding": ("r2", "r3", "r7"), "no known finding": ("r4", "r5")}
    reasons = dict(load_excluded(store, "m").select("id", "reason").rows())
    assert reasons["r2"].startswith("column 'edema' holds something else than 1, 0, -1")
    assert reasons["r3"].startswith("column 'mass' holds")
    assert not any("maybe" in reason for reason in reasons.values())
    absent = build_table(store, "a", records=records, label_cols=NAMES, blank="absent", **COLUMNS)
    assert "no known finding" not in absent.excluded
    assert findings(store, "a")["r4"] == [0, 0]


def test_rows_of_one_id_that_differ_in_a_finding_are_refused(store, tmp_path):
    records = write(tmp_path, "1,0", "0,1", "1,1")
    records.write_text(records.read_text() + "r2,Report 2.,p2,1,0\nr0,Report 0.,p0,1,0\n")
    report = build_table(store, "m", records=records, label_cols=NAMES, **COLUMNS)
    assert report.excluded == {"conflicting id": ("r2", "r2"), "repeated row": ("r0",)}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"label_cols": NAMES, "label_col": "mass"}, "name either --label-col"),
        ({}, "name either --label-col"),
        ({"label_cols": NAMES, "bins": 2}, "--bins cuts the number of --label-col"),
        ({"label_cols": []}, "a name is missing"),
        ({"label_cols": "edema,"}, "a name is missing"),
        ({"label_cols": ["mass", "mass"]}, "'mass' stands twice"),
        ({"label_cols": NAMES, "blank": "negative"}, "blank 'negative' is not known: use unknown, absent"),
        ({"label_cols": NAMES, "uncertain": "ones"}, "uncertain 'ones' is not known: use unknown, positive, negative"),
        ({"label_col": "mass", "blank": "absent"}, "--blank and --uncertain say how the findings"),
    ],
)
def test_options_that_do_not_go_together_are_refused(store, tmp_path, options, message):
    with pytest.raises(DataError, match=message):
        build_table(store, "m", records=write(tmp_path, "1,0", "0,1"), **COLUMNS, **options)


def test_an_unknown_column_is_named(store, tmp_path):
    with pytest.raises(UnknownNameError, match=r"'mas'\. Did you mean 'mass'"):
        build_table(store, "m", records=write(tmp_path, "1,0", "0,1"), label_cols=["edema", "mas"], **COLUMNS)


def test_nothing_to_learn_is_refused_and_a_finding_of_one_subject_is_named(store, tmp_path):
    with pytest.raises(DataError, match=r"nothing to learn. Where a blank cell means absent, say --blank absent"):
        build_table(store, "m", records=write(tmp_path, "1,", ",1"), label_cols=NAMES, **COLUMNS)
    with pytest.raises(DataError, match="no usable row is left of 2: 2 no known finding"):
        build_table(store, "m", records=write(tmp_path, ",", "-1,"), label_cols=NAMES, **COLUMNS)
    records = write(tmp_path, "1,1", "0,1", "0,1", "1,1")
    report = build_table(store, "m", records=records, label_cols=NAMES, **COLUMNS)
    assert report.notes == ("WARNING: finding 'mass' is absent in no subject: no split can both learn and measure it",)


def test_the_key_follows_the_findings_and_nothing_else(store, tmp_path):
    def build(name: str, *cells: str, **options) -> str:
        return build_table(store, name, records=write(tmp_path, *cells), label_cols=NAMES, **COLUMNS, **options).key

    key = build("m", "1,0", "0,1", "-1,1")
    assert build("m", "1,0", "0,1", "-1,1") == key
    assert build("same", "yes,no", "0,1", ",1", dataset="m") == key
    assert build("other", "1,0", "0,1", "-1,1", uncertain="positive", dataset="m") != key
    with pytest.raises(DataError, match="finding edema present 1 -> 2, finding edema unknown 1 -> 0"):
        build("m", "1,0", "0,1", "1,1")
    one = build_table(store, "one", records=write(tmp_path, "1,0", "0,1"), label_cols=["mass"], **COLUMNS)
    binary = build_table(store, "two", records=write(tmp_path, "1,0", "0,1"), label_col="mass", **COLUMNS)
    assert one.key != binary.key


def many(folder, patients: int = 60):
    """Two rows a patient; both findings, one or none present, in turn by patient; every fifth row knows no mass."""
    path = folder / "many.csv"
    rows = [
        f"r{i:03d},{'Edema seen.' if i // 2 % 3 else 'Clear lungs.'},p{i // 2},{int(i // 2 % 3 > 0)},"
        f"{'' if i % 5 == 0 else int(i // 2 % 3 > 1)}"
        for i in range(2 * patients)
    ]
    path.write_text("\n".join([HEADER, *rows]) + "\n")
    return path


def test_splits_keep_subjects_whole_and_are_balanced_by_the_number_of_findings(store, tmp_path):
    build_table(store, "m", records=many(tmp_path), label_cols=NAMES, **COLUMNS)
    cohort = load_cohort(store, "m")
    rows = cohort.samples.select("sample", "subject", "findings").rows()
    subject = {sample: patient for sample, patient, _ in rows}
    n_present = {sample: said.count(1) for sample, _, said in rows}
    for seed in range(5):
        split = cohort.split(seed)
        assert len(split.test) == 24
        assert not {subject[s] for s in split.train} & {subject[s] for s in split.test}
        share = np.bincount([n_present[s] for s in split.test], minlength=3) / 24
        whole = np.bincount(list(n_present.values()), minlength=3) / 120
        assert np.abs(share - whole).max() <= 2 * 2 / 24
        assert split.labels == tuple(n_present[s] for s in split.train)
    assert cohort.split(0, cohort.samples.head(40)).train


def test_splits_travel_to_another_store(store, tmp_path):
    build_table(store, "m", records=many(tmp_path), label_cols=NAMES, **COLUMNS)
    keys = export_splits(store, "m", tmp_path / "splits.csv", [0, 1])
    other = open_store(tmp_path / "other", create=True)
    build_table(other, "m", records=many(tmp_path), label_cols=NAMES, **COLUMNS)
    assert import_splits(other, "m", tmp_path / "splits.csv").splits == keys
    assert load_cohort(other, "m").split(1) == load_cohort(store, "m").split(1)


def test_the_audit_looks_at_every_finding_where_it_is_known(store, tmp_path):
    build_table(store, "m", records=many(tmp_path), label_cols=NAMES, **COLUMNS)
    report = audit_cohort(store, "m", seeds=[0])
    texts = [found.text for found in report.findings]
    assert "no edema 33.3%, edema 66.7% of 120 samples" in texts
    n_mass = load_cohort(store, "m").finding_counts()["mass"]
    assert n_mass[2] == 24
    assert any(text.startswith("no mass ") and text.endswith("of 96 samples") for text in texts)
    assert any("alone tells class 'edema'" in text for text in texts)
    assert len(report.findings) == len(set(report.findings))


def test_the_audit_passes_over_a_finding_that_nobody_knows(store, tmp_path):
    records = write(tmp_path, "1,", "0,", "1,", "0,")
    report = build_table(store, "m", records=records, label_cols=NAMES, **COLUMNS)
    assert report.finding_counts["mass"] == (0, 0, 4)
    assert len([note for note in report.notes if "'mass'" in note]) == 2
    texts = [found.text for found in audit_cohort(store, "m", seeds=[0]).findings]
    assert "'mass' is unknown in every sample" in texts


def test_names_lose_the_blanks_around_them_and_keep_those_inside(store, tmp_path):
    records = write(tmp_path, "1,0", "0,1", header="id,report,patient,Lung Opacity,mass")
    build_table(store, "m", records=records, label_cols=[" Lung Opacity", "mass "], **COLUMNS)
    assert load_cohort(store, "m").classes == ("Lung Opacity", "mass")
    assert FindingColumns(("a", "b")).roles == {"finding 0": "a", "finding 1": "b"}
