"""Published data sets as they lie on disk: missing, cut off, of another release, or with cells that cannot be."""

import gzip
import shutil
import zipfile
from datetime import date, datetime, time
from pathlib import Path

import polars as pl
import pytest

from cohorts.sources import cells
from cohorts.sources.mimic_cxr import NO_FILE, UNREADABLE, Reports
from cohorts.sources.mimic_cxr_jpg import METADATA, labels_table
from cohorts.sources.tables import SourceTable, read_table
from cohorts.tasks.inspect_pe import build_inspect_pe
from cohorts.tasks.mimic_discharge_3d import build_mimic_discharge_3d
from featurestore.errors import DataError

from .trees import InspectDownload, MimicDownload, image_id, report

PHYSIONET = "https://physionet.org/content"


def download(tmp_path, *, gz=True):
    tree = MimicDownload(tmp_path / "data", gz=gz)
    for n in range(1, 5):
        tree.image(n, n, n)
        tree.report(n, n)
        tree.patient(n, 50)
        tree.stay(n, n, "2180-05-06 10:00:00", f"2180-05-{7 + 6 * (n % 2):02d} 10:00:00")
    return tree.write()


def test_the_smallest_download_builds(store, tmp_path):
    assert build_mimic_discharge_3d(store, **download(tmp_path).folders).n_samples == 4


def cut(path):
    path.write_bytes(path.read_bytes()[:-15])


def without_column(path):
    text = gzip.decompress(path.read_bytes()).decode().replace("ViewPosition", "View")
    path.write_bytes(gzip.compress(text.encode()))


def header_alone(path):
    path.write_bytes(gzip.compress(gzip.decompress(path.read_bytes()).split(b"\n")[0] + b"\n"))


def nonsense(path):
    path.write_bytes(gzip.compress(b"\x00\xff\x00binary"))


def old_core(path):
    path.parent.rename(path.parent.with_name("core"))


def second_file(path):
    path.with_name("labels_20230101.tsv").write_text("impression_id\n1\n")


ZIP = "mimic-cxr/mimic-cxr-reports.zip"
META = "mimic-cxr-jpg/mimic-cxr-2.0.0-metadata.csv.gz"
FAULTS = [
    (META, Path.unlink, rf"metadata.csv is missing \(with or without .gz\). The folder holds: files.*{PHYSIONET}"),
    (META, cut, rf"metadata.csv.gz is truncated or damaged: it does not unpack. Download it again from {PHYSIONET}"),
    (META, without_column, "lacks the column ViewPosition that MIMIC-CXR-JPG 2.1.0 has. .*Did you mean 'View'"),
    (META, header_alone, "has a header but no rows. Download it again"),
    (META, nonsense, "metadata.csv.gz (lacks the column dicom_id|cannot be read as a table)"),
    (META, lambda p: p.write_bytes(b""), "metadata.csv.gz is empty. Download it again"),
    ("mimic-cxr-jpg/files", shutil.rmtree, "files holds no images: folders p10 to p19 were expected.*p10/p10000032"),
    ("mimic-cxr-jpg", shutil.rmtree, "MIMIC-CXR-JPG 2.1.0: .* is not a folder. Name the folder"),
    (ZIP, lambda p: p.unlink(), rf"holds neither mimic-cxr-reports.zip nor folders.*{PHYSIONET}/mimic-cxr/2.1.0/"),
    (ZIP, cut, "is not a whole zip file .*Download it again"),
    ("mimiciv/3.1/hosp/patients.csv.gz", Path.unlink, r"hosp/patients.csv is missing.*admissions.csv.gz.*mimiciv/3.1/"),
    ("mimiciv/3.1/hosp/admissions.csv.gz", cut, "admissions.csv.gz is truncated"),
    ("mimiciv/3.1/hosp/patients.csv.gz", old_core, "hosp is not a folder"),
]  # fmt: skip


@pytest.mark.parametrize(("file", "harm", "message"), FAULTS)
def test_a_source_is_checked_first_and_the_error_says_what_and_where_from(store, tmp_path, file, harm, message):
    folders = download(tmp_path).folders
    harm(tmp_path / "data" / file)
    with pytest.raises(DataError, match=message):
        build_mimic_discharge_3d(store, **folders)
    assert not list(store.cohorts.glob("*"))


def test_a_tree_without_any_of_its_images_is_an_error(store, tmp_path):
    tree = download(tmp_path)
    for path in tree.jpg.rglob("*.jpg"):
        path.unlink()
    with pytest.raises(
        DataError, match=r"none of the 4 images is there; the first is .*/p10/p10000001/s50000001/.*2.1.0"
    ):
        build_mimic_discharge_3d(store, **tree.folders)


@pytest.mark.parametrize(
    ("harm", "message"),
    [
        (lambda p: p.unlink(), r"labels_\*.tsv is missing.*study_mapping_20250611.tsv.*stanfordaimi"),
        (second_file, "holds several files for labels"),
        (lambda p: p.with_name("Final_labels_1.csv").write_text("x"), "labels of two releases"),
        (lambda p: p.write_text(p.read_text().replace("pe_positive_nlp", "pe")), "lacks the column pe_positive_nlp"),
    ],
)
def test_inspect_is_checked_too(store, tmp_path, harm, message):
    tree = InspectDownload(tmp_path / "data")
    for n in range(4):
        tree.study(n, f"p{n}", pe="TRUE" if n % 2 else "FALSE")
    harm(tree.write().tables / "labels_20250611.tsv")
    with pytest.raises(DataError, match=message):
        build_inspect_pe(store, **tree.folders)


