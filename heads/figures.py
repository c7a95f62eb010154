"""Figures of results as files: one call from rows of the catalog to a picture. No torch, no store.

learning_curves(open_catalog(store).query("SELECT * FROM summary"), "curves.png")
"""

import os
from pathlib import Path

import polars as pl

from .charts import curves, save_chart
from .charts.save import check_format


def learning_curves(summary: pl.DataFrame, path: str | os.PathLike[str]) -> None:
    """Draw mean test AUROC against the number of training samples, with 95% intervals: a panel a cohort.

    Args:
        summary: rows of the view `summary`, all or some.
        path: where to write the picture; its suffix says the format (.svg, .png, .pdf, .html).

    Raises:
        DataError: no rows, or another suffix.
    """
    check_format(Path(path))
    save_chart(curves(summary), path)
