"""The user's cache folder: copies of what a store holds, for a store that cannot be written or is far away."""

import os
import stat
from pathlib import Path

from .errors import StoreError


def cache_folder(name: str) -> Path:
    """The folder `name` in $RADFS_CACHE, else in $XDG_CACHE_HOME/radfs, else in ~/.cache/radfs; made if need be.

    What lies in it derives from patients: it is the user's own, and nobody else may read it.

    Raises:
        StoreError: it cannot be made, or belongs to somebody else.
    """
    home = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    folder = Path(os.environ.get("RADFS_CACHE") or Path(home, "radfs")).expanduser().absolute() / name
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        found = folder.lstat()
        if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.geteuid():
            raise StoreError(f"{folder} is not a folder of yours. Name another place for caches in RADFS_CACHE.")
        folder.chmod(0o700)
    except OSError as error:
        raise StoreError(f"no cache at {folder} ({error.strerror}). Name another place in RADFS_CACHE.") from error
    return folder
