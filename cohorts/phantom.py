"""The builder `phantom`: synthetic patients with a known answer, for the demo, tests and negative controls.

The causal graphs of Figure 3 of the paper: a patient state S, an image X, a report Z and a label Y. Each finding has
a true strength that follows S; the image shows it, and the report states it, as far as their knobs allow.

    prognosis (Figure 3b)   Y ~ Bernoulli(sigmoid(slope * S)): image and report each know S only in part
    diagnosis (Figure 3a)   Y = whether the report states an effusion: the label is caused by the report

The same seed gives the same patients, and patient k is the same however many there are.
"""

from dataclasses import asdict, dataclass
from math import exp, sqrt
from pathlib import Path

import numpy as np
import polars as pl

from featurestore.copies import store_folder
from featurestore.errors import DataError
from featurestore.fsio import publish_folder
from featurestore.keys import content_key, stream_seed
from featurestore.store import Store

from .build import BuildReport, commit, draft_cohort
from .cohort import check_name
from .flow import Flow
from .phantom_draw import FINDINGS, VERSION, Finding, draw_chest
from .phantom_text import write_report
from .scheme import BY_SUBJECT, SplitScheme

KINDS = ("prognosis", "diagnosis")
_CLASSES = {"prognosis": ("no event", "event"), "diagnosis": ("no effusion", "effusion")}
_STATE_SHARE = 0.95
"""Correlation of the true strength of a finding with S; the rest is how this patient's illness shows itself."""
_SLOPE = 8.0


@dataclass(frozen=True)
class PhantomSpec:
    """What a phantom is made from.

    The defaults are for a demo: a label that an image head learns the better the more it sees (test AUROC about 0.70
    at 48 training samples and 0.83 at 480; 0.95 is the most that the drawn findings hold, 0.86 the reports). For a
    prognosis as weak as real ones take both signals near 0.4.

    Attributes:
        subjects: number of patients.
        seed: of everything.
        kind: "prognosis" or "diagnosis".
        image_signal: correlation, 0 to 1, of what the image shows with the true strength of each finding.
        text_signal: the same for what the report states.
        image_px: height and width of the images.
        images_per_subject: studies of one patient, each with an image and a report.
        without_text: share of the studies that have no report.
    """

    subjects: int = 600
    seed: int = 0
    kind: str = "prognosis"
    image_signal: float = 0.97
    text_signal: float = 0.7
    image_px: int = 256
    images_per_subject: int = 1
    without_text: float = 0.0

    def check(self) -> None:
        """Refuse what cannot be made, with the value and what is allowed."""
        if self.kind not in KINDS:
            raise DataError(f"phantom kind {self.kind!r} is not known: use {' or '.join(KINDS)}.")
        for name in ("image_signal", "text_signal", "without_text"):
            if not 0 <= getattr(self, name) <= 1:
                raise DataError(f"{name} {getattr(self, name)} is outside [0, 1].")
        for name, least in (("subjects", 2), ("images_per_subject", 1), ("image_px", 32)):
            if getattr(self, name) < least:
                raise DataError(f"{name} {getattr(self, name)} is too small: {least} is the least.")


def build_phantom(
    store: Store,
    name: str,
    *,
    subjects: int = PhantomSpec.subjects,
    seed: int = PhantomSpec.seed,
    kind: str = PhantomSpec.kind,
    image_signal: float = PhantomSpec.image_signal,
    text_signal: float = PhantomSpec.text_signal,
    image_px: int = PhantomSpec.image_px,
    images_per_subject: int = PhantomSpec.images_per_subject,
    without_text: float = PhantomSpec.without_text,
    splits: SplitScheme = BY_SUBJECT,
    replace: bool = False,
) -> BuildReport:
    """Make a phantom cohort; its images go to `<store>/phantom/<name>/images/`. See `PhantomSpec` for the knobs.

    Images are files: those of a remote store go to this machine's folder for it (`featurestore.copies`).

    Args:
        store: where it goes.
        name: the cohort's name.
        splits: how the cohort is to be split.
        replace: whether a cohort of this name with other content may be replaced.

    Raises:
        DataError: a knob out of range, or the name stands for other content.
    """
    check_name(name)
    spec = PhantomSpec(subjects, seed, kind, image_signal, text_signal, image_px, images_per_subject, without_text)
    spec.check()
    patients = simulate(spec)
    # The labels and texts are in the cohort's key themselves; of the pictures it has this recipe.
    recipe = {
        "drawing": VERSION,
        **{k: v for k, v in asdict(spec).items() if k not in ("kind", "text_signal", "without_text")},
    }
    folder = store.root if isinstance(store.root, Path) else store_folder(store.root)
    images = folder / "phantom" / name / "images" / content_key(recipe)
    rows = patients.with_columns(
        pl.format("{}/{}.png", pl.lit(str(images)), "id").alias("image_path"), pl.lit(None).alias("study")
    ).select("id", "subject", "study", "image_path", "text", "label")
    draft = draft_cohort(
        name,
        rows,
        Flow(rows.height, "studies that were made up"),
        builder="phantom",
        options=asdict(spec),
        classes=_CLASSES[spec.kind],
        scheme=splits,
        licence="CC0-1.0 (synthetic)",
        notes=() if folder is store.root else (f"its images are on this machine alone: {images}",),
        recipe=recipe,
    )

    def draw() -> None:
        if not images.exists():
            publish_folder(images, lambda folder: _draw_all(spec, patients, folder))

    return commit(store, draft, replace=replace, before_items=draw)


