"""The headings of MIMIC-CXR reports in all their spellings, and the 54 studies whose text was settled by hand.

Data of txt/section_parser.py of MIT-LCP/mimic-cxr (MIT licence), in an order of our own.
"""

import re
from collections.abc import Mapping

_SPELLINGS: Mapping[str, tuple[str, ...]] = {
    # "ndication" stands for impression there too: the report that has it has its impression below that heading.
    "impression": (
        *("impression", "conclusion", "findings and impression", "findings/impression", "findings/ impression"),
        *("ndication", "impresson", "imprression", "imoression", "impressoin", "imprssion", "impresion", "imperssion"),
        *("mpression", "impession"),
    ),
    "findings": (
        *("findings", "finding", "findins", "findindgs", "findgings", "findngs", "findnings", "finidngs"),
        *("reference findings", "chest, two views"),
    ),
    "comparison": (
        *("comparison", "comparisons", "reference exam", "comparison exam", "comparison film", "comparision"),
        *("comparsion", "comparrison", "comparisions"),
    ),
    "indication": ("indication", "reason for examination", "reason for exam", "clinical indication", "idication"),
    "history": ("history", "clinical history", "clinical information", "patient history", "pfi"),
    "examination": ("examination", "exam", "type of examination"),
    "recommendations": ("recommendations", "recommendation", "recommendation(s)"),
    "wet read": ("wet read", "wetread"),
    **{name: (name,) for name in ("preamble", "technique", "notification", "addendum", "date", "comment")},
}
_NAME_OF = {spelling: name for name, spellings in _SPELLINGS.items() for spelling in spellings}

_WITHIN = ("impression", "findings", "history", "comparison", "addendum")
"""A heading that holds one of these words is that section, the first in this order."""

_STUDY_LIKE = re.compile(
    "chest|portable|pa and lateral|lateral and pa|ap and lateral|lateral and ap|frontal and|two views|frontal view|"
    "pa view|ap view|one view|lateral view|bone window|frontal upright|frontal semi-upright|ribs|pa and lat"
)
"""A heading that names the examination has the findings below it."""


def normal_name(heading: str) -> str:
    """The normal name of a heading; one that is not known stays as it is, in lower case."""
    name = heading.lower().strip()
    if name in _NAME_OF:
        return _NAME_OF[name]
    within = next((word for word in _WITHIN if word in name), None)
    if within is not None:
        return within
    return "findings" if _STUDY_LIKE.search(name) else name


SECTION_BY_STUDY: Mapping[str, str] = {
    study: section
    for section, studies in {
        "recommendations": "50913680 59768032 59067458 59087630 58157373 56482935 58375018",
        "examination": "59363654 53356173 50743547 59215320 55157853",
        "technique": "59279892 53202765 50808053",
        "indication": "57936451 50058765 51966317 55124749 54365831 54654948",
        "note": "56451190",
        "history": "51491012",
    }.items()
    for study in studies.split()
}
"""Studies whose text stands below another heading."""

SPANS_BY_STUDY: Mapping[str, tuple[int, int]] = {
    **{"50525523": (201, 349), "57564132": (233, 554), "59982525": (313, 717), "53488209": (149, 475)},
    **{"54875119": (234, 988), "50196495": (59, 399), "56579911": (59, 218), "52648681": (292, 631)},
    **{"59889364": (172, 453), "53514462": (73, 377), "59505494": (59, 450), "53182247": (59, 412)},
    **{"51410602": (47, 320), "56412866": (522, 822), "54986978": (59, 306), "59003148": (262, 505)},
    **{"57150433": (61, 394), "56760320": (219, 457), "59562049": (158, 348), "52674888": (145, 296)},
    **{"55258338": (192, 568), "59330497": (140, 655), "52119491": (179, 454)},
    # These have no findings at all.
    **dict.fromkeys(
        ["58235663", "50798377", "54168089", "53071062", "56724958", "54231141", "53607029", "52035334"], (0, 0)
    ),
}
"""Studies whose text is a span of characters, first and last plus one."""
