"""The builder `table`: a cohort from a CSV or Parquet file with one row a sample.

A row that cannot be used is left out and reported by id, never in silence. How a file is read: `records`.
"""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import polars as pl

from featurestore.errors import DataError
from featurestore.store import Store

from .attributes import clean_attributes
from .build import ROW_SCHEMA, BuildReport, commit, draft_cohort
from .flow import Flow
from .labels import MAX_CLASSES, as_bins, as_classes, as_numbers
from .multilabel import FindingColumns
from .records import ROW_NUMBER, read_records, with_roles
from .scheme import BY_SUBJECT, SplitScheme

_MAX_ID_LENGTH = 500
_CONTENT = ("subject", "image", "text")


def build_table(
    store: Store,
    name: str,
    *,
    records: str | os.PathLike[str],
    label_col: str | None = None,
    label_cols: Sequence[str] | None = None,
    image_col: str | None = None,
    text_col: str | None = None,
    subject_col: str | None = None,
    id_col: str | None = None,
    sex_col: str | None = None,
    age_col: str | None = None,
    view_col: str | None = None,
    image_root: str | os.PathLike[str] | None = None,
    bins: int | None = None,
    max_classes: int = MAX_CLASSES,
    blank: str = "unknown",
    uncertain: str = "unknown",
    dataset: str | None = None,
    splits: SplitScheme = BY_SUBJECT,
    licence: str = "not stated",
    replace: bool = False,
) -> BuildReport:
    """Build a cohort from a table.

    Args:
        store: where it goes.
        name: the cohort's name.
        records: a .csv, .tsv (UTF-8, also .gz) or .parquet file with a header.
        label_col: the label: few distinct values, or numbers with `bins`. Either this or `label_cols` is needed.
        label_cols: findings, each present, absent or unknown in a sample: a multi-label cohort. Names, or one text
            "a,b,c". A cell holds 1, 0, -1 (uncertain), true, false, yes, no or nothing; a row with another is left
            out, as is one that knows nothing.
        image_col: path of the image, below `image_root`. At least one of `image_col` and `text_col` is needed.
        text_col: the report.
        subject_col: the patient: the unit of splitting. Without it every row counts as a subject of its own.
        id_col: id of the row; else the value of `image_col`, else the row's number (`row-000001`).
        sex_col, age_col, view_col: what only describes a sample: for the audit and for results by subgroup.
        image_root: folder that the image paths are relative to; else the table's own folder.
        bins: cut a numeric label into this many bins of about equal size.
        max_classes: more distinct values of the label than this are refused as ids, numbers or free text.
        blank: with `label_cols`, what a blank cell means: "unknown" or "absent".
        uncertain: with `label_cols`, what -1 means: "unknown", "positive" or "negative".
        dataset: first part of the items' ids; None for the cohort's name. Cohorts of one dataset (several labels of
            one table) share images and reports, which are embedded once.
        splits: how the cohort is to be split.
        licence: of the data.
        replace: whether a cohort of this name with other content may be replaced.

    Raises:
        DataError: the table is unreadable, empty, or leaves no rows or one class; the name stands for other content.
        UnknownNameError: a column that the table does not have.
    """
    label = _label_of(label_col, label_cols, bins=bins, blank=blank, uncertain=uncertain)
    if image_col is None and text_col is None:
        raise DataError("a cohort needs images, texts or both: name at least one of --image-col and --text-col.")
    table = Path(records).expanduser()
    root = Path(os.path.abspath(Path(image_root).expanduser() if image_root is not None else table.parent))  # noqa: PTH100
    roles = {"image": image_col, "text": text_col, "label": label_col, "subject": subject_col, "id": id_col}
    roles |= {"sex": sex_col, "age": age_col, "view": view_col}
    of_findings = label.roles if isinstance(label, FindingColumns) else {}
    frame = with_roles(read_records(table), roles | of_findings, table)
    if image_col is not None and not root.is_dir():
        raise DataError(f"image root {root} is not a folder. Name the folder of the images with --image-root.")

    options = {
        "records": str(table.absolute()),
        **{f"{role}_col": column for role, column in roles.items()},
        "image_root": str(root) if image_col is not None else None,
        "bins": bins,
        "dataset": dataset,
    }
    if isinstance(label, FindingColumns):
        options |= {"label_cols": label.names, "blank": blank, "uncertain": uncertain}
    return build_frame(
        store,
        name,
        frame,
        flow=Flow(frame.height, f"rows in {table.name}"),
        root=root,
        label=label,
        bins=bins,
        max_classes=max_classes,
        needs_subject=subject_col is not None,
        named_id=id_col is not None,
        builder="table",
        options=options,
        dataset=dataset,
        splits=splits,
        licence=licence,
        replace=replace,
    )


