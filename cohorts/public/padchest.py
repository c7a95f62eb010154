"""PadChest (Bustos et al., 2020): 160,000 radiographs of 67,000 patients with Spanish reports (stemmed) and labels."""

from pathlib import Path
from typing import Any

import polars as pl

from featurestore.store import Store

from ..build import BuildReport
from .source import PublicSource, distinct, has_any


def _rows(source: pl.DataFrame, folder: Path) -> pl.DataFrame:
    del folder
    name, labels = pl.col("ImageID"), pl.col("Labels")
    year = pl.col("StudyDate_DICOM").str.slice(0, 4).cast(pl.Float64, strict=False)
    text = pl.col("Report").str.strip_chars()
    return source.select(
        name.str.replace(r"\.png$", "").alias("id"),
        pl.col("PatientID").alias("subject"),
        pl.col("StudyID").alias("study"),
        pl.when(text != "").then(text).alias("text"),
        name.alias("image"),
        pl.col("PatientSex_DICOM").alias("sex"),
        (year - pl.col("PatientBirth").cast(pl.Float64, strict=False)).cast(pl.String).alias("age"),
        pl.col("Projection").alias("view"),
        pl.lit(None, pl.String).alias("source_split"),
        # A list as Python prints it: "['cardiomegaly', 'pleural effusion']"; blanks around names are slips.
        pl.when(labels.str.starts_with("["))
        .then(labels.str.extract_all(r"'[^']*'|\"[^\"]*\"").list.eval(pl.element().str.strip_chars("'\" ")))
        .alias("findings"),
    )


SOURCE = PublicSource(
    name="padchest",
    licence="PadChest Dataset Research Use Agreement (BIMCV)",
    page="https://bimcv.cipf.es/bimcv-projects/padchest/",
    tables=(
        "PADCHEST_chest_x_ray_images_labels_160K_01.02.19.csv",
        "PADCHEST_chest_x_ray_images_labels_160K_01.02.19.csv.gz",
    ),
    columns=("ImageID", "PatientID", "StudyID", "StudyDate_DICOM", "PatientBirth", "Projection", "Report", "Labels"),
    default_label="cardiomegaly",
    rows=_rows,
    label=lambda _frame, label: has_any(pl.col("findings"), label),
    labels=lambda frame: distinct(frame["findings"]),
)


def build_padchest(store: Store, name: str, **options: Any) -> BuildReport:
    """A cohort of PadChest; options as `PublicSource.build`."""
    return SOURCE.build(store, name, **options)


def example(store: Store, name: str, folder: Path) -> BuildReport:
    """The smallest real use, for the contract suite."""
    from PIL import Image

    head = "ImageID,StudyDate_DICOM,StudyID,PatientID,PatientBirth,PatientSex_DICOM,Projection,Report,Labels"
    rows = []
    for i in range(12):
        Image.new("L", (8, 8), 20 * i).save(folder / f"{i}_x.png")
        found = "\"['cardiomegaly', ' pleural effusion']\"" if i // 2 % 2 else "['normal']"
        rows.append(f"{i}_x.png,20140915,s{i},p{i // 2},1930.0,F,PA,sin hallazg {i} .,{found}")
    (folder / SOURCE.tables[0]).write_text("\n".join([head, *rows]) + "\n")
    return build_padchest(store, name, root=folder)
