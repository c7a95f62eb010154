"""`radfs report`: the page of a study."""

from pathlib import Path
from typing import Annotated

import typer

from .options import DEFAULT_STORE, StoreOption


def report(
    *,
    out: Annotated[Path, typer.Option(help="The HTML file; replaced if it is there.")] = Path("report.html"),
    where: Annotated[
        str | None,
        typer.Option(
            "--where", metavar="SQL", help="Only what this holds for: cohort, method, backbone, fraction, ..."
        ),
    ] = None,
    title: Annotated[str, typer.Option(help="Of the page.")] = "Results of a study",
    audit_images: Annotated[
        bool, typer.Option("--audit-images", help="Let the audit compare images too: as long as reading them takes.")
    ] = False,
    store: StoreOption = DEFAULT_STORE,
) -> None:
    """Write one HTML file with the figures, comparisons, cohorts, audit, cost and provenance of a study.

    It works offline, holds no ids, texts or paths, and says beside every number which SQL gives it.

    Example: `radfs report --out report.html --where "cohort = 'mine'"`
    """
    from featurestore.store import open_store
    from heads.report import write_report

    sections = write_report(
        open_store(store),
        out,
        where=where,
        title=title,
        audit_images=audit_images,
        on_progress=lambda part: typer.echo(f"{part} ...", err=True),
    )
    size = out.stat().st_size / 1e6
    figures = sum(len(section.figures) for section in sections)
    typer.echo(f"{len(sections)} sections, {figures} figures, {size:.1f} MB -> {out}")
