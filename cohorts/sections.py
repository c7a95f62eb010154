"""The sections of a MIMIC-CXR report, and the text that a study takes from it.

`split_sections` follows the rules by which MIMIC-CXR's own labels and its `mimic_cxr_sectioned.csv` were made (txt/
section_parser.py and create_section_files.py of MIT-LCP/mimic-cxr, MIT licence), odd as some are: a header is a line
that begins with one blank and a run of capitals up to a colon, so that a header on the very first line and one with
digits are none. `report_text` is what an encoder reads. A report without the wanted section has no text and a state
that says so; it never becomes an empty string.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass

from .section_names import SECTION_BY_STUDY, SPANS_BY_STUDY, normal_name

CHOICES = ("impression+findings", "impression", "findings", "full")
"""What a text is made of. The first is the paper's: "the impressions section and, if available, the findings section"
(appendix A); where there is no impression, the findings alone. The impression stands first, so that it survives where
an encoder cuts long texts."""

NO_SECTION = "no such section"
NO_WORDS = "no words"

_HEADER = re.compile(r"\n ([A-Z ()/,-]+):\s")
_RULE = re.compile(r"(?m)^[ \t]*_{5,}[ \t]*$")
_WORD = re.compile(r"[^\W\d_]")
_PARAGRAPH = "\n \n"


@dataclass(frozen=True)
class Section:
    """One section: its normal name (`impression`, `findings`, `comparison`, ...) and its text as it stands."""

    name: str
    text: str


@dataclass(frozen=True)
class ReportText:
    """What a study takes from its report: a text, or None and the state that says why."""

    text: str | None
    state: str | None = None


def split_sections(report: str) -> list[Section]:
    """The sections in the order of the report.

    What stands before the first header is "preamble"; a report without any header is one section "full report". Empty
    impressions and findings are left out. Where neither is left, the last section ends at its first blank line, and
    what follows is "last_paragraph".
    """
    sections = [Section(normal_name(name), text) for name, text in _raw_sections(report)]
    sections = [s for s in sections if s.name not in ("impression", "findings") or s.text.strip()]
    if not any(s.name in ("impression", "findings") for s in sections):
        head, blank, tail = sections[-1].text.partition(_PARAGRAPH)
        if blank:
            sections[-1:] = [Section(sections[-1].name, head), Section("last_paragraph", tail)]
    return sections


def labelled_text(report: str, study: str) -> str:
    """The text that the labels of MIMIC-CXR-JPG were read off; empty where there is none.

    The last impression, else the last findings, else the last paragraph, else the comparison. 23 studies take another
    section and 31 a span of characters, as the data set's authors settled them by hand.

    Args:
        report: the whole report.
        study: its number, such as "50414267".
    """
    if study in SPANS_BY_STUDY:
        start, end = SPANS_BY_STUDY[study]
        return report[start:end]
    sections = split_sections(report)
    wanted = SECTION_BY_STUDY.get(study)
    names = ("impression", "findings", "last_paragraph", "comparison") if wanted is None else (wanted,)
    return next((text.strip() for text in (_last(sections, name) for name in names) if text is not None), "")


def report_text(report: str, choice: str, *, study: str = "", last_paragraph: bool = False) -> ReportText:
    """The text of a report for an encoder: sections joined by a line break, runs of white space made one blank.

    `___`, which stands for what was de-identified, is kept. Lines of underscores alone, which part an addendum from
    the report, are not.

    Args:
        report: the whole report.
        choice: one of `CHOICES`.
        study: its number. The 54 studies that the data set's authors settled by hand have the text that they chose.
        last_paragraph: take the last paragraph where there is neither impression nor findings.
    """
    if choice == "full":
        return _stated([report])
    sections = split_sections(report)
    found = [_last(sections, name) for name in choice.split("+")]
    if study in SPANS_BY_STUDY or study in SECTION_BY_STUDY:
        found = [labelled_text(report, study)]
    elif last_paragraph and not any(_last(sections, name) is not None for name in ("impression", "findings")):
        found = [_last(sections, "last_paragraph")]
    return _stated([text for text in found if text is not None])


def clean(text: str) -> str | None:
    """Without lines of underscores, and with one blank for every run of white space; None where no letter is left."""
    cleaned = " ".join(_RULE.sub("", text).split())
    return cleaned if _WORD.search(cleaned) else None


def _raw_sections(report: str) -> list[tuple[str, str]]:
    header = _HEADER.search(report)
    if header is None:
        return [("full report", report)]
    found = [("preamble", report[: header.start(1)])]
    while header is not None:
        start = header.end()
        # Past the next line break, so that no second header is found on the line of the first.
        following = _HEADER.search(report, max(start, report.find("\n", start)))
        found.append((header[1], report[start : following.start() if following else len(report)]))
        header = following
    return found


def _last(sections: Sequence[Section], name: str) -> str | None:
    return next((s.text for s in reversed(sections) if s.name == name), None)


def _stated(parts: Sequence[str]) -> ReportText:
    cleaned = [text for text in map(clean, parts) if text is not None]
    if cleaned:
        return ReportText("\n".join(cleaned))
    return ReportText(None, NO_WORDS if any(parts) else NO_SECTION)
