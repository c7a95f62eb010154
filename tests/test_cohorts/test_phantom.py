"""The phantom: deterministic, with a known answer, and causal as Figure 3 of the paper says."""

import numpy as np
import polars as pl
import pytest
from PIL import Image
from sklearn.metrics import roc_auc_score

from cohorts import build_phantom, load_cohort
from cohorts.phantom import PhantomSpec, simulate
from cohorts.phantom_draw import FINDINGS, Finding, draw_chest
from featurestore.errors import DataError
from featurestore.items import list_items

MANY = 1500


def auroc(patients: pl.DataFrame, column: str) -> float:
    return float(roc_auc_score(patients["label"], patients[column]))


def shown(patients: pl.DataFrame, where: str) -> pl.DataFrame:
    """What the image or the text tells in all: the sum of its severities, as the column `total`."""
    return patients.with_columns(total=pl.sum_horizontal(pl.col(f"{where}_{f}") for f in FINDINGS))


def chest(severity: float, finding: str | None = None, seed: int = 5, image_px: int = 128) -> np.ndarray:
    findings = {f: Finding(severity if f == finding else 0.0, 1) for f in FINDINGS}
    return draw_chest(np.random.Generator(np.random.PCG64(seed)), findings, image_px).astype(float)


def test_the_same_seed_gives_the_same_patients_however_many():
    few, many = (simulate(PhantomSpec(subjects=n, seed=4)) for n in (5, 20))
    assert many.head(5).equals(few)
    assert not simulate(PhantomSpec(subjects=5, seed=5)).equals(few)


def test_the_same_seed_gives_the_same_bytes(store, tmp_path):
    one, other = (build_phantom(store, name, subjects=6, image_px=64, seed=2).key for name in ("one", "other"))
    assert one == other
    files = [sorted((store.root / "phantom" / name).rglob("*.png")) for name in ("one", "other")]
    assert len(files[0]) == 6
    assert [p.read_bytes() for p in files[0]] == [p.read_bytes() for p in files[1]]


def test_the_knobs_of_the_report_do_not_move_the_pictures():
    plain, other = (
        simulate(PhantomSpec(subjects=30, text_signal=t, kind=kind, without_text=w))
        for t, kind, w in ((0.7, "prognosis", 0.0), (0.1, "diagnosis", 0.5))
    )
    columns = ["id", "state", *(f"image_{f}" for f in FINDINGS), *(f"side_{f}" for f in FINDINGS)]
    assert plain.select(columns).equals(other.select(columns))
    assert other["text"].null_count() > 5


def test_in_a_prognosis_image_and_report_each_know_a_part_of_the_label():
    patients = simulate(PhantomSpec(subjects=MANY))
    assert auroc(patients, "state") > 0.9
    assert 0.75 < auroc(shown(patients, "image"), "total") < auroc(patients, "state")
    assert 0.70 < auroc(shown(patients, "text"), "total") < auroc(patients, "state")
    assert 0.45 < patients["label"].mean() < 0.55


def test_in_a_diagnosis_the_report_is_the_cause_of_the_label():
    patients = simulate(PhantomSpec(subjects=MANY, kind="diagnosis"))
    assert (patients["label"] == (patients["text_effusion"] > 0)).all()
    in_words = patients["text"].str.to_lowercase().str.contains(r"impression:.*pleural effusion")
    assert (patients["label"] == in_words).all()
    assert 0.8 < auroc(patients, "image_effusion") < 1
    assert auroc(patients, "state") < 0.9


@pytest.mark.parametrize("kind", ["prognosis", "diagnosis"])
def test_without_signal_the_image_says_nothing(kind):
    patients = simulate(PhantomSpec(subjects=MANY, kind=kind, image_signal=0))
    assert abs(auroc(shown(patients, "image"), "total") - 0.5) < 0.05


def test_without_signal_the_report_says_nothing_of_a_prognosis():
    patients = simulate(PhantomSpec(subjects=MANY, text_signal=0))
    assert abs(auroc(shown(patients, "text"), "total") - 0.5) < 0.05


def test_reports_vary_and_deny_what_is_absent():
    texts = simulate(PhantomSpec(subjects=200))["text"]
    assert texts.n_unique() > 195
    assert 0.3 < texts.str.contains("(?i)no pleural effusion|no evidence of pleural|angles are sharp").mean() < 0.8


def test_pictures_are_chests_in_brightness():
    """Dark lungs, bright heart and abdomen, dark corners beside the neck: averaged over patients."""
    mean = np.mean([chest(0, seed=seed) for seed in range(12)], axis=0)
    lungs = (mean[40:70, 28:44].mean() + mean[40:70, 84:100].mean()) / 2
    assert mean[75:85, 62:72].mean() > lungs + 60
    assert mean[110:, 40:90].mean() > lungs + 60
    assert max(mean[:6, :16].mean(), mean[:6, -16:].mean()) < lungs + 40
    assert 40 < mean.mean() < 200


@pytest.mark.parametrize("finding", FINDINGS)
def test_a_finding_grows_with_its_severity(finding):
    change = [np.abs(chest(severity, finding) - chest(0, finding)).mean() for severity in (0.5, 1.0, 2.0, 4.0)]
    assert change == sorted(change)
    assert change[0] > 0.1
    assert change[3] > 1


def test_an_effusion_lies_at_the_base_of_its_side():
    difference = chest(2.5, "effusion") - chest(0, "effusion")
    assert difference[80:, 80:].mean() > 5
    assert np.abs(difference[:50]).mean() < 1
    assert np.abs(difference[:, :60]).mean() < 1


def test_subjects_with_several_studies_share_a_patient_and_no_picture(store):
    report = build_phantom(store, "twice", subjects=8, images_per_subject=2, image_px=48)
    assert (report.n_samples, report.n_subjects) == (16, 8)
    samples = load_cohort(store, "twice").samples
    assert samples.group_by("subject").agg(pl.col("label").n_unique())["label"].max() == 1
    pictures = {Image.open(p).tobytes() for p in list_items(store, modality="image")["path"]}
    assert len(pictures) == 16


def test_other_knobs_under_a_known_name_are_refused_before_anything_is_drawn(store):
    build_phantom(store, "p", subjects=6, image_px=48)
    before = sorted(store.root.rglob("*"))
    with pytest.raises(DataError, match="images differ"):
        build_phantom(store, "p", subjects=6, image_px=48, image_signal=0.1)
    assert sorted(store.root.rglob("*")) == before
    assert build_phantom(store, "p", subjects=6, image_px=48, image_signal=0.1, replace=True).created


@pytest.mark.parametrize(
    ("knob", "message"),
    [
        ({"kind": "guess"}, "prognosis or diagnosis"),
        ({"image_signal": 1.5}, "image_signal 1.5 is outside"),
        ({"text_signal": float("nan")}, "text_signal"),
        ({"subjects": 1}, "2 is the least"),
        ({"image_px": 8}, "32 is the least"),
        ({"images_per_subject": 0}, "1 is the least"),
    ],
)
def test_a_knob_out_of_range_is_an_error(store, knob, message):
    with pytest.raises(DataError, match=message):
        build_phantom(store, "p", **knob)
