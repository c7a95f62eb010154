"""The tasks on MIMIC, from miniature downloads whose right answer was worked out by hand."""

import hashlib
from datetime import datetime

import polars as pl
import pytest

from cohorts import SplitScheme, load_cohort, load_excluded, load_flow
from cohorts.tasks.mimic_5x1200 import build_mimic_5x1200
from cohorts.tasks.mimic_age import build_mimic_age
from cohorts.tasks.mimic_discharge_3d import build_mimic_discharge_3d
from featurestore.errors import DataError
from featurestore.items import list_items

from .trees import MimicDownload, image_id, report, study_id


def flow(store, name):
    """Rows after every step that left some out, the first being the rows as they came."""
    steps = load_flow(store, name)
    return {
        s: n for s, before, n in steps.select("step", "n_before", "n_after").iter_rows() if s == "read" or n < before
    }


def numbers(store, name, column="label_name"):
    """Value of every sample, by the number of its image."""
    samples = load_cohort(store, name).samples
    return {int(sample[10:18]): value for sample, value in samples.select("sample", column).iter_rows()}


def texts(store, name):
    """Text of every sample, by the number of its image."""
    of = dict(list_items(store, modality="text").select("item", "text").iter_rows())
    return {n: of.get(item) for n, item in numbers(store, name, "text").items()}


def first(stream, ids):
    """Which of these comes first in the seeded order of cohort seed 0."""
    return min(ids, key=lambda i: hashlib.sha256(f"0/{stream}/{i}".encode()).digest())


FIVE = ("Atelectasis", "Cardiomegaly", "Consolidation", "Edema", "Pleural Effusion")


@pytest.fixture
def labelled(tmp_path):
    """Twenty-four rows: what becomes of each is said beside it."""
    tree = MimicDownload(tmp_path / "data")
    for n, view, values in (
        (1, "PA", {"Atelectasis": "1.0"}),
        (3, "AP", {"Cardiomegaly": "1.0", "Edema": "0.0"}),
        (4, "PA", {"Consolidation": "1.0", "Pneumonia": "1.0"}),  # another label of the thirteen
        (5, "PA", {"Edema": "1.0", "No_Finding": "1.0"}),  # findings alone in the report
        (6, "PA", {"Pleural_Effusion": "1.0", "Support_Devices": "-1.0"}),  # one of the thirteen is unsure
        (7, "PA", {"Edema": "1.0", "Cardiomegaly": "1.0"}),  # several
        (8, "PA", {"Edema": "1.0", "Atelectasis": "-1.0"}),  # another is unsure
        (9, "PA", {"No_Finding": "1.0"}),  # none
        (10, "LATERAL", {"Edema": "1.0"}),  # other view
        (11, "", {"Edema": "1.0"}),  # no view
        (12, "PA", None),  # no labels
        (13, "PA", {"Edema": "1.0"}),  # no report
        (14, "PA", {"Edema": "1.0"}),  # a report without either section
        (15, "PA", {"Edema": "1.0"}),  # no image file
        (17, "AP", {"Edema": "1.0"}),
        (18, "PA", {"Edema": "7"}),  # no label can be 7
        *((21 + k, "AP", {name.replace(" ", "_"): "1.0"}) for k, name in enumerate(FIVE)),
    ):
        tree.image(n, n, n, view, file=n != 15)
        if values is not None:
            tree.label(n, n, **values)
        if n != 13:
            tree.report(n, n)
    tree.image(2, 1, 1, "AP")  # the same study: PA comes first
    tree.image(16, 1, 16, "PA", date="21790506")  # another study of patient 1
    tree.label(1, 16, Atelectasis="1.0")
    tree.report(1, 16, "IMPRESSION:  Another day.")
    tree.report(3, 3, report("FINDINGS:  The heart is large.", "IMPRESSION:  Big heart."))
    tree.report(5, 5, "FINIDNGS:  Wet lungs.")
    tree.report(14, 14, "INDICATION:  Cough.")
    tree.metadata.append(f"{image_id(99)},../../../etc,{study_id(99)},CHEST,PA,1,1,21800506,120000.0,,,")
    tree.patient(4, 60, 2178, "M")
    return tree.write()


