"""Where a phantom tree may be written: never over a folder that is there, for that may be somebody's real download."""

from collections.abc import Sequence
from pathlib import Path

from featurestore.errors import DataError


def refuse_existing(folder: Path, parts: Sequence[str]) -> None:
    """Raise DataError if one of the tree's folders is there."""
    for path in (folder / part for part in parts):
        if path.exists():
            raise DataError(f"{path} is there already, and a phantom tree writes over nothing: name another folder.")
