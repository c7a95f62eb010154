"""`radfs estimate`: what an extraction takes, before anything runs."""

from typing import Annotated

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


def estimate(
    backbone: Annotated[str, typer.Option("--backbone", help="Encoder; see `radfs backbones`.")],
    *,
    cohort: Annotated[
        list[str] | None, typer.Option("--cohort", help="Only the items of this cohort (may be repeated).")
    ] = None,
    items: Annotated[
        int | None, typer.Option(min=1, help="Count this many items in place of those of the store.")
    ] = None,
    weights: WeightsOption = None,
    variant: VariantOption = None,
    views: Annotated[int, typer.Option(min=0, help="Augmented views of each image, beside the clean one.")] = 0,
    precision: PrecisionOption = "float32",
    long_text: LongTextOption = "truncate",
    preset: Annotated[str, typer.Option(help="float16, bfloat16, float32, int8 or archive.")] = "float16",
    trial: Annotated[
        int, typer.Option(min=0, help="Encode this many items to measure the speed, and throw them away; 0 for none.")
    ] = 16,
    device: Annotated[str, typer.Option(help="Of the trial: auto, cpu or cuda.")] = "auto",
    store: StoreOption = DEFAULT_STORE,
) -> None:
    """Print bytes on disk, memory, number of files and hours of an extraction. Writes nothing.

    Example: `radfs estimate --backbone efficientnet-lite0`
    """
    from cohorts import cohort_items
    from featurestore.encoders import resolve
    from featurestore.store import open_store

    opened = open_store(store)
    chosen = parse_variants(variant)
    modality = resolve(backbone, weights=weights, variant=chosen).modality
    asked = None if not cohort else [item for name in cohort for item in cohort_items(opened, name, modality)]

    from featurestore.trial import estimate_extraction  # loads torch: only once the names are known to be right

    found = estimate_extraction(
        opened,
        backbone,
        weights=weights,
        variant=chosen,
        views=views,
        precision=precision,
        long_text=long_text,
        items=asked,
        count=items,
        preset=preset,
        trial=trial,
        device=device,
    )
    size = f"{found.items:,} {modality}s without tokens -> {found.shards:,} shards"
    typer.echo(f"{backbone} as {preset}: {size}")
    typer.echo(f"  disk    {_bytes(found.disk_bytes)} in {found.files:,} files")
    typer.echo(f"  memory  {_bytes(found.shard_bytes)} while extracting, beside the encoder")
    typer.echo(f"          {_bytes(found.resident_bytes)} to train from all of it at once")
    if found.seconds is not None:
        typer.echo(f"  time    {_hours(found.seconds)}, by a trial of {min(trial, found.items)} on this machine")
    free = found.free_bytes
    if free is not None:
        short = found.disk_bytes > free
        typer.echo(f"  free    {_bytes(free)} where the store lies{': not enough' if short else ''}")
        if short:
            raise typer.Exit(1)


def _bytes(number: int) -> str:
    for unit, size in (("TB", 1e12), ("GB", 1e9), ("MB", 1e6)):
        if number >= size:
            return f"{number / size:,.1f} {unit}"
    return f"{number / 1e3:,.1f} kB"


def _hours(seconds: float) -> str:
    return f"{seconds / 3600:,.1f} hours" if seconds > 3600 else f"{seconds / 60:,.1f} minutes"
