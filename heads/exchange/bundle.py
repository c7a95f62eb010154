"""A bundle of results that a lab with credentialed data may publish: numbers of runs, nothing of a patient.

    report = export_bundle(store, catalog, Path("public.zip"))

What goes in is a list of columns, written out below, so that a column that is added elsewhere stays at home. Every hash
that was made from patients' ids is replaced by a keyed one (HMAC-SHA256 under a random salt that stays in the store):
ids are short and others hold lists of them, so whoever has a list could hash it and see who is in which part. In
`splits.csv` the key differs from split to split: splits follow from seeds and ids, so a sample that could be followed
through twenty of them would be known by its pattern.

Counts of few people are dropped with their runs (`SMALLEST_CELL`); docs/reproducing.md says what is left out, and why.
"""

import csv
import hashlib
import hmac
import io
import json
import secrets
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl

from featurestore.catalog import Catalog
from featurestore.errors import DamageError, DataError
from featurestore.fsio import publish_folder, write_atomic, write_new
from featurestore.store import Store

from ..measure import select_runs
from ..provenance import software
from ..schema import METRICS
from .readme import bundle_readme

FORMAT = 1
SMALLEST_CELL = 10
"""Subjects of each class that a test part must have: of fewer, a metric can tell about single patients."""

RUN_COLUMNS = (
    *("run", "cohort", "cohort_key", "common_rows", "content", "split", "split_seed", "seed", "fraction", "task"),
    *("method", "head", "serves", "backbone", "image_features", "views", "text_encoder", "text_features"),
    *("image_weights_sha256", "text_weights_sha256", "classes", "n_train", "n_inner", "n_test", "epochs", "lr"),
    *("batch_size", "dropout", "imitation", "temperature", "teacher_run", "teacher_epoch", "teacher_setting"),
    *("precision", "numerics", "best_epoch", "selected_by", "chosen_epoch", "inner_auroc"),
    *("device", "hardware", "threads", "radfs", "git_commit", "python", "torch", "numpy", "sklearn"),
    *("seconds", "samples_per_second"),
)
"""Of `runs`. Left out: `config`, which repeats these with hashes of ids, and times of day."""

COHORT_COLUMNS = (
    *("cohort", "cohort_key", "task", "classes", "n_samples", "n_subjects", "n_images", "n_texts", "split_unit"),
    *("split_test", "test_share", "held_out_share", "folds", "licence"),
)
"""Of `cohorts`. Left out: `options`, which holds paths, and hashes that nothing here refers to."""

_SALTED = {
    **dict.fromkeys(("run", "teacher_run"), "run"),
    **{name: name for name in ("cohort_key", "common_rows", "content", "split", "teacher_setting")},
}
"""Columns whose values are replaced, and the kind of hash that they hold."""

_SALT = "publishing.json"


@dataclass(frozen=True)
class BundleReport:
    """What an export wrote.

    Attributes:
        out: where.
        rows: file -> rows.
        left_out: runs whose test part holds too few subjects of a class.
        names: words of the user's own that are in the bundle, by what they name.
    """

    out: Path
    rows: Mapping[str, int]
    left_out: int
    names: Mapping[str, tuple[str, ...]]


