"""`radfs extract`: embed images and reports with one encoder or with many."""

from typing import TYPE_CHECKING, Annotated

import typer

from .options import (
    DEFAULT_STORE,
    LongTextOption,
    PrecisionOption,
    StoreOption,
    VariantOption,
    WeightsOption,
    parse_variants,
)

if TYPE_CHECKING:
    from featurestore.extract import ExtractReport

_SHOWN = 10


def extract(
    backbone: Annotated[
        str,
        typer.Option(
            "--backbone", help="Encoder of images or of texts (`radfs backbones`), several with commas between, or all."
        ),
    ],
    *,
    cohort: Annotated[
        list[str] | None, typer.Option("--cohort", help="Only the items of this cohort (may be repeated).")
    ] = None,
    views: Annotated[int, typer.Option(min=0, help="Augmented views of each image, beside the clean one.")] = 0,
    weights: WeightsOption = None,
    variant: VariantOption = None,
    precision: PrecisionOption = "float32",
    long_text: LongTextOption = "truncate",
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
    """Embed what is missing. Running it again does only what is missing.

    Images go through all encoders in one pass: each file is decoded once. Without --cohort, every item of the
    encoders' modalities in the store.

    Example: `radfs extract --backbone efficientnet-lite0,minilm --views 2`
    """
    from cohorts import cohort_items
    from featurestore.extract import choose_encoders, extract_many
    from featurestore.store import open_store

    from .output import progress_bar

    opened = open_store(store)
    chosen = parse_variants(variant)
    specs, left_out = choose_encoders(
        opened, backbone, weights=weights, variant=chosen, precision=precision, long_text=long_text
    )
    for reason in dict.fromkeys(left_out.values()):
        names = [name for name, why in left_out.items() if why == reason]
        typer.echo(f"left out, {reason}: {', '.join(names)}", err=True)
    for spec in specs:
        if spec.terms:
            typer.echo(f"licence of {spec.name}: {spec.licence}. {spec.terms}", err=True)
        if spec.caution:
            typer.echo(f"{spec.name} in {spec.precision}: {spec.caution}.", err=True)
    modalities = dict.fromkeys(spec.modality for spec in specs)
    items = {m: [item for name in cohort or () for item in cohort_items(opened, name, m)] for m in modalities}
    unit = f"{next(iter(modalities))}s" if len(specs) == 1 and not views else "rows"
    with progress_bar(f"extract {backbone}", unit) as tell:
        reports = extract_many(
            opened,
            specs,
            views=views,
            items=items if cohort else None,
            preset=preset,
            retry_failed=retry_failed,
            device=device,
            batch_size=batch_size,
            workers=workers,
            on_progress=tell,
        )
    for report in reports:
        print_report(report)


def print_report(report: "ExtractReport") -> None:
    """Say what an extraction did; failures by id."""
    done = f"{report.feature_set}: {report.extracted} new, {report.already} there already, of {report.asked}"
    each = f", {report.views + 1} views an image" if report.views else ""
    typer.echo(f"{done}{each} ({report.seconds:.1f} s)")
    if report.resumed:
        typer.echo(f"{report.resumed} more were finished on the way: an interrupted run had begun them.")
    if report.elsewhere:
        typer.echo(f"{report.elsewhere} were made by other processes meanwhile.")
    if report.truncated:
        typer.echo(f"{report.truncated} reports were too long, and their ends were cut off.")
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
