"""covid-chestxray-dataset (Cohen et al., 2020): about 950 images from publications, with clinical notes.

X-rays alone are taken; each row has a licence of its own, and those of the rows taken are the cohort's.
"""

from pathlib import Path
from typing import Any

import polars as pl

from featurestore.store import Store

from ..build import BuildReport
from .source import PublicSource, distinct, has_any, nulls, yes_no

_OUTCOMES = ("RT_PCR_positive", "survival", "intubated", "went_icu", "in_icu", "needed_supplemental_O2")
_OPEN = ["todo", "Unknown", ""]
_CODES = {"Y": "present", "N": "absent"}


def _rows(source: pl.DataFrame, folder: Path) -> pl.DataFrame:
    del folder
    text = pl.col("clinical_notes").str.strip_chars()
    return source.filter(pl.col("modality").str.strip_chars() == "X-ray").select(
        pl.col("filename").str.replace(r"\.[A-Za-z]+$", "").alias("id"),
        pl.col("patientid").alias("subject"),
        *nulls("study", "source_split"),
        pl.col("filename").alias("image"),
        pl.when(text != "").then(text).alias("text"),
        "sex",
        "age",
        "view",
        pl.col("license").alias("licence"),
        # From the general to the particular: "Pneumonia/Viral/COVID-19" is each of the three.
        pl.when(~pl.col("finding").is_in(_OPEN)).then(pl.col("finding").str.split("/")).alias("findings"),
        *_OUTCOMES,
    )


def _label(_frame: pl.DataFrame, label: str) -> pl.Expr:
    return yes_no(label, _CODES) if label in _OUTCOMES else has_any(pl.col("findings"), label)


SOURCE = PublicSource(
    name="covid-chestxray",
    licence="as each row states",
    page="https://github.com/ieee8023/covid-chestxray-dataset",
    tables=("metadata.csv",),
    columns=("patientid", "filename", "finding", "modality", "clinical_notes", "license", "view", *_OUTCOMES),
    default_label="COVID-19",
    rows=_rows,
    label=_label,
    labels=lambda frame: [*_OUTCOMES, *distinct(frame["findings"])],
)


def build_covid_chestxray(store: Store, name: str, **options: Any) -> BuildReport:
    """A cohort of covid-chestxray-dataset; options as `PublicSource.build`."""
    return SOURCE.build(store, name, **options)


def example(store: Store, name: str, folder: Path) -> BuildReport:
    """The smallest real use, for the contract suite."""
    from PIL import Image

    head = f"patientid,sex,age,finding,view,modality,filename,license,clinical_notes,{','.join(_OUTCOMES)}"
    (folder / "images").mkdir(exist_ok=True)
    rows = []
    for i in range(12):
        Image.new("L", (8, 8), 20 * i).save(folder / "images" / f"i{i}.jpeg")
        found = "Pneumonia/Viral/COVID-19" if i // 2 % 2 else "No Finding"
        rows.append(f"{i // 2},M,60,{found},PA,X-ray,i{i}.jpeg,CC BY 4.0,Note {i}.,Y,Y,N,N,N,")
    (folder / "metadata.csv").write_text("\n".join([head, *rows]) + "\n")
    return build_covid_chestxray(store, name, root=folder)
