"""The flow of a cohort's building: which rows each step left out, by id, and how many it left.

Every exclusion goes through `Flow.drop`, so none can be silent. Knows row numbers and ids; never what stands in a row.
"""

from dataclasses import dataclass

import polars as pl

FLOW_SCHEMA = pl.Schema(
    {"position": pl.Int32, "step": pl.String, "n_before": pl.Int64, "n_after": pl.Int64, "what": pl.String}
)
"""One row a step, from position 0 (the rows as they came)."""

EXCLUDED_SCHEMA = pl.Schema({"id": pl.String, "row": pl.Int64, "step": pl.String, "reason": pl.String})
"""One row a row that was left out: its id, its number in the source (from 1), the step and why."""


@dataclass(frozen=True)
class FlowStep:
    """One step: its name, the rows before and after it, and what it leaves out in words."""

    step: str
    n_before: int
    n_after: int
    what: str


class Flow:
    """Collects steps while a builder drops rows."""

    def __init__(self, n_rows: int, what: str) -> None:
        """Begin with `n_rows` rows; `what` says where they come from."""
        self.steps = [FlowStep("read", n_rows, n_rows, what)]
        self._excluded: list[pl.DataFrame] = []

    def drop(
        self, frame: pl.DataFrame, where: pl.Expr | pl.Series, *, step: str, reason: str, detail: str | None = None
    ) -> pl.DataFrame:
        """Leave out the rows of `frame` (with columns `id`, `row`) for which `where` is true.

        A step that finds nothing is kept as well: it says that the check was made.

        Args:
            frame: the rows.
            where: which to leave out; null is not.
            step: the step's name.
            reason: why, in words.
            detail: a column that says it row by row, where rows of one step differ.
        """
        marked = frame.with_columns(where.fill_null(False).alias("_out"))
        out = marked.filter("_out")
        kept = marked.filter(~pl.col("_out")).drop("_out")
        self.steps.append(FlowStep(step, frame.height, kept.height, reason))
        self._excluded.append(
            out.select(
                "id",
                "row",
                pl.lit(step).alias("step"),
                (pl.lit(reason) if detail is None else pl.col(detail)).alias("reason"),
            ).cast(EXCLUDED_SCHEMA)
        )
        return kept

    def table(self) -> pl.DataFrame:
        """The steps: columns of `FLOW_SCHEMA`."""
        rows = [(i, s.step, s.n_before, s.n_after, s.what) for i, s in enumerate(self.steps)]
        return pl.DataFrame(rows, schema=FLOW_SCHEMA, orient="row")

    def excluded(self) -> pl.DataFrame:
        """What was left out: columns of `EXCLUDED_SCHEMA`, step by step."""
        return pl.concat([EXCLUDED_SCHEMA.to_frame(), *self._excluded])

    def summary(self) -> str:
        """What was left out in one line: `252 missing label, 3 missing subject`."""
        return ", ".join(f"{s.n_before - s.n_after} {s.step}" for s in self.steps if s.n_before > s.n_after)
