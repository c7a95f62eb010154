"""`radfs demo`: the main job end to end, on a made-up cohort and the encoders that ship with radfs[demo]."""

from pathlib import Path
from typing import Annotated

import typer

GRID = {
    "cohort": "phantom",
    "backbone": "efficientnet-lite0",
    "text_encoder": "minilm",
    "method": ["image", "text"],
    "fraction": [0.1, 0.3, 1.0],
    "seed": 5,
    "epochs": 20,
}


def demo(
    *,
    out: Annotated[Path, typer.Option(help="Folder for the store and the picture.")] = Path("radfs-demo"),
    subjects: Annotated[int, typer.Option(min=50, help="Subjects of the phantom cohort.")] = 600,
) -> None:
    """Phantom cohort -> token embeddings -> trained heads -> summary table -> learning curves.

    Takes a few minutes on two CPU cores, downloads nothing, and leaves a store to explore.

    Example: `radfs demo`
    """
    from cohorts import build_phantom
    from featurestore.errors import DataError
    from featurestore.store import open_store

    from . import extract as extract_command
    from . import train as train_command
    from .output import print_frame, progress_bar

    store = open_store(out / "store", create=True)
    _step(1, f"a phantom cohort of {subjects} subjects: drawn radiographs, reports, a prognosis to predict")
    try:
        built = build_phantom(store, "phantom", subjects=subjects, seed=0)
    except DataError as error:
        raise DataError(f"{out} holds a demo with other settings: name another folder with --out.") from error
    for line in built.lines():
        typer.echo(line)

    from featurestore.extract import extract_features

    for number, encoder in ((2, GRID["backbone"]), (3, GRID["text_encoder"])):
        _step(number, f"token embeddings of {encoder}, kept in Zarr")
        with progress_bar(f"extract {encoder}", "items") as tell:
            report = extract_features(store, str(encoder), on_progress=tell)
        extract_command.print_report(report)

    from heads.grid import Grid

    _step(4, "attention heads: image and text, 3 training sizes, 5 seeds")
    train_command.run_grid(store, Grid(**GRID))

    from heads.catalog import open_catalog
    from heads.figures import learning_curves

    _step(5, "the results, by SQL")
    catalog = open_catalog(store)
    catalog.fold()
    print_frame(catalog.query(_SUMMARY))
    picture = out / "learning_curves.png"
    learning_curves(catalog.query("SELECT * FROM summary"), picture)
    typer.echo(f"\nlearning curves: {picture}")
    _step(
        6, "the paper's cohorts, by their real builders, from miniature MIMIC and INSPECT downloads of made-up patients"
    )
    _build_tasks(out / "practice")
    question = "SELECT method, fraction, seed, auroc, auroc_best FROM results ORDER BY ALL"
    typer.echo(f'next: radfs query --store {out / "store"} "{question}"')


def _build_tasks(folder: Path) -> None:
    """Write the downloads, build the six cohorts in a store of their own, and show where their rows went."""
    import polars as pl

    from cohorts import load_flow
    from cohorts.practice import build_practice
    from featurestore.store import open_store

    from .output import print_frame

    store, rows = open_store(folder.with_name("practice-store"), create=True), []
    for task, report in build_practice(store, folder).items():
        n_rows = report.flow[0].n_before
        steps = f"{n_rows - report.n_samples:,} in {len(report.excluded)} steps"
        n = {"samples": report.n_samples, "subjects": report.n_subjects}
        rows.append({"cohort": task, "rows": n_rows, "left_out": steps, **n})
    print_frame(pl.DataFrame(rows))
    typer.echo("")
    print_frame(load_flow(store, "mimic-discharge-3d").drop("position"))


_SUMMARY = """
    SELECT method, fraction, n_train, n_seeds, auroc_mean, auroc_sd, auroc_ci_low, auroc_ci_high
    FROM summary WHERE cohort = 'phantom' ORDER BY method, fraction"""


def _step(number: int, what: str) -> None:
    typer.echo(f"\n[{number}/6] {what}")