def test_5x1200_after_every_step_row_by_row(store, labelled):
    report = build_mimic_5x1200(store, **labelled.folders, per_class=1)
    assert flow(store, "mimic-5x1200") == {
        "read": 24,
        "unreadable row": 23,
        "no view": 22,
        "other view": 21,
        "no labels": 20,
        "unreadable labels": 19,
        "labels: none": 18,
        "labels: several": 17,
        "labels: uncertain": 16,
        "no report": 15,
        "no text": 14,
        "no image file": 13,
        "other image of the study": 12,
        "other study of the patient": 11,
        "draw": 5,
    }
    own = 1 if first("study", [study_id(1), study_id(16)]) == study_id(1) else 16
    pools = {"Atelectasis": (own, 21), "Cardiomegaly": (3, 22), "Consolidation": (4, 23), "Edema": (5, 17, 24),
             "Pleural Effusion": (6, 25)}  # fmt: skip
    drawn = {name: first("draw", [image_id(n) for n in pool]) for name, pool in pools.items()}
    assert numbers(store, "mimic-5x1200") == {int(i[:8]): name for name, i in drawn.items()}
    excluded = dict(load_excluded(store, "mimic-5x1200").select("id", "reason").iter_rows())
    assert excluded[image_id(99)] == "subject_id is not a patient of 8 digits that begin with 1"
    assert excluded[image_id(18)].startswith("Edema is not one of")
    assert excluded[image_id(8)] == "another label is uncertain"
    assert report.n_samples == 5
    assert load_cohort(store, "mimic-5x1200").classes == FIVE


def test_5x1200_texts_and_what_is_known_of_samples(store, labelled):
    build_mimic_5x1200(store, **labelled.folders, per_class=1)
    expected = {3: "Big heart.\nThe heart is large.", 5: "Wet lungs.", 16: "Another day."}
    assert texts(store, "mimic-5x1200") == {n: expected.get(n, "Clear.") for n in numbers(store, "mimic-5x1200")}
    build_mimic_5x1200(store, "all", **labelled.folders, per_class=2)
    row = load_cohort(store, "all").samples.filter(pl.col("sample") == f"mimic-cxr/{image_id(4)}").row(0, named=True)
    assert (row["subject"], row["study"], row["text"]) == ("10000004", "s50000004", "mimic-cxr/s50000004")
    assert (row["sex"], row["age"], row["view"], row["acquired"]) == ("M", 62, "PA", datetime(2180, 5, 6, 12))
    assert row["source_split"] == "train"


@pytest.mark.parametrize(
    ("options", "steps"),
    [
        ({"uncertain": "negative"}, {"labels: none": 18, "labels: several": 17, "no report": 16}),
        ({"exclusive": "all13"}, {"labels: several": 17, "labels: other": 16, "labels: uncertain": 14}),
        (
            {"exclusive": "all13", "uncertain": "negative"},
            {"labels: several": 17, "labels: other": 16, "no report": 15},
        ),
        ({"labeler": "negbio"}, {"labels: several": 17, "labels: uncertain": 16}),
        ({"labeler": "agree"}, {"unreadable labels": 19, "labels: uncertain": 16}),
    ],
)
def test_5x1200_options(store, labelled, options, steps):
    build_mimic_5x1200(store, **labelled.folders, per_class=1, **options)
    found = flow(store, "mimic-5x1200")
    assert {step: found[step] for step in steps} == steps


def test_5x1200_where_the_labelers_do_not_agree(store, labelled):
    labelled.labels["negbio"] = [
        row.replace("10000003,50000003,,1.0,,0.0", "10000003,50000003,,,,1.0") for row in labelled.labels["negbio"]
    ]
    build_mimic_5x1200(store, **labelled.write().folders, per_class=1, labeler="agree")
    found = flow(store, "mimic-5x1200")
    assert (found["labels: uncertain"], found["labels: disagree"]) == (16, 15)


