"""The catalog's tables of cohorts, samples and splits. Public: `docs/schema.md` is made from these."""

import json

import polars as pl

from featurestore.catalog import Column, Table
from featurestore.remote import StorePath

from .cohort import parse_pointer


def _load_cohort(path: StorePath) -> pl.DataFrame:
    pointer = parse_pointer(path)
    counts, scheme = pointer["counts"], pointer["scheme"]
    return pl.DataFrame(
        {
            "cohort": pointer["name"],
            "cohort_key": pointer["key"],
            "builder": pointer["builder"],
            "task": pointer["task"],
            "classes": [pointer["classes"]],
            "n_samples": counts["samples"],
            "n_subjects": counts["subjects"],
            "n_images": counts["images"],
            "n_texts": counts["texts"],
            "rows_key": pointer["rows"],
            "split_unit": scheme.unit,
            "split_test": scheme.test,
            "test_share": None if scheme.folds or scheme.imported else scheme.test_share,
            "held_out_share": None if scheme.imported else scheme.held_out_share,
            "folds": scheme.folds,
            "split_balance": scheme.balance,
            "imported_splits": scheme.imported,
            "n_train": json.dumps({f"{fraction:g}": n for fraction, n in scheme.n_train}),
            "licence": pointer["licence"],
            "options": json.dumps(pointer["options"], ensure_ascii=False),
        }
    )


_COHORT = Column("cohort", "TEXT", "name of the cohort")
_KEY = Column("cohort_key", "TEXT", "hash of the rows and how they are split; a replaced version differs")
_SAMPLE = Column("sample", "TEXT", "id of the sample: dataset/key, as its items")

TABLES = (
    Table(
        "cohorts",
        "What each cohort name stands for now.",
        (
            _COHORT,
            _KEY,
            Column("builder", "TEXT", "what made it, as `radfs cohort build` takes it"),
            Column("task", "TEXT", "binary, multiclass or multilabel"),
            Column("classes", "TEXT[]", "names of classes, or of findings; label i is that at place i, counted from 0"),
            Column("n_samples", "INTEGER", "samples"),
            Column("n_subjects", "INTEGER", "subjects (patients)"),
            Column("n_images", "INTEGER", "samples with an image"),
            Column("n_texts", "INTEGER", "samples with a report"),
            Column("rows_key", "TEXT", "hash of samples, labels, texts and classes: equal however they are split"),
            Column(
                "split_unit",
                "TEXT",
                "what is never in two parts: subject, admission, or image (images fall one by one); official: the "
                "publishers' split",
            ),
            Column("split_test", "TEXT", "per-seed, or fixed: one test part for all seeds"),
            Column("test_share", "DOUBLE", "share of the samples on the test side, 0 to 1; null for folds, imports"),
            Column("held_out_share", "DOUBLE", "share set aside, neither trained nor tested on; null for imports"),
            Column("folds", "INTEGER", "K of a grouped k-fold, null where there is none"),
            Column(
                "split_balance",
                "INTEGER",
                "each seed draws of every class as many as the smallest has and so many more; null: all are split",
            ),
            Column("imported_splits", "TEXT", "hash of the imported splits; null where they follow from a seed"),
            Column(
                "n_train", "JSON", "training samples by fraction, where declared (the paper's); elsewhere the floor"
            ),
            Column("licence", "TEXT", "licence of the data, as stated"),
            Column("options", "JSON", "what the builder was given, and what it settled itself (bin edges)"),
        ),
        "cohorts/*/cohort.json",
        _load_cohort,
    ),
    Table(
        "samples",
        "Samples of every version of every cohort: join with cohorts on cohort and cohort_key for those of today.",
        (
            _COHORT,
            _KEY,
            _SAMPLE,
            Column("subject", "TEXT", "the patient: the unit of splitting"),
            Column("study", "TEXT", "the examination; null where it is not known"),
            Column("admission", "TEXT", "the stay in hospital; null where it is not known"),
            Column("image", "TEXT", "image item; null where there is none"),
            Column("text", "TEXT", "report item; null where there is none"),
            Column("text_sha256", "TEXT", "sha256 of the report that the cohort was built with; null where none"),
            Column("label", "INTEGER", "class, counted from 0; null for findings"),
            Column("label_name", "TEXT", "name of the class; null for findings"),
            Column("findings", "TINYINT[]", "of a multi-label task: 1 present, 0 absent, -1 unknown; null for classes"),
            Column("sex", "TEXT", "F or M; null where it is not known"),
            Column("age", "DOUBLE", "age in years; null where it is not known"),
            Column("view", "TEXT", "view of the image, such as AP or PA; null where it is not known"),
            Column("acquired", "TIMESTAMP", "when the image was taken, shifted where the source shifts dates"),
            Column("source_split", "TEXT", "part that the data's publishers put it into, such as train; null if none"),
        ),
        "cohorts/*/*/samples.parquet",
    ),
    Table(
        "splits",
        "Samples of every split that was trained on. A training subset is the rows with rank below its n.",
        (
            Column(
                "split",
                "TEXT",
                "hash of the parts, their order and what n is declared; join on cohort too, for cohorts may share one",
            ),
            _COHORT,
            Column("seed", "BIGINT", "seed that the split came from"),
            _SAMPLE,
            Column("part", "TEXT", "train, test, or held out (set aside)"),
            Column("rank", "INTEGER", "place in the part's seeded, label-balanced order, from 0"),
        ),
        "cohorts/*/splits/*.parquet",
    ),
    Table(
        "flow",
        "Steps of building a cohort, with the rows that each left.",
        (
            _COHORT,
            _KEY,
            Column("position", "INTEGER", "order of the steps, from 0"),
            Column("step", "TEXT", "name of the step"),
            Column("n_before", "BIGINT", "rows before the step"),
            Column("n_after", "BIGINT", "rows after the step"),
            Column("what", "TEXT", "what the step leaves out"),
        ),
        "cohorts/*/*/flow.parquet",
    ),
    Table(
        "excluded",
        "Rows that a step left out.",
        (
            _COHORT,
            _KEY,
            Column("id", "TEXT", "id of the row, without the cohort's name"),
            Column("row", "BIGINT", "number of the row in its source, from 1"),
            Column("step", "TEXT", "the step of the flow"),
            Column("reason", "TEXT", "why"),
        ),
        "cohorts/*/*/excluded.parquet",
    ),
)
