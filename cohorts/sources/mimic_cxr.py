"""The reports of MIMIC-CXR 2.1.0: read straight from mimic-cxr-reports.zip, or from a tree that was unpacked from it.

A report lies at files/p10/p10000032/s50414267.txt. Nothing is ever unpacked to disk.
"""

import os
import re
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path

from featurestore.errors import DataError

RELEASE = "MIMIC-CXR 2.1.0"
PAGE = "https://physionet.org/content/mimic-cxr/2.1.0/"
_ZIP = "mimic-cxr-reports.zip"
_REPORT = re.compile(r"(?<![^/])p1\d/p1\d{7}/s5\d{7}\.txt$")
_TREES = ("files", "mimic-cxr-reports/files", "mimic-cxr-reports", ".")

NO_FILE = "no report file"
UNREADABLE = "report cannot be read"
NOT_UTF8 = "report is not UTF-8 text"


class Reports:
    """The reports of a download, by patient and study."""

    def __init__(self, source: str | os.PathLike[str]) -> None:
        """Find them.

        Args:
            source: the zip, or a folder with the zip or the tree.

        Raises:
            DataError: neither is there, or the zip is truncated.
        """
        path = Path(source).expanduser().absolute()
        archive = path / _ZIP if path.is_dir() else path
        self._zip: zipfile.ZipFile | None = None
        self._prefix = ""
        if archive.is_file():
            self._zip = _open(archive)
            self._prefix = _prefix(self._zip, archive)
            return
        trees = [path / tree for tree in _TREES if any((path / tree).glob("p1[0-9]"))]
        if not trees:
            raise DataError(
                f"{RELEASE}: {path} holds neither {_ZIP} nor folders files/p10 to files/p19 with reports such as "
                f"p10/p10000032/s50414267.txt. The reports are downloaded from {PAGE}"
            )
        self._tree = trees[0]

    def read(self, studies: Sequence[tuple[str, str]]) -> Iterator[tuple[str | None, str | None]]:
        """For every (subject, study): its report and None, or None and why there is none."""
        for subject, study in studies:
            name = f"p{subject[:2]}/p{subject}/s{study}.txt"
            try:
                data = self._bytes(name)
            except (KeyError, FileNotFoundError):
                yield None, NO_FILE
                continue
            except (OSError, zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError):
                yield None, UNREADABLE
                continue
            try:
                yield data.decode("utf-8-sig").replace("\r\n", "\n"), None
            except UnicodeDecodeError:
                yield None, NOT_UTF8

    def _bytes(self, name: str) -> bytes:
        if self._zip is not None:
            return self._zip.read(self._prefix + name)
        return (self._tree / name).read_bytes()


def _open(archive: Path) -> zipfile.ZipFile:
    try:
        return zipfile.ZipFile(archive)
    except (zipfile.BadZipFile, OSError) as error:
        raise DataError(
            f"{RELEASE}: {archive} is not a whole zip file ({type(error).__name__}). Download it again from {PAGE}"
        ) from None


def _prefix(archive: zipfile.ZipFile, path: Path) -> str:
    """What stands before p10/... in the names of the zip."""
    for name in archive.namelist():
        report = _REPORT.search(name)
        if report is not None:
            return name[: report.start()]
    raise DataError(
        f"{RELEASE}: {path} holds no reports: names such as files/p10/p10000032/s50414267.txt were expected. "
        f"Download it again from {PAGE}"
    )
