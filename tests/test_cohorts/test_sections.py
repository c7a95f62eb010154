"""Sections of reports: the published rules, on untidy hand-written reports and on every real one at hand."""

import csv
import tarfile
import zipfile
from pathlib import Path
from xml.etree import ElementTree

import pytest

from cohorts.section_names import SECTION_BY_STUDY, SPANS_BY_STUDY, normal_name
from cohorts.sections import NO_SECTION, NO_WORDS, labelled_text, report_text, split_sections


def report(*lines: str) -> str:
    """A report as the zip has it: a title, then every line with one blank before it."""
    return "\n".join([f"{' ' * 33}FINAL REPORT", *(f" {line}" for line in lines)]) + "\n"


BOTH = ("FINDINGS:  The lungs are clear.", "", "IMPRESSION:  No acute process.")

# What the paper's text is: the impression, and after a line break the findings, worked out by the rules by hand.
TEXTS = {
    "both": (report(*BOTH), "No acute process.\nThe lungs are clear."),
    "impression alone": (report("IMPRESSION:  No acute process."), "No acute process."),
    "findings alone": (report("FINDINGS:  The lungs are clear."), "The lungs are clear."),
    "neither": (report("INDICATION:  Cough.", "", "COMPARISON:  None."), NO_SECTION),
    "text on the next lines": (
        report("IMPRESSION:", "", "1. No effusion.", "2. Stable", "cardiomegaly."),
        "1. No effusion. 2. Stable cardiomegaly.",
    ),
    "several blanks and tabs": (report("IMPRESSION:   No   acute\t process. "), "No acute process."),
    "all other sections": (
        report(
            "EXAMINATION:  CHEST (PA AND LAT)",
            "",
            "INDICATION:  ___F with cough",
            "",
            "TECHNIQUE:  PA and lateral",
            "",
            "COMPARISON:  ___",
            "",
            *BOTH,
        ),
        "No acute process.\nThe lungs are clear.",
    ),
    "de-identified spans": (report("IMPRESSION:  As compared to ___, no change."), "As compared to ___, no change."),
    "only what was de-identified": (report("IMPRESSION:  ___.", "", "INDICATION:  Cough."), NO_WORDS),
    "impression of marks alone": (report("IMPRESSION:  -- . --"), NO_WORDS),
    "nothing at all": ("", NO_SECTION),
    "white space alone": (" \n \n ", NO_SECTION),
    "empty impression": (report("IMPRESSION:", "", "FINDINGS:  Clear."), "Clear."),
    "empty impression at the end": (report("FINDINGS:  Clear.", "", "IMPRESSION: ", ""), "Clear."),
    "both empty": (report("FINDINGS: ", " ", "IMPRESSION: ", " "), NO_SECTION),
    "conclusion": (report("CONCLUSION:  Clear."), "Clear."),
    "findings and impression": (report("FINDINGS AND IMPRESSION:  Clear."), "Clear."),
    "findings/impression": (report("FINDINGS/IMPRESSION:  Clear."), "Clear."),
    "findings/ impression": (report("FINDINGS/ IMPRESSION:  Clear."), "Clear."),
    "typo: impresson": (report("IMPRESSON:  Clear."), "Clear."),
    "typo: imprression": (report("IMPRRESSION:  Clear."), "Clear."),
    "typo: mpression": (report("MPRESSION:  Clear."), "Clear."),
    "typo: ndication is an impression": (report("NDICATION:  Clear."), "Clear."),
    "typo: idication is none": (report("IDICATION:  Cough."), NO_SECTION),
    "typo: finidngs": (report("FINIDNGS:  Clear."), "Clear."),
    "typo: findins": (report("FINDINS:  Clear."), "Clear."),
    "finding": (report("FINDING:  Clear."), "Clear."),
    "reference findings": (report("REFERENCE FINDINGS:  Clear."), "Clear."),
    "preliminary impression": (report("PRELIMINARY IMPRESSION:  Clear."), "Clear."),
    "chest findings": (report("CHEST FINDINGS:  Clear."), "Clear."),
    "a heading that names the study": (report("CHEST, TWO VIEWS:  Clear lungs."), "Clear lungs."),
    "portable": (report("PORTABLE AP CHEST:  Tube in place."), "Tube in place."),
    "ribs": (report("RIBS, UNILATERAL:  No fracture."), "No fracture."),
    "study title without text": (
        report("CHEST, PA LATERAL:", "", "INDICATION:  Cough.", "", "IMPRESSION:  Clear."),
        "Clear.",
    ),
    "comparison wins over a study": (report("CHEST COMPARISON:  None."), NO_SECTION),
    "addendum before the report": (
        report("ADDENDUM  Discussed at ___.", "_" * 78, "FINAL REPORT", "IMPRESSION:  Small effusion."),
        "Small effusion.",
    ),
    "addendum with a heading": (
        report("ADDENDUM:  Wrong side, see below.", "", "_" * 78, *BOTH),
        "No acute process.\nThe lungs are clear.",
    ),
    "addendum with an impression: the last counts": (
        report("ADDENDUM:  Corrected.", "", "IMPRESSION:  Old.", "", "_" * 78, "IMPRESSION:  New."),
        "New.",
    ),
    "line of underscores inside": (
        report("IMPRESSION:  Clear.", "_" * 40, "Electronically signed."),
        "Clear. Electronically signed.",
    ),
    "two impressions": (report("IMPRESSION:  First.", "", "COMPARISON:  None.", "", "IMPRESSION:  Second."), "Second."),
    "two findings, the last empty": (
        report("FINDINGS:  Clear.", "", "CHEST, TWO VIEWS:", "", "HISTORY:  Cough."),
        "Clear.",
    ),
    "findings after impression": (report("IMPRESSION:  Clear.", "", "FINDINGS:  Lungs clear."), "Clear.\nLungs clear."),
    "a heading on the very first line is none": (" IMPRESSION:  Clear.\n", NO_SECTION),
    "a heading in small letters is none": (report("Impression:  Clear."), NO_SECTION),
    "a heading without a blank before it is none": ("TITLE\nIMPRESSION:  Clear.\n", NO_SECTION),
    "blanks before a heading": (report("  IMPRESSION:  Clear."), "Clear."),
    "a digit breaks a heading": (report("IMPRESSION 2:  Clear."), NO_SECTION),
    "no white space after the colon": (report("IMPRESSION:Clear."), NO_SECTION),
    "two headings on one line are one": (report("FINDINGS:  IMPRESSION:  Clear."), "IMPRESSION: Clear."),
    "the line after a heading alone is never a heading": (
        report("FINDINGS:", "IMPRESSION:  Clear."),
        "IMPRESSION: Clear.",
    ),
    "a colon inside a sentence": (report("IMPRESSION:  Compared to ___:", "worse."), "Compared to ___: worse."),
    "brackets and slashes": (report("PA/LAT (CHEST):  Clear."), "Clear."),
    "recommendations are not findings": (report("RECOMMENDATION(S):  CT.", "", "IMPRESSION:  Nodule."), "Nodule."),
    "notification after the impression": (report("IMPRESSION:  Tube.", "", "NOTIFICATION:  Dr. ___ at ___."), "Tube."),
    "wet read": (report("WET READ:  ___ 9:00 PM", "no effusion", "", "IMPRESSION:  None."), "None."),
    "other scripts": (report("IMPRESSION:  Pleuraerguss rechts, größer."), "Pleuraerguss rechts, größer."),
}


