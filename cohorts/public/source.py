"""What the adapters of public data sets share: a table as published, images somewhere below it, a label by name.

A label is a finding, present or absent; what a data set leaves open is left out and counted, never taken for absent.
"""

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl

from featurestore.errors import DataError, unknown_name
from featurestore.store import Store

from ..build import BuildReport
from ..flow import Flow
from ..records import read_records
from ..scheme import BY_SUBJECT, SplitScheme
from ..table import build_frame

PRESENT, ABSENT = "present", "absent"
_IMAGES = (".png", ".jpg", ".jpeg")


@dataclass(frozen=True)
class PublicSource:
    """One public data set.

    Attributes:
        name: as `radfs cohort build` takes it; also the first part of ids.
        licence: of the data; kept with every cohort.
        page: where it is downloaded.
        tables: names of its table, the first that is there counts.
        columns: columns that the table must have.
        default_label: the label where none is named.
        rows: (table, folder) -> columns `id`, `subject`, `study`, `image`, `text`, `sex`, `age`, `view`,
            `source_split` and what `label` reads, all text; `image` is a file's name or its path below the folder.
        label: (rows, name) -> present, absent or null of each row.
        labels: (rows) -> the names that `label` takes.
    """

    name: str
    licence: str
    page: str
    tables: tuple[str, ...]
    columns: tuple[str, ...]
    default_label: str
    rows: Callable[[pl.DataFrame, Path], pl.DataFrame]
    label: Callable[[pl.DataFrame, str], pl.Expr]
    labels: Callable[[pl.DataFrame], list[str]]
    read: Callable[[Path], pl.DataFrame] = read_records

    def build(
        self,
        store: Store,
        name: str,
        *,
        root: str | os.PathLike[str],
        table: str | os.PathLike[str] | None = None,
        label: str | None = None,
        splits: SplitScheme = BY_SUBJECT,
        replace: bool = False,
    ) -> BuildReport:
        """Build a cohort of one label.

        Args:
            store: where it goes.
            name: the cohort's name.
            root: folder that the data set was downloaded to; images are found below it by their names.
            table: the table, where it has another name or place.
            label: a label of the data set; None for `default_label`.
            splits: how the cohort is to be split.
            replace: whether a cohort of this name with other content may be replaced.

        Raises:
            DataError: the folder or the table is not there or not this data set's, or no row is left.
            UnknownNameError: an unknown label.
        """
        folder = Path(os.path.abspath(Path(root).expanduser()))  # noqa: PTH100
        path = self._table(folder, table)
        source = self.read(path)
        for column in self.columns:
            if column not in source.columns:
                raise DataError(f"{path} is not the table of {self.name}: it has no column {column!r} ({self.page}).")
        label = self.default_label if label is None else label
        frame = self.rows(source, folder)
        if label not in (known := self.labels(frame)):
            raise unknown_name(f"label of {self.name}", label, known)
        frame = frame.with_columns(self.label(frame, label).alias("label"), pl.int_range(1, pl.len() + 1).alias("row"))
        flow = Flow(frame.height, f"rows in {path.name}")
        stated = flow.drop(frame, pl.col("label").is_null(), step="label left open", reason=f"{label!r} is not stated")
        return build_frame(
            store,
            name,
            _with_paths(stated, folder),
            flow=flow,
            root=folder,
            label=label,
            needs_subject=True,
            builder=self.name,
            options={"root": str(folder), "table": str(path), "label": label, "page": self.page},
            licence=self.licence if "licence" not in stated.columns else _licences(stated, self.licence),
            splits=splits,
            dataset=self.name,
            replace=replace,
        )

    def _table(self, folder: Path, table: str | os.PathLike[str] | None) -> Path:
        if not folder.is_dir():
            raise DataError(f"{self.name}: {folder} is not a folder. It is downloaded from {self.page}")
        if table is not None:
            return Path(table).expanduser()
        found = [path for name in self.tables if (path := folder / name).is_file()]
        if not found:
            raise DataError(
                f"{self.name}: {folder} holds none of {', '.join(self.tables)}. It is downloaded from {self.page}; "
                "name a table elsewhere with --table."
            )
        return found[0]


def has_any(lists: pl.Expr, label: str) -> pl.Expr:
    """Present where a list of findings holds the label, absent where it holds others; null where there is no list."""
    return pl.when(lists.is_not_null()).then(
        pl.when(lists.list.contains(label)).then(pl.lit(PRESENT)).otherwise(pl.lit(ABSENT))
    )


def distinct(lists: pl.Series) -> list[str]:
    """The findings that stand in some list."""
    return sorted(set(lists.explode().drop_nulls()))


def yes_no(column: str, values: Mapping[str, str]) -> pl.Expr:
    """A column of codes as present or absent; other codes are null."""
    return (
        pl.col(column).str.strip_chars().str.to_uppercase().replace_strict(values, default=None, return_dtype=pl.String)
    )


def nulls(*columns: str) -> list[pl.Expr]:
    """Columns that a data set does not have."""
    return [pl.lit(None, pl.String).alias(column) for column in columns]


def _with_paths(frame: pl.DataFrame, folder: Path) -> pl.DataFrame:
    """The rows with `image` as a path below the folder: as it stands if such a file is there, else found by its name.

    A name is looked up among the files below the folder, so none can lead out of it.
    """
    below: dict[str, list[str]] = {}
    for where, _, files in os.walk(folder):
        for file in files:
            if file.lower().endswith(_IMAGES):
                below.setdefault(Path(file).stem, []).append(os.path.relpath(Path(where, file), folder))

    def path(image: str | None) -> str | None:
        if image is None or not below:  # no image was downloaded: the reports alone are a cohort too
            return None
        if "/" in image:
            return image
        return min(below.get(Path(image).stem if image.lower().endswith(_IMAGES) else image, [image]))

    return frame.with_columns(pl.Series("image", [path(image) for image in frame["image"]], pl.String))


def _licences(frame: pl.DataFrame, whole: str) -> str:
    stated: list[Any] = sorted(set(frame["licence"].drop_nulls()))
    return f"{whole}: {', '.join(stated)}" if stated else whole
