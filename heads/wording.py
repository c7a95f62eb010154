"""What a comparison speaks about and what it cannot show, in plain words. Knows the table of `compare`, no store."""

from collections.abc import Iterator

import polars as pl

from .metrics import LOWER_IS_BETTER
from .stats import least_sign_flip_p, seeds_needed

BASES = {
    "resampled": "patients_low to patients_high: other data sets of this size, of patients of the same kind "
    "(corrected resampled t: every seed has a split of its own).",
    "components": "patients_low to patients_high: other seeds and other test patients, heads trained on these very "
    "training patients (components of variance, clustered by subject: all seeds share their test samples).",
    "one seed": "patients_low to patients_high where n_seeds is 1: these very heads on other patients (jackknife, "
    "clustered by subject). Nothing is known about other seeds.",
    "delong": "patients_low to patients_high where n_seeds is 1: these very heads on other patients (DeLong, "
    "independent samples of two classes). Nothing is known about other seeds.",
    "none": "no interval for other patients: all seeds share their test samples, and this metric has no derivative by "
    "which their variance over patients could be told.",
}
"""What the patients' interval of a line rests on."""


def notes(
    table: pl.DataFrame,
    *,
    metric: str,
    by: str,
    level: float,
    epoch: str,
    lines: int | None = None,
    family: str | None = None,
) -> tuple[str, ...]:
    """The notes below a comparison's table.

    Args:
        table: of `compare`.
        metric: what was compared.
        by: what the two sides differ in.
        level: of the intervals.
        epoch: "chosen" or "best".
        lines: of the family that Holm's correction counts; None: those of the table.
        family: what that family is; None: this table.
    """
    alpha, lines = 1 - level, lines or table.height
    return (
        *_intervals(table, level),
        *_tests(table, alpha, lines, family),
        *_warnings(table, alpha, lines, metric=metric, by=by, epoch=epoch),
    )


def _intervals(table: pl.DataFrame, level: float) -> Iterator[str]:
    several = table.filter(pl.col("n_seeds") > 1)
    if several.height:
        yield (
            f"seeds_low to seeds_high: {level:.0%} interval for this data set under other seeds (Student t). seeds_p: "
            "sign-flip test of the same. All seeds share one data set: neither says anything about other patients."
        )
    for basis in table["basis"].drop_nulls().unique(maintain_order=True):
        yield BASES[basis]


def _tests(table: pl.DataFrame, alpha: float, lines: int, family: str | None) -> Iterator[str]:
    if table["patients_p"].drop_nulls().len():
        found = table.filter(pl.col("patients_p_holm") < alpha).height
        yield (
            f"patients_p_holm: Holm over the {_count(lines, 'line')} of {family or 'this table'}. Of the lines of this "
            f"table {found or 'none'} {'differs' if found == 1 else 'differ'} at the {alpha:.2g} level. "
            + ("" if family else "That is honest only if this table was chosen before its numbers were seen.")
        )
        yield (
            "detectable: the smallest true difference that such a line finds with probability 0.8 (level "
            f"{alpha:.2g}, before Holm). A line that finds nothing does not show that there is nothing below it."
        )


def _warnings(table: pl.DataFrame, alpha: float, lines: int, *, metric: str, by: str, epoch: str) -> Iterator[str]:
    several = table.filter(pl.col("n_seeds") > 1)
    if several.height:
        n = int(several["n_seeds"].min())  # pyright: ignore[reportArgumentType]
        needed = seeds_needed(alpha, lines)
        if n < needed:
            never = f"WARNING: {n} seeds: the two-sided seeds_p is never under {least_sign_flip_p(n):.3g}"
            short = f"{never}, so it cannot reach {alpha:.2g}." if least_sign_flip_p(n) > alpha else f"{never}."
            holm = f" and {needed} with Holm over {lines} lines" if lines > 1 else ""
            yield f"{short} It takes {seeds_needed(alpha)} seeds{holm}."
    if (table["n_seeds"] == 1).any():
        yield "WARNING: lines with one seed: another seed may give another sign. Train more seeds."
    undefined = table.filter(pl.col("n_undefined") > 0)
    if undefined.height:
        yield (
            f"WARNING: in {_count(undefined.height, 'line')} some seeds have no {metric}, since a class has no sample "
            "among their test samples; these seeds are left out (n_undefined)."
        )
    differs = sorted({name for names in table["differs"].drop_nulls().to_list() for name in names} - {by})
    if differs and by != "objective":
        yield (
            f"WARNING: some pairs differ in {', '.join(differs)} too (column differs): the store has no run of the "
            "other side with equal options. The difference may come from there."
        )
    if by == "objective":
        yield (
            "Each side is the mean over its encoders. The table speaks about these very encoders, not about others "
            "trained in the same way; they may differ in size, data and learning rate as well."
        )
    if epoch == "best":
        yield "WARNING: the best epoch was chosen on the very test samples: all values are too high."
    if metric.partition(":")[0] in LOWER_IS_BETTER:
        yield f"Of {metric} lower is better: a negative difference is a gain."
    if metric.startswith("auprc"):
        yield "auprc depends on how frequent the positive class is: compare it within a cohort only."


def _count(n: int, what: str) -> str:
    return f"{n} {what}{'' if n == 1 else 's'}"
