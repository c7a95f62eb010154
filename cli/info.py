"""`radfs info`: what a store holds."""

import typer

from .options import DEFAULT_STORE, StoreOption

QUESTIONS = {
    "items": """
        WITH stated AS (
            SELECT dataset, string_agg(DISTINCT licence, '; ' ORDER BY licence) AS licence
            FROM (
                SELECT DISTINCT split_part(sample, '/', 1) AS dataset, licence
                FROM samples JOIN cohorts USING (cohort, cohort_key)
            )
            GROUP BY dataset
        )
        SELECT dataset, modality, count(*) AS items, any_value(coalesce(licence, 'not stated')) AS licence
        FROM items LEFT JOIN stated USING (dataset) GROUP BY dataset, modality ORDER BY ALL""",
    "cohorts": """
        SELECT c.cohort, c.task, c.n_samples AS samples, c.n_subjects AS subjects, c.licence
        FROM cohorts c ORDER BY c.cohort""",
    "feature sets": """
        SELECT f.feature_set, f.modality, f.stored_as, f.tokens, f.dim, s.view, coalesce(r.done, 0) AS done,
            coalesce(r.failed, 0) AS failed, coalesce(s.megabytes, 0) AS megabytes, f.licence
        FROM feature_sets f
        LEFT JOIN (
            SELECT feature_set, view, sum(bytes) / 1e6 AS megabytes FROM shards GROUP BY ALL
        ) s USING (feature_set)
        LEFT JOIN (
            SELECT feature_set, view, count(*) FILTER (state = 'done') AS done,
                count(*) FILTER (state = 'failed') AS failed
            FROM feature_rows GROUP BY ALL
        ) r ON r.feature_set = s.feature_set AND r.view = s.view
        ORDER BY f.feature_set, s.view""",
    "coverage": """
        WITH now AS (FROM samples SEMI JOIN cohorts USING (cohort, cohort_key)), parts AS (
            SELECT cohort, 'image' AS modality, image AS item FROM now WHERE image IS NOT NULL
            UNION ALL SELECT cohort, 'text', text FROM now WHERE text IS NOT NULL
        )
        SELECT cohort, r.feature_set, any_value(n_samples) AS samples, count(*) AS with_tokens
        FROM parts
        JOIN feature_rows r ON r.item = parts.item AND r.view = 0 AND r.state = 'done'
        JOIN feature_sets f ON f.feature_set = r.feature_set AND f.modality = parts.modality
        JOIN cohorts USING (cohort)
        GROUP BY ALL ORDER BY ALL""",
    "runs": "SELECT cohort, method, backbone, text_encoder, count(*) AS runs FROM results GROUP BY ALL ORDER BY ALL",
}
"""What the store holds, by title. Views from 1 on are augmented ones of the same items: coverage is of view 0."""


def info(*, store: StoreOption = DEFAULT_STORE) -> None:
    """Show what the store holds: items, cohorts, feature sets with their coverage and licences, runs.

    Example: `radfs info`
    """
    from featurestore.store import FORMAT, open_store
    from heads.catalog import open_catalog

    from .output import print_frame

    opened = open_store(store)
    catalog = open_catalog(opened)
    catalog.fold()
    typer.echo(f"store {opened.root} (format {FORMAT})")
    for title, sql in QUESTIONS.items():
        frame = catalog.query(sql)
        typer.echo(f"\n{title}")
        if frame.is_empty():
            typer.echo("none yet")
        else:
            print_frame(frame)
