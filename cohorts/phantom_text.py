"""Writing of the phantom's reports: templates in the manner of a radiologist, with negations and things of no weight.

Knows how strong each finding is; nothing of patients, labels or pictures.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from .phantom_draw import Finding

_POSITIVE: Mapping[str, Sequence[str]] = {
    "opacity": (
        "{grade} airspace opacity in the {side} lung.",
        "There is {grade} consolidation on the {side}.",
        "{grade} patchy opacification of the {side} lung, which may represent pneumonia.",
        "Increased density projects over the {side} mid zone, {grade} in extent.",
    ),
    "effusion": (
        "{grade} {side} pleural effusion.",
        "There is a {grade} {side}-sided effusion.",
        "Blunting of the {side} costophrenic angle in keeping with a {grade} effusion.",
        "{grade} layering pleural fluid on the {side}.",
    ),
    "cardiomegaly": (
        "{grade} enlargement of the cardiac silhouette.",
        "The heart is enlarged, {grade} in degree.",
        "{grade} cardiomegaly.",
        "Cardiothoracic ratio is increased, {grade}.",
    ),
}

_NEGATIVE: Mapping[str, Sequence[str]] = {
    "opacity": ("The lungs are clear.", "No focal consolidation.", "No airspace opacity is seen."),
    "effusion": (
        "No pleural effusion.",
        "The costophrenic angles are sharp.",
        "There is no evidence of pleural fluid.",
    ),
    "cardiomegaly": (
        "Heart size is normal.",
        "The cardiac silhouette is not enlarged.",
        "Cardiac size is within normal limits.",
    ),
}

_GRADES: Mapping[str, Sequence[str]] = {
    "mild": ("mild", "small", "minimal", "slight"),
    "moderate": ("moderate", "moderate-sized", "definite"),
    "severe": ("severe", "large", "extensive", "marked"),
}

_SUMMARY: Mapping[str, str] = {
    "opacity": "pulmonary opacity",
    "effusion": "pleural effusion",
    "cardiomegaly": "cardiomegaly",
}

# What follows stands in reports of the well and of the sick alike.
_INDICATION = ("Cough", "Dyspnea", "Chest pain", "Fever", "Pre-operative assessment", "Follow-up", "Weakness", "Fall")
_TECHNIQUE = ("Frontal view of the chest.", "Single portable AP view.", "PA view of the chest.", "Chest, one view.")
_ASIDE = (
    "No pneumothorax.",
    "The mediastinal contour is unremarkable.",
    "Degenerative changes of the thoracic spine.",
    "The aorta is tortuous.",
    "Old healed rib fracture.",
    "A calcified granuloma is noted.",
    "Osseous structures are intact.",
    "Lung volumes are low.",
    "The trachea is midline.",
    "Comparison is made with the prior study.",
)
_CLEAR = ("No acute cardiopulmonary abnormality.", "No acute process.", "Unremarkable chest radiograph.")


@dataclass(frozen=True)
class Sections:
    """The parts of one report."""

    indication: str
    technique: str
    findings: str
    impression: str


def write_report(rng: np.random.Generator, findings: Mapping[str, Finding]) -> str:
    """One report in one line: indication, findings in any order, impression. See `write_sections`."""
    words = write_sections(rng, findings)
    return (
        f"INDICATION: {words.indication}. {words.technique} FINDINGS: {words.findings} IMPRESSION: {words.impression}"
    )


def write_sections(rng: np.random.Generator, findings: Mapping[str, Finding]) -> Sections:
    """The words of one report.

    A finding with a severity above 0 is stated, graded by its strength; any other is denied or passed over.

    Args:
        rng: source of the wording.
        findings: by name.
    """

    def pick(choices: Sequence[str]) -> str:
        return choices[int(rng.integers(len(choices)))]

    stated = {name: finding for name, finding in findings.items() if finding.severity > 0}
    sentences = [
        pick(_POSITIVE[name]).format(
            grade=pick(_GRADES[_grade(finding.severity)]), side="left" if finding.side > 0 else "right"
        )
        for name, finding in stated.items()
    ]
    sentences += [pick(_NEGATIVE[name]) for name in findings if name not in stated and rng.random() < 0.8]
    sentences += [_ASIDE[i] for i in rng.permutation(len(_ASIDE))[: int(rng.integers(1, 4))]]
    body = " ".join(_capital(sentences[i]) for i in rng.permutation(len(sentences)))
    impression = (
        _capital(f"{', '.join(f'{_grade(f.severity)} {_SUMMARY[name]}' for name, f in stated.items())}.")
        if stated
        else pick(_CLEAR)
    )
    return Sections(pick(_INDICATION), pick(_TECHNIQUE), body, impression)


def _grade(severity: float) -> str:
    return "mild" if severity < 0.5 else "moderate" if severity < 1.2 else "severe"


def _capital(sentence: str) -> str:
    return sentence[0].upper() + sentence[1:]
