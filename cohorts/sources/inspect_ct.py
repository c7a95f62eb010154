"""INSPECT (Huang et al., 2023): CT scans of patients at risk of pulmonary embolism, impressions, labels from records.

Two releases are in use: that of June 2025 with dated .tsv tables and patient ids, and the older one, whose files begin
with "Final_" and which holds no patient ids. `impression_id` is the key of a study in both.
"""

import os
from dataclasses import dataclass
from pathlib import Path

import polars as pl

from featurestore.errors import DataError

from . import cells
from .tables import Rows, SourceTable, check_folder, find_table, read_table

RELEASE = "INSPECT (June 2025)"
OLD_RELEASE = "INSPECT (2024)"
PAGE = "https://stanfordaimi.azurewebsites.net/datasets/151848b9-8b31-4129-bc25-cefdf18f95d8"
LICENCE = "Stanford University Dataset Research Use Agreement"

CENSORED = -1
_VALUES = {"TRUE": 1, "1": 1, "1.0": 1, "FALSE": 0, "0": 0, "0.0": 0, "CENSORED": CENSORED, "CENSOR": CENSORED}
_KEY = "impression_id"
_STUDY = cells.pattern("impression_id", r"\d{1,12}", "the number of a study")
_PERSON = cells.pattern("person_id", r"[0-9A-Za-z_-]{1,64}", "a patient id of letters and digits")
_SPLIT = cells.pattern("split", "train|valid|test", "train, valid or test")
_IMAGE = cells.Cell(
    "image_id",
    "the id of a CT such as PE452890e",
    lambda text: text.str.extract(r"^([A-Za-z0-9][A-Za-z0-9_-]{0,63})(?:\.nii\.gz)?$"),
)


@dataclass(frozen=True)
class Tables:
    """The tables of one release.

    Attributes:
        root: where they lie.
        old: the release without patient ids.
        master: a table of the authors' code for health records, where one lies there: see `find_master`.
    """

    root: Path
    old: bool
    master: Path | None

    def labels(self, column: str) -> Rows:
        """`impression_id` and one label: 1, 0, `CENSORED`, or null where there is none."""
        return self._read(
            "Final_labels*.csv", "labels_*.tsv", _STUDY, cells.word(column, _VALUES, pl.Int8(), blank="null")
        )

    def images(self) -> Rows:
        """`impression_id` and `image_id`; in the June-2025 release `person_id` and `procedure_DATETIME` too."""
        more = () if self.old else (_PERSON, cells.moment("procedure_DATETIME", blank="null"))
        return self._read("Final_metadata*.csv", "study_mapping_*.tsv", _STUDY, _IMAGE, *more)

    def impressions(self) -> Rows:
        """`impression_id` and `impressions`."""
        return self._read("Final_Impressions.csv", "impressions_*.tsv", _STUDY, cells.text("impressions"))

    def splits(self) -> Rows | None:
        """`impression_id` and the publishers' `split`; None where the file is absent."""
        table = self._table("Final_splits*.csv", "splits_*.tsv", _STUDY, _SPLIT)
        return read_table(self.root, table) if _present(self.root, table.file) else None

    def _table(self, old: str, new: str, *columns: cells.Cell) -> SourceTable:
        file, release = (old, OLD_RELEASE) if self.old else (new, RELEASE)
        return SourceTable(file, release, PAGE, _KEY, columns)

    def _read(self, old: str, new: str, *columns: cells.Cell) -> Rows:
        return read_table(self.root, self._table(old, new, *columns))


def open_tables(folder: str | os.PathLike[str]) -> Tables:
    """The tables of INSPECT, of whichever release lies there.

    Raises:
        DataError: neither does, or both.
    """
    root = check_folder(folder, "INSPECT", PAGE)
    new, old = (_present(root, file) for file in ("labels_*.tsv", "Final_labels*.csv"))
    if new and old:
        raise DataError(
            f"{root} holds labels of two releases of INSPECT, labels_*.tsv and Final_labels*.csv. Keep one."
        )
    master = None if new else find_master(root)
    if not new and not old:
        if master is not None:
            raise DataError(
                f"{master} is a table of INSPECT's code for health records: {MASTER_LACKS}. Needed are labels_*.tsv, "
                f"study_mapping_*.tsv (with person_id) and impressions_*.tsv of {RELEASE}, from {PAGE}"
            )
        find_table(root, SourceTable("labels_*.tsv", RELEASE, PAGE, _KEY, ()))
    return Tables(root, old, master)


MASTER_LACKS = (
    "it names patients (PatientID) by the time of the scan (StudyTime), without the impression_id that reports and CT "
    "volumes go by, so it cannot say whose a study is"
)


def find_master(root: Path) -> Path | None:
    """The table that was passed round with the older release, cohort_0.2.0_master_file_anon.csv, by its columns."""
    for path in sorted(root.glob("*.csv")):
        with path.open(encoding="utf-8-sig", errors="replace") as file:
            columns = {name.strip(' "') for name in file.readline().strip().split(",")}
        if {"PatientID", "StudyTime"} <= columns:
            return path
    return None


def _present(root: Path, file: str) -> bool:
    return any(any(root.glob(name)) for name in (file, f"{file}.gz"))