def test_5x1200_with_rows_of_labels_that_contradict_one_another(store, labelled):
    labelled.label(3, 3, Edema="1.0")
    labelled.label(21, 21, Atelectasis="1.0")  # says what the first says
    report = build_mimic_5x1200(store, **labelled.write().folders, per_class=1)
    flow_ = load_flow(store, "mimic-5x1200")
    assert flow_["n_before"][1:].to_list() == flow_["n_after"][:-1].to_list()
    reasons = dict(load_excluded(store, "mimic-5x1200").select("id", "reason").iter_rows())
    assert reasons[image_id(3)] == "several rows of this study_id contradict one another"
    assert image_id(21) not in reasons or reasons[image_id(21)].startswith("not among")
    assert any("rows that repeat an earlier one and count once: 1" in line for line in report.lines())


def test_5x1200_by_subject_leaves_out_a_patient_with_labels_that_cannot_be_read(store, labelled):
    labelled.label(3, 31, Edema="often")
    build_mimic_5x1200(store, **labelled.write().folders, per_class=1, unit="subject")
    reasons = dict(load_excluded(store, "mimic-5x1200").select("id", "reason").iter_rows())
    assert reasons[image_id(3)].startswith("Edema is not one of")


def test_5x1200_of_one_part_of_the_official_split(store, labelled):
    labelled.split[:3] = [row.replace("train", "test") for row in labelled.split[:3]]
    build_mimic_5x1200(store, **labelled.write().folders, per_class=1, official="train")
    assert flow(store, "mimic-5x1200")["other official part"] == 21 - 3
    with pytest.raises(DataError, match="Atelectasis: 1 studies"):
        build_mimic_5x1200(store, "test", **labelled.folders, per_class=2, official="test")


def test_5x1200_by_subject_takes_the_labels_of_all_studies_together(store, labelled):
    labelled.image(30, 3, 30, "PA")
    labelled.label(3, 30, Edema="1.0")  # patient 3 has had two of the five: both studies go
    labelled.report(3, 30)
    labelled.image(31, 6, 31, "PA")
    labelled.label(6, 31)  # patient 6 has had one alone, but not in this study
    labelled.report(6, 31)
    build_mimic_5x1200(store, **labelled.write().folders, per_class=1, unit="subject")
    found = flow(store, "mimic-5x1200")
    # By study: none 9 and 31, several 7. By subject: several 7, 3 and 30; none 9, and 31 has no label of its own.
    assert (found["unreadable labels"], found["labels: none"], found["labels: several"]) == (21, 19, 16)


def test_5x1200_keeps_several_studies_of_a_patient_where_one_each_would_not_do(store, labelled):
    report = build_mimic_5x1200(store, **labelled.folders, per_class=2)
    assert "other study of the patient" in flow(store, "mimic-5x1200")
    assert report.n_samples == 10
    for n in (21, 22):
        labelled.label(n, n + 100)
    labelled.labels["chexpert"] = [r for r in labelled.labels["chexpert"] if not r.startswith("10000021")]
    report = build_mimic_5x1200(store, "again", **labelled.write().folders, per_class=2)
    assert "other study of the patient" not in flow(store, "again")
    assert {n for n, name in numbers(store, "again").items() if name == "Atelectasis"} == {1, 16}
    assert any("several studies of one patient are kept" in line for line in report.lines())


def test_5x1200_with_too_few_of_a_label_fails_loudly(store, labelled):
    with pytest.raises(
        DataError, match=r"Atelectasis: 3 studies have this label alone, and 1,200 are wanted.*per-class 2"
    ):
        build_mimic_5x1200(store, **labelled.folders)


AGES = (20, 30, 40, 50, 60, 62, 70, 80, 91, 93)


