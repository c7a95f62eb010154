"""The data behind a study: where rows of a cohort went, its classes, what an audit finds. No id leaves this file."""

import re
from collections.abc import Callable, Iterator

import polars as pl

from cohorts.audit import audit_cohort
from cohorts.cohort import Cohort, list_cohorts, load_cohort
from featurestore.store import Store

from .parts import Asked, Flow, FlowStep, Section, Table, table_of

_WITHHELD = "(an id)"


def cohort_flow(asked: Asked, where: str) -> Section:
    """The steps of building each cohort, its classes, and how many samples have tokens."""
    used = f"cohort IN (SELECT cohort FROM results WHERE {where})"
    cohorts = asked(
        "cohorts",
        "SELECT cohort, task, n_samples AS samples, n_subjects AS patients, n_images AS images, n_texts AS reports, "
        f"split_unit, folds, test_share, licence FROM cohorts WHERE {used} ORDER BY cohort",
    )
    flow = asked(
        "flow",
        "SELECT cohort, step, n_before - n_after AS left_out, n_after AS rows_left, what FROM flow "
        f"SEMI JOIN cohorts USING (cohort, cohort_key) WHERE {used} ORDER BY cohort, position",
    )
    classes = asked(
        "classes",
        "SELECT cohort, label_name AS class, count(*) AS samples, count(DISTINCT subject) AS patients FROM samples "
        f"SEMI JOIN cohorts USING (cohort, cohort_key) WHERE {used} AND label_name IS NOT NULL "
        "GROUP BY ALL ORDER BY ALL",
    )
    coverage = asked("coverage", f"SELECT * FROM coverage WHERE {used} ORDER BY ALL")
    flows = [_flow(str(name), steps) for (name,), steps in flow.group_by("cohort", maintain_order=True)]
    tables = [
        table_of(cohorts, "Cohorts"),
        table_of(classes, "Classes"),
        table_of(coverage, "Samples whose image or report has tokens"),
    ]
    return Section(
        "cohorts",
        "Cohorts and where their rows went",
        parts=(tables[0], *flows, *(table for table in tables[1:] if table.lines)),
        sql=asked.sql,
        commands=("radfs cohort show NAME --flow",),
    )


def _flow(cohort: str, steps: pl.DataFrame) -> Flow:
    rows = steps.to_dicts()
    first = max(1, rows[0]["rows_left"])  # the step that read them
    idle = [row["step"] for row in rows[1:] if not row["left_out"]]
    return Flow(
        f"Flow of {cohort}",
        tuple(
            FlowStep(
                name=row["step"],
                what=row["what"],
                rows=f"{row['rows_left']:,}",
                left_out=f"{row['left_out']:,}" if row["left_out"] else "",
                percent=round(100 * row["rows_left"] / first, 1),
            )
            for row in rows
            if row is rows[0] or row["left_out"]
        ),
        note=f"Steps that had nothing to leave out: {', '.join(idle)}." if idle else "",
    )


def audits(
    store: Store, names: list[str], *, images: bool, on_progress: Callable[[int, int, int], None] | None = None
) -> Section:
    """What an audit of each cohort finds. Ids are withheld: the command prints them."""
    lines: list[tuple[str, ...]] = []
    there = set(list_cohorts(store))
    for name in names:
        if name not in there:
            continue
        cohort = load_cohort(store, name)
        hide = _hider(cohort)
        report = audit_cohort(store, name, images=images, on_progress=on_progress)
        lines += [(name, found.level, found.check, hide(found.text)) for found in report.findings]
    images_said = (
        "Images were compared with each other." if images else "Images were not compared (--audit-images does)."
    )
    table = Table("Findings, the worst first", ("cohort", "level", "check", "finding"), tuple(lines), (False,) * 4)
    return Section(
        "audit",
        "Audit: what could make results too good",
        words=(f"A leak means that the test is known in training: mend it before you believe a number. {images_said}",),
        parts=(table,) if lines else (),
        commands=("radfs cohort audit NAME",),
    )


def failures(asked: Asked, where: str) -> Section:
    """Items that an encoder could not read, by reason; and runs that are in no result."""
    found = asked(
        "items that failed",
        "SELECT feature_set, view, reason, count(*) AS items FROM failures WHERE feature_set IN "
        f"(SELECT unnest([image_features, text_features]) FROM results WHERE {where}) GROUP BY ALL ORDER BY ALL",
    )
    old = asked(
        "runs on replaced cohorts",
        "SELECT r.cohort, count(*) AS runs FROM runs r JOIN cohorts c USING (cohort) "
        "WHERE r.cohort_key <> c.cohort_key GROUP BY ALL ORDER BY ALL",
    )
    hidden = found.with_columns(pl.col("reason").map_elements(_without_paths, return_dtype=pl.String))
    tables = [
        table_of(hidden, "Items that failed, by reason"),
        table_of(old, "Runs on versions of a cohort that were replaced"),
    ]
    tables = [table for table in tables if table.lines]
    words = () if tables else ("No item failed, and no run is on a version of a cohort that was replaced since.",)
    return Section("failures", "Failures", words=words, parts=tuple(tables), sql=asked.sql)


def _hider(cohort: Cohort) -> Callable[[str], str]:
    """What puts a word in the place of every id of a cohort that stands in a text."""
    frame = cohort.samples
    ids = {
        str(i) for name in ("sample", "image", "text", "study", "subject") for i in frame[name].drop_nulls().unique()
    }

    def hide(text: str) -> str:
        return "".join(_WITHHELD if word.rstrip(".") in ids else word for word in _words(text))

    return hide


def _words(text: str) -> Iterator[str]:
    yield from re.split(r"([\s,;:()\"']+)", text)


def _without_paths(reason: str) -> str:
    return re.sub(r"(/[^\s/:,;]+){2,}", "(a path)", reason)