def example(store: Store, name: str, folder: Path) -> BuildReport:
    """The smallest real use, for the contract suite; `folder` is not needed."""
    del folder
    return build_phantom(store, name, subjects=12, image_px=32, without_text=0.2)


def simulate(spec: PhantomSpec) -> pl.DataFrame:
    """All patients of a phantom, one row a study, without drawing anything.

    Returns:
        Columns `id`, `subject`, `state` (S), `image_<finding>` and `text_<finding>` (severity; 0 is absent),
        `side_<finding>` (-1 or 1), `text` (null where there is no report) and `label` (0 or 1).
    """
    studies = (
        _study(spec, subject, number)
        for subject in range(1, spec.subjects + 1)
        for number in range(1, spec.images_per_subject + 1)
    )
    return pl.DataFrame(list(studies), schema_overrides={"text": pl.String, "label": pl.Int32})


def _study(spec: PhantomSpec, subject: int, number: int) -> dict[str, object]:
    patient = _generator(spec, "patient", f"{subject}")
    state, chance = patient.standard_normal(), patient.random()
    own = patient.standard_normal(len(FINDINGS))
    strength = _mix(_STATE_SHARE, np.full(len(FINDINGS), state), own)

    study = _generator(spec, "study", f"{subject}/{number}")
    image_noise, text_noise = study.standard_normal((2, len(FINDINGS)))
    sides = [-1 if x < 0.5 else 1 for x in study.random(len(FINDINGS))]
    shown = _mix(spec.image_signal, strength, image_noise)
    # The report is read off the image as far as the image shows anything, errors of the image included.
    stated = _mix(spec.text_signal, strength, _mix(spec.image_signal, image_noise, text_noise))
    has_text = study.random() >= spec.without_text

    in_text = {f: Finding(_severity(x), side) for f, x, side in zip(FINDINGS, stated, sides, strict=True)}
    text = write_report(_generator(spec, "wording", f"{subject}/{number}"), in_text)
    prognosis = chance < 1 / (1 + exp(-_SLOPE * state))
    label = prognosis if spec.kind == "prognosis" else in_text["effusion"].severity > 0
    return {
        "id": f"s{subject:05d}-{number}",
        "subject": f"s{subject:05d}",
        "state": state,
        **{f"image_{f}": _severity(x) for f, x in zip(FINDINGS, shown, strict=True)},
        **{f"text_{f}": finding.severity for f, finding in in_text.items()},
        **{f"side_{f}": side for f, side in zip(FINDINGS, sides, strict=True)},
        "text": text if has_text else None,
        "label": int(label),
    }


def _generator(spec: PhantomSpec, stream: str, name: str) -> np.random.Generator:
    """A stream of its own for each purpose and study, so that none moves when another one draws more."""
    return np.random.Generator(np.random.PCG64(stream_seed(spec.seed, f"phantom/{stream}/{name}")))


def _mix(share: float, signal: np.ndarray, noise: np.ndarray) -> np.ndarray:
    """Standard normal numbers that correlate with `signal` by `share`."""
    return share * signal + sqrt(1 - share * share) * noise


def _severity(strength: float) -> float:
    # A finding is there where its strength is positive: in every second study.
    return max(0.0, float(strength))


def _draw_all(spec: PhantomSpec, patients: pl.DataFrame, folder: Path) -> None:
    from PIL import Image

    for row in patients.iter_rows(named=True):
        findings = {f: Finding(row[f"image_{f}"], row[f"side_{f}"]) for f in FINDINGS}
        pixels = draw_chest(_generator(spec, "drawing", row["id"]), findings, spec.image_px)
        # Level 1 is four times as quick as the default; noise hardly compresses anyway.
        Image.fromarray(pixels).save(folder / f"{row['id']}.png", compress_level=1)
