"""Studies of patients whose disease was known before the scan: whoever has it already is no case of it to come.

INSPECT's label of pulmonary hypertension counts a diagnosis from a day after the scan on, also of a patient who had it
before. Telling them apart takes the health records, which are a download of their own.
"""

import os
from collections.abc import Sequence
from pathlib import Path

import polars as pl

from featurestore.errors import DataError

from ..flow import Flow
from ..sources import cells
from ..sources.tables import SourceTable, read_table

RELEASE = "a table of conditions in the form of OMOP"
PAGE = "the health records of INSPECT (or of your own)"
_PERSON, _START, _CODE = "person_id", "condition_start_DATETIME", "condition_source_value"


def without_known(
    frame: pl.DataFrame, flow: Flow, conditions: str | os.PathLike[str], codes: Sequence[str]
) -> pl.DataFrame:
    """Leave out studies of patients with a diagnosis of these codes before the scan, and those without a time.

    Args:
        frame: with `person_id` and `acquired`, null where they are not known.
        flow: takes what is left out.
        conditions: a .csv, .csv.gz or .tsv with `person_id`, `condition_start_DATETIME` and, in
            `condition_source_value`, ICD codes.
        codes: beginnings of ICD codes, such as "I27" for I27.0 to I27.9.

    Raises:
        DataError: a table that cannot be read, or that has no diagnosis of these codes, or no patient of the frame.
    """
    path = Path(conditions).expanduser().absolute()
    columns = (
        cells.pattern(_PERSON, r"[0-9A-Za-z_-]{1,64}", "a patient id of letters and digits"),
        cells.moment(_START),
        cells.text(_CODE),
    )
    rows = read_table(path.parent, SourceTable(path.name.removesuffix(".gz"), RELEASE, PAGE, None, columns))
    # "I27.20" as it stands, or after the name of a vocabulary: "ICD10CM/I27.20".
    wanted = rf"(?i)(?:^|[/: ])(?:{'|'.join(codes)})(?:\.|$)"
    of_disease = rows.frame.filter(pl.col(_CODE).str.contains(wanted))
    if of_disease.is_empty():
        raise DataError(
            f"conditions {path}: none of its {rows.frame.height:,} rows has a code of {' or '.join(codes)} in "
            f"{_CODE}: nobody's disease can be known from it. INSPECT's public records may withhold source codes."
        )
    first = of_disease.group_by(_PERSON).agg(
        pl.col(_START).min().alias("_known"), pl.col("fault").is_not_null().any().alias("_fault")
    )
    if not frame[_PERSON].is_in(rows.frame[_PERSON].implode()).any():
        raise DataError(f"conditions {path}: none of its patients ({_PERSON}) is one of the cohort's.")
    frame = frame.join(first, on=_PERSON, how="left", maintain_order="left")
    reason = "whether the disease was known cannot be told: the time of the scan is not known"
    has = pl.col("_known").is_not_null() | pl.col("_fault")
    frame = flow.drop(frame, has & pl.col("acquired").is_null(), step="no time of the scan", reason=reason)
    reason = "a diagnosis of the patient cannot be read"
    frame = flow.drop(frame, pl.col("_fault"), step="unreadable diagnosis", reason=reason)
    known = pl.col("_known") < pl.col("acquired")
    reason = f"the patient had a diagnosis of {' or '.join(codes)} before the scan"
    return flow.drop(frame, known, step="known before", reason=reason).drop("_known", "_fault")
