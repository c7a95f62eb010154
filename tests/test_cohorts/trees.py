"""Miniature downloads of MIMIC and INSPECT in the published layouts, written row by row."""

import gzip
import zipfile
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

FINDINGS = (
    *("Atelectasis", "Cardiomegaly", "Consolidation", "Edema", "Enlarged Cardiomediastinum", "Fracture", "Lung Lesion"),
    *(
        "Lung Opacity",
        "No Finding",
        "Pleural Effusion",
        "Pleural Other",
        "Pneumonia",
        "Pneumothorax",
        "Support Devices",
    ),
)
METADATA = (
    "dicom_id,subject_id,study_id,PerformedProcedureStepDescription,ViewPosition,Rows,Columns,StudyDate,StudyTime,"
    "ProcedureCodeSequence_CodeMeaning,ViewCodeSequence_CodeMeaning,PatientOrientationCodeSequence_CodeMeaning"
)
ADMISSIONS = (
    "subject_id,hadm_id,admittime,dischtime,deathtime,admission_type,admit_provider_id,admission_location,"
    "discharge_location,insurance,language,marital_status,race,edregtime,edouttime,hospital_expire_flag"
)


def image_id(n: int) -> str:
    """The n-th image: its id in the form of MIMIC-CXR."""
    return f"{n:08d}-aaaaaaaa-bbbbbbbb-cccccccc-dddddddd"


def subject_id(n: int) -> str:
    return f"{10_000_000 + n}"


def study_id(n: int) -> str:
    return f"{50_000_000 + n}"


def report(*sections: str) -> str:
    return "\n".join([f"{' ' * 33}FINAL REPORT", *(f" {line}\n " for line in sections)])


@dataclass
class MimicDownload:
    """The three folders, to which rows are added one by one; `write` puts them to disk."""

    root: Path
    gz: bool = True

    def __post_init__(self):
        self.jpg, self.reports, self.iv = (self.root / n for n in ("mimic-cxr-jpg", "mimic-cxr", "mimiciv/3.1"))
        self.metadata, self.split, self.patients, self.admissions = [], [], [], []
        self.labels = {"chexpert": [], "negbio": []}
        self.texts = {}

    def image(self, n, subject, study, view="PA", date="21800506", time="120000.0", *, part="train", file=True):
        """One image; `file=False` where it was not downloaded."""
        ids = (image_id(n), subject_id(subject), study_id(study))
        self.metadata.append(f"{','.join(ids)},CHEST (PA AND LAT),{view},3056,2544,{date},{time},,,Erect")
        self.split.append(f"{ids[0]},{ids[2]},{ids[1]},{part}")
        folder = self.jpg / "files" / f"p{ids[1][:2]}" / f"p{ids[1]}" / f"s{ids[2]}"
        folder.mkdir(parents=True, exist_ok=True)
        if file:
            Image.new("L", (8, 8), n % 256).save(folder / f"{ids[0]}.jpg")

    def report(self, subject, study, text="IMPRESSION:  Clear."):
        self.texts[subject_id(subject), study_id(study)] = text if "\n" in text else report(text)

    def label(self, subject, study, labeler=("chexpert", "negbio"), **values):
        """Labels of a study; blanks in names as underscores."""
        cells = [values.get(name.replace(" ", "_"), "") for name in FINDINGS]
        for one in labeler:
            self.labels[one].append(f"{subject_id(subject)},{study_id(study)},{','.join(map(str, cells))}")

    def patient(self, subject, age, year=2180, gender="F"):
        self.patients.append(f"{subject_id(subject)},{gender},{age},{year},2011 - 2013,")

    def stay(self, subject, hadm, begin, end, *, death="", ed="", to="HOME", died=0):
        self.admissions.append(
            f"{subject_id(subject)},{hadm},{begin},{end},{death},EW EMER.,P1,ER,{to},Other,English,,WHITE,{ed},,{died}"
        )

    def write(self):
        files = {
            self.jpg / "mimic-cxr-2.0.0-metadata.csv": (METADATA, self.metadata),
            self.jpg / "mimic-cxr-2.0.0-split.csv": ("dicom_id,study_id,subject_id,split", self.split),
            self.iv / "hosp" / "patients.csv": (
                "subject_id,gender,anchor_age,anchor_year,anchor_year_group,dod",
                self.patients,
            ),
            self.iv / "hosp" / "admissions.csv": (ADMISSIONS, self.admissions),
        }
        for labeler, rows in self.labels.items():
            name = self.jpg / f"mimic-cxr-2.0.0-{labeler}.csv"
            files[name] = (f"subject_id,study_id,{','.join(FINDINGS)}", rows)
        for path, (header, rows) in files.items():
            path.parent.mkdir(parents=True, exist_ok=True)
            text = "\n".join([header, *rows]) + "\n"
            if self.gz:
                path.with_name(f"{path.name}.gz").write_bytes(gzip.compress(text.encode()))
            else:
                path.write_text(text)
        self.reports.mkdir(parents=True, exist_ok=True)
        with zipfile.ZipFile(self.reports / "mimic-cxr-reports.zip", "w") as archive:
            for (subject, study), text in self.texts.items():
                archive.writestr(f"files/p{subject[:2]}/p{subject}/s{study}.txt", text)
        return self

    @property
    def folders(self):
        return {"mimic_cxr_jpg": self.jpg, "mimic_cxr": self.reports, "mimic_iv": self.iv}


LABELS = "impression_id\tpe_positive_nlp\tpe_acute\t12_month_readmission\t12_month_PH"
MAPPING = "impression_id\timage_id\tperson_id\tprocedure_DATETIME"


@dataclass
class InspectDownload:
    """INSPECT's tables and radiographs."""

    root: Path
    old: bool = False

    def __post_init__(self):
        self.tables, self.radiographs = self.root / "inspect", self.root / "drr"
        self.labels, self.mapping, self.texts, self.splits = [], [], [], []
        for folder in (self.tables, self.radiographs):
            folder.mkdir(parents=True)

    def study(
        self, n, person, readmission="", ph="", pe="", *, acute="", text="No PE.", file=True, at="", part="train"
    ):
        self.labels.append(f"{n}\t{pe}\t{acute}\t{readmission}\t{ph}")
        image = f"PE{n:x}" + (".nii.gz" if self.old else "")
        self.mapping.append(f"{n}\t{image}" + ("" if self.old else f"\t{person}\t{at}"))
        self.splits.append(f"{n}\t{part}")
        self.texts.append(f"{n}\t{text}")
        if file:
            Image.new("L", (8, 8), n % 256).save(self.radiographs / f"PE{n:x}.jpg")

    def write(self):
        tables = {
            "labels_20250611.tsv": (LABELS, self.labels),
            "study_mapping_20250611.tsv": (MAPPING, self.mapping),
            "splits_20250611.tsv": ("impression_id\tsplit", self.splits),
            "impressions_20250611.tsv": ("impression_id\timpressions", self.texts),
        }
        if self.old:
            names = ("Final_labels_1.csv", "Final_metadata.csv", "Final_splits_1.csv", "Final_Impressions.csv")
            tables = dict(zip(names, tables.values(), strict=True))
            tables["Final_metadata.csv"] = ("impression_id\timage_id", self.mapping)
        for name, (header, rows) in tables.items():
            text = "\n".join([header, *rows]) + "\n"
            (self.tables / name).write_text(text.replace("\t", ",") if self.old else text)
        return self

    @property
    def folders(self):
        return {"inspect": self.tables, "radiographs": self.radiographs}
