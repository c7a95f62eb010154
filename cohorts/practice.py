"""The paper's six cohorts, by their real builders, from miniature downloads of made-up patients.

reports = build_practice(store, "practice")
"""

import os
import shutil
from importlib import import_module
from pathlib import Path

from featurestore.store import Store

from .build import BuildReport
from .paper import PAPER_TASKS
from .phantom_inspect import PARTS as INSPECT
from .phantom_inspect import InspectTree, write_inspect_tree
from .phantom_mimic import PARTS as MIMIC
from .phantom_mimic import MimicTree, write_mimic_tree

_PER_CLASS = 5
"""Of the 5x1200 cohort, whose miniature is a 5x5."""


def build_practice(store: Store, folder: str | os.PathLike[str], *, image_px: int = 128) -> dict[str, BuildReport]:
    """Write the downloads into a folder, unless they are there, and build a cohort of every task under its own name.

    Args:
        store: an open store.
        folder: for the downloads.
        image_px: height and width of the images.

    Raises:
        DataError: what the builders refuse.
    """
    folder = Path(folder)
    if not folder.exists():
        partial = folder.with_name(f"{folder.name}.partial")  # of a call that was stopped
        shutil.rmtree(partial, ignore_errors=True)
        write_mimic_tree(partial, image_px=image_px)
        write_inspect_tree(partial, image_px=image_px)
        partial.rename(folder)
    mimic = MimicTree(*(folder / part for part in MIMIC))
    inspect = InspectTree(*(folder / part for part in INSPECT))
    sources = {
        "mimic": {"mimic_cxr_jpg": mimic.jpg, "mimic_cxr": mimic.reports, "mimic_iv": mimic.iv},
        "inspect": {"inspect": inspect.tables, "radiographs": inspect.radiographs},
    }
    return {task: _build(store, task, sources[task.partition("-")[0]]) for task in PAPER_TASKS}


def _build(store: Store, task: str, folders: dict[str, Path]) -> BuildReport:
    from . import COHORT_BUILDERS

    module, function = COHORT_BUILDERS[task].split(":")
    size = {"per_class": _PER_CLASS} if task == "mimic-5x1200" else {}
    return getattr(import_module(module), function)(store, **folders, **size)
