"""Adapters of public data sets: tables in the published form, row by row, and what is left open is left out."""

import io
import tarfile
from pathlib import Path

import pytest
from PIL import Image

from cohorts import SplitScheme, load_cohort, load_excluded
from cohorts.public.chexpert import LABELS, build_chexpert
from cohorts.public.covid_chestxray import build_covid_chestxray
from cohorts.public.hannover_covid19 import build_hannover_covid19
from cohorts.public.nih_cxr14 import build_nih_cxr14
from cohorts.public.openi import build_openi
from cohorts.public.padchest import build_padchest
from featurestore.errors import DataError, UnknownNameError


def write(folder: Path, table: str, *lines: str, images: tuple[str, ...] = ()) -> Path:
    for image in images:
        (folder / image).parent.mkdir(parents=True, exist_ok=True)
        Image.new("L", (4, 4)).save(folder / image)
    (folder / table).write_text("\n".join(lines) + "\n")
    return folder


def labels(store, name: str) -> dict[str, str]:
    frame = load_cohort(store, name).samples
    return {sample.partition("/")[2]: label for sample, label in frame.select("sample", "label_name").iter_rows()}


def left_out(store, name: str) -> dict[str, str]:
    return dict(load_excluded(store, name).select("id", "step").iter_rows())


NIH = "Image Index,Finding Labels,Follow-up #,Patient ID,Patient Age,Patient Gender,View Position"


def test_nih_finds_images_in_any_folder_and_reads_the_official_lists(store, tmp_path):
    rows = [
        "a_000.png,Cardiomegaly|Effusion,0,1,058Y,M,PA",
        "a_001.png,No Finding,1,1,59,M,AP",
        "b_000.png,Effusion,0,2,414,F,PA",
        "c_000.png,No Finding,0,3,30,F,PA",
    ]
    images = ("images_001/images/a_000.png", "images_001/images/a_001.png", "images_002/images/b_000.png")
    write(tmp_path, "Data_Entry_2017.csv", NIH, *rows, images=images)
    (tmp_path / "test_list.txt").write_text("b_000.png\n")
    (tmp_path / "train_val_list.txt").write_text("a_000.png\na_001.png\n")
    report = build_nih_cxr14(store, "nih", root=tmp_path)
    assert labels(store, "nih") == {"a_000": "present", "a_001": "absent", "b_000": "present"}
    assert left_out(store, "nih") == {"c_000": "missing image file"}
    samples = load_cohort(store, "nih").samples
    assert samples.select("subject", "sex", "age", "view", "source_split").rows() == [
        ("1", "M", 58.0, "PA", "train"),
        ("1", "M", 59.0, "AP", "train"),
        ("2", "F", None, "PA", "test"),
    ]
    assert any("age left blank" in note and "b_000" in note for note in report.notes)
    build_nih_cxr14(store, "heart", root=tmp_path, label="Cardiomegaly")
    assert labels(store, "heart") == {"a_000": "present", "a_001": "absent", "b_000": "absent"}
    with pytest.raises(UnknownNameError, match=r"'Cardiomegally'\. Did you mean 'Cardiomegaly'"):
        build_nih_cxr14(store, "heart", root=tmp_path, label="Cardiomegally")


def test_chexpert_takes_what_is_stated_alone_and_no_path_leads_out(store, tmp_path):
    def row(path: str, value: str) -> str:
        return ",".join([path, "Female", "68", "Frontal", "AP", *(value if n == "Edema" else "" for n in LABELS)])

    stem = "CheXpert-v1.0-small/train/patient0000{}/study1/view1_frontal.jpg"
    paths = [stem.format(i) for i in range(1, 5)]
    rows = [row(path, value) for path, value in zip(paths, ("1.0", "0.0", "-1.0", ""), strict=True)]
    out = "CheXpert-v1.0-small/train/../../../../secret/patient00009/study1/view1_frontal.jpg"
    rows.append(row(out, "1.0"))
    root = tmp_path / "root"
    head = ",".join(["Path", "Sex", "Age", "Frontal/Lateral", "AP/PA", *LABELS])
    (root / "CheXpert-v1.0-small").mkdir(parents=True)
    write(root, "train.csv", head, *rows, images=tuple(paths))
    write(tmp_path, "x", images=("secret/patient00009/study1/view1_frontal.jpg",))
    build_chexpert(store, "edema", root=root, label="Edema")
    key = "train/patient0000{}/study1/view1_frontal"
    assert labels(store, "edema") == {key.format(1): "present", key.format(2): "absent"}
    assert sorted(left_out(store, "edema").values()) == [
        "image outside the image root",
        "label left open",
        "label left open",
    ]
    sample = load_cohort(store, "edema").samples.row(0, named=True)
    assert [sample[c] for c in ("subject", "study", "sex", "age", "view", "source_split")] == [
        "patient00001",
        "patient00001/study1",
        "F",
        68.0,
        "AP",
        "train",
    ]


