"""`radfs backbones`: which encoders there are, and what each one's tokens are."""

from typing import Annotated

import typer

app = typer.Typer(invoke_without_command=True, help="List the encoders, or show one.")


@app.callback()
def backbones(context: typer.Context) -> None:
    """List the encoders: modality, tokens, bytes an item, licence, whether their weights are here.

    Example: `radfs backbones`
    """
    if context.invoked_subcommand is not None:
        return
    import polars as pl

    from featurestore.encoders import is_available, list_specs

    from .output import print_frame

    rows = []
    for spec in list_specs():
        grid, dim = spec.tokens.grid, spec.tokens.dim
        tokens = f"{grid[0]}x{grid[1]}" if grid else f"up to {spec.context_length}"
        n_bytes = (grid[0] * grid[1] if grid else 1) * dim * 2
        rows.append(
            {
                "name": spec.name,
                "modality": spec.modality,
                "tokens": tokens,
                "dim": dim,
                "bytes": f"{n_bytes:,} an image" if grid else f"{n_bytes:,} a token",
                "licence": spec.licence,
                "weights": "here" if is_available(spec) else "missing",
            }
        )
    print_frame(pl.DataFrame(rows))


@app.command("show")
def show(name: Annotated[str, typer.Argument(help="Name of an encoder.")]) -> None:
    """Print one encoder's whole contract: tokens, layer, preprocessing, weights, licence.

    Example: `radfs backbones show minilm`
    """
    import json

    from featurestore.encoders import get_spec, weights_sha256
    from featurestore.errors import DataError

    spec = get_spec(name)
    typer.echo(f"{spec.name}: {spec.describe()}")
    typer.echo(f"licence: {spec.licence}; pre-trained on: {', '.join(spec.pretraining) or 'nothing'}")
    try:
        sha256 = weights_sha256(spec)
    except DataError as error:
        typer.echo(f"weights: missing. {error}")
    else:
        typer.echo("weights: here; what of the encoder changes numbers, and so is in the key of its feature sets:")
        typer.echo(json.dumps(spec.key_config(sha256), indent=1))
