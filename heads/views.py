"""Views that join results: learning curves, pairs of runs, and which samples have tokens. No torch, no store.

`docs/schema.md` is made from what stands here.
"""

from collections.abc import Sequence

from featurestore.catalog import Column, View

from .schema import (
    FIXED_SPLIT,
    METRICS,
    SETTING,
    STATISTICS,
    columns_of_runs,
    families_sql,
    intervals_sql,
    moments_sql,
    statistics_columns,
)

ROWS = (
    "cohort",
    "cohort_key",
    "common_rows",
    "classes",
    "split",
    "split_seed",
    "seed",
    "fraction",
    "n_train",
    "n_test",
)
"""What two runs must share to have been trained and tested on the same samples under the same seed."""

ENCODERS = ("backbone", "image_features", "text_encoder", "text_features")
"""What two runs of a pair must share where both have it: a student and its baseline read images by one encoder, and a
text run, which reads none, is paired with the image runs of every one."""

OPTIONS = (
    *("head", "views", "epochs", "lr", "batch_size", "dropout", "imitation", "temperature"),
    *("precision", "numerics", "selected_by"),
)
"""What two runs of a pair should share where both have it. Where no such run is there, the nearest stands in for it,
and the pair says in what it differs: a control may train longer on purpose."""


def pairs_sql(factor: str, *, apart: Sequence[str] = ()) -> str:
    """SQL of all ordered pairs of runs on the same rows and seed that differ in `factor`.

    Args:
        factor: a column of `results`; the two runs differ in it.
        apart: columns that differ with it, such as the feature set with the backbone.

    Returns:
        A SELECT of run, baseline_run and differs: the options in which the two differ beside the factor.
    """
    free = {factor, *apart}
    rows = " AND ".join(f"a.{name} = b.{name}" for name in ROWS if name not in free)
    same = [name for name in ("method", *ENCODERS) if name not in free]
    if "method" in same:
        rows += " AND a.method = b.method"
        same.remove("method")
    if factor == "method":  # a student's teacher is the one that taught it
        rows += " AND (b.method <> 'teacher' OR a.teacher_run IS NULL OR a.teacher_run = b.run)"
        rows += " AND (a.method <> 'teacher' OR b.teacher_run IS NULL OR b.teacher_run = a.run)"
    encoders = " AND ".join(f"(a.{n} = b.{n} OR a.{n} IS NULL OR b.{n} IS NULL)" for n in same)
    options = ", ".join(f"CASE WHEN a.{n} <> b.{n} THEN '{n}' END" for n in OPTIONS if n not in free)
    return f"""
SELECT a.run, b.run AS baseline_run, list_filter([{options}], lambda x: x IS NOT NULL) AS differs
FROM results a JOIN results b ON {rows} AND a.{factor} <> b.{factor} AND {encoders or "true"}
QUALIFY len(differs) = min(len(differs)) OVER (PARTITION BY a.run, b.{factor}, b.image_features, b.text_features)
""".strip()


_SHARED = ("cohort", "cohort_key", "common_rows", "split", "split_seed", "seed", "fraction", "n_train", "n_test")
_SIDES = ("method", "head", "backbone", "text_encoder", "epochs", "lr")


def _paired_sql() -> str:
    sides = ", ".join(f"a.{name}, b.{name} AS baseline_{name}" for name in _SIDES)
    metrics = ", ".join(f"a.{m}, b.{m} AS baseline_{m}, a.{m} - b.{m} AS {m}_difference" for m in STATISTICS)
    return f"""
SELECT p.run, p.baseline_run, {", ".join(f"a.{name}" for name in _SHARED)}, {sides}, p.differs, {metrics}
FROM ({pairs_sql("method")}) p JOIN results a ON a.run = p.run JOIN results b ON b.run = p.baseline_run
""".strip()


def _sides() -> tuple[Column, ...]:
    columns = {column.name: column for column in columns_of_runs(_SIDES)}
    return tuple(
        column
        for name in _SIDES
        for column in (
            columns[name],
            Column(f"baseline_{name}", columns[name].type, f"of the baseline: {columns[name].comment}"),
        )
    )


