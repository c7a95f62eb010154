"""`radfs recode`: keep a feature set in another precision."""

from typing import Annotated

import typer

from .options import DEFAULT_STORE, StoreOption


def recode(
    feature_set: Annotated[str, typer.Argument(help="The feature set: encoder@key, or the encoder if it has but one.")],
    *,
    preset: Annotated[str, typer.Option(help="float16, bfloat16, float32, int8 or archive.")],
    store: StoreOption = DEFAULT_STORE,
) -> None:
    """Write a feature set anew with another preset, beside the old one. docs/format.md says which is for what.

    Example: `radfs recode efficientnet-lite0 --preset int8`
    """
    from featurestore.featureset import find_one_feature_set
    from featurestore.recode import recode as run
    from featurestore.store import open_store

    from .output import progress_bar

    opened = open_store(store)
    source = find_one_feature_set(opened, feature_set)
    with progress_bar(f"recode {source.name}", "rows") as tell:
        report = run(opened, source, preset, on_progress=tell)
    typer.echo(f"{report.target}: {report.written} rows written, {report.already} there already")
    share = report.target_bytes / report.source_bytes if report.source_bytes else 1.0
    typer.echo(f"{report.source_bytes / 1e6:,.1f} MB -> {report.target_bytes / 1e6:,.1f} MB ({share:.0%})")
    if report.is_exact:
        typer.echo(f"to remove the old one: radfs rm --features {report.source}")
    else:
        typer.echo(f"keep {report.source}: items that come later are recoded from it, and its numbers are finer")
