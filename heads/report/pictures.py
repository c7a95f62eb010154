"""The figures of a study: learning curves, distillation bars, slopes of seeds, gain by backbone and fraction."""

from collections.abc import Iterator

import polars as pl

from featurestore.errors import DataError

from ..charts import bars, curves, heatmap, slopes
from ..charts.theme import in_order, label
from ..methods import METHODS, get_method
from ..schema import STATISTICS
from ..selection import in_words, several_settings
from .parts import Asked, Figure, Section, figure, table_of

_COLUMNS = (
    "cohort, method, backbone, text_encoder, head, fraction, n_train, n_test, n_seeds, epochs, lr, fixed_split, "
    "auroc_mean, auroc_ci_low, auroc_ci_high, auprc_mean, auprc_ci_low, auprc_ci_high"
)
_BANDS = (
    "Bands: 95% intervals over seeds (Student t), drawn no further than from 0 to 1. They speak of this data set under "
    "other seeds."
)
_TABLED = 60
_LARGE = (560, 320)
"""Of a panel that stands alone, in pixels."""


def is_control(method: str) -> bool:
    """Whether a method is there to show what something else would give: no method that anybody would use."""
    if method not in METHODS:
        return False
    about = get_method(method)
    teacher = get_method(about.teacher) if about.teacher else None
    return (
        about.other_reports or about.frequencies or about.epochs_factor > 1 or bool(teacher and teacher.other_reports)
    )


def learning(asked: Asked, where: str, peers: pl.DataFrame) -> Section:
    """Learning curves, controls apart."""
    summary = asked.catalog.query(f"SELECT * FROM summary WHERE {where}")
    shown = asked("means and intervals", f"SELECT {_COLUMNS} FROM summary WHERE {where} ORDER BY ALL")
    main = summary.filter(~pl.col("method").map_elements(is_control, return_dtype=pl.Boolean))
    figures = [_curves(rows, name, peers) for name, rows in _by_backbone(main)]
    controls = summary.filter(pl.col("method").map_elements(is_control, return_dtype=pl.Boolean))
    if controls.height:
        beside = pl.concat([summary.filter(pl.col("method").is_in(["image", "distill"])), controls])
        figures += [
            _curves(rows, f"Negative controls{f', {name}' if name else ''}", peers.clear())
            for name, rows in _by_backbone(beside)
        ]
    more = f" (the first {_TABLED} of {shown.height}; all by its SQL)" if shown.height > _TABLED else ""
    return Section(
        "curves",
        "Learning curves",
        words=("Mean metric on the test samples against the number of training samples. " + _BANDS,),
        parts=(*figures, table_of(shown.head(_TABLED), f"The same as numbers{more}", folded=True)),
        sql=asked.sql,
        commands=('radfs query "FROM summary"',),
    )


def _by_backbone(summary: pl.DataFrame) -> Iterator[tuple[str, pl.DataFrame]]:
    """One part a backbone, where there are several; heads of no backbone stand in each."""
    backbones = in_order("backbone", summary["backbone"].drop_nulls().to_list())
    if len(backbones) < 2:
        if summary.height:
            yield "", summary
        return
    for backbone in backbones:
        own = pl.col("backbone").eq_missing(backbone)
        yield label("backbone", backbone), summary.filter(own | pl.col("backbone").is_null())


def _curves(summary: pl.DataFrame, name: str, peers: pl.DataFrame) -> Figure:
    rows = {m: pl.concat([summary, _like_summary(peers, summary, m)], how="diagonal_relaxed") for m in STATISTICS}
    methods = ", ".join(label("method", method) for method in in_order("method", summary["method"].to_list()))
    cohorts = ", ".join(sorted(set(summary["cohort"])))
    alt = f"Learning curves of {methods} on {cohorts}: test metric against training samples, with bands over seeds."
    has_peers = any(with_peers.height > summary.height for with_peers in rows.values())
    told = ["Values that peers report were measured on other rows."] if has_peers else []
    draw = {m: lambda m=m, **how: curves(rows[m], metric=m, caption=[], **how) for m in STATISTICS}
    return figure(name, alt, told, draw, panel=_LARGE if summary["cohort"].n_unique() == 1 else None)