def export_bundle(
    store: Store,
    catalog: Catalog,
    out: Path,
    *,
    where: str | None = None,
    predictions: bool = False,
    smallest: int = SMALLEST_CELL,
) -> BundleReport:
    """Write a folder, or a .zip, that may be published.

    Args:
        store: an open store; it gets a salt if it has none.
        catalog: of the store, up to date.
        out: a folder or a file that does not exist yet.
        where: an SQL condition on `results`.
        predictions: put the test samples' predictions in too, under salted ids.
        smallest: subjects of each class that the test part of a run must have.

    Raises:
        DataError: `out` exists, SQL that is refused, or no run is left.
    """
    out = out.expanduser().absolute()
    if out.exists():
        raise DataError(f"{out} exists: name a new folder or a new .zip, or remove it first.")
    if not out.parent.is_dir():
        raise DataError(f"cannot write {out}: there is no folder {out.parent}.")
    chosen = select_runs(catalog, where)
    ids = _large_enough(catalog, chosen["run"].to_list(), smallest)
    if not ids:
        raise DataError(
            f"none of {chosen.height:,} runs has a test part with {smallest} subjects of every class: nothing is left "
            "to publish. A smaller --min-cell may be allowed by your data's terms; ask."
        )
    salt = Salt.of(store)
    tables = _tables(catalog, ids, salt, predictions=predictions)
    texts = {f"{name}.csv": _csv(frame) for name, frame in tables.items()}
    left_out = chosen.height - len(ids)
    texts["README.md"] = bundle_readme(tables, left_out=left_out, smallest=smallest)
    files = {name: text.encode() for name, text in sorted(texts.items())}
    files["manifest.json"] = _manifest(files, tables, left_out=left_out, smallest=smallest)
    _write(out, files)
    runs = tables["runs"]
    names = {what: tuple(sorted(runs[what].drop_nulls().unique())) for what in ("cohort", "backbone", "text_encoder")}
    names["classes"] = tuple(sorted({name for classes in runs["classes"].to_list() for name in classes}))
    return BundleReport(out, {name: frame.height for name, frame in tables.items()}, left_out, names)


@dataclass(frozen=True)
class Salt:
    """The secret of a store, from which public ids are made."""

    key: bytes

    @classmethod
    def of(cls, store: Store) -> "Salt":
        """That of a store, drawn if it has none."""
        write_new(store.root / _SALT, json.dumps({"salt": secrets.token_hex(32)}).encode())
        found = cls.known(store)
        assert found is not None
        return found

    @classmethod
    def known(cls, store: Store) -> "Salt | None":
        """That of a store; None where nothing was published yet.

        Raises:
            DamageError: its file cannot be read.
        """
        path = store.root / _SALT
        try:
            return cls(bytes.fromhex(json.loads(path.read_bytes())["salt"]))
        except FileNotFoundError:
            return None
        except (ValueError, KeyError, TypeError) as error:
            raise DamageError(
                f"{path} cannot be read: restore it from a copy. Without it, what was published cannot be matched with "
                "this store any more; if that does not matter, delete it."
            ) from error

    def public(self, kind: str, value: str) -> str:
        """What stands in a bundle for a hash of this store: 32 hexadecimal digits."""
        return hmac.new(self.key, f"{kind}/{value}".encode(), hashlib.sha256).hexdigest()[:32]

    def within(self, split: str) -> "Salt":
        """The key for the samples of one split."""
        return Salt(hmac.new(self.key, f"within/{split}".encode(), hashlib.sha256).digest())


def _large_enough(catalog: Catalog, runs: Sequence[str], smallest: int) -> list[str]:
    """The runs whose test part has so many subjects of each class (of findings: so many subjects)."""
    return catalog.query(
        """
        WITH chosen AS (SELECT run, cohort, split, len(classes) AS n, task FROM runs WHERE run IN (SELECT unnest(?))),
        one AS (SELECT cohort, split, min(run) AS run FROM chosen GROUP BY ALL),
        cells AS (
            SELECT o.cohort, o.split, p.label, count(DISTINCT p.subject) AS subjects
            FROM predictions p JOIN one o USING (run) GROUP BY ALL
        ),
        least AS (SELECT cohort, split, min(subjects) AS subjects, count(*) AS classes FROM cells GROUP BY ALL)
        SELECT run FROM chosen JOIN least USING (cohort, split)
        WHERE subjects >= ? AND (task = 'multilabel' OR classes = n) ORDER BY run""",
        [list(runs), smallest],
    )["run"].to_list()