PAIRED = View(
    name="paired",
    comment="One row a pair: a run, and a run of another method on the same training and test samples under the same "
    "seed. Any method can be the baseline: choose both with `method` and `baseline_method`.",
    sql=_paired_sql(),
    columns=(
        *columns_of_runs(("run",)),
        Column("baseline_run", "TEXT", "id of the baseline's run"),
        *columns_of_runs(_SHARED),
        *_sides(),
        Column("differs", "TEXT[]", "options in which the two differ though both have them; empty: in none"),
        *(
            column
            for m in STATISTICS
            for column in (
                Column(m, "DOUBLE", f"{METRICS[m]}; last epoch"),
                Column(f"baseline_{m}", "DOUBLE", f"{m} of the baseline"),
                Column(f"{m}_difference", "DOUBLE", f"{m} less that of the baseline"),
            )
        ),
    ),
)

_LOSSES = ("train_loss", "test_loss")

CURVES = View(
    name="curves",
    comment="One row an epoch of a setting: means over seeds, with the intervals of `summary`. `epochs` has every run.",
    sql=f"""
WITH {families_sql()}, grouped AS (
  SELECT {", ".join(f"f.{name}" for name in SETTING)}, f.fixed_split, e.epoch, count(*) AS n_seeds,
         {", ".join(f"avg(e.{loss}) AS {loss}" for loss in _LOSSES)}, {moments_sql("e")}
  FROM families f JOIN epochs e ON e.run = f.run GROUP BY ALL
)
{intervals_sql("grouped", f"{', '.join(SETTING)}, fixed_split, epoch, n_seeds, {', '.join(_LOSSES)}")}
ORDER BY cohort, method, backbone, text_encoder, fraction, epochs, epoch
""".strip(),
    columns=(
        *columns_of_runs(SETTING),
        FIXED_SPLIT,
        Column("epoch", "BIGINT", "number of the epoch, counted from 1"),
        Column("n_seeds", "BIGINT", "number of runs, one a seed"),
        Column("train_loss", "DOUBLE", "mean cross-entropy of the training steps, nats, with dropout; mean over seeds"),
        Column("test_loss", "DOUBLE", "mean cross-entropy of the test samples, nats; mean over seeds"),
        *(column for metric in STATISTICS for column in statistics_columns(metric)),
    ),
)

COVERAGE = View(
    name="coverage",
    comment="One row a cohort and feature set: how many of its samples have tokens. Clean views only.",
    sql="""
WITH now AS (
  FROM samples SEMI JOIN cohorts USING (cohort, cohort_key)
), parts AS (
  SELECT cohort, 'image' AS modality, image AS item FROM now WHERE image IS NOT NULL
  UNION ALL SELECT cohort, 'text', text FROM now WHERE text IS NOT NULL
)
SELECT c.cohort, f.feature_set, f.modality, any_value(c.n_samples) AS n_samples, count(*) AS with_item,
       count(*) FILTER (r.state = 'done') AS with_tokens, count(*) FILTER (r.state = 'failed') AS failed
FROM parts p JOIN cohorts c USING (cohort) JOIN feature_sets f ON f.modality = p.modality
LEFT JOIN feature_rows r ON r.feature_set = f.feature_set AND r.item = p.item AND r.view = 0
GROUP BY c.cohort, f.feature_set, f.modality
ORDER BY c.cohort, f.feature_set
""".strip(),
    columns=(
        *columns_of_runs(("cohort",)),
        Column("feature_set", "TEXT", "encoder@key"),
        Column("modality", "TEXT", "image or text"),
        Column("n_samples", "INTEGER", "samples of the cohort"),
        Column("with_item", "BIGINT", "of these, samples with an image, or with a report"),
        Column("with_tokens", "BIGINT", "of these, samples whose item has tokens"),
        Column("failed", "BIGINT", "of these, samples whose item could not be encoded; the rest were never tried"),
    ),
)

VIEWS = (CURVES, PAIRED, COVERAGE)
