"""`radfs export --results` and `radfs import --results`: results for elsewhere, and what peers report."""

from pathlib import Path
from typing import TYPE_CHECKING

import typer

from featurestore.errors import DataError

from .opened import open_with_catalog

if TYPE_CHECKING:
    from featurestore.catalog import Catalog
    from heads.exchange.bundle import BundleReport

_FORMS = (".csv", ".parquet")


def export_results(
    store: str,
    *,
    out: str | None,
    public: bool,
    predictions: bool,
    min_cell: int | None,
    mlflow: str | None,
    wandb: Path | None,
    where: str | None,
) -> None:
    """What `radfs export --results` does."""
    if sum((out is not None, mlflow is not None, wandb is not None)) != 1:
        raise DataError("--results goes to one of --out FILE, --mlflow URI and --wandb FOLDER: name one.")
    if not public and (predictions or min_cell is not None):
        raise DataError("--predictions and --min-cell are for --public.")
    if public and out is None:
        raise DataError("--public writes a folder or a .zip: name it with --out.")
    opened, catalog = open_with_catalog(store)
    if mlflow is not None:
        from heads.exchange.to_mlflow import to_mlflow

        _print_tracked(to_mlflow(catalog, mlflow, where=where), mlflow)
    elif wandb is not None:
        from heads.exchange.to_wandb import to_wandb

        _print_tracked(to_wandb(catalog, wandb, where=where), str(wandb))
        typer.echo(f"send them with: wandb sync {wandb}/wandb/offline-run-*")
    elif public:
        from heads.exchange.bundle import SMALLEST_CELL, export_bundle

        least = SMALLEST_CELL if min_cell is None else min_cell
        report = export_bundle(opened, catalog, Path(str(out)), where=where, predictions=predictions, smallest=least)
        _print_bundle(report, least, predictions=predictions)
    else:
        _write_table(catalog, Path(str(out)), where)


def import_results(store: str, source: Path, *, label: str | None, replace: bool) -> None:
    """What `radfs import --results` does."""
    from featurestore.store import open_store
    from heads.exchange.peers import import_peer

    report = import_peer(open_store(store), source, label=label or "", replace=replace)
    cohorts = ", ".join(f"{name} {n}" for name, n in report.cohorts.items())
    typer.echo(f"{report.label}: {report.rows} rows {report.outcome} ({cohorts}) -> table peer_results")
    if report.ignored:
        typer.echo(f"columns that mean nothing here and were left out: {', '.join(report.ignored)}", err=True)


def _write_table(catalog: "Catalog", out: Path, where: str | None) -> None:
    from heads.measure import select_runs

    from .output import write_frame

    if out.suffix not in _FORMS:
        raise DataError(f"cannot write {out}: the name must end in {' or '.join(_FORMS)} (or add --public).")
    results = select_runs(catalog, where).sort("cohort", "method", "fraction", "seed", "run")
    write_frame(results, out)
    typer.echo(f"{results.height} runs -> {out}")


def _print_tracked(counts: tuple[int, int], where: str) -> None:
    written, there = counts
    typer.echo(f"{written} runs written, {there} there already -> {where}")


def _print_bundle(report: "BundleReport", least: int, *, predictions: bool) -> None:
    typer.echo(f"{report.out}: " + ", ".join(f"{n:,} {name}" for name, n in report.rows.items()))
    if report.left_out:
        typer.echo(f"{report.left_out} runs left out: fewer than {least} test subjects of some class")
    typer.echo("no ids, texts, paths, dates or machine names are in it; these words of your own are:")
    for what, names in report.names.items():
        typer.echo(f"  {what}: {', '.join(names) or 'none'}")
    if predictions:
        typer.echo(
            "it holds true labels and predictions of single test samples, under salted ids: see that your data's "
            "terms allow that",
            err=True,
        )
    typer.echo("look through it before you publish it")