@pytest.fixture
def aged(tmp_path):
    tree = MimicDownload(tmp_path / "data")
    for n, age in enumerate(AGES, start=1):
        tree.image(n, n, n, "AP" if n % 2 else "PA", date="21820101")
        tree.report(n, n, f"IMPRESSION:  Patient {n}.")
        tree.patient(n, min(91, age) - 2 if age < 91 else 91, 2180 if age < 91 else {91: 2182, 93: 2180}[age])
    tree.image(11, 1, 11, "PA", date="21820601")  # a second study of patient 1, who is 20
    tree.report(1, 11, "FINDINGS:  Second.")
    for n in (20, 21, 22, 23):
        tree.image(n, n, n, date="2182-01-01" if n == 23 else "21820101")
        tree.report(n, n)
    tree.patient(21, 300)  # nobody is
    tree.patient(22, 18, 2290)  # born after the study
    tree.patient(23, 40)
    return tree.write()


def test_age_after_every_step_row_by_row(store, aged):
    aged.image(11, 1, 11)
    aged.metadata.pop()  # image 11 keeps its first row
    aged.split.pop()
    build_mimic_age(store, **aged.folders, one_per_subject=True)
    assert flow(store, "mimic-age") == {
        "read": 15,
        "unreadable row": 14,  # 23: a date of another form
        "not in MIMIC-IV": 13,  # 20
        "unreadable patient": 12,  # 21
        "impossible age": 11,  # 22
        "other image of the patient": 10,
    }
    kept = int(first("subject", [image_id(1), image_id(11)])[:8])
    # Sorted ages 20 30 40 50 60 62 70 80 91 93; qcut's edges lie at ranks 0, 1.8, 3.6, 5.4, 7.2 and 9.
    names = ("[20, 38]", "(38, 56]", "(56, 65.2]", "(65.2, 82.2]", "(82.2, 93]")
    cohort = load_cohort(store, "mimic-age")
    assert cohort.classes == names
    assert cohort.options["bin_edges"] == [20, 38, 56, 65.2, 82.2, 93]
    assert numbers(store, "mimic-age") == {
        **{kept: names[0], 2: names[0], 3: names[1], 4: names[1], 5: names[2], 6: names[2]},
        **{7: names[3], 8: names[3], 9: names[4], 10: names[4]},
    }
    assert sorted(numbers(store, "mimic-age", "age").values()) == list(AGES)
    assert texts(store, "mimic-age")[4] == "Patient 4."
    assert texts(store, "mimic-age")[kept] == {1: "Patient 1.", 11: "Second."}[kept]


@pytest.mark.parametrize(
    ("options", "counts"),
    [
        ({}, {"[20, 35]": 3, "(35, 55]": 2, "(55, 62]": 2, "(62, 80]": 2, "(80, 93]": 2}),
        ({"bins": "width"},
         {"[18, 32.6]": 3, "(32.6, 47.2]": 1, "(47.2, 61.8]": 2, "(61.8, 76.4]": 2, "(76.4, 91]": 3}),
        ({"bins": [18, 40, 55, 65, 75, 120]},
         {"[18, 40)": 3, "[40, 55)": 2, "[55, 65)": 2, "[65, 75)": 1, "[75, 120]": 3}),
        ({"bins": [30, 40, 62, 80]}, {"[30, 40)": 1, "[40, 62)": 3, "[62, 80]": 3}),
        ({"bins": [18, 60, 120], "over_89": "drop"}, {"[18, 60)": 5, "[60, 120]": 4}),
    ],
)  # fmt: skip
def test_age_bins(store, aged, options, counts):
    # Without one image a patient the ages are 20 20 30 40 50 60 62 70 80 91 93: edges at ranks 0, 2, 4, 6, 8, 10.
    counts = counts if options else {"[20, 30]": 3, "(30, 50]": 2, "(50, 62]": 2, "(62, 80]": 2, "(80, 93]": 2}
    report = build_mimic_age(store, **aged.folders, **options)
    assert report.class_counts == counts


