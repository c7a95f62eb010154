"""`radfs info`: what a store holds."""

import typer

from .options import DEFAULT_STORE, StoreOption

_QUESTIONS = {
    "items": "SELECT dataset, modality, count(*) AS items FROM items GROUP BY ALL ORDER BY ALL",
    "cohorts": """
        SELECT c.cohort, c.task, c.n_samples AS samples, c.n_subjects AS subjects, c.licence
        FROM cohorts c ORDER BY c.cohort""",
    "feature sets": """
        SELECT f.feature_set, f.modality, f.tokens, f.dim,
            (SELECT count(*) FROM feature_rows r WHERE r.feature_set = f.feature_set AND state = 'done') AS done,
            (SELECT count(*) FROM feature_rows r WHERE r.feature_set = f.feature_set AND state = 'failed') AS failed,
            coalesce((SELECT sum(bytes) FROM shards s WHERE s.feature_set = f.feature_set), 0) / 1e6 AS megabytes,
            f.licence
        FROM feature_sets f ORDER BY f.feature_set""",
    "coverage": """
        SELECT s.cohort, f.feature_set, count(*) AS samples,
            count(*) FILTER (WHERE r.state = 'done') AS with_tokens
        FROM feature_sets f
        CROSS JOIN (SELECT * FROM samples SEMI JOIN cohorts USING (cohort, cohort_key)) s
        LEFT JOIN feature_rows r ON r.feature_set = f.feature_set
            AND r.item = CASE f.modality WHEN 'image' THEN s.image ELSE s.text END
        GROUP BY ALL HAVING with_tokens > 0 ORDER BY ALL""",
    "runs": "SELECT cohort, method, backbone, text_encoder, count(*) AS runs FROM results GROUP BY ALL ORDER BY ALL",
}


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
    for title, sql in _QUESTIONS.items():
        frame = catalog.query(sql)
        typer.echo(f"\n{title}")
        if frame.is_empty():
            typer.echo("none yet")
        else:
            print_frame(frame)
