"""NIH ChestX-ray14 (Wang et al., 2017): 112,120 radiographs of 30,805 patients, 14 findings mined from the reports.

The reports are not public; the findings are labels, so a cohort has no text.
"""

from pathlib import Path
from typing import Any

import polars as pl

from featurestore.store import Store

from ..build import BuildReport
from .source import PublicSource, distinct, has_any, nulls

_NO_FINDING = "No Finding"


def _rows(source: pl.DataFrame, folder: Path) -> pl.DataFrame:
    official = {
        name.strip(): part
        for file, part in (("train_val_list.txt", "train"), ("test_list.txt", "test"))
        if (folder / file).is_file()
        for name in (folder / file).read_text().split()
    }
    name = pl.col("Image Index")
    return source.select(
        name.str.strip_suffix(".png").alias("id"),
        pl.col("Patient ID").alias("subject"),
        *nulls("study", "text"),
        name.alias("image"),
        pl.col("Patient Gender").alias("sex"),
        pl.col("Patient Age").str.strip_suffix("Y").alias("age"),  # "058Y" in the first release
        pl.col("View Position").alias("view"),
        name.replace_strict(official, default=None, return_dtype=pl.String).alias("source_split"),
        pl.col("Finding Labels").str.split("|").alias("findings"),
    )


def _label(_frame: pl.DataFrame, label: str) -> pl.Expr:
    findings = pl.col("findings")
    return (
        has_any(findings.list.set_difference([_NO_FINDING]), label)
        if label != "abnormal"
        else (pl.when(findings.list.contains(_NO_FINDING)).then(pl.lit("absent")).otherwise(pl.lit("present")))
    )


SOURCE = PublicSource(
    name="nih-cxr14",
    licence="NIH Clinical Center: no restriction on use; cite Wang et al. 2017 and name the NIH Clinical Center",
    page="https://nihcc.app.box.com/v/ChestXray-NIHCC",
    tables=("Data_Entry_2017_v2020.csv", "Data_Entry_2017_v2020.csv.gz", "Data_Entry_2017.csv"),
    columns=("Image Index", "Finding Labels", "Patient ID", "Patient Age", "Patient Gender", "View Position"),
    default_label="abnormal",
    rows=_rows,
    label=_label,
    labels=lambda frame: ["abnormal", *distinct(frame["findings"])],
)


def build_nih_cxr14(store: Store, name: str, **options: Any) -> BuildReport:
    """A cohort of NIH ChestX-ray14; options as `PublicSource.build`."""
    return SOURCE.build(store, name, **options)


def example(store: Store, name: str, folder: Path) -> BuildReport:
    """The smallest real use, for the contract suite."""
    from PIL import Image

    head = "Image Index,Finding Labels,Follow-up #,Patient ID,Patient Age,Patient Gender,View Position"
    (folder / "images").mkdir(exist_ok=True)
    rows = []
    for i in range(12):
        Image.new("L", (8, 8), 20 * i).save(folder / "images" / f"{i:08d}_000.png")
        rows.append(f"{i:08d}_000.png,{'Cardiomegaly|Effusion' if i % 2 else _NO_FINDING},0,{i // 2},5{i % 9},M,PA")
    (folder / "Data_Entry_2017_v2020.csv").write_text("\n".join([head, *rows]) + "\n")
    return build_nih_cxr14(store, name, root=folder)