def _tables(catalog: Catalog, ids: Sequence[str], salt: Salt, *, predictions: bool) -> dict[str, pl.DataFrame]:
    metrics = ", ".join(f"e.{name}" for name in METRICS)
    columns = ", ".join(f"r.{name}" for name in RUN_COLUMNS)
    runs = catalog.query(
        f"SELECT {columns}, {metrics}, b.auroc AS auroc_best FROM runs r "
        "JOIN epochs e ON e.run = r.run AND e.epoch = r.chosen_epoch "
        "JOIN epochs b ON b.run = r.run AND b.epoch = r.best_epoch WHERE r.run IN (SELECT unnest(?))",
        [list(ids)],
    )
    epochs = catalog.query("SELECT * FROM epochs WHERE run IN (SELECT unnest(?))", [list(ids)])
    cohorts = catalog.query(
        f"SELECT {', '.join(COHORT_COLUMNS)} FROM cohorts WHERE cohort IN (SELECT unnest(?)) ORDER BY cohort",
        [sorted(set(runs["cohort"]))],
    )
    splits = catalog.query(
        "SELECT DISTINCT s.split, s.cohort, s.part, s.sample, m.subject FROM splits s "
        "JOIN runs r ON r.split = s.split AND r.cohort = s.cohort "
        "JOIN samples m ON m.cohort = r.cohort AND m.cohort_key = r.cohort_key AND m.sample = s.sample "
        "WHERE r.run IN (SELECT unnest(?))",
        [list(ids)],
    )
    tables = {
        "runs": _salted(runs, salt).sort("cohort", "method", "fraction", "seed", "run"),
        "epochs": _salted(epochs, salt).sort("run", "epoch"),
        "cohorts": _salted(cohorts, salt),
        "splits": _salted(_people(splits, salt), salt).sort("cohort", "split", "part", "sample"),
    }
    if predictions:
        said = catalog.query(
            "SELECT p.run, r.split, p.sample, p.subject, p.label, p.findings, p.p_last, p.p_best, p.p_inner "
            "FROM predictions p JOIN runs r USING (run) WHERE p.run IN (SELECT unnest(?))",
            [list(ids)],
        )
        tables["predictions"] = _salted(_people(said, salt), salt).sort("run", "sample")
    return tables


def _salted(frame: pl.DataFrame, salt: Salt) -> pl.DataFrame:
    """The frame with hashes of this store replaced by public ones."""
    replaced = {}
    for column, kind in _SALTED.items():
        if column in frame.columns:
            public = {value: salt.public(kind, value) for value in frame[column].drop_nulls().unique()}
            replaced[column] = pl.col(column).replace_strict(public, default=None, return_dtype=pl.String)
    return frame.with_columns(**replaced)


def _people(frame: pl.DataFrame, salt: Salt) -> pl.DataFrame:
    """The frame with samples and subjects replaced by ids that hold within their split alone."""
    parts = []
    for (split,), rows in frame.group_by("split", maintain_order=True):
        within = salt.within(str(split))
        new = {}
        for column in ("sample", "subject"):
            public = {value: within.public(column, value) for value in rows[column].unique()}
            new[column] = pl.col(column).replace_strict(public, return_dtype=pl.String)
        parts.append(rows.with_columns(**new))
    return pl.concat(parts)


def _csv(frame: pl.DataFrame) -> str:
    """CSV, lists as JSON."""
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(frame.columns)
    for row in frame.iter_rows():
        writer.writerow([json.dumps(v, ensure_ascii=False) if isinstance(v, list) else v for v in row])
    return buffer.getvalue()


def _manifest(files: Mapping[str, bytes], tables: Mapping[str, pl.DataFrame], *, left_out: int, smallest: int) -> bytes:
    about: dict[str, Any] = {
        "format": FORMAT,
        "made_with": {name: software()[name] for name in ("radfs", "git_commit")},
        "files": {
            name: {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()} for name, data in files.items()
        },
        "rows": {name: frame.height for name, frame in tables.items()},
        "smallest_cell": smallest,
        "runs_left_out_for_small_cells": left_out,
    }
    return json.dumps(about, indent=2, ensure_ascii=False).encode()


def _write(out: Path, files: Mapping[str, bytes]) -> None:
    if out.suffix == ".zip":
        buffer = io.BytesIO()
        with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
            for name, data in files.items():
                archive.writestr(zipfile.ZipInfo(name), data, zipfile.ZIP_DEFLATED)  # no time of day
        write_atomic(out, buffer.getvalue())
        return

    def fill(folder: Path) -> None:
        for name, data in files.items():
            (folder / name).write_bytes(data)

    if not publish_folder(out, fill):
        raise DataError(f"{out} was made by another process meanwhile: name another folder.")
