"""`radfs cohort drr`: radiographs from CT volumes."""

from pathlib import Path
from typing import Annotated

import typer


def drr(
    *,
    ct: Annotated[Path, typer.Option(help="Folder of CT volumes in Hounsfield units (.nii.gz, .mha, .nrrd).")],
    out: Annotated[Path, typer.Option(help="Folder of the radiographs: JPEG under the volume's own name.")],
    image_px: Annotated[int, typer.Option(help="Height and width of a radiograph.")] = 1024,
    geometry: Annotated[
        str, typer.Option(help="cone (source 1 m from the patient), chest (chest stand) or parallel (no plastimatch).")
    ] = "cone",
    detector_mm: Annotated[
        float | None, typer.Option(help="Height and width of the detector.", show_default="all of the volume")
    ] = None,
    workers: Annotated[
        int | None, typer.Option(help="Volumes side by side.", show_default="one a processor core")
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would be made, and make nothing.")] = False,
) -> None:
    """Make anterior-posterior radiographs from CT volumes, as the paper does for INSPECT. Run it again to go on.

    Example: `radfs cohort drr --ct inspect/CTPA --out inspect/radiographs`
    """
    from cohorts.drr import make_radiographs, plan_radiographs
    from cohorts.radiograph import Projection

    from .output import progress_bar

    projection = Projection(geometry=geometry, image_px=image_px, detector_mm=detector_mm)
    if dry_run:
        plan = plan_radiographs(ct, out)
        typer.echo(f"{len(plan.volumes):,} volumes, {len(plan.todo):,} radiographs to make in {out}")
        return
    with progress_bar("radiographs", "volumes") as tell:
        report = make_radiographs(ct, out, projection=projection, workers=workers, on_progress=tell)
    for line in report.lines():
        typer.echo(line)
