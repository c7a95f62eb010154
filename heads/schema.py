"""The tables and views of results: names, types, units and meaning of every column. No torch, no store.

`docs/schema.md` is made from what stands here.
"""

from collections.abc import Callable

import polars as pl

from featurestore.catalog import Column, Table, View
from featurestore.fsio import read_parquet
from featurestore.remote import StorePath

METRICS = {
    "auroc": "area under the ROC curve; binary: of class 1; more classes: one-versus-rest, micro-averaged",
    "auroc_macro": "area under the ROC curve; binary: equal to auroc; more classes: mean over one-versus-rest curves",
    "auprc": "average precision; binary: of class 1; more classes: one-versus-rest, micro-averaged",
    "auprc_macro": "average precision; binary: equal to auprc; more classes: mean over one-versus-rest curves",
}
"""The standard metrics, computed after every epoch on the test samples, from 0 to 1, and what they mean."""

COMMIT_FILE = "runs.parquet"
"""Of a part of the results: written last."""


def _neighbour(table: str) -> Callable[[StorePath], pl.DataFrame]:
    """Read another file of the part whose commit file is given."""

    def load(path: StorePath) -> pl.DataFrame:
        return read_parquet(path.with_name(f"{table}.parquet"))

    return load


RUNS = Table(
    name="runs",
    comment="One row a finished run: what it was, on what, and with what it was made.",
    truth=f"results/*/{COMMIT_FILE}",
    unique_by="run",
    columns=(
        Column("run", "TEXT", "id of the run: content hash of `config`, 16 hexadecimal digits"),
        Column("cohort", "TEXT", "name of the cohort"),
        Column("cohort_key", "TEXT", "content hash of the cohort"),
        Column("common_rows", "TEXT", "content hash of the samples that every method of the grid could use"),
        Column("content", "TEXT", "content hash of the images or reports that the head read"),
        Column("split", "TEXT", "content hash of the split (joins with splits)"),
        Column("split_seed", "BIGINT", "seed of the split"),
        Column("seed", "BIGINT", "seed of the run: initialisation, batch order and dropout come from it"),
        Column("fraction", "DOUBLE", "share of the training samples used, above 0 and at most 1"),
        Column("stage", "TEXT", "study; or tuning: a run that helped to choose a learning rate, and is no result"),
        Column("task", "TEXT", "binary, multiclass or multilabel"),
        Column("method", "TEXT", "how the head was trained: a method of docs/methods.md"),
        Column("head", "TEXT", "kind of head: attention, multihead, query, mean, cls, ridge or logistic"),
        Column("serves", "TEXT[]", "what the trained head reads of a sample: image, text or both"),
        Column("backbone", "TEXT", "image encoder that training read, head or teacher; null where neither did"),
        Column("image_features", "TEXT", "feature set of the image encoder, `encoder@key`; null as backbone"),
        Column("views", "BIGINT", "augmented views of an image that training drew from; 0: the clean one"),
        Column("text_encoder", "TEXT", "text encoder that training read, head or teacher; null where neither did"),
        Column("text_features", "TEXT", "feature set of the text encoder, `encoder@key`; null as text_encoder"),
        Column("image_weights_sha256", "TEXT", "sha256 of the image encoder's weights; null as backbone"),
        Column("text_weights_sha256", "TEXT", "sha256 of the text encoder's weights; null as text_encoder"),
        Column("classes", "TEXT[]", "names of the classes, or of the findings; label i is element i + 1 of the list"),
        Column("n_train", "BIGINT", "samples trained on"),
        Column("n_inner", "BIGINT", "samples of the inner validation part, set aside from the fraction; 0 without one"),
        Column("n_test", "BIGINT", "test samples"),
        Column("epochs", "BIGINT", "passes over the training samples"),
        Column("lr", "DOUBLE", "learning rate of Adam; null for ridge and logistic"),
        Column("batch_size", "BIGINT", "samples a step"),
        Column("dropout", "DOUBLE", "share of the attention weights dropped in training"),
        Column("imitation", "DOUBLE", "lambda of the paper's equation 2; null where the method has none"),
        Column("temperature", "DOUBLE", "tau of the paper's equation 2; null where the method has none"),
        Column("teacher_run", "TEXT", "run of the teacher (joins with runs); null where none taught"),
        Column("teacher_epoch", "TEXT", "its epoch that taught: best (chosen on its test samples), last or inner"),
        Column("teacher_setting", "TEXT", "content hash of what the teacher is, but for seed and split; null without"),
        Column("precision", "TEXT", "of matrix products: fp32 or bf16"),
        Column("numerics", "BIGINT", "version of the engine's arithmetic"),
        Column("best_epoch", "BIGINT", "epoch with the highest test auroc, the first of equals; counted from 1"),
        Column("selected_by", "TEXT", "what chose chosen_epoch: last, or inner (the inner validation part)"),
        Column("chosen_epoch", "BIGINT", "the epoch of the run's results: the last, or the best on the inner part"),
        Column("inner_auroc", "DOUBLE", "auroc of the inner validation samples after chosen_epoch; null without them"),
        Column("config", "TEXT", "JSON of all that changes the run's numbers; its hash is `run`"),
        Column("device", "TEXT", "device of training"),
        Column("hardware", "TEXT", "model of its processor or GPU; null where the system does not tell"),
        Column("threads", "BIGINT", "threads of its products on a processor"),
        Column("radfs", "TEXT", "version of radfs"),
        Column("python", "TEXT", "version of Python"),
        Column("torch", "TEXT", "version of PyTorch"),
        Column("numpy", "TEXT", "version of numpy"),
        Column("sklearn", "TEXT", "version of scikit-learn, which fits ridge and logistic"),
        Column("git_commit", "TEXT", "commit of radfs, with -dirty where files differed; null if not a checkout"),
        Column("started_at", "TIMESTAMP", "start of training, UTC"),
        Column("finished_at", "TIMESTAMP", "end of training, UTC"),
        Column("seconds", "DOUBLE", "from started_at, when its batch of runs began, to its end, seconds"),
        Column("samples_per_second", "DOUBLE", "training samples a second of all runs that trained together with it"),
    ),
)

