"""`radfs backbones`: which encoders there are, and what each one's tokens are."""

import textwrap
from typing import TYPE_CHECKING, Annotated

import typer

from .once import App
from .options import VariantOption, parse_variants

if TYPE_CHECKING:
    from featurestore.encoders import EncoderSpec

app = App(invoke_without_command=True, help="List the encoders, or show one.")


@app.callback()
def backbones(context: typer.Context) -> None:
    """List the encoders: modality, tokens, bytes an item, licence, whether their weights are here.

    Beyond these, `--backbone` takes timm:NAME, hf:ORG/MODEL, open_clip:NAME (or NAME/text, its text tower)
    and file:FILE.py:FUNCTION.

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
        cls = "+CLS" if spec.tokens.has_cls else ""
        n_bytes = (grid[0] * grid[1] + spec.tokens.has_cls if grid else 1) * dim * 2
        rows.append(
            {
                "name": spec.name,
                "modality": spec.modality,
                "tokens": f"{grid[0]}x{grid[1]}{cls}" if grid else f"up to {spec.context_length}",
                "dim": dim,
                "bytes": f"{n_bytes:,} {'an image' if grid else 'a token'}",
                "licence": spec.licence + (" (!)" if spec.terms else ""),
                "weights": "here" if is_available(spec) else "missing",
            }
        )
    print_frame(pl.DataFrame(rows))


@app.command("show")
def show(name: Annotated[str, typer.Argument(help="Name of an encoder.")], *, variant: VariantOption = None) -> None:
    """Print one encoder's whole contract: tokens, layer, preprocessing, variants, weights, licence.

    Example: `radfs backbones show mrm`
    """
    import json

    from featurestore.encoders import resolve, weights_sha256
    from featurestore.errors import DataError

    spec = resolve(name, variant=parse_variants(variant))
    typer.echo(f"{spec.name}: {spec.describe()}")
    for label, text in _contract(spec):
        typer.echo(textwrap.fill(f"{label}: {text}", 110, subsequent_indent="    "))
    try:
        sha256 = weights_sha256(spec)
    except DataError as error:
        typer.echo(f"weights: missing. {error}")
        sha256 = "(missing)"
    else:
        typer.echo("weights: here")
    typer.echo("what of the encoder changes numbers, and so is in the key of its feature sets:")
    typer.echo(json.dumps(spec.key_config(sha256), indent=1))


def _contract(spec: "EncoderSpec") -> list[tuple[str, str]]:
    """(label, text) of what a reader should know before the bare numbers."""
    lines = [("network", f"{spec.architecture}"), ("objective", spec.objective)]
    lines.append(("pre-trained on", ", ".join(spec.pretraining) or "nothing"))
    lines.append(("licence", f"{spec.licence}. {spec.terms}".rstrip(". ")))
    for variant in spec.variants:
        taken = dict(spec.chosen).get(variant.axis, variant.default)
        choices = ", ".join(f"{choice} (taken)" if choice == taken else choice for choice in variant.choices)
        lines.append((f"variant {variant.axis}", f"{choices}. Default {variant.default}: {variant.reason}"))
    return [*lines, ("notes", spec.notes)] if spec.notes else lines
