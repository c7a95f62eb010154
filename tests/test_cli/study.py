"""A small table of images and reports, and a grid over the tiny encoders: what the command-line tests work on."""

from pathlib import Path

import numpy as np
from PIL import Image

GRID = """
[grid]
cohort = ["mine"]
backbone = ["tiny"]
text_encoder = ["tiny-text"]
method = ["image", "text"]
fraction = [0.5, 1.0]
seed = 2
[train]
epochs = 2
"""

BUILD = (
    *("cohort", "build", "table", "mine", "--records", "records.csv", "--image-col", "file", "--text-col", "report"),
    *("--label-col", "finding", "--subject-col", "patient_id"),
)


def write_study(folder: Path, *, patients: int = 24) -> None:
    """records.csv, images/ and grid.toml: two images a patient, brighter and differently worded where positive."""
    (folder / "images").mkdir()
    lines = ["file,report,finding,patient_id"]
    for i in range(2 * patients):
        positive = (i // 2) % 2
        noise = np.random.default_rng(i).integers(0, 100, (48, 48)) + 120 * positive
        name = f"images/{i:04d}.png"
        Image.fromarray(noise.astype(np.uint8)).save(folder / name)
        report = "small left effusion" if positive else "clear lungs"
        lines.append(f"{name},{report} {i % 5},{'yes' if positive else 'no'},p{i // 2:02d}")
    (folder / "records.csv").write_text("\n".join(lines) + "\n")
    (folder / "grid.toml").write_text(GRID)