@pytest.mark.parametrize("case", TEXTS)
def test_the_text_of_an_untidy_report(case):
    text, expected = TEXTS[case]
    found = report_text(text, "impression+findings")
    assert (found.text if found.text is not None else found.state) == expected


def test_there_are_forty_hand_written_reports_and_more():
    assert len(TEXTS) >= 40


def test_choices_of_sections():
    both = report(*BOTH)
    assert report_text(both, "impression").text == "No acute process."
    assert report_text(both, "findings").text == "The lungs are clear."
    assert report_text(both, "full").text == (
        "FINAL REPORT FINDINGS: The lungs are clear. IMPRESSION: No acute process."
    )
    assert report_text(report("FINDINGS:  Clear."), "impression").state == NO_SECTION


def test_a_report_without_headings_is_one_section_and_its_last_paragraph_can_be_taken():
    plain = " AP chest.\n \n The heart is large.\n \n No effusion.\n"
    assert [s.name for s in split_sections(plain)] == ["full report", "last_paragraph"]
    assert report_text(plain, "impression+findings").state == NO_SECTION
    assert report_text(plain, "impression+findings", last_paragraph=True).text == "The heart is large. No effusion."
    # A report that has findings keeps them, even where the impression alone is asked for.
    assert report_text(report("FINDINGS:  Clear."), "impression", last_paragraph=True).state == NO_SECTION


