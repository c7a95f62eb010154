"""`radfs weights`: get, check and list the encoders' weights."""

from pathlib import Path
from typing import Annotated

import typer

from .once import App

app = App(no_args_is_help=True, help="Get, check and list the encoders' weights.")

NameArgument = Annotated[str, typer.Argument(help="Name of an encoder; see `radfs backbones`.")]
Sha256Option = Annotated[
    str | None, typer.Option(help="What the file's sha256 must be, if you know it.", show_default="none")
]


@app.command("fetch")
def fetch(
    name: NameArgument,
    *,
    sha256: Sha256Option = None,
    revision: Annotated[
        str | None,
        typer.Option(
            help="Commit, tag or branch on the hub, such as the commit that `radfs weights list` shows elsewhere.",
            show_default="the encoder's",
        ),
    ] = None,
    yes: Annotated[bool, typer.Option("--yes", help="Accept the licence without being asked.")] = False,
) -> None:
    """Fetch an encoder's weights from the Hugging Face hub, check their layout and note them down.

    Example: `radfs weights fetch rad-dino`
    """
    from featurestore.encoders import get_spec
    from featurestore.encoders.foreign import is_foreign
    from featurestore.encoders.hub import fetch_foreign, fetch_weights

    if is_foreign(name):
        found, path = fetch_foreign(name, revision=revision)
        typer.echo(f"{name}: {found.describe()}")
        typer.echo(f"licence: {found.licence}. Its files lie in {path}")
        return
    spec = get_spec(name)
    typer.echo(f"licence: {spec.licence}")
    if spec.terms:
        typer.echo(spec.terms)
        if not yes and not typer.confirm("Go on?"):
            raise typer.Exit(1)
    _say(*fetch_weights(spec, sha256=sha256, revision=revision))


@app.command("add")
def add(
    name: NameArgument,
    path: Annotated[Path, typer.Argument(help="The file, or a folder with all files of the encoder.")],
    *,
    sha256: Sha256Option = None,
) -> None:
    """Check a weights file that you have, and use it from now on. The file stays where it is.

    Example: `radfs weights add mrm MRM.pth`
    """
    from featurestore.encoders import get_spec
    from featurestore.encoders.hub import add_weights

    spec = get_spec(name)
    _say(*add_weights(spec, path, sha256=sha256))
    if spec.terms:
        typer.echo(f"licence: {spec.licence}. {spec.terms}")


@app.command("list")
def list_() -> None:
    """List which weights are here, where they came from (of the hub with the commit), and their sha256.

    `radfs weights fetch NAME --revision COMMIT` gets the same files on another machine.

    Example: `radfs weights list`
    """
    import polars as pl

    from featurestore.encoders import list_specs
    from featurestore.encoders.sources import HubWeights, SeededWeights
    from featurestore.encoders.weights import hub_origin, locate, read_note

    from .output import print_frame

    ways = {"hub": "weights fetch", "page": "backbones show", "pypi": "backbones show"}
    rows = []
    for spec in list_specs():
        if isinstance(spec.weights, SeededWeights):
            continue
        files, note = locate(spec), read_note(spec.name)
        here = files is not None
        origin = note.origin if note else "package"
        if not note and files and isinstance(spec.weights, HubWeights):
            origin = hub_origin(spec.weights, files[0])
        row = {
            "name": spec.name,
            "weights": "here" if here else ("gone" if note else "missing"),
            "from": origin if here or note else f"radfs {ways[spec.weights.kind]} {spec.name}",
            "sha256": note.sha256[0][:16] if note else "",
        }
        rows.append(row)
    print_frame(pl.DataFrame(rows))


@app.command("selfcheck")
def selfcheck(name: NameArgument, *, device: Annotated[str, typer.Option(help="auto, cpu or cuda.")] = "auto") -> None:
    """Load an encoder and look at its tokens of a drawn chest, or of two short reports. Exit code 1 if all is not well.

    Example: `radfs weights selfcheck minilm`
    """
    from featurestore.encoders import get_spec
    from featurestore.encoders.selfcheck import selfcheck as check
    from featurestore.extract import resolve_device

    checks = check(get_spec(name), device=resolve_device(device))
    for one in checks:
        typer.echo(f"{'ok' if one.passed else 'FAIL':4}  {one.name}: {one.seen}")
    if all(one.passed for one in checks):
        typer.echo("The fingerprint is the same wherever weights and code are: compare it with a colleague's.")
        return
    typer.echo(
        f"These are not the tokens of a trained network. Compare the sha256 with a colleague's; fetch the file again "
        f"(`radfs backbones show {name}` says from where); if it stays so, report it with the lines above.",
        err=True,
    )
    raise typer.Exit(1)


@app.command("convert")
def convert(
    path: Annotated[Path, typer.Argument(help="A torch file that holds a whole pickled network.")],
    target: Annotated[Path, typer.Argument(help="The safetensors file to write.")],
    *,
    trust: Annotated[bool, typer.Option("--trust", help="You trust whoever made the file.")] = False,
) -> None:
    """Take the tensors out of a file that must be unpickled, which RUNS CODE THAT THE FILE NAMES.

    Example: `radfs weights convert --trust densenet.pt densenet.safetensors`
    """
    from featurestore.encoders.convert import convert_weights
    from featurestore.errors import DataError

    typer.echo(
        f"{path} will be unpickled: Python runs whatever it says, with your rights. Its tensors go to {target} as "
        "safetensors, which can hold no code."
    )
    if not trust:
        raise DataError("nothing was done: say --trust if you trust whoever made the file.")
    count = convert_weights(path, target)
    typer.echo(f"{count} tensors written to {target}. `radfs weights add NAME {target}` checks their layout.")


def _say(note: object, remarks: list[str]) -> None:
    from featurestore.encoders.weights import WeightsNote

    assert isinstance(note, WeightsNote)
    for path, digest in zip(note.paths, note.sha256, strict=True):
        typer.echo(f"{path}  sha256 {digest}")
    typer.echo(f"weights of {note.encoder} ({note.origin}): layout right, noted down.")
    for remark in remarks:
        typer.echo(f"note: {remark}")
    typer.echo(f"Try them: radfs weights selfcheck {note.encoder}")