def build_frame(
    store: Store,
    name: str,
    frame: pl.DataFrame,
    *,
    flow: Flow,
    root: Path,
    label: str | FindingColumns,
    needs_subject: bool,
    named_id: bool = True,
    builder: str,
    options: Mapping[str, Any],
    licence: str,
    splits: SplitScheme,
    bins: int | None = None,
    max_classes: int = MAX_CLASSES,
    dataset: str | None = None,
    replace: bool = False,
) -> BuildReport:
    """Build a cohort from rows in the form of a table: what `build_table` does once it has read one.

    Args:
        store, name, dataset, splits, licence, bins, replace: as in `build_table`.
        frame: `row` (from 1) and, all text, `id`, `subject`, `image` (below `root`), `text`, `label`, `sex`, `age`,
            `view`; at will `study` and `source_split`. With findings, `label` is null and their columns are there.
        flow: the steps so far.
        root: folder of the images.
        label: name of the label, for errors; or the columns of findings.
        needs_subject: whether a row without a subject is left out; else it counts as a subject of its own.
        named_id: whether the ids are the source's own; else they are made from images or row numbers.
        max_classes: more distinct values than this are no classes.
        builder: name in `COHORT_BUILDERS`.
        options: what the builder was given.
    """
    of_label = tuple(label.roles) if isinstance(label, FindingColumns) else ("label",)
    frame = _drop_unusable(frame, flow, needs_subject=needs_subject, named_id=named_id, of_label=of_label)
    frame = _drop_empty(_resolve_images(frame, flow, root), flow)
    frame, classes, edges = _label(frame, flow, label, bins, max_classes)
    frame, odd_ages = clean_attributes(frame)
    known = [column for column in ("study", "source_split") if column in frame.columns]
    known += ["findings"] if isinstance(label, FindingColumns) else []  # a source may have a column of that name
    rows = frame.with_columns(
        pl.coalesce("subject", "id").alias("subject"),
        *([] if "study" in known else [pl.lit(None).alias("study")]),
    ).select(*ROW_SCHEMA, "sex", "age", "view", *(column for column in known if column != "study"))
    draft = draft_cohort(
        name,
        rows,
        flow,
        builder=builder,
        options={**options, "bin_edges": edges},
        classes=classes,
        scheme=splits,
        licence=licence,
        dataset=dataset,
        notes=odd_ages if needs_subject else (*odd_ages, _NO_SUBJECT),
    )
    return commit(store, draft, replace=replace)


_NO_SUBJECT = (
    "WARNING: no subject column was named: every row counts as a subject of its own. If patients repeat, the same "
    "patient stands on both sides of the split and results look better than they are; name --subject-col."
)


def example(store: Store, name: str, folder: Path) -> BuildReport:
    """The smallest real use, for the contract suite: twelve rows of six subjects, written to `folder`."""
    from PIL import Image

    lines = ["id,file,report,subject,outcome"]
    for i in range(12):
        Image.new("L", (8, 8), 20 * i).save(folder / f"{i:02d}.png")
        lines.append(f"{i:03d},{i:02d}.png,{'Clear lungs.' if i % 3 else ''},p{i // 2},{'home' if i % 4 else 'died'}")
    (folder / "records.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return build_table(
        store,
        name,
        records=folder / "records.csv",
        label_col="outcome",
        image_col="file",
        text_col="report",
        subject_col="subject",
        id_col="id",
    )


def _label_of(
    label_col: str | None, label_cols: Sequence[str] | None, *, bins: int | None, blank: str, uncertain: str
) -> str | FindingColumns:
    """What the options say the label is."""
    if (label_col is None) == (label_cols is None):
        raise DataError("name either --label-col, of one label, or --label-cols, of findings.")
    if label_cols is not None:
        if bins is not None:
            raise DataError("--bins cuts the number of --label-col; the findings of --label-cols are not cut.")
        names = label_cols.split(",") if isinstance(label_cols, str) else label_cols
        return FindingColumns(tuple(name.strip() for name in names), blank, uncertain)
    if (blank, uncertain) != ("unknown", "unknown"):
        raise DataError("--blank and --uncertain say how the findings of --label-cols are read: name those.")
    assert label_col is not None
    return label_col


