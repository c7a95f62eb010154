"""What the study cost, from the times of its runs, beside what the paper's appendix D says of its own."""

from .parts import Asked, Section, cell, table_of

_SQL = """
WITH chosen AS (FROM runs WHERE run IN (SELECT run FROM results WHERE {where})),
spans AS (
  SELECT device, hardware, started_at, finished_at,
         max(finished_at) OVER (PARTITION BY device, hardware ORDER BY started_at, finished_at
                                ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING) AS latest
  FROM chosen
), islands AS (  -- runs train together: stretches of time that overlap count once
  SELECT *, sum((latest IS NULL OR started_at > latest)::INTEGER)
         OVER (PARTITION BY device, hardware ORDER BY started_at, finished_at) AS island FROM spans
), busy AS (
  SELECT device, hardware, sum(epoch(stop) - epoch(start)) AS seconds FROM (
    SELECT device, hardware, island, min(started_at) AS start, max(finished_at) AS stop FROM islands GROUP BY ALL
  ) GROUP BY ALL
), work AS (
  SELECT device, hardware, count(*) AS runs, sum(n_train * epochs)::BIGINT AS samples FROM chosen GROUP BY ALL
)
SELECT device, hardware, runs, samples, seconds / 3600 AS device_hours, samples / seconds AS samples_per_second,
       seconds / runs AS seconds_a_run
FROM work JOIN busy USING (device, hardware) ORDER BY ALL
"""


def cost(asked: Asked, where: str) -> Section:
    """Device-hours and speed of the training of heads."""
    found = asked("device-hours", _SQL.format(where=where))
    hours, runs = found["device_hours"].sum(), found["runs"].sum()
    return Section(
        "cost",
        "Cost",
        words=(
            f"The {runs:,} heads of this report took {cell(float(hours))} device-hours of training, evaluation "
            "after every epoch included. Embedding images and reports, once for all of them, is not in that: its time "
            "is not kept. Two machines of the same model that trained at the same time count once.",
            "The paper's own figures (appendix D): T4 GPUs, an A100 for RAD-DINO; no experiment above 8 hours, most "
            "below 4; under 1,000 hours for Figure 4, under 960 for each part of Figure 5 (8 hours x 6 backbones x 4 "
            "methods x 5 seeds). Those are upper bounds for other data sets of other sizes, so no ratio is given here.",
        ),
        parts=(table_of(found, "Training, by device"),),
        sql=asked.sql,
    )
