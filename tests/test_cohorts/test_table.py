"""The builder `table`: what becomes of every kind of row, and of tables that are none."""

import gzip
from pathlib import Path

import polars as pl
import pytest
from PIL import Image

from cohorts import build_table, load_cohort, load_excluded, load_flow
from cohorts.cohort import ATTRIBUTES
from featurestore.errors import DataError, RadfsError, UnknownNameError
from featurestore.items import list_items, text_hash

COLUMNS = {
    "image_col": "file",
    "text_col": "report",
    "label_col": "label",
    "subject_col": "patient",
    "id_col": "id",
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with images a.png to f.png."""
    path = tmp_path / "data"
    path.mkdir()
    for name in "abcdef":
        Image.new("L", (4, 4)).save(path / f"{name}.png")
    return path


def write(folder: Path, *lines: str, name: str = "records.csv", header: str = "id,file,report,label,patient") -> Path:
    path = folder / name
    path.write_text("\n".join([header, *lines]) + "\n", encoding="utf-8")
    return path


def two_good_rows(label: str = "x") -> tuple[str, str]:
    return f"g1,a.png,Clear.,{label},p1", f"g2,b.png,Not clear.,{label}y,p2"


def test_samples_items_and_counts(store, folder):
    report = build_table(store, "small", records=write(folder, *two_good_rows(), "003,c.png,,x,p1"), **COLUMNS)
    assert (report.n_samples, report.n_subjects, report.created) == (3, 2, True)
    assert report.class_counts == {"x": 2, "xy": 1}
    cohort = load_cohort(store, "small")
    assert cohort.classes == ("x", "xy")
    assert cohort.task == "binary"
    assert cohort.samples.select(pl.exclude("admission", "findings", *ATTRIBUTES.names())).rows() == [
        ("small/003", "p1", None, "small/003", None, None, 0, "x"),
        ("small/g1", "p1", None, "small/g1", "small/g1", text_hash("Clear."), 0, "x"),
        ("small/g2", "p2", None, "small/g2", "small/g2", text_hash("Not clear."), 1, "xy"),
    ]
    items = {(item, modality): (path, text) for item, modality, path, text, _ in list_items(store).iter_rows()}
    assert items["small/003", "image"] == (str(folder / "c.png"), None)
    assert items["small/g1", "text"] == (None, "Clear.")
    assert ("small/003", "text") not in items
    assert any("without text: 1 of 3" in line for line in report.lines())
    assert cohort.samples.select(ATTRIBUTES.names()).null_count().sum_horizontal().item() == 3 * len(ATTRIBUTES)


def test_what_describes_a_sample_is_kept_and_an_age_that_cannot_be_is_named(store, folder):
    header = "id,file,report,label,patient,sex,age,view"
    rows = [f"{i},a.png,Clear.,{i % 2},p{i},{'female' if i % 2 else ''},{age},PA" for i, age in enumerate(AGES)]
    described = {"sex_col": "sex", "age_col": "age", "view_col": "view"}
    report = build_table(store, "small", records=write(folder, *rows, header=header), **COLUMNS, **described)
    samples = load_cohort(store, "small").samples
    assert samples["age"].to_list() == [63.0, 0.5, 120.0, None, None, None, None]
    assert samples["sex"].to_list() == [None, "F", None, "F", None, "F", None]
    assert set(samples["view"]) == {"PA"}
    assert "age left blank, no number of 0 to 120 years: 3 samples (3, 4, 5)" in report.notes

    plain = build_table(store, "plain", records=write(folder, *rows, header=header), **COLUMNS)
    assert plain.key == report.key, "what only describes a sample changes no result"


AGES = ("63", "0.5", "120", "300", "-1", "old", "")


def test_a_row_without_an_image_keeps_its_text(store, folder):
    report = build_table(store, "small", records=write(folder, *two_good_rows(), "g3,,Words alone.,x,p3"), **COLUMNS)
    row = load_cohort(store, "small").samples.row(2, named=True)
    assert (row["image"], row["text"]) == (None, "small/g3")
    assert any("without image: 1 of 3" in line for line in report.lines())


BAD_ROWS = {
    "missing label": "bad,c.png,Text.,,p3",
    "missing id": ",c.png,Text.,x,p3",
    "missing subject": "bad,c.png,Text.,x,  ",
    "missing image file": "bad,gone.png,Text.,x,p3",
    "image outside the image root": "bad,../data/../../x.png,Text.,x,p3",
    "neither image nor text": "bad,, ,x,p3",
    "unusable id": f"{'b' * 501},c.png,Text.,x,p3",
}


@pytest.mark.parametrize("step", BAD_ROWS)
def test_a_row_that_cannot_be_used_is_reported_by_count_and_id(store, folder, step):
    report = build_table(store, "small", records=write(folder, *two_good_rows(), BAD_ROWS[step]), **COLUMNS)
    shown = {"missing id": "row-000003", "unusable id": "b" * 501}.get(step, "bad")
    assert report.excluded == {step: (shown,)}
    assert report.n_samples == 2
    assert any(step in line and shown in line for line in report.lines())
    excluded = load_excluded(store, "small").row(0, named=True)
    assert (excluded["id"], excluded["row"], excluded["step"]) == (shown, 3, step)
    assert excluded["reason"]
    flow = load_flow(store, "small")
    assert flow.filter(step=step).select("n_before", "n_after").row(0) == (3, 2)
    assert flow["n_before"][1:].to_list() == flow["n_after"][:-1].to_list()


@pytest.mark.parametrize("value", ["nan", "NaN", " ", '""', ""])
def test_blank_and_nan_are_missing(store, folder, value):
    report = build_table(
        store, "small", records=write(folder, *two_good_rows(), f"bad,c.png,Text.,{value},p3"), **COLUMNS
    )
    assert report.excluded == {"missing label": ("bad",)}


def test_an_absolute_path_outside_the_root_is_left_out_and_one_inside_is_used(store, folder, tmp_path):
    outside = tmp_path / "outside.png"
    Image.new("L", (4, 4)).save(outside)
    lines = (*two_good_rows(), f"in,{folder / 'c.png'},,x,p3", f"out,{outside},,x,p4")
    report = build_table(store, "small", records=write(folder, *lines), **COLUMNS)
    assert report.excluded == {"image outside the image root": ("out",)}
    assert report.n_samples == 3


def test_a_path_may_wander_inside_the_root(store, folder):
    lines = (*two_good_rows(), "in,sub/../c.png,,x,p3", f"long,{'n' * 300}.png,,x,p4")
    report = build_table(store, "small", records=write(folder, *lines), **COLUMNS)
    assert report.excluded == {"missing image file": ("long",)}


def test_repeated_rows_keep_the_first_and_conflicting_ones_go(store, folder):
    lines = (
        *two_good_rows(),
        "same,c.png,Text.,x,p3",
        "same, c.png,Text.,x,p3 ",
        "other,d.png,Text.,x,p4",
        "other,d.png,Text.,xy,p4",
        "half,e.png,Text.,x,p5",
        "half,e.png,Text.,,p5",
    )
    report = build_table(store, "small", records=write(folder, *lines), **COLUMNS)
    assert report.excluded == {"conflicting id": ("other", "other", "half", "half"), "repeated row": ("same",)}
    assert report.n_samples == 3
    assert load_excluded(store, "small").filter(step="repeated row")["row"].to_list() == [4]
    assert "left out, conflicting id: 4 (other, half)" in report.lines(), "an id is named once"


def test_without_an_id_column_it_is_the_image_that_conflicts(store, folder):
    lines = (*two_good_rows(), "r1,c.png,Text.,x,p3", "r2,c.png,Text.,xy,p3")
    report = build_table(store, "small", records=write(folder, *lines), **{**COLUMNS, "id_col": None})
    assert report.excluded == {"conflicting image": ("c.png", "c.png")}
    assert "name --id-col" in load_excluded(store, "small")["reason"][0]
    assert build_table(store, "named", records=folder / "records.csv", **COLUMNS).n_samples == 4


def test_many_excluded_ids_are_cut_and_the_file_with_all_is_named(store, folder):
    report = build_table(
        store, "small", records=write(folder, *two_good_rows(), *(f"z{i},c.png,,,p" for i in range(9))), **COLUMNS
    )
    text = "\n".join(report.lines())
    assert "missing label: 9 (z0, z1, z2, z3, z4 and 4 more)" in text
    assert str(report.excluded_path) in text
    assert pl.read_parquet(report.excluded_path).height == 9


def test_ids_keep_their_zeros_and_come_from_the_image_or_the_row_if_no_column_is_named(store, folder):
    columns = {k: v for k, v in COLUMNS.items() if k != "id_col"}
    path = write(folder, *two_good_rows(), "x,,Text.,x,p3")
    build_table(store, "small", records=path, **columns)
    assert load_cohort(store, "small").samples["sample"].to_list() == ["small/a.png", "small/b.png", "small/row-000003"]
    build_table(store, "words", records=path, label_col="label", text_col="report", subject_col="patient")
    assert load_cohort(store, "words").samples["sample"][0] == "words/row-000001"


def test_without_a_subject_column_rows_are_subjects_and_the_report_warns(store, folder):
    report = build_table(store, "small", records=write(folder, *two_good_rows()), **COLUMNS | {"subject_col": None})
    assert load_cohort(store, "small").samples["subject"].to_list() == ["g1", "g2"]
    assert any("both sides of the split" in line for line in report.lines())


def test_bins_make_classes_and_their_edges_are_kept(store, folder):
    lines = [f"r{i},{'abcdef'[i]}.png,,{age},p{i}" for i, age in enumerate(("30", "40.0", "50", "60", "70", "old"))]
    report = build_table(store, "small", records=write(folder, *lines), bins=2, **COLUMNS)
    assert report.class_counts == {"[30, 50)": 2, "[50, 70]": 3}
    assert report.excluded == {"label is no number": ("r5",)}
    assert load_cohort(store, "small").options["bin_edges"] == [30, 50, 70]


def test_more_than_two_classes_are_multiclass(store, folder):
    lines = [f"r{i},a.png,,{label},p{i}" for i, label in enumerate(("2", "10", "1.0"))]
    build_table(store, "small", records=write(folder, *lines), **COLUMNS)
    cohort = load_cohort(store, "small")
    assert (cohort.task, cohort.classes) == ("multiclass", ("1", "2", "10"))


def as_tsv(path: Path) -> Path:
    new = path.with_suffix(".tsv")
    new.write_text(path.read_text().replace(",", "\t"))
    return new


def as_gzip(path: Path) -> Path:
    new = path.with_name(path.name + ".gz")
    new.write_bytes(gzip.compress(path.read_bytes()))
    return new


def as_parquet(path: Path) -> Path:
    new = path.with_suffix(".parquet")
    pl.read_csv(path, infer_schema=False).write_parquet(new)
    return new


def with_bom(path: Path) -> Path:
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())
    return path


@pytest.mark.parametrize("convert", [as_tsv, as_gzip, as_parquet, with_bom])
def test_every_file_type_gives_the_same_cohort(store, folder, convert):
    path = write(folder, *two_good_rows(), "007,c.png,,x,08")
    plain = build_table(store, "plain", records=path, **COLUMNS)
    other = build_table(store, "other", records=convert(path), **COLUMNS)
    assert other.key == plain.key
    assert load_cohort(store, "other").samples["sample"][0] == "other/007"


def test_typed_parquet_columns_read_as_a_person_would_write_them(store, folder):
    frame = pl.DataFrame(
        {
            "id": [1, 2, 3],
            "file": ["a.png", "b.png", "c.png"],
            "label": [True, False, None],
            "patient": [231.0, float("nan"), 17.0],
            "extra": [[1], [2], [3]],
        }
    )
    frame.write_parquet(folder / "records.parquet")
    report = build_table(
        store,
        "small",
        records=folder / "records.parquet",
        image_col="file",
        label_col="label",
        id_col="id",
        bins=None,
    )
    assert report.class_counts == {"false": 1, "true": 1}
    with pytest.raises(DataError, match="one class only"):
        build_table(
            store,
            "subjects",
            records=folder / "records.parquet",
            image_col="file",
            label_col="label",
            id_col="id",
            subject_col="patient",
        )
    build_table(
        store,
        "subjects",
        records=folder / "records.parquet",
        image_col="file",
        label_col="id",
        id_col="id",
        subject_col="patient",
    )
    assert load_cohort(store, "subjects").samples["subject"].to_list() == ["231", "17"]


BAD_TABLES = {
    "empty": (b"", "is empty"),
    "header only": (b"id,file,report,label,patient\n", "header but no rows"),
    "not utf-8": (b"id,file,report,label,patient\n1,a.png,\xff\xfe,x,p\n", "not UTF-8"),
    "utf-16": ("id,file,report,label,patient\n1,a.png,t,x,p\n".encode("utf-16"), "not UTF-8"),
    "open quote": (b'id,file,report,label,patient\n1,a.png,"secret,x,p\n2,b.png,t,y,q\n', "misplaced quotes"),
    "quote in a field": (b'id,file,report,label,patient\n1,a.png,"a" secret,x,p\n', "misplaced quotes"),
    "long row": (b"id,file,report,label,patient\n1,a.png,t,x,p\n2,a.png,secret, words,x,p\n", "first at line 3"),
    "semicolons": (b"id;file;report;label;patient\n1;a.png;t;x;p\n", "single column.*separated by another mark"),
    "two columns of one name": (
        b"id,file,report,label,patient,label\n1,a.png,t,x,p,y\n",
        "more than one column 'label'",
    ),
    "one class": (b"id,file,report,label,patient\n1,a.png,t,x,p\n2,b.png,t,x,q\n", "one class only"),
    "nothing left": (
        b"id,file,report,label,patient\n1,a.png,t,,p\n2,gone.png,t,x,q\n",
        "none of the 1 image files is there: the image column must hold paths below",
    ),
}


@pytest.mark.parametrize("case", BAD_TABLES)
def test_a_table_that_cannot_be_used_is_one_clear_error(store, folder, case):
    data, message = BAD_TABLES[case]
    path = folder / "records.csv"
    path.write_bytes(data)
    with pytest.raises(DataError, match=message) as caught:
        build_table(store, "small", records=path, **COLUMNS)
    assert "secret" not in str(caught.value)
    assert not list(store.root.glob("cohorts/*"))


def test_a_text_file_called_parquet_is_an_error(store, folder):
    path = folder / "records.parquet"
    path.write_text("id,file\n")
    with pytest.raises(DataError, match="cannot be read as parquet"):
        build_table(store, "small", records=path, **COLUMNS)


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"label_col": "lable"}, UnknownNameError, "column of records.csv 'lable'. Did you mean 'label'"),
        ({"subject_col": "nobody"}, UnknownNameError, "Known: file, id, label, patient, report"),
        ({"image_col": None, "text_col": None}, DataError, "--image-col"),
        ({"records": "absent.csv"}, DataError, "no such file"),
        ({"records": "records.xlsx"}, DataError, "must end in"),
        ({"image_root": "nowhere"}, DataError, "is not a folder"),
        ({"bins": 1}, DataError, "no usable row is left"),
    ],
)
def test_options_that_cannot_be_used_are_one_clear_error(store, folder, change, error, message):
    arguments = {"records": write(folder, *two_good_rows()), **COLUMNS} | change
    if "image_root" in change:
        arguments["image_root"] = folder / change["image_root"]
    with pytest.raises(error, match=message):
        build_table(store, "small", **arguments)


@pytest.mark.parametrize("name", ["Upper", "", "a b", "../x", ".dot", "-x", "ä", "a/b"])
def test_a_name_that_is_not_allowed_is_an_error(store, folder, name):
    with pytest.raises(DataError, match="lower-case letters"):
        build_table(store, name, records=write(folder, *two_good_rows()), **COLUMNS)


def test_errors_about_rows_show_ids_and_nothing_else_of_a_patient(store, folder):
    path = write(folder, "r1,a.png,secret words,secretlabel,p1", "r2,b.png,more,secretlabel,p2")
    with pytest.raises(RadfsError) as caught:
        build_table(store, "small", records=path, **COLUMNS)
    assert "secret" not in str(caught.value)