EPOCHS = Table(
    name="epochs",
    comment="One row an epoch of a run: losses and the standard metrics after it.",
    truth=f"results/*/{COMMIT_FILE}",
    load=_neighbour("epochs"),
    unique_by="run",
    columns=(
        Column("run", "TEXT", "id of the run"),
        Column("epoch", "BIGINT", "number of the epoch, counted from 1"),
        Column("train_loss", "DOUBLE", "mean cross-entropy over the epoch's training steps, nats, with dropout"),
        Column("test_loss", "DOUBLE", "mean cross-entropy of the test samples after the epoch, nats"),
        *(Column(name, "DOUBLE", f"{meaning}; test samples, after the epoch") for name, meaning in METRICS.items()),
        Column("inner_auroc", "DOUBLE", "auroc of the inner validation samples after the epoch; null without them"),
    ),
)

PREDICTIONS = Table(
    name="predictions",
    comment="One row a test sample of a run, so that any metric can be computed again in SQL.",
    truth=f"results/*/{COMMIT_FILE}",
    load=_neighbour("predictions"),
    unique_by="run",
    columns=(
        Column("run", "TEXT", "id of the run"),
        Column("sample", "TEXT", "id of the sample (joins with samples)"),
        Column("subject", "TEXT", "id of the patient"),
        Column("label", "INTEGER", "number of the true class, from 0; null for findings"),
        Column("findings", "TINYINT[]", "of a multi-label task: 1 present, 0 absent, -1 unknown; null for classes"),
        Column("p_last", "FLOAT[]", "probability of each class after the last epoch; class i is element i + 1"),
        Column("p_best", "FLOAT[]", "the same after best_epoch, which was chosen on these very samples"),
        Column("p_inner", "FLOAT[]", "the same after the epoch that is best on the inner part; null without one"),
    ),
)

TABLES = (RUNS, EPOCHS, PREDICTIONS)

