"""OpenI (Indiana University; Demner-Fushman et al., 2016): 3,955 reports with MeSH labels, one study a patient.

Reports and labels ship inside the PyPI package torchxrayvision; images are the user's own download (NLMCXR_png).
"""

import importlib.util
import io
import tarfile
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import polars as pl

from featurestore.errors import DataError
from featurestore.store import Store

from ..build import BuildReport
from .source import PublicSource, distinct, has_any

_ARCHIVE = "NLMCXR_reports.tgz"
_MAX_REPORT_BYTES = 1_000_000


def packaged_reports() -> Path:
    """The archive of reports inside the package torchxrayvision, which is found but not imported.

    Raises:
        DataError: the package is not installed.
    """
    spec = importlib.util.find_spec("torchxrayvision")
    if spec is None or spec.origin is None:
        raise DataError(
            "the reports of OpenI ship inside the package torchxrayvision, which is not installed. Run: pip install "
            f"--no-deps torchxrayvision. Or name the archive {_ARCHIVE} with --table."
        )
    return Path(spec.origin).parent / "data" / _ARCHIVE


def _read(archive: Path) -> pl.DataFrame:
    """One row a report: uid, findings, impression, terms (major MeSH), first image."""
    rows = []
    try:
        with tarfile.open(archive) as files:
            for member in files:
                if member.isfile() and member.name.endswith(".xml") and member.size <= _MAX_REPORT_BYTES:
                    data = files.extractfile(member)
                    assert data is not None
                    rows.append(_report(Path(member.name).stem, data.read()))
    except (OSError, EOFError, tarfile.TarError) as error:
        raise DataError(f"reports {archive} cannot be read ({type(error).__name__}).") from None
    rows.sort(key=lambda row: row["uid"])
    schema = {"uid": pl.String, "findings": pl.String, "impression": pl.String, "terms": pl.List(pl.String)}
    return pl.DataFrame(rows, schema={**schema, "image": pl.String}, orient="row")


def _report(stem: str, data: bytes) -> dict[str, Any]:
    """One report; of one that is no XML the number alone, so that it is left out by id (its label is left open)."""
    unread = dict.fromkeys(("findings", "impression", "terms", "image")) | {"uid": f"CXR{stem}"}
    if b"<!DOCTYPE" in data or b"<!ENTITY" in data:  # none of OpenI's has one, and entities could swell without end
        return unread
    try:
        tree = ElementTree.fromstring(data)
    except ElementTree.ParseError:
        return unread
    sections = {node.get("Label"): (node.text or "").strip() for node in tree.iter("AbstractText")}
    identity, image = tree.find("uId"), tree.find("parentImage")
    return {
        "uid": identity.get("id") if identity is not None else f"CXR{stem}",
        "findings": sections.get("FINDINGS") or None,
        "impression": sections.get("IMPRESSION") or None,
        # "Calcified Granuloma/lung/upper lobe/right": the finding comes first, where it is after.
        "terms": [(node.text or "").partition("/")[0].strip().lower() for node in tree.iter("major")] or None,
        "image": image.get("id") if image is not None else None,
    }


def _rows(source: pl.DataFrame, folder: Path) -> pl.DataFrame:
    del folder
    return source.select(
        pl.col("uid").alias("id"),
        pl.col("uid").alias("subject"),
        pl.col("uid").alias("study"),
        # The paper's text: the impression, and the findings if there are any.
        pl.concat_str("impression", "findings", separator="\n", ignore_nulls=True).replace("", None).alias("text"),
        "image",
        *(pl.lit(None, pl.String).alias(name) for name in ("sex", "age", "view", "source_split")),
        pl.col("terms").alias("findings"),
    )


def _label(_frame: pl.DataFrame, label: str) -> pl.Expr:
    if label != "abnormal":
        return has_any(pl.col("findings"), label)
    normal = pl.col("findings").list.contains("normal")
    return pl.when(normal).then(pl.lit("absent")).when(normal.is_not_null()).then(pl.lit("present"))


SOURCE = PublicSource(
    name="openi",
    licence="CC BY-NC-ND 4.0 (Indiana University)",
    page="https://openi.nlm.nih.gov/faq",
    tables=(_ARCHIVE,),
    columns=("uid",),
    default_label="abnormal",
    rows=_rows,
    label=_label,
    labels=lambda frame: ["abnormal", *distinct(frame["findings"])],
    read=_read,
)


def build_openi(store: Store, name: str, **options: Any) -> BuildReport:
    """A cohort of OpenI; options as `PublicSource.build`, the table being the archive of reports.

    Where neither `root` holds it nor `table` names it, the one inside the package torchxrayvision is read.
    """
    root = Path(options["root"]).expanduser()
    if options.get("table") is None and not (root / _ARCHIVE).is_file():
        options["table"] = packaged_reports()
    return SOURCE.build(store, name, **options)


def example(store: Store, name: str, folder: Path) -> BuildReport:
    """The smallest real use, for the contract suite."""
    with tarfile.open(folder / _ARCHIVE, "w:gz") as files:
        for i in range(12):
            term = "normal" if i % 2 else "Cardiomegaly/mild"
            text = (
                f'<eCitation><uId id="CXR{i}"/><AbstractText Label="FINDINGS">Heart {i}.</AbstractText>'
                f'<AbstractText Label="IMPRESSION">Sign {i}.</AbstractText><MeSH><major>{term}</major></MeSH>'
                f'<parentImage id="CXR{i}_IM-0001-1001"/></eCitation>'
            )
            member = tarfile.TarInfo(f"ecgen-radiology/{i}.xml")
            member.size = len(text)
            files.addfile(member, io.BytesIO(text.encode()))
    return build_openi(store, name, root=folder)
