"""COVID-19 images of Hannover Medical School: 243 radiographs of 71 patients, with intensive care and death."""

from pathlib import Path
from typing import Any

import polars as pl

from featurestore.store import Store

from ..build import BuildReport
from .source import PublicSource, nulls

_OFFSETS = {"died": "death_offset", "icu": "icu_admission_offset"}
"""Label -> the column that has a number of days where it came to that."""


def _rows(source: pl.DataFrame, folder: Path) -> pl.DataFrame:
    del folder
    return source.select(
        pl.col("image_id").alias("id"),
        pl.col("patient_id").alias("subject"),
        *nulls("study", "text", "source_split"),
        pl.col("image_id").alias("image"),
        "sex",
        "age",
        pl.col("projection").str.to_uppercase().alias("view"),
        *_OFFSETS.values(),
    )


def _label(_frame: pl.DataFrame, label: str) -> pl.Expr:
    # To the patient, at whatever time; no offset means that it did not come to it.
    stated = pl.col(_OFFSETS[label]).str.strip_chars().fill_null("") != ""
    return pl.when(stated.any().over("subject")).then(pl.lit("present")).otherwise(pl.lit("absent"))


SOURCE = PublicSource(
    name="hannover-covid19",
    licence="CC BY 3.0 (Hannover Medical School, doi 10.6084/m9.figshare.12275009)",
    page="https://github.com/ml-workgroup/covid-19-image-repository",
    tables=("data.csv", "records.csv"),
    columns=("patient_id", "image_id", "sex", "age", "projection", *_OFFSETS.values()),
    default_label="icu",
    rows=_rows,
    label=_label,
    labels=lambda _frame: list(_OFFSETS),
)


def build_hannover_covid19(store: Store, name: str, **options: Any) -> BuildReport:
    """A cohort of Hannover's repository; options as `PublicSource.build`."""
    return SOURCE.build(store, name, **options)


def example(store: Store, name: str, folder: Path) -> BuildReport:
    """The smallest real use, for the contract suite."""
    from PIL import Image

    head, rows = "patient_id,image_id,sex,age,projection,icu_admission_offset,death_offset", []
    (folder / "png").mkdir(exist_ok=True)
    for i in range(12):
        Image.new("L", (8, 8), 20 * i).save(folder / "png" / f"i{i}.png")
        rows.append(f"p{i // 2},i{i},m,,ap,{'3.0' if i // 2 % 2 else ''},")
    (folder / "data.csv").write_text("\n".join([head, *rows]) + "\n")
    return build_hannover_covid19(store, name, root=folder)