_COPIED = (
    *("run", "cohort", "cohort_key", "common_rows", "content", "task", "classes", "method", "head", "serves"),
    *("backbone", "image_features", "views", "text_encoder", "text_features"),
    *("split", "split_seed", "seed", "fraction", "n_train", "n_inner", "n_test"),
    *("epochs", "lr", "batch_size", "dropout", "imitation", "temperature", "teacher_run", "teacher_epoch"),
    *("teacher_setting", "precision", "numerics", "selected_by", "chosen_epoch", "inner_auroc"),
)
SETTING = (
    *("cohort", "cohort_key", "common_rows", "content", "classes", "method", "head"),
    *("backbone", "image_features", "views", "text_encoder", "text_features", "fraction"),
    *("epochs", "lr", "batch_size", "dropout", "imitation", "temperature", "teacher_epoch", "teacher_setting"),
    *("precision", "numerics", "selected_by"),
)
"""What runs of one row of `summary` share: all that defines a run but its seed and its split."""


def columns_of_runs(names: tuple[str, ...]) -> tuple[Column, ...]:
    by_name = {column.name: column for column in RUNS.columns}
    return tuple(by_name[name] for name in names)


RESULTS = View(
    name="results",
    comment="One row a run: its settings and the metrics of its chosen epoch (the last, unless selected_by says that "
    "an inner validation part chose). Begin here. Tuning runs, and runs on a version of a cohort that was replaced "
    "since, are in `runs` alone.",
    sql=f"""
SELECT {", ".join(f"r.{name}" for name in _COPIED)},
       {", ".join(f"l.{name}" for name in METRICS)},
       b.auroc AS auroc_best, r.best_epoch, true AS best_is_selected_on_test
FROM runs r
JOIN epochs l ON l.run = r.run AND l.epoch = r.chosen_epoch
JOIN epochs b ON b.run = r.run AND b.epoch = r.best_epoch
WHERE r.stage = 'study' AND NOT EXISTS (FROM cohorts c WHERE c.cohort = r.cohort AND c.cohort_key <> r.cohort_key)
""".strip(),
    columns=(
        *columns_of_runs(_COPIED),
        *(Column(name, "DOUBLE", f"{meaning}; test samples, chosen epoch") for name, meaning in METRICS.items()),
        Column("auroc_best", "DOUBLE", "auroc of best_epoch: an optimistic number, see best_is_selected_on_test"),
        *columns_of_runs(("best_epoch",)),
        Column("best_is_selected_on_test", "BOOLEAN", "true: best_epoch was chosen on the samples it is reported on"),
    ),
)

_T95 = (
    *(12.7062047362, 4.30265272975, 3.18244630528, 2.7764451052, 2.57058183564, 2.44691185114, 2.36462425159),
    *(2.3060041352, 2.2621571628, 2.22813885199, 2.20098516009, 2.17881282967, 2.16036865646, 2.14478668792),
    *(2.13144954556, 2.11990529922, 2.10981557783, 2.10092204024, 2.09302405441, 2.08596344727, 2.07961384473),
    *(2.0738730679, 2.06865761042, 2.06389856163, 2.05953855275, 2.05552943864, 2.05183051648, 2.0484071418),
    *(2.04522964213, 2.0422724563),
)
"""The 0.975 quantile of Student's t for 1 to 30 degrees of freedom (a test compares with scipy)."""

_Z95 = 1.959963984540054


