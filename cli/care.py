"""`radfs verify`, `gc`, `reindex` and `rm`: looking after a store."""

from typing import TYPE_CHECKING, Annotated

import typer

from .options import DEFAULT_STORE, StoreOption

if TYPE_CHECKING:
    from featurestore.verify import Finding

_SHOWN = 10


def verify(
    feature_sets: Annotated[
        list[str] | None, typer.Argument(help="Feature sets, by encoder or encoder@key; none for the whole store.")
    ] = None,
    *,
    deep: Annotated[bool, typer.Option("--deep", help="Read every byte and compare every checksum.")] = False,
    repair: Annotated[
        bool,
        typer.Option("--repair", help="Queue the items that are hit, so that the next extraction makes them anew."),
    ] = False,
    store: StoreOption = DEFAULT_STORE,
) -> None:
    """Look for damage: missing, cut, swapped or altered files. Says which items are hit; exits with 1 if any is.

    Example: `radfs verify --deep`
    """
    from featurestore.errors import counted
    from featurestore.featureset import find_feature_sets, open_feature_set
    from featurestore.store import open_store
    from featurestore.verify import verify as run

    opened = open_store(store)
    names = None
    if feature_sets:
        names = [n for given in feature_sets for n in ([s.name for s in find_feature_sets(opened, given)] or [given])]
        for name in names:
            open_feature_set(opened, name)
    report = run(opened, names, deep=deep, repair=repair)
    for finding in report.findings:
        _print_finding(finding)
    counts = {"feature set": report.sets, "shard": report.shards, "row": report.rows}
    looked = ", ".join([*(counted(n, noun) for noun, n in counts.items()), f"{report.bytes / 1e6:,.1f} MB"])
    depth = "every byte" if deep else "metadata, records and sizes; --deep reads every byte"
    typer.echo(f"{looked}: {counted(len(report.findings), 'finding') if report.findings else 'no findings'} ({depth})")
    if report.findings and not repair:
        typer.echo(
            "`radfs verify --repair` (with --deep, where that found it) queues the items that are hit; then run "
            "`radfs extract` again, or `radfs import` where they were imported.",
            err=True,
        )
    if any(not finding.repaired for finding in report.findings):
        raise typer.Exit(1)


def _print_finding(finding: "Finding") -> None:
    where = f"{finding.feature_set} view {finding.view} shard {finding.shard}: " if finding.shard >= 0 else ""
    typer.echo(f"{finding.kind}: {where}{finding.message}", err=True)
    if finding.items:
        more = f" and {len(finding.items) - _SHOWN} more" if len(finding.items) > _SHOWN else ""
        typer.echo(f"  items: {', '.join(finding.items[:_SHOWN])}{more}", err=True)
    if finding.repaired:
        typer.echo(f"  {finding.repaired}", err=True)


def gc(
    *,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would be removed.")] = False,
    store: StoreOption = DEFAULT_STORE,
) -> None:
    """Remove what killed processes left behind, and shards none of whose rows counts any more.

    What a live process is writing is not touched.

    Example: `radfs gc --dry-run`
    """
    from featurestore.errors import counted
    from featurestore.gc import collect
    from featurestore.store import open_store

    opened = open_store(store)
    report = collect(opened, dry_run=dry_run)
    for leftover in report.removed:
        name = str(leftover.path).removeprefix(f"{opened.root}/")
        typer.echo(f"{leftover.bytes:>12,}  {name}: {leftover.why}")
    verb = "would be removed" if dry_run else "removed"
    typer.echo(f"{counted(len(report.removed), 'leftover')}, {report.bytes / 1e6:,.1f} MB {verb}")


def reindex(*, store: StoreOption = DEFAULT_STORE) -> None:
    """Make the catalog anew from the truth files, results included. It is a cache: nothing else changes.

    Example: `radfs reindex`
    """
    from featurestore.store import open_store
    from heads.catalog import open_catalog

    catalog = open_catalog(open_store(store))
    catalog.rebuild()
    names = [table.name for table in catalog.tables]
    counts = [catalog.query(f'SELECT count(*) AS n FROM "{name}"')["n"][0] for name in names]
    typer.echo("catalog made anew: " + ", ".join(f"{n:,} {name}" for name, n in zip(names, counts, strict=True)))


def rm(
    *,
    features: Annotated[
        list[str] | None, typer.Option("--features", help="A feature set, encoder@key (may be repeated).")
    ] = None,
    cohort: Annotated[
        list[str] | None, typer.Option("--cohort", help="A cohort (may be repeated); its items and results stay.")
    ] = None,
    texts: Annotated[
        list[str] | None,
        typer.Option("--texts", help="The report texts of a dataset (may be repeated); their tokens stay usable."),
    ] = None,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    store: StoreOption = DEFAULT_STORE,
) -> None:
    """Take feature sets, cohorts, or the texts of reports out of the store. Asks before it removes anything.

    Example: `radfs rm --texts mimic-cxr`
    """
    from cohorts import list_cohorts
    from cohorts.removal import remove_cohort
    from featurestore.errors import DataError, counted, unknown_name
    from featurestore.featureset import open_feature_set
    from featurestore.items import count_shared_texts, list_datasets, remove_texts
    from featurestore.removal import remove_feature_set
    from featurestore.store import open_store

    if not (features or cohort or texts):
        raise DataError("nothing to remove: name --features, --cohort or --texts.")
    opened = open_store(store)
    sets = [open_feature_set(opened, name) for name in features or []]
    for kind, given, known in (
        ("cohort", cohort, list_cohorts(opened)),
        ("dataset", texts, list_datasets(opened)),
    ):
        for name in given or []:
            if name not in known:
                raise unknown_name(kind, name, known)
    for line in [
        *[f"feature set {s.name} with all of its tokens" for s in sets],
        *[f"cohort {name}: its samples, labels and splits" for name in cohort or []],
        *[
            f"the report texts of dataset {name}: no other text encoder can embed them after that"
            for name in texts or []
        ],
    ]:
        typer.echo(f"to be removed: {line}")
    if not yes:
        typer.confirm("This cannot be undone. Remove?", abort=True)
    for feature_set in sets:
        remove_feature_set(feature_set)
    for name in cohort or []:
        remove_cohort(opened, name)
    for name in texts or []:
        removed = counted(remove_texts(opened, name), "text")
        typer.echo(f"{removed} of {name} removed; building a cohort of it brings them back")
        for other, count in count_shared_texts(opened, name).items():
            typer.echo(f"{counted(count, 'report')} of dataset {other} have such a text too: radfs rm --texts {other}")