def test_a_patient_with_two_ages_is_left_out(store, aged):
    aged.patient(5, 70)
    build_mimic_age(store, **aged.write().folders, bins=[18, 60, 120])
    reasons = dict(load_excluded(store, "mimic-age").select("id", "reason").iter_rows())
    assert reasons[image_id(5)] == "several rows of this subject_id contradict one another"
    assert (
        load_flow(store, "mimic-age")["n_before"][1:].to_list()
        == load_flow(store, "mimic-age")["n_after"][:-1].to_list()
    )


def test_without_the_split_table_the_part_goes_unknown_and_that_is_said(store, aged):
    aged.label(1, 1, Edema="1.0")
    (aged.write().jpg / "mimic-cxr-2.0.0-split.csv.gz").unlink()
    report = build_mimic_age(store, **aged.folders)
    assert any("mimic-cxr-2.0.0-split.csv is not there" in line for line in report.lines())
    assert set(numbers(store, "mimic-age", "source_split").values()) == {None}
    with pytest.raises(DataError, match=r"split.csv is missing"):
        build_mimic_5x1200(store, **aged.folders, official="train")


def test_age_down_to_a_number_of_samples(store, aged):
    build_mimic_age(store, **aged.folders, target_n=6, bins=[18, 60, 120])
    ids = [image_id(n) for n in range(1, 12)]
    order = sorted(ids, key=lambda i: hashlib.sha256(f"0/target/{i}".encode()).digest())
    assert set(numbers(store, "mimic-age")) == {int(i[:8]) for i in order[:6]}
    with pytest.raises(DataError, match="target_n 12: only 11 rows are left"):
        build_mimic_age(store, "more", **aged.folders, target_n=12)
    report = build_mimic_age(store, "paper", **aged.folders, preset="paper")
    assert any("fewer than the paper's 35,242" in line for line in report.lines())
    cohort = load_cohort(store, "paper")
    assert (cohort.scheme.unit, cohort.scheme.test_share) == ("image", 0.1)
    assert cohort.scheme.n_train == (), "this cohort is not of the paper's size"


@pytest.fixture
def admitted(tmp_path):
    tree = MimicDownload(tmp_path / "data", gz=False)
    day = "2180-05-{:02d} {}".format
    for n, date, time in (
        (1, "21800507", "120000.0"),  # 72 hours before discharge, to the second
        (2, "21800507", "115959.0"),  # a second more
        (3, "21800506", "120000.0"),  # two stays hold it: the later admission counts
        (4, "21800506", "120000.0"),  # the stay ends in death
        (5, "21800506", "120000.0"),  # in the emergency department, before admission
        (6, "21800506", "120000.0"),  # never admitted
        (7, "21800506", "120000.0"),  # a stay that ends before it begins
        (8, "21800506", "120000.0"),  # discharged to a hospice
        (9, "21800506", "120000.0"),  # a stay whose end cannot be read
        (10, "21800506", "80556.875"),  # 08:05:56, the second of admission
        (11, "21800506", "80555.9"),  # 08:05:55, before it
        (12, "21800506", ""),  # no time
        (13, "21800506", "556.0"),  # 00:05:56
    ):
        tree.image(n, 1 if n == 2 else n, n, date=date, time=time)
        tree.report(1 if n == 2 else n, n, f"IMPRESSION:  Image {n}.")
    tree.stay(1, 101, day(1, "00:00:00"), day(10, "12:00:00"))
    tree.stay(3, 103, day(1, "00:00:00"), day(20, "00:00:00"))
    tree.stay(3, 203, day(6, "10:00:00"), day(7, "10:00:00"))
    tree.stay(4, 104, day(6, "10:00:00"), day(8, "10:00:00"), death=day(8, "10:00:00"), to="DIED", died=1)
    tree.stay(5, 105, day(6, "14:00:00"), day(8, "10:00:00"), ed=day(6, "10:00:00"))
    tree.stay(7, 107, day(6, "10:00:00"), day(6, "09:00:00"))
    tree.stay(8, 108, day(6, "10:00:00"), day(7, "10:00:00"), to="HOSPICE")
    tree.stay(9, 109, day(6, "10:00:00"), "soon")
    for n in (10, 11):
        tree.stay(n, 100 + n, day(6, "08:05:56"), day(30, "00:00:00"))
    tree.stay(13, 113, day(6, "00:00:00"), day(6, "01:00:00"))
    for n in (1, 3, 4):
        tree.patient(n, 50)
    return tree.write()


