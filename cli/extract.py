"""`radfs extract`: embed images or reports with one encoder."""

from typing import TYPE_CHECKING, Annotated

import typer

from .options import DEFAULT_STORE, StoreOption, VariantOption, WeightsOption, parse_variants

if TYPE_CHECKING:
    from featurestore.extract import ExtractReport

_SHOWN = 10


def extract(
    backbone: Annotated[str, typer.Option("--backbone", help="Encoder of images or of texts; see `radfs backbones`.")],
    *,
    cohort: Annotated[
        list[str] | None, typer.Option("--cohort", help="Only the items of this cohort (may be repeated).")
    ] = None,
    weights: WeightsOption = None,
    variant: VariantOption = None,
    preset: Annotated[
        str, typer.Option(help="How tokens are kept: float16, bfloat16, float32, int8 or archive; a set each.")
    ] = "float16",
    store: StoreOption = DEFAULT_STORE,
    retry_failed: Annotated[
        bool, typer.Option("--retry-failed", help="Try items again that failed and have not changed since.")
    ] = False,
    device: Annotated[str, typer.Option(help="auto, cpu or cuda.")] = "auto",
    batch_size: Annotated[int, typer.Option(min=1, help="Items a forward pass.")] = 32,
    workers: Annotated[int | None, typer.Option(min=1, help="Threads that decode.", show_default="one a core")] = None,
) -> None:
    """Embed what is missing with one encoder. Running it again does only what is missing.

    Without --cohort, every item of the encoder's modality in the store.

    Example: `radfs extract --backbone efficientnet-lite0`
    """
    from cohorts import cohort_items
    from featurestore.encoders import resolve
    from featurestore.store import open_store

    from .output import progress_bar

    opened = open_store(store)
    chosen = parse_variants(variant)
    modality = resolve(backbone, weights=weights, variant=chosen).modality
    items = None if not cohort else [item for name in cohort for item in cohort_items(opened, name, modality)]

    from featurestore.extract import extract_features  # loads torch: only once the names are known to be right

    with progress_bar(f"extract {backbone}", f"{modality}s") as tell:
        report = extract_features(
            opened,
            backbone,
            weights=weights,
            variant=chosen,
            items=items,
            preset=preset,
            retry_failed=retry_failed,
            device=device,
            batch_size=batch_size,
            workers=workers,
            on_progress=tell,
        )
    print_report(report)


def print_report(report: "ExtractReport") -> None:
    """Say what an extraction did; failures by id."""
    done = f"{report.feature_set}: {report.extracted} new, {report.already} there already, of {report.asked}"
    typer.echo(f"{done} ({report.seconds:.1f} s)")
    if report.resumed:
        typer.echo(f"{report.resumed} more were finished on the way: an interrupted run had begun them.")
    if report.elsewhere:
        typer.echo(f"{report.elsewhere} were made by other processes meanwhile.")
    if report.truncated:
        typer.echo(f"{report.truncated} reports were longer than the context length and were cut.")
    if report.failed:
        typer.echo(f"{len(report.failed)} failed; they are in the table `failures`:", err=True)
        for item, reason in list(report.failed.items())[:_SHOWN]:
            typer.echo(f"  {item}: {reason}", err=True)
        if len(report.failed) > _SHOWN:
            typer.echo(f"  and {len(report.failed) - _SHOWN} more", err=True)
    if report.known_failures:
        typer.echo(
            f"{report.known_failures} failed before and have not changed since; --retry-failed tries them again.",
            err=True,
        )
