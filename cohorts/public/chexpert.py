"""CheXpert (Irvin et al., 2019): 224,316 radiographs of 65,240 patients, 14 labels: 1 present, 0 absent, -1 uncertain.

Uncertain and blank labels are left out, not guessed. The reports are not in this release. Where valid.csv lies beside
train.csv its 200 studies, labelled by radiologists, are samples too: the test part of the official split.
"""

from pathlib import Path
from typing import Any

import polars as pl

from featurestore.store import Store

from ..build import BuildReport
from ..records import read_records
from .source import PublicSource, nulls, yes_no

LABELS = (
    *("No Finding", "Enlarged Cardiomediastinum", "Cardiomegaly", "Lung Opacity", "Lung Lesion", "Edema"),
    *("Consolidation", "Pneumonia", "Atelectasis", "Pneumothorax", "Pleural Effusion", "Pleural Other"),
    *("Fracture", "Support Devices"),
)
_CODES = {"1.0": "present", "1": "present", "0.0": "absent", "0": "absent"}


def _read(path: Path) -> pl.DataFrame:
    beside = path.with_name("valid.csv")
    frame = read_records(path)
    if path.name != "train.csv" or not beside.is_file():
        return frame
    return pl.concat([frame, read_records(beside)], how="diagonal")


def _rows(source: pl.DataFrame, folder: Path) -> pl.DataFrame:
    path = pl.col("Path")
    inside = path.str.replace(r"^CheXpert-v1\.0[^/]*/", "")
    # The table's paths begin with the name of the release's folder, which users rename or name as --root itself.
    first = source["Path"].drop_nulls()
    whole = len(first) > 0 and (folder / first[0].partition("/")[0]).is_dir()
    return source.select(
        inside.str.strip_suffix(".jpg").alias("id"),
        path.str.extract(r"(patient\d+)").alias("subject"),
        path.str.extract(r"(patient\d+/study\d+)").alias("study"),
        *nulls("text"),
        (path if whole else inside).alias("image"),
        pl.col("Sex").alias("sex"),
        pl.col("Age").alias("age"),
        pl.when(pl.col("Frontal/Lateral") == "Lateral").then(pl.lit("LATERAL")).otherwise("AP/PA").alias("view"),
        path.str.extract(r"/(train|valid|test)/").alias("source_split"),
        *LABELS,
    )


SOURCE = PublicSource(
    name="chexpert",
    licence="Stanford University Dataset Research Use Agreement (CheXpert)",
    page="https://stanfordmlgroup.github.io/competitions/chexpert/",
    tables=("train.csv", "chexpert_train.csv.gz"),
    columns=("Path", "Sex", "Age", "Frontal/Lateral", "AP/PA", *LABELS),
    default_label="Pleural Effusion",
    rows=_rows,
    label=lambda _frame, label: yes_no(label, _CODES),
    labels=lambda _frame: list(LABELS),
    read=_read,
)


def build_chexpert(store: Store, name: str, **options: Any) -> BuildReport:
    """A cohort of CheXpert; options as `PublicSource.build`."""
    return SOURCE.build(store, name, **options)


def example(store: Store, name: str, folder: Path) -> BuildReport:
    """The smallest real use, for the contract suite."""
    from PIL import Image

    rows = []
    for i in range(12):
        path = Path("train", f"patient{i // 2:05d}", f"study{i % 2 + 1}", "view1_frontal.jpg")
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        Image.new("L", (8, 8), 20 * i).save(folder / path)
        values = ["", "", "", "", "", "", "", "", "", "", ("1.0", "0.0")[i // 2 % 2], "", "", ""]
        rows.append(",".join([f"CheXpert-v1.0-small/{path.as_posix()}", "Female", "68", "Frontal", "AP", *values]))
    head = ",".join(["Path", "Sex", "Age", "Frontal/Lateral", "AP/PA", *LABELS])
    (folder / "train.csv").write_text("\n".join([head, *rows]) + "\n")
    return build_chexpert(store, name, root=folder)