HOME, LONGER = "discharged within 3 days", "stays longer"


def test_discharge_after_every_step_row_by_row(store, admitted):
    report = build_mimic_discharge_3d(store, **admitted.folders)
    assert flow(store, "mimic-discharge-3d") == {
        "read": 13,
        "unreadable row": 12,  # 12
        "unreadable stay": 11,  # 9
        "no stay": 9,  # 6 and 7
        "outside every stay": 7,  # 5 and 11
        "death in hospital": 6,  # 4
    }
    assert numbers(store, "mimic-discharge-3d") == {1: HOME, 2: LONGER, 3: HOME, 8: HOME, 10: LONGER, 13: HOME}
    assert texts(store, "mimic-discharge-3d") == {n: f"Image {n}." for n in (1, 2, 3, 8, 10, 13)}
    assert numbers(store, "mimic-discharge-3d", "acquired")[10] == datetime(2180, 5, 6, 8, 5, 56)
    assert numbers(store, "mimic-discharge-3d", "acquired")[13] == datetime(2180, 5, 6, 0, 5, 56)
    assert numbers(store, "mimic-discharge-3d", "age")[1] == 50
    assert any("admissions.csv: 1 stays end before they begin" in line for line in report.lines())
    assert any("hadm_id 109: dischtime is not a time" in line for line in report.lines())
    assert "soon" not in "".join(report.lines())


@pytest.mark.parametrize(
    ("options", "changes"),
    [
        ({"death": "negative"}, {4: LONGER}),
        ({"death": "discharge"}, {4: HOME}),
        ({"window": "ed"}, {5: HOME}),
        ({"horizon": "days"}, {2: HOME}),
        ({"exclude_location": ["HOSPICE"]}, {8: None}),
        ({"per_admission": "first"}, {1: None}),
        ({"per_admission": "last"}, {2: None}),
        ({"view": "AP"}, None),
    ],
)
def test_discharge_options(store, admitted, options, changes):
    if changes is None:
        with pytest.raises(DataError, match=r"no row is left of 13: .* other view"):
            build_mimic_discharge_3d(store, **admitted.folders, **options)
        return
    build_mimic_discharge_3d(store, **admitted.folders, **options)
    expected = {1: HOME, 2: LONGER, 3: HOME, 8: HOME, 10: LONGER, 13: HOME} | changes
    assert numbers(store, "mimic-discharge-3d") == {n: label for n, label in expected.items() if label is not None}


def test_discharge_balanced_takes_as_many_of_either_class(store, admitted):
    report = build_mimic_discharge_3d(store, **admitted.folders, balance=True)
    assert report.class_counts == {LONGER: 2, HOME: 2}


def test_a_draw_of_stays_for_each_seed(store, admitted):
    build_mimic_discharge_3d(store, **admitted.folders, balance=True, draw="per-seed")
    cohort = load_cohort(store, "mimic-discharge-3d")
    assert cohort.samples.height == 6, "all are kept: two stay longer, four go home"
    for seed in range(5):
        home = [image_id(n) for n in (1, 3, 8, 13)]
        drawn = sorted(home, key=lambda i: hashlib.sha256(f"{seed}/balance/{i}".encode()).digest())[:2]
        split = cohort.split(seed)
        inside = {s.partition("/")[2] for s in split.train + split.test}
        assert inside == {*drawn, image_id(2), image_id(10)}
    with pytest.raises(DataError, match="nothing to draw unless classes are balanced"):
        build_mimic_discharge_3d(store, "other", **admitted.folders, draw="per-seed")
    with pytest.raises(DataError, match="draw 'twice' is not known"):
        build_mimic_discharge_3d(store, "other", **admitted.folders, balance=True, draw="twice")