def test_radiographs_that_were_not_made_yet(store, tmp_path):
    tree = InspectDownload(tmp_path / "data")
    for n in range(4):
        tree.study(n, f"p{n}", pe="TRUE" if n % 2 else "FALSE", file=False)
    with pytest.raises(DataError, match=r"none of the 4 images is there.*radfs cohort drr --ct DIR --out"):
        build_inspect_pe(store, **tree.write().folders)
    with pytest.raises(DataError, match=r"drr2 is not a folder. Make radiographs from the CT volumes: radfs"):
        build_inspect_pe(store, inspect=tree.tables, radiographs=tmp_path / "drr2")


TABLE = SourceTable(
    "t.csv", "T 1.0", "https://t", "id", (cells.pattern("id", r"\d+", "a number"), cells.whole("age", 0, 120)), 3
)


def test_rows_that_cannot_be_read_are_kept_marked_and_named_without_their_content(tmp_path):
    (tmp_path / "t.csv").write_text("id,age\n1,50\n2,300\nx,20\n4,\n5,60\n5,61\n6,7\n6,7\n")
    rows = read_table(tmp_path, TABLE)
    assert rows.frame.select("row", "id", "age", "fault").rows() == [
        (1, "1", 50, None),
        (2, "2", None, "age is not a whole number from 0 to 120"),
        (3, None, 20, "id is not a number"),
        (4, "4", None, "age is not a whole number from 0 to 120"),
        (5, "5", 60, "several rows of this id contradict one another"),
        (6, "5", 61, "several rows of this id contradict one another"),
        (7, "6", 7, None),
    ]
    assert rows.sound()["id"].to_list() == ["1", "6"]
    assert rows.notes == (
        "t.csv: rows that cannot be read: 5 (id 2: age is not a whole number from 0 to 120; row 3: id is not a number; "
        "id 4: age is not a whole number from 0 to 120; id 5: several rows of this id contradict one another; "
        "id 5: several rows of this id contradict one another)",
        "t.csv: rows that repeat an earlier one and count once: 1",
        "t.csv: 8 rows; T 1.0 has 3: a part, or another release?",
    )


def test_a_file_none_of_whose_rows_can_be_read_is_the_wrong_file(tmp_path):
    (tmp_path / "t.csv").write_text("id,age\nx,50\ny,20\n")
    with pytest.raises(DataError, match=r"none of its 2 rows can be read; the first: id is not a number. Is it.*T 1.0"):
        read_table(tmp_path, TABLE)


def test_a_gzip_beside_its_unpacked_copy_is_no_conflict(tmp_path):
    (tmp_path / "t.csv").write_text("id,age\n1,50\n2,3\n3,4\n")
    (tmp_path / "t.csv.gz").write_bytes(gzip.compress(b"id,age\n9,50\n"))
    assert read_table(tmp_path, TABLE).frame["id"].to_list() == ["1", "2", "3"]


def parsed(cell, *values):
    column = pl.Series(cell.column, values, dtype=pl.String)
    return column.to_frame().select(cell.parse(pl.col(cell.column))).to_series().to_list()


def test_cells():
    assert parsed(cells.clock("t"), "80556.875", "213014.531", "0.0", "556", "246000.0", "1e5", "-1") == [
        time(8, 5, 56), time(21, 30, 14), time(0), time(0, 5, 56), None, None, None]  # fmt: skip
    assert parsed(cells.day("d"), "21800506", "21801306", "2180-05-06", "21800506.0") == [
        date(2180, 5, 6), None, None, date(2180, 5, 6)]  # fmt: skip
    noon = datetime(2015, 3, 1, 12, 30)
    assert parsed(cells.moment("m"), "2180-05-06 22:23:00", "2180-05-06") == [
        datetime(2180, 5, 6, 22, 23),
        datetime(2180, 5, 6),
    ]
    assert parsed(cells.moment("m"), "2015-03-01T12:30:00.000", "2015-03-01 12:30", "soon") == [noon, noon, None]
    assert parsed(cells.whole("n", 0, 120), "91", "91.0", "91.5", "300", "-1", "nan", "x") == [
        91,
        91,
        None,
        None,
        None,
        None,
        None,
    ]
    edema = next(c for c in labels_table("chexpert").cells if c.column == "Edema")
    assert parsed(edema, "1.0", "0.0", "-1.0", "7", "-1") == [1, 0, -1, None, -1]
    dicom = METADATA.cells[0]
    assert parsed(dicom, image_id(7), f"../{image_id(7)}", f"{image_id(7)}/x", image_id(7).upper()) == [
        image_id(7),
        None,
        None,
        None,
    ]


def test_reports_of_a_zip_are_read_one_by_one_and_never_unpacked(tmp_path):
    path = tmp_path / "mimic-cxr-reports.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("../../outside.txt", "x")
        archive.writestr("mimic-cxr-reports/files/p10/p10000001/s50000001.txt", report("IMPRESSION:  Clear."))
        archive.writestr("mimic-cxr-reports/files/p10/p10000001/s50000002.txt", "damaged later")
    data = path.read_bytes()
    path.write_bytes(data.replace(b"damaged later", b"damaged lateR", 1))
    reports = list(Reports(tmp_path).read([("10000001", f"5000000{n}") for n in (1, 2, 3)]))
    assert reports[0] == (report("IMPRESSION:  Clear."), None)
    assert reports[1:] == [(None, UNREADABLE), (None, NO_FILE)]
    assert sorted(p.name for p in tmp_path.rglob("*")) == ["mimic-cxr-reports.zip"]