def _drop_unusable(
    frame: pl.DataFrame, flow: Flow, *, needs_subject: bool, named_id: bool, of_label: tuple[str, ...]
) -> pl.DataFrame:
    """Leave out rows that lack an id, a label or a subject, and all but the first of rows that say the same."""
    # A row without an id goes by its number in the report.
    frame = frame.with_columns(pl.col("id").is_null().alias("_no_id"), pl.coalesce("id", ROW_NUMBER).alias("id"))
    frame = flow.drop(frame, pl.col("_no_id"), step="missing id", reason="the row has no id").drop("_no_id")
    frame = flow.drop(
        frame,
        (pl.col("id").str.len_chars() > _MAX_ID_LENGTH) | pl.col("id").str.contains(r"[\x00-\x1f\x7f]"),
        step="unusable id",
        reason=f"the id holds a control character or is longer than {_MAX_ID_LENGTH}",
    )
    frame = flow.drop(
        frame,
        pl.struct(*_CONTENT, *of_label).n_unique().over("id") > 1,
        step="conflicting id" if named_id else "conflicting image",
        reason="several rows have this id and differ in label, subject, image or text: none can be trusted"
        if named_id
        else "several rows name this image and differ in label, subject or text: none can be trusted. If each is a "
        "sample of its own, name --id-col",
    )
    frame = flow.drop(
        frame,
        pl.col("row") > pl.col("row").min().over("id"),
        step="repeated row",
        reason="the row repeats an earlier one with the same id; the first is kept",
    )
    if of_label == ("label",):  # a blank finding says something
        frame = flow.drop(frame, pl.col("label").is_null(), step="missing label", reason="the row has no label")
    if needs_subject:
        frame = flow.drop(
            frame,
            pl.col("subject").is_null(),
            step="missing subject",
            reason="the row has no subject: it could stand on both sides of a split",
        )
    return frame


def _drop_empty(frame: pl.DataFrame, flow: Flow) -> pl.DataFrame:
    empty = pl.col("image_path").is_null() & pl.col("text").is_null()
    return flow.drop(frame, empty, step="neither image nor text", reason="the row has neither an image nor a text")


def _resolve_images(frame: pl.DataFrame, flow: Flow, root: Path) -> pl.DataFrame:
    """Add `image_path`, absolute; leave out rows whose path leads outside `root` or to no file."""
    paths = [_below(root, value) for value in frame["image"]]
    frame = frame.with_columns(pl.Series("image_path", paths, pl.String))
    frame = flow.drop(
        frame,
        pl.col("image").is_not_null() & pl.col("image_path").is_null(),
        step="image outside the image root",
        reason="the image path leads out of the image root",
    )
    exists = [path is None or _is_file(path) for path in frame["image_path"]]
    if not any(exists) and len(exists):
        raise DataError(
            f"none of the {len(exists)} image files is there: the image column must hold paths below {root}. Name "
            "another column with --image-col, or their folder with --image-root."
        )
    frame = frame.with_columns(pl.Series("_exists", exists, pl.Boolean))
    return flow.drop(
        frame, ~pl.col("_exists"), step="missing image file", reason="there is no file at the image path"
    ).drop("_exists")


def _below(root: Path, value: str | None) -> str | None:
    """The normal form of `root`/`value`, None if that lies outside `root`.

    By spelling, not by links: where the owner of the tree links in another disk, that is their wish.
    """
    if value is None:
        return None
    path = os.path.normpath(root / value)
    return path if Path(path).is_relative_to(root) else None


def _is_file(path: str) -> bool:
    return os.path.isfile(path)  # noqa: PTH113  (Path.is_file raises on a name that is too long)


def _label(
    frame: pl.DataFrame, flow: Flow, label: str | FindingColumns, bins: int | None, max_classes: int
) -> tuple[pl.DataFrame, tuple[str, ...], tuple[float, ...] | None]:
    """The rows with the code of their class as `label`, or with `findings`; the classes; the edges of bins."""
    if isinstance(label, FindingColumns):
        frame = label.read(frame, flow)
    elif bins is not None:
        frame = frame.with_columns(as_numbers(frame["label"]).alias("_number"))
        frame = flow.drop(
            frame, pl.col("_number").is_null(), step="label is no number", reason="bins need a label that is a number"
        )
    if frame.is_empty():
        raise _nothing_left(flow)
    if isinstance(label, FindingColumns):
        return frame, label.names, None
    if bins is None:
        labels = as_classes(frame["label"], column=label, most=max_classes)
    else:
        labels = as_bins(frame["_number"], bins, column=label)
    return frame.with_columns(pl.Series("label", labels.codes, pl.Int32)), labels.classes, labels.edges


def _nothing_left(flow: Flow) -> DataError:
    return DataError(f"no usable row is left of {flow.steps[0].n_before}: {flow.summary()}.")