def test_padchest_reads_lists_as_python_prints_them(store, tmp_path):
    head = "ImageID,StudyDate_DICOM,StudyID,PatientID,PatientBirth,PatientSex_DICOM,Projection,Report,Labels"
    rows = [
        "1.png,20140915,s1,p1,1930.0,F,PA,sin hallazg .,\"['normal']\"",
        "2.png,20140915,s2,p2,,M,L,derram .,\"['cardiomegaly', ' pleural effusion']\"",
        "3.png,20140915,s3,p3,1950.0,M,AP,,",
    ]
    write(tmp_path, "PADCHEST_chest_x_ray_images_labels_160K_01.02.19.csv", head, *rows)
    build_padchest(store, "fluid", root=tmp_path, label="pleural effusion")
    assert labels(store, "fluid") == {"1": "absent", "2": "present"}
    assert left_out(store, "fluid") == {"3": "label left open"}
    assert load_cohort(store, "fluid").samples["age"].to_list() == [84.0, None]


def test_covid_chestxray_takes_x_rays_and_the_licences_of_their_rows(store, tmp_path):
    outcomes = "RT_PCR_positive,survival,intubated,went_icu,in_icu,needed_supplemental_O2"
    head = f"patientid,sex,age,finding,view,modality,filename,license,clinical_notes,{outcomes}"
    rows = [
        "1,M,60,Pneumonia/Viral/COVID-19,PA,X-ray,a.jpeg,CC BY 4.0,Fever.,Y,Y,N,N,N,",
        "2,F,61,Pneumonia/Bacterial,PA,X-ray,b.png,CC BY-SA,,Y,N,Y,,N,",
        "3,F,61,todo,PA,X-ray,c.png,CC BY,Cough.,,,,,,",
        "4,F,61,No Finding,Axial,CT,d.png,unlicensed,,,,,,,",
    ]
    write(tmp_path, "metadata.csv", head, *rows, images=("images/a.jpeg", "images/b.png", "images/c.png"))
    build_covid_chestxray(store, "covid", root=tmp_path)
    assert labels(store, "covid") == {"a": "present", "b": "absent"}
    assert load_cohort(store, "covid").licence == "as each row states: CC BY 4.0, CC BY-SA"
    build_covid_chestxray(store, "tube", root=tmp_path, label="intubated")
    assert labels(store, "tube") == {"a": "absent", "b": "present"}


def test_hannover_as_it_was_published(store, real_data):
    report = build_hannover_covid19(store, "icu", root=real_data / "hannover-covid19", splits=SplitScheme(folds=5))
    assert (report.n_samples, report.n_subjects) == (243, 71)
    assert load_cohort(store, "icu").licence.startswith("CC BY 3.0")
    assert report.class_counts == {"absent": 57, "present": 186}


def archive(folder: Path, *reports: str) -> None:
    with tarfile.open(folder / "NLMCXR_reports.tgz", "w:gz") as files:
        for i, text in enumerate(reports, start=1):
            member = tarfile.TarInfo(f"ecgen-radiology/{i}.xml")
            member.size = len(text.encode())
            files.addfile(member, io.BytesIO(text.encode()))


def openi(i: int, term: str, findings: str = "", impression: str = "") -> str:
    return (
        f'<eCitation><uId id="CXR{i}"/><AbstractText Label="FINDINGS">{findings}</AbstractText>'
        f'<AbstractText Label="IMPRESSION">{impression}</AbstractText><MeSH><major>{term}</major></MeSH>'
        f'<parentImage id="CXR{i}_IM-0001-1001"/></eCitation>'
    )


def test_openi_gives_impression_then_findings_and_survives_bad_reports(store, tmp_path):
    archive(
        tmp_path,
        openi(1, "normal", "Clear lungs.", "No disease."),
        openi(2, "Cardiomegaly/mild", impression="Large heart."),
        openi(3, "Cardiomegaly"),
        "<eCitation><uId",
        '<!DOCTYPE x [<!ENTITY a "b">]><eCitation/>',
    )
    build_openi(store, "oi", root=tmp_path)
    assert labels(store, "oi") == {"CXR1": "absent", "CXR2": "present"}
    assert left_out(store, "oi") == {
        "CXR3": "neither image nor text",
        "CXR4": "label left open",
        "CXR5": "label left open",
    }
    from featurestore.items import list_items

    texts = dict(list_items(store, modality="text").select("item", "text").iter_rows())
    assert texts == {"openi/CXR1": "No disease.\nClear lungs.", "openi/CXR2": "Large heart."}


def test_what_is_not_there_or_not_this_data_set_says_where_it_comes_from(store, tmp_path):
    with pytest.raises(DataError, match=r"holds none of metadata\.csv\. It is downloaded from https://github"):
        build_covid_chestxray(store, "covid", root=tmp_path)
    (tmp_path / "metadata.csv").write_text("a,b\n1,2\n")
    with pytest.raises(DataError, match="is not the table of covid-chestxray: it has no column 'patientid'"):
        build_covid_chestxray(store, "covid", root=tmp_path)
    with pytest.raises(DataError, match="is not a folder"):
        build_nih_cxr14(store, "nih", root=tmp_path / "nowhere")
