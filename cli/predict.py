"""`radfs predict`: what a kept head says about images."""

from pathlib import Path
from typing import Annotated

import typer

from .options import DEFAULT_STORE, CsvOption, JsonOption, StoreOption, WeightsOption

_SHOWN = 10


def predict(
    run: Annotated[str, typer.Option("--run", help="A run of `radfs train --keep-heads` that reads images alone.")],
    *,
    images: Annotated[Path | None, typer.Option("--images", help="A folder of image files.")] = None,
    cohort: Annotated[str | None, typer.Option("--cohort", help="A cohort, from its tokens in the store.")] = None,
    out: Annotated[Path | None, typer.Option("--out", help="Write CSV to this file in place of printing.")] = None,
    csv: CsvOption = False,
    as_json: JsonOption = False,
    weights: WeightsOption = None,
    device: Annotated[str, typer.Option(help="Of the encoder: auto, cpu or cuda.")] = "auto",
    store: StoreOption = DEFAULT_STORE,
) -> None:
    """Apply a trained head to images: files, or a cohort of the store. Not for clinical use.

    Of a cohort, the column `part` says which images the head was trained on: no metric may count those.

    Example: `radfs predict --run 0123456789abcdef --images folder --out predictions.csv`
    """
    from featurestore.errors import DataError
    from featurestore.store import open_store

    from .output import print_frame

    if (images is None) == (cohort is None):
        raise DataError("name either a folder with --images or a cohort with --cohort.")
    if out is not None and not out.absolute().parent.is_dir():
        raise DataError(f"cannot write {out}: there is no folder {out.absolute().parent}.")
    opened = open_store(store)

    from heads.predict import image_files, predict_cohort, predict_files  # loads torch

    if images is not None:
        _, others = image_files(images)
        if others:
            more = f", and {len(others) - _SHOWN} more" if len(others) > _SHOWN else ""
            names = ", ".join(str(path.relative_to(images)) for path in others[:_SHOWN])
            typer.echo(f"{len(others)} files are no images and are passed over: {names}{more}", err=True)
        found = predict_files(opened, run, images, weights=weights, device=device)
    else:
        found = predict_cohort(opened, run, str(cohort))
    failed = found.filter(found["failure"].is_not_null())
    if out is None:
        print_frame(found, csv=csv, as_json=as_json)
    else:
        found.write_csv(out)
        n = len(found) - len(failed)
        typer.echo(f"{n} prediction{'' if n == 1 else 's'} -> {out}")
    if len(failed):
        typer.echo(f"{len(failed)} failed:", err=True)
        for name, *_, reason in failed.head(_SHOWN).iter_rows():
            typer.echo(f"  {name}: {reason}", err=True)
        if len(failed) > _SHOWN:
            typer.echo(f"  and {len(failed) - _SHOWN} more: see the column `failure`", err=True)
    if len(failed) == len(found):
        raise typer.Exit(1)
    if cohort is not None and (seen := found.filter(found["part"] == "train").height):
        note = f"{seen} of them are training samples of this run (column `part`): leave them out of any metric"
        typer.echo(note, err=True)