def test_the_last_section_is_cut_at_its_first_blank_line():
    sections = split_sections(
        report("INDICATION:  Cough.", "", "COMPARISON:  None.", "", "Clear lungs.", "", "Stable.")
    )
    assert [(s.name, s.text.strip()) for s in sections[1:]] == [
        ("indication", "Cough."),
        ("comparison", "None."),
        ("last_paragraph", "Clear lungs.\n \n Stable."),
    ]


def test_what_the_labels_were_read_off():
    assert labelled_text(report(*BOTH), "50000001") == "No acute process."
    assert labelled_text(report("FINDINGS:  Clear."), "50000001") == "Clear."
    assert labelled_text(report("COMPARISON:  None.", "", "Clear."), "50000001") == "Clear."
    assert labelled_text(report("COMPARISON:  None."), "50000001") == "None."
    assert labelled_text(report("INDICATION:  Cough."), "50000001") == ""


def test_the_studies_that_were_settled_by_hand():
    assert (len(SECTION_BY_STUDY), len(SPANS_BY_STUDY)) == (23, 31)
    assert sum(span == (0, 0) for span in SPANS_BY_STUDY.values()) == 8
    text = report("INDICATION:  Effusion on the right.", "", "IMPRESSION:  See above.")
    assert labelled_text(text, "57936451") == "Effusion on the right."
    assert report_text(text, "impression+findings", study="57936451").text == "Effusion on the right."
    span = "x" * 59 + "Clear lungs." + "y" * 400
    assert report_text(span, "impression", study="56579911").text == span[59:218]
    assert report_text(text, "impression+findings", study="58235663").text is None


@pytest.mark.parametrize(
    ("heading", "name"),
    [("Clinical History", "history"), (" WETREAD ", "wet read"), ("COMPARISIONS", "comparison"),
     ("TYPE OF EXAMINATION", "examination"), ("PFI", "history"), ("SEMI-UPRIGHT", "semi-upright"),
     ("FRONTAL UPRIGHT", "findings"), ("HISTORY AND COMPARISON", "history")],
)  # fmt: skip
def test_normal_names(heading, name):
    assert normal_name(heading) == name


def test_every_real_text_at_hand_gives_a_text_or_a_state(real_data):
    texts = []
    for path in sorted(real_data.glob("*/records.csv")):
        with path.open(encoding="utf-8", newline="") as file:
            texts += [row.get("text") or row.get("rendered_text") for row in csv.DictReader(file)]
    texts = [text for text in texts if text]
    assert len(texts) == 8 + 180 + 1000
    for text in texts:
        found = report_text(text, "impression+findings")
        assert (found.text, found.state) == (None, NO_SECTION)  # notes without headings: nobody's impression
        assert report_text(text, "full").text == " ".join(text.split())


def openi_reports(archive: Path):
    """Findings and impression of the Indiana University reports, as their XML has them."""
    with zipfile.ZipFile(archive) as wheel:
        name = next(n for n in wheel.namelist() if n.endswith("NLMCXR_reports.tgz"))
        with wheel.open(name) as data, tarfile.open(fileobj=data) as tar:
            for member in tar:
                if member.name.endswith(".xml"):
                    tree = ElementTree.fromstring(tar.extractfile(member).read())
                    yield {part.get("Label"): (part.text or "") for part in tree.iter("AbstractText")}


def test_every_real_report_of_openi_comes_back_from_a_report_in_the_layout_of_mimic(openi_wheel):
    n = {"reports": 0, "FINDINGS": 0, "IMPRESSION": 0}
    for parts in openi_reports(openi_wheel):
        n["reports"] += 1
        text = report(*(f"{label}:  {words}" for label, words in parts.items() if words))
        for label, choice in (("IMPRESSION", "impression"), ("FINDINGS", "findings")):
            expected = " ".join(parts.get(label, "").split())
            found = report_text(text, choice)
            n[label] += found.text is not None
            assert (found.text or "") == (expected if any(c.isalpha() for c in expected) else "")
    assert n == {"reports": 3955, "FINDINGS": 3425, "IMPRESSION": 3921}
