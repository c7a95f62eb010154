"""Looking for what makes a result too good: subjects, images, reports on both sides; labels that give themselves away.

    leak      the test part is known in training: results are worth nothing until it is mended
    warning   may explain a result that looks too good; look at it
    note      worth knowing beside the result

Knows a cohort in a store. Of reports it shows single words that many share, never a text.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import polars as pl

from featurestore.errors import DataError, ItemError
from featurestore.items import list_items
from featurestore.store import Store

from .audit_labels import label_findings
from .audit_seen import seen_findings
from .cohort import Cohort, load_cohort
from .finding import Finding, shown
from .lookalikes import COPY_CORRELATION, as_thumbnails, near_pairs, thumbnail
from .splits import Split

_LEVELS = ("leak", "warning", "note")


@dataclass(frozen=True)
class AuditReport:
    """What an audit found.

    Attributes:
        cohort: its name.
        key: its content key.
        seeds: the seeds whose splits were looked at.
        findings: the worst first.
    """

    cohort: str
    key: str
    seeds: tuple[int, ...]
    findings: tuple[Finding, ...]

    @property
    def leaks(self) -> bool:
        """Whether a part of the test is known in training."""
        return any(finding.level == "leak" for finding in self.findings)

    def table(self) -> pl.DataFrame:
        """One row a finding: level, check, finding, n."""
        rows = [(f.level, f.check, f.text, f.n) for f in self.findings]
        schema = {"level": pl.String, "check": pl.String, "finding": pl.String, "n": pl.Int64}
        return pl.DataFrame(rows, schema=schema, orient="row")

    def lines(self) -> list[str]:
        """The report for printing."""
        counts = Counter(finding.level for finding in self.findings)
        seeds = f"splits of seed {self.seeds[0]}" + (f" to {self.seeds[-1]}" if len(self.seeds) > 1 else "")
        words = ", ".join(f"{counts[level]} {level}{'' if counts[level] == 1 else 's'}" for level in _LEVELS)
        lines = [f"cohort {self.cohort} (key {self.key}), {seeds}: {words}"]
        for level in _LEVELS:
            found = [finding for finding in self.findings if finding.level == level]
            lines += ["", level.upper(), *(f"  {f.check}: {f.text}" for f in found)] if found else []
        return lines


def audit_cohort(
    store: Store,
    name: str,
    *,
    seeds: Sequence[int] | None = None,
    images: bool = True,
    seen: Mapping[str, Path] | None = None,
    on_progress: Callable[[int, int, int], None] | None = None,
) -> AuditReport:
    """Audit a cohort and its splits.

    Args:
        store: the store.
        name: the cohort.
        seeds: of the splits; None for those of `Cohort.usual_seeds`.
        images: whether image files are read and compared; takes about as long as reading them does.
        seen: encoder -> a table of image ids that it was pre-trained on, such as RAD-DINO's `training_images.csv`.
        on_progress: called with (images read, all, unreadable).

    Raises:
        DataError: no seeds, no such split, or a list of ids that cannot be read.
        UnknownNameError: no such cohort.
    """
    cohort = load_cohort(store, name)
    seeds = cohort.usual_seeds() if seeds is None else seeds
    if not seeds:
        raise DataError("no seeds were given: an audit needs at least one split.")
    splits = {seed: cohort.split(seed) for seed in seeds}
    parts = {seed: _part_of(split) for seed, split in splits.items()}
    findings = [*_subjects(cohort, parts), *_studies(cohort, parts), *_reports(cohort, parts)]
    if images:
        findings += _images(store, cohort, parts, on_progress)
    else:
        findings.append(Finding("note", "images", "were not compared"))
    texts = list_items(store, modality="text", only=cohort.samples["text"].drop_nulls().unique().to_list())
    findings += label_findings(cohort, splits, dict(texts.select("item", "text").iter_rows()))
    findings += seen_findings(store, cohort, splits, seen or {})
    ordered = sorted(findings, key=lambda finding: _LEVELS.index(finding.level))
    return AuditReport(name, cohort.key, tuple(seeds), tuple(ordered))


_PartOf = Mapping[str, str]
"""The part of each sample."""


def _part_of(split: Split) -> _PartOf:
    return {sample: part for part, ids in split.parts().items() for sample in ids}


def _across(groups: Iterable[Sequence[str]], parts: Mapping[int, _PartOf]) -> list[Sequence[str]]:
    """The groups of samples that stand in more than one part of some split."""
    return [group for group in groups if any(len({of[s] for s in group if s in of}) > 1 for of in parts.values())]


def _groups(cohort: Cohort, column: str) -> dict[str, list[str]]:
    """The samples of every value that several samples have."""
    frame = cohort.samples.drop_nulls(column).group_by(column, maintain_order=True).agg("sample")
    return {value: samples for value, samples in frame.iter_rows() if len(samples) > 1}


def _subjects(cohort: Cohort, parts: Mapping[int, _PartOf]) -> Iterator[Finding]:
    across = _across(_groups(cohort, "subject").values(), parts)
    if across:
        meant = {"image": "images fall one by one", "admission": "stays are kept whole, patients are not"}
        unit = cohort.scheme.unit
        why = f"{meant[unit]} (--split {unit})" if unit in meant else "the splits part them"
        yield Finding(
            "leak",
            "subjects",
            f"{len(across):,} subjects are on both sides of a split: {why}. Samples such as {shown(across[0])}",
            len(across),
        )
    elif cohort.builder == "table" and cohort.options.get("subject_col") is None:
        yield Finding(
            "warning",
            "subjects",
            "no subject column was named, so every row counts as a patient: whether patients are on both sides cannot "
            "be known. Build the cohort with --subject-col",
        )
    else:
        n = cohort.samples["subject"].n_unique()
        yield Finding("note", "subjects", f"each of the {n:,} subjects is in one part only")


def _studies(cohort: Cohort, parts: Mapping[int, _PartOf]) -> Iterator[Finding]:
    across = _across(_groups(cohort, "study").values(), parts)
    if across:
        yield Finding(
            "leak",
            "studies",
            f"{len(across):,} studies are on both sides of a split, with one report and one label: {shown(across[0])}",
            len(across),
        )


def _reports(cohort: Cohort, parts: Mapping[int, _PartOf]) -> Iterator[Finding]:
    """Reports of the same words. Of other subjects they are mostly templates ("No acute finding."), so no leak."""
    across = _across(_groups(cohort, "text_sha256").values(), parts)
    if across:
        n = sum(map(len, across))
        largest = max(across, key=len)
        yield Finding(
            "warning",
            "reports",
            f"{n:,} samples have a report that stands word for word on the other side of a split too "
            f"({len(across):,} texts, the most frequent in {len(largest):,} samples, such as {shown(largest)}): a text "
            "head may know them by heart",
            n,
        )


def _images(
    store: Store, cohort: Cohort, parts: Mapping[int, _PartOf], on_progress: Callable[[int, int, int], None] | None
) -> Iterator[Finding]:
    """Images that look alike on both sides."""
    of_image = cohort.samples.drop_nulls("image").group_by("image", maintain_order=True).agg("sample")
    samples_of = dict(of_image.iter_rows())
    items = list_items(store, modality="image", only=list(samples_of))
    paths = dict(items.select("item", "path").iter_rows())
    pictures, names, unread = [], [], []

    def look(item: str) -> object:
        try:
            return thumbnail(paths[item])
        except ItemError:
            return None

    with ThreadPoolExecutor() as readers:
        for n, (item, picture) in enumerate(zip(paths, readers.map(look, paths), strict=True), start=1):
            if picture is None:
                unread.append(item)
            else:
                names.append(item)
                pictures.append(picture)
            if on_progress is not None:
                on_progress(n, len(paths), len(unread))
    if unread:
        yield Finding("warning", "images", f"{len(unread):,} images cannot be read: {shown(unread)}", len(unread))
    copies, near = [], []
    for i, j, correlation in near_pairs(as_thumbnails(pictures)):
        pair = (names[i], names[j])
        if _across([[*samples_of[pair[0]], *samples_of[pair[1]]]], parts):
            (copies if correlation >= COPY_CORRELATION else near).append(pair)
    if copies:
        yield Finding(
            "leak",
            "images",
            f"{len(copies):,} pairs of images on both sides of a split are the same picture, but for compression or "
            f"brightness: {' and '.join(copies[0])}",
            len(copies),
        )
    if near:
        yield Finding(
            "warning",
            "images",
            f"{len(near):,} pairs of images on both sides of a split look much alike: look at {' and '.join(near[0])}",
            len(near),
        )
    if not copies and not near and names:
        yield Finding("note", "images", f"none of {len(names):,} images looks like one on the other side of a split")