def _like_summary(peers: pl.DataFrame, summary: pl.DataFrame, metric: str) -> pl.DataFrame:
    """Rows of `peer_results` in the form of `summary`, where both name a cohort and a number of training samples."""
    classes = dict(summary.select("cohort", "classes").iter_rows())
    sizes = {(cohort, f): n for cohort, f, n in summary.select("cohort", "fraction", "n_train").iter_rows()}
    rows = []
    for row in peers.drop_nulls(metric).filter(pl.col("cohort").is_in(list(classes))).to_dicts():
        n_train = row["n_train"] or sizes.get((row["cohort"], row["fraction"]))
        if n_train is None:
            continue
        sd = row[f"{metric}_sd"]
        rows.append(
            {
                **{name: row[name] for name in ("cohort", "backbone", "fraction")},
                "classes": classes[row["cohort"]],
                "method": f"{label('method', row['method'])} ({row['label']})",
                "n_train": float(n_train),
                "n_seeds": (row["n_seeds"] or 1) if sd is not None else 1,
                f"{metric}_mean": row[metric],
                f"{metric}_sd": sd,
            }
        )
    return pl.DataFrame(rows, schema={name: summary.schema[name] for name in rows[0]}) if rows else summary.clear()


def distillation(asked: Asked, where: str) -> Section | None:
    """Bars of students and teachers, each seed's slope, and the gain by backbone and fraction."""
    summary = asked.catalog.query(f"SELECT * FROM summary WHERE {where}")
    methods = set(summary["method"])
    student = next((name for name in ("distill", "tram", "feature-distill") if name in methods), None)
    if student is None or "image" not in methods:
        return None
    shown = [
        name for name in ("image", "self-distill", "distill", "tram", "feature-distill", "teacher") if name in methods
    ]
    of_bars = summary.filter(pl.col("method").is_in(shown))
    of_run = f"run IN (SELECT run FROM results WHERE {where})"
    paired = asked(
        "paired differences",
        f"SELECT cohort, backbone, text_encoder, fraction, n_train, seed, method, baseline_method, auroc, "
        f"baseline_auroc, auroc_difference, auprc, baseline_auprc, auprc_difference, differs, baseline_backbone "
        f"FROM paired WHERE method = '{student}' AND baseline_method = 'image' AND {of_run} AND baseline_{of_run} "
        "ORDER BY ALL",
    )
    results = asked.catalog.query(f"SELECT * FROM results WHERE {where}")
    several = several_settings(results.filter(pl.col("method").is_in(shown)))
    said = label("method", student)
    figures = [
        figure(
            "Methods side by side",
            f"Bars of {', '.join(label('method', name) for name in shown)} for every backbone and training size.",
            ["Error bars: 95% intervals over seeds (Student t), drawn up to 1. The axis does not begin at 0."],
            {m: lambda m=m, **how: bars(of_bars, metric=m, caption=[], **how) for m in STATISTICS},
        )
    ]
    figures += [] if several else _slopes(results, shown, student)
    if paired.height and not several:
        figures.append(
            figure(
                f"Gain of {said} over image only",
                f"Heat map: mean paired difference of {said} and image only, a cell a backbone and training size.",
                [
                    "Mean over pairs of the same seed and samples. Framed: the 95% interval over seeds (Student t) "
                    "excludes 0; of many cells some do by chance."
                ],
                {
                    m: lambda m=m, of=student, **how: heatmap(paired, of=of, metric=m, caption=[], **how)
                    for m in STATISTICS
                },
                narrow=None,
            )
        )
    gains = paired.group_by("cohort", "backbone", "text_encoder", "fraction", maintain_order=True).agg(
        n_train=pl.col("n_train").mean(),
        seeds=pl.len(),
        higher=(pl.col("auroc_difference") > 0).sum(),
        auroc_difference=pl.col("auroc_difference").mean(),
        auprc_difference=pl.col("auprc_difference").mean(),
    )
    return Section(
        "distillation",
        "What the reports add",
        words=(
            "Students read images alone when they serve; their teachers read reports too. Every pair below has the "
            "same seed, split and samples.",
            *([f"Left out: slopes of seeds and gains by size. There are {in_words(several)}."] if several else []),
        ),
        parts=(
            *figures,
            *([table_of(gains, f"{said} less image only, mean over seeds")] if gains.height and not several else []),
        ),
        sql=asked.sql,
        commands=(f"radfs compare --method {student} --against image",),
    )


def _slopes(results: pl.DataFrame, shown: list[str], student: str) -> list[Figure]:
    """Each seed's line through the methods; none where no seed has both."""
    through = [name for name in ("self-distill", "image", student, "teacher") if name in shown]
    draw = {
        m: lambda m=m, **how: slopes(results, of=student, methods=through, metric=m, caption=[], **how)
        for m in STATISTICS
    }
    alt = f"One line a seed through {', '.join(label('method', name) for name in through)}."
    caption = ["Wide bars: means. Each panel has an axis of its own."]
    try:
        return [figure("Seed by seed", alt, caption, draw)]
    except DataError:  # no seed has both
        return []