def test_discharge_by_stay(store, admitted):
    by_subject = build_mimic_discharge_3d(store, **admitted.folders)
    stays = {1: "101", 2: "101", 3: "203", 8: "108", 10: "110", 13: "113"}
    assert numbers(store, "mimic-discharge-3d", "admission") == stays
    by_stay = build_mimic_discharge_3d(store, "stays", **admitted.folders, splits=SplitScheme(unit="admission"))
    cohort = load_cohort(store, "stays")
    assert by_stay.key != by_subject.key
    assert cohort.rows_key == load_cohort(store, "mimic-discharge-3d").rows_key
    for seed in range(10):
        split = cohort.split(seed)
        sides = [{stays[int(s[10:18])] for s in part} for part in (split.train, split.test)]
        assert not sides[0] & sides[1]
        assert len(sides[0] | sides[1]) == 5


def test_a_cohort_that_knows_no_stays_cannot_be_split_by_them(store, aged):
    with pytest.raises(DataError, match=r"11 of 11 samples are of no stay .*mimic-discharge-3d alone knows stays"):
        build_mimic_age(store, **aged.folders, splits=SplitScheme(unit="admission"))


def test_reports_from_a_tree_give_the_same_cohort_as_from_the_zip(store, admitted, tmp_path):
    first_key = build_mimic_discharge_3d(store, **admitted.folders).key
    for (subject, study), text in admitted.texts.items():
        path = tmp_path / "tree" / "mimic-cxr-reports" / "files" / "p10" / f"p{subject}" / f"s{study}.txt"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    for source in (tmp_path / "tree", admitted.reports / "mimic-cxr-reports.zip"):
        folders = admitted.folders | {"mimic_cxr": source}
        again = build_mimic_discharge_3d(store, **folders, name="mimic-discharge-3d")
        assert (again.key, again.created) == (first_key, False)


def test_what_becomes_of_reports_without_the_wanted_text(store, admitted, tmp_path):
    admitted.reports_before = dict(admitted.texts)
    admitted.report(1, 1, report("FINDINGS:  Image 1."))
    admitted.report(3, 3, report("INDICATION:  Cough.", "A last paragraph."))
    admitted.texts.pop(("10000008", study_id(8)))
    admitted.write()
    build_mimic_discharge_3d(store, "impression", **admitted.folders, text="impression")
    assert texts(store, "impression") == {n: f"Image {n}." for n in (2, 10, 13)}
    build_mimic_discharge_3d(store, "kept", **admitted.folders, text="impression", no_section="keep")
    assert texts(store, "kept") == {1: None, 2: "Image 2.", 3: None, 8: None, 10: "Image 10.", 13: "Image 13."}
    build_mimic_discharge_3d(store, "last", **admitted.folders, no_section="last-paragraph")
    assert texts(store, "last") == {
        1: "Image 1.",
        2: "Image 2.",
        3: "A last paragraph.",
        10: "Image 10.",
        13: "Image 13.",
    }
    assert numbers(store, "impression", "text")[2] == f"mimic-cxr/s{study_id(2)}/impression"
    images = list_items(store, modality="image")
    assert images.height == images["item"].n_unique() == 6  # one embedding for all three cohorts


def test_a_report_that_is_no_text_is_left_out_by_id(store, admitted, tmp_path):
    for (subject, study), text in admitted.texts.items():
        path = tmp_path / "files" / "p10" / f"p{subject}" / f"s{study}.txt"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"IMPRESSION: \xff\xfe" if study == study_id(3) else text.encode())
    build_mimic_discharge_3d(store, **(admitted.folders | {"mimic_cxr": tmp_path}))
    (row,) = load_excluded(store, "mimic-discharge-3d").filter(pl.col("step") == "unreadable report").iter_rows()
    assert row[0] == image_id(3)
    assert row[3] == "report is not UTF-8 text"