def t95_sql(df: str) -> str:
    """SQL for the 0.975 quantile of Student's t with `df` (an SQL expression) degrees of freedom, null below 1.

    A table up to 30; above, the expansion in 1/df of Abramowitz and Stegun 26.7.5, right to 2e-8.
    """
    z = _Z95
    terms = (
        z,
        (z**3 + z) / 4,
        (5 * z**5 + 16 * z**3 + 3 * z) / 96,
        (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / 384,
        (79 * z**9 + 776 * z**7 + 1482 * z**5 - 1920 * z**3 - 945 * z) / 92_160,
    )
    series = " + ".join(f"{term!r} / pow({df}, {power})" for power, term in enumerate(terms))
    return f"CASE WHEN {df} > 30 THEN {series} WHEN {df} >= 1 THEN {list(_T95)}[{df}] END"


STATISTICS = ("auroc", "auprc")


def families_sql() -> str:
    """SQL of the tables `marked` and `families`, for a WITH: `results` with the column `fixed_split`.

    A run whose seed is also its split's seed may belong to a grid where each seed has its own split, to one with a
    fixed `split_seed`, or to both (then it is in `families` twice): the windows count which, so that the two kinds of
    variation are never mixed.
    """
    setting = ", ".join(SETTING)
    return f"""marked AS (
  SELECT *, count(*) FILTER (seed = split_seed) OVER (PARTITION BY {setting}) AS n_own,
         count(*) OVER (PARTITION BY {setting}, split_seed) AS n_fixed
  FROM results
), families AS (
  SELECT *, NULL::BIGINT AS fixed_split FROM marked WHERE seed = split_seed AND (n_own > 1 OR n_fixed = 1)
  UNION ALL
  SELECT *, split_seed AS fixed_split FROM marked WHERE seed <> split_seed OR n_fixed > 1
)"""


def intervals_sql(grouped: str, keys: str) -> str:
    """SQL of `keys` and the t intervals over seeds, from a table with n_seeds and `moments_sql`."""
    intervals = ",\n       ".join(
        f"{m}_mean, {m}_sd, {m}_mean - t95 * {m}_sd / sqrt(n_seeds) AS {m}_ci_low, "
        f"{m}_mean + t95 * {m}_sd / sqrt(n_seeds) AS {m}_ci_high"
        for m in STATISTICS
    )
    return f"""SELECT {keys},
       {intervals}
FROM (SELECT *, {t95_sql("(n_seeds - 1)")} AS t95 FROM {grouped})"""


def moments_sql(table: str) -> str:
    """SQL of means and standard deviations of STATISTICS over the rows of a group of `table`."""
    return ", ".join(f"avg({table}.{m}) AS {m}_mean, stddev_samp({table}.{m}) AS {m}_sd" for m in STATISTICS)


def _summary_sql() -> str:
    """One row a setting, means and t intervals over seeds."""
    setting = ", ".join(SETTING)
    return f"""
WITH {families_sql()}, grouped AS (
  SELECT {setting}, fixed_split, count(*) AS n_seeds, avg(n_train) AS n_train, avg(n_test) AS n_test,
         {moments_sql("families")}
  FROM families GROUP BY ALL
)
{intervals_sql("grouped", f"{setting}, fixed_split, n_seeds, n_train, n_test")}
ORDER BY cohort, method, backbone, text_encoder, fraction, epochs
""".strip()


def statistics_columns(metric: str) -> tuple[Column, ...]:
    """The columns that `intervals_sql` gives for one of STATISTICS."""
    interval = (
        "end of the 95% confidence interval of the mean over seeds (Student t, n_seeds - 1 degrees of freedom, "
        "not cut to 0..1)"
    )
    return (
        Column(f"{metric}_mean", "DOUBLE", f"mean over seeds of {metric}: {METRICS[metric]}"),
        Column(f"{metric}_sd", "DOUBLE", f"standard deviation over seeds of {metric}; null for one seed"),
        Column(f"{metric}_ci_low", "DOUBLE", f"lower {interval}; null for one seed"),
        Column(f"{metric}_ci_high", "DOUBLE", f"upper {interval}; null for one seed"),
    )


FIXED_SPLIT = Column("fixed_split", "BIGINT", "the one split_seed of all seeds; null where each seed has its own split")

SUMMARY = View(
    name="summary",
    comment="One row a setting: means over seeds of the last epoch, with their intervals. They speak of this data set "
    "under other seeds.",
    sql=_summary_sql(),
    columns=(
        *columns_of_runs(SETTING),
        FIXED_SPLIT,
        Column("n_seeds", "BIGINT", "number of runs, one a seed"),
        Column("n_train", "DOUBLE", "mean number of training samples"),
        Column("n_test", "DOUBLE", "mean number of test samples"),
        *(column for metric in STATISTICS for column in statistics_columns(metric)),
    ),
)

VIEWS = (RESULTS, SUMMARY)

_POLARS = {
    "TEXT": pl.String(),
    "TEXT[]": pl.List(pl.String()),
    "BIGINT": pl.Int64(),
    "INTEGER": pl.Int32(),
    "DOUBLE": pl.Float64(),
    "TINYINT[]": pl.List(pl.Int8()),
    "FLOAT[]": pl.List(pl.Float32()),
    "TIMESTAMP": pl.Datetime("us"),
}


def polars_schema(table: Table) -> pl.Schema:
    """The columns of a table of this file as polars types: what its truth files hold."""
    return pl.Schema({column.name: _POLARS[column.type] for column in table.columns})
