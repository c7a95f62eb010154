"""MIMIC-IV 3.1, module hosp (Johnson et al., 2023): patients and their stays in hospital. Dates are shifted by patient,
alike in MIMIC-IV and MIMIC-CXR."""

import polars as pl

from . import cells
from .tables import SourceTable

RELEASE = "MIMIC-IV 3.1"
PAGE = "https://physionet.org/content/mimiciv/3.1/"

OVER_89 = 91
"""What `anchor_age` says of everybody older than 89."""

_SUBJECT = cells.pattern("subject_id", r"1\d{7}", "a patient of 8 digits that begin with 1")

PATIENTS = SourceTable(
    "hosp/patients.csv",
    RELEASE,
    PAGE,
    "subject_id",
    (
        _SUBJECT,
        cells.word("gender", {"F": "F", "M": "M"}, pl.String(), blank="null"),
        cells.whole("anchor_age", 0, 120),
        cells.whole("anchor_year", 2000, 2300),
    ),
    364_627,
)
ADMISSIONS = SourceTable(
    "hosp/admissions.csv",
    RELEASE,
    PAGE,
    "hadm_id",
    (
        _SUBJECT,
        cells.pattern("hadm_id", r"\d{1,12}", "the number of a stay"),
        cells.moment("admittime"),
        cells.moment("dischtime"),
        cells.moment("deathtime", blank="null"),
        cells.moment("edregtime", blank="null"),
        cells.whole("hospital_expire_flag", 0, 1),
        cells.text("discharge_location"),
    ),
    546_028,
)
