"""Calibration: bins of the stored predictions, all seeds of a setting together, at the largest training size."""

import polars as pl

from ..charts.reliability import reliability
from ..selection import in_words, several_settings
from .parts import Asked, Section, figure, table_of
from .pictures import is_control

SMALLEST_BIN = 10
"""Predictions that a bin must hold to be drawn: of fewer, its share tells of single patients, not of heads."""

_SQL = """
WITH largest AS (SELECT cohort, max(fraction) AS fraction FROM results WHERE {where} GROUP BY cohort),
chosen AS (
  SELECT r.*, CASE WHEN r.selected_by = 'inner' THEN p.p_inner ELSE p.p_last END AS ps, p.label
  FROM predictions p JOIN (FROM results WHERE {where}) r USING (run) SEMI JOIN largest l
    ON l.cohort = r.cohort AND l.fraction = r.fraction
  WHERE r.task <> 'multilabel'
), said AS (  -- of two classes: of the positive one; of more: of the class that is most probable
  SELECT *, CASE WHEN task = 'binary' THEN ps[2] ELSE list_max(ps) END AS p1,
         CASE WHEN task = 'binary' THEN label = 1 ELSE list_position(ps, list_max(ps)) - 1 = label END AS hit
  FROM chosen
)
SELECT cohort, method, backbone, text_encoder, head, fraction, least(floor(10 * p1), 9)::INTEGER AS bin,
       avg(p1) AS p, avg(hit::INTEGER) AS observed, count(*) AS n
FROM said GROUP BY ALL HAVING count(*) >= {least} ORDER BY ALL
"""


def calibration(asked: Asked, where: str) -> Section | None:
    """Reliability curves of the heads that are no controls."""
    bins = asked("bins of predictions", _SQL.format(where=where, least=SMALLEST_BIN))
    bins = bins.filter(~pl.col("method").map_elements(is_control, return_dtype=pl.Boolean))
    if bins.is_empty():
        return None
    results = asked.catalog.query(f"SELECT * FROM results WHERE {where}")
    largest = results.filter(pl.col("fraction") == pl.col("fraction").max().over("cohort"))
    several = several_settings(largest.filter(pl.col("method").is_in(bins["method"].to_list())))
    if several:
        left = f"Left out: one curve would mix runs of several settings. There are {in_words(several)}."
        return Section("calibration", "Calibration", words=(left,))
    error = asked(
        "calibration error",
        f"SELECT cohort, method, backbone, text_encoder, sum(n * abs(p - observed)) / sum(n) AS calibration_error, "
        f"sum(n)::BIGINT AS predictions FROM ({_SQL.format(where=where, least=1)}) GROUP BY ALL ORDER BY ALL",
    )
    return Section(
        "calibration",
        "Calibration",
        words=(
            "How often what a head called so probable came true, over ten bins of equal width and all seeds together, "
            "at the largest training size. Of two classes the probability is that of the positive one; of more, of the "
            f"class that is called most probable. Bins of fewer than {SMALLEST_BIN} predictions are not drawn.",
        ),
        parts=(
            figure(
                "Reliability",
                "Reliability curves: share that came true against predicted probability; the diagonal is perfect.",
                ["Below the dashed line less came true than was said, above it more."],
                {"": lambda **how: reliability(bins, caption=[], **how)},
            ),
            table_of(error, "Expected calibration error over these bins (all of them)"),
        ),
        sql=asked.sql,
        commands=("radfs metrics --metric calibration_error,brier,log_loss",),
    )
