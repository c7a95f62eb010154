"""The tasks on INSPECT, from miniature downloads whose right answer was worked out by hand."""

import hashlib
from dataclasses import replace
from datetime import datetime
from functools import partial

import pytest

from cohorts import SplitScheme, export_splits, import_splits, load_cohort, load_excluded
from cohorts.paper import PAPER_TASKS, Size
from cohorts.tasks.inspect_pe import build_inspect_pe
from cohorts.tasks.inspect_ph_12m import build_inspect_ph_12m
from cohorts.tasks.inspect_readmission_12m import build_inspect_readmission_12m
from featurestore.errors import DataError
from featurestore.items import list_items

from .test_mimic_tasks import flow
from .trees import InspectDownload


def numbers(store, name, column="label_name"):
    samples = load_cohort(store, name).samples
    return {int(sample.split("/")[1]): value for sample, value in samples.select("sample", column).iter_rows()}


def drawn(ids, n):
    """The first n in the seeded order of cohort seed 0."""
    return set(sorted(ids, key=lambda i: hashlib.sha256(f"0/balance/{i}".encode()).digest())[:n])


@pytest.fixture
def download(tmp_path):
    """Patient p1 has two scans with the event, p2 one with and one without; p3 to p7 have none, p5 in two scans."""
    tree = InspectDownload(tmp_path / "data")
    tree.study(1, "p1", "TRUE", "False", "TRUE", at="2015-03-01 12:30:00")
    tree.study(2, "p1", "True", "FALSE", "FALSE", text="Large  PE.")
    tree.study(3, "p2", "1.0", "Censored", "FALSE", part="valid")
    tree.study(4, "p2", "FALSE", "TRUE", "TRUE", acute="TRUE")
    tree.study(5, "p3", "False", "0", "FALSE")
    tree.study(6, "p4", "0.0", "1", "0.0")
    tree.study(7, "p5", "0", "FALSE", "")
    tree.study(8, "p5", "FALSE", "FALSE", "FALSE")
    tree.study(9, "p6", "FALSE", "FALSE", "FALSE")
    tree.study(10, "p7", "Censored", "TRUE", "FALSE")
    tree.study(11, "p8", "censor", "Censor", "FALSE")
    tree.study(12, "p9", "", "", "FALSE")
    tree.study(13, "p10", "perhaps", "FALSE", "FALSE")  # unreadable
    tree.study(14, "p11", "TRUE", "TRUE", "TRUE", file=False)
    tree.study(15, "p12", "TRUE", "TRUE", "TRUE", text="")
    tree.study(16, "p13", "TRUE", "TRUE", "TRUE")
    tree.mapping.pop()  # 16 has no CT
    tree.study(17, "p14", "FALSE", "FALSE", "FALSE")
    tree.mapping[-1] = "17\t../../secret\tp14\t"  # a path that climbs out
    return tree.write()


def test_readmission_after_every_step_row_by_row(store, download):
    build_inspect_readmission_12m(store, **download.folders)
    assert flow(store, "inspect-readmission-12m") == {
        "read": 17,
        "unreadable row": 16,  # 13
        "no label": 15,  # 12
        "censored": 13,  # 10, 11
        "no CT named": 12,  # 16
        "unreadable CT": 11,  # 17
        "no text": 10,  # 15
        "no image file": 9,  # 14
        "balance": 6,
    }
    kept = drawn(["4", "5", "6", "7", "8", "9"], 3)
    expected = dict.fromkeys((1, 2, 3), "readmitted") | dict.fromkeys(map(int, kept), "not readmitted")
    assert numbers(store, "inspect-readmission-12m") == expected
    texts = dict(list_items(store, modality="text").select("item", "text").iter_rows())
    assert texts["inspect/2"] == "Large PE."
    assert texts["inspect/1"] == "No PE."
    cohort = load_cohort(store, "inspect-readmission-12m")
    assert cohort.options["natural_prevalence"] == [3, 9]
    assert cohort.scheme == SplitScheme(test_share=0.25)
    assert {numbers(store, cohort.name, "subject")[n] for n in (1, 2)} == {"p1"}
    assert numbers(store, cohort.name, "acquired")[1] == datetime(2015, 3, 1, 12, 30)
    assert numbers(store, cohort.name, "source_split")[3] == "valid"
    reasons = dict(load_excluded(store, cohort.name).select("id", "reason").iter_rows())
    assert reasons["17"] == "image_id is not the id of a CT such as PE452890e"
    assert reasons["13"].startswith("12_month_readmission is not one of TRUE")
    assert all("secret" not in str(path) for path in list_items(store)["path"])


def test_ph_and_pe(store, download):
    build_inspect_ph_12m(store, **download.folders, balance="none")
    assert numbers(store, "inspect-ph-12m") == {
        **dict.fromkeys((4, 6, 10), "PH"),
        **dict.fromkeys((1, 2, 5, 7, 8, 9, 13), "no PH"),
    }
    build_inspect_pe(store, **download.folders, balance="none")
    negative = dict.fromkeys((2, 3, 5, 6, 8, 9, 10, 11, 12, 13), "no PE")
    assert numbers(store, "inspect-pe") == negative | dict.fromkeys((1, 4), "PE")
    assert flow(store, "inspect-pe")["no label"] == 16  # 7
    images = list_items(store, modality="image")
    assert images.height == images["item"].n_unique()


def test_paper_preset_takes_one_more_and_splits_by_image(store, download):
    report = build_inspect_readmission_12m(store, **download.folders, preset="paper")
    assert report.class_counts == {"not readmitted": 4, "readmitted": 3}
    cohort = load_cohort(store, "inspect-readmission-12m")
    assert (cohort.scheme.unit, cohort.scheme.test_share) == ("image", 0.25)
    assert cohort.scheme.n_train == ()
    assert any("the paper's numbers of training samples are for 5,651 samples" in line for line in report.lines())


def test_a_cohort_of_the_paper_s_size_declares_the_paper_s_n(store, download, monkeypatch):
    small = replace(PAPER_TASKS["inspect-readmission-12m"], n_samples=7, sizes=(Size(0.25, 2, 100), Size(0.5, 3, 50)))
    monkeypatch.setitem(PAPER_TASKS, "inspect-readmission-12m", small)
    build_inspect_readmission_12m(store, **download.folders, preset="paper")
    cohort = load_cohort(store, "inspect-readmission-12m")
    assert cohort.scheme.n_train == ((0.25, 2), (0.5, 3))
    split = cohort.split(0)
    assert [len(split.subset(f)) for f in (0.25, 0.5, 1)] == [2, 3, 5], "floors would be 1 and 2"
    other = SplitScheme(test_share=0.5, unit="image")
    build_inspect_readmission_12m(store, "halves", **download.folders, preset="paper", splits=other)
    assert load_cohort(store, "halves").scheme == other, "the paper's n go with the paper's shares"
    build_inspect_readmission_12m(store, "plain", **download.folders)
    assert load_cohort(store, "plain").scheme.n_train == ()


def test_balance_by_patient(store, download):
    build_inspect_readmission_12m(store, **download.folders, balance="patient")
    found = flow(store, "inspect-readmission-12m")
    assert found["patient with the event"] == 8  # 4, of p2 who was readmitted after scan 3
    patients = drawn(["p3", "p4", "p5", "p6"], 2)  # as many as p1 and p2
    scans = {"p3": {5}, "p4": {6}, "p5": {7, 8}, "p6": {9}}
    assert set(numbers(store, "inspect-readmission-12m")) == {1, 2, 3}.union(*(scans[p] for p in patients))


def test_a_draw_for_each_seed_keeps_all_and_takes_as_many(store, download):
    build_inspect_readmission_12m(store, **download.folders, draw="per-seed", preset="paper")
    cohort = load_cohort(store, "inspect-readmission-12m")
    assert cohort.samples.height == 9
    assert cohort.scheme.balance == 1
    for seed in range(5):
        ids = sorted("456789", key=lambda i: hashlib.sha256(f"{seed}/balance/{i}".encode()).digest())[:4]
        split = cohort.split(seed)
        assert {s.partition("/")[2] for s in split.train + split.test} == {"1", "2", "3", *ids}
    with pytest.raises(DataError, match="nothing to draw unless classes are balanced by images"):
        build_inspect_readmission_12m(store, "other", **download.folders, draw="per-seed", balance="patient")


def test_a_draw_for_each_seed_goes_to_another_laboratory(store, download, tmp_path):
    for name in ("ours", "theirs"):
        build_inspect_readmission_12m(store, name, **download.folders, draw="per-seed")
    keys = export_splits(store, "ours", tmp_path / "splits.csv", range(3))
    assert import_splits(store, "theirs", tmp_path / "splits.csv").splits == keys
    assert load_cohort(store, "theirs").split(1).key == load_cohort(store, "ours").split(1).key


def test_the_paper_s_n_hold_for_what_each_seed_draws(store, download, monkeypatch):
    small = replace(PAPER_TASKS["inspect-readmission-12m"], n_samples=7, sizes=(Size(0.25, 2, 100), Size(0.5, 3, 50)))
    monkeypatch.setitem(PAPER_TASKS, "inspect-readmission-12m", small)
    build_inspect_readmission_12m(store, **download.folders, preset="paper", draw="per-seed")
    assert load_cohort(store, "inspect-readmission-12m").scheme.n_train == ((0.25, 2), (0.5, 3))


CONDITIONS = "condition_occurrence_id,person_id,condition_start_DATETIME,condition_source_value"


@pytest.fixture
def scanned(tmp_path):
    """Eight patients, scanned on the 1st of March 2015, p8 at an unknown time."""
    tree = InspectDownload(tmp_path / "scanned")
    for n in range(1, 9):
        tree.study(n, f"p{n}", ph="TRUE" if n % 2 else "FALSE", at="" if n == 8 else "2015-03-01 12:00:00")
    return tree.write()


def conditions(folder, *rows):
    path = folder / "conditions.csv"
    path.write_text("\n".join([CONDITIONS, *(f"{i},{row}" for i, row in enumerate(rows))]) + "\n")
    return path


def test_ph_known_before_the_scan_can_be_left_out(store, scanned, tmp_path):
    build_inspect_ph_12m(store, "kept", **scanned.folders, balance="none")
    assert set(numbers(store, "kept")) == set(range(1, 9)), "the label's own rule keeps them"
    table = conditions(
        tmp_path,
        "p1,2015-03-01 11:59:00,I27.20",  # known a minute before
        "p1,2015-09-01 00:00:00,I27.20",
        "p2,2015-03-01 12:00:00,416.8",  # at the scan: not before
        "p3,2015-06-01 00:00:00,I27.0",  # after it: that is the event
        "p4,2001-01-01,ICD9CM/416",  # long ago, in another vocabulary
        "p5,2001-01-01,I26.99",  # another disease
        "p6,2001-01-01,4160",  # no such code
        "p8,2001-01-01,I27.9",  # when p8 was scanned is not known
        "p7,one day,I27.9",  # cannot be read
    )
    build_inspect_ph_12m(store, **scanned.folders, balance="none", conditions=table)
    assert flow(store, "inspect-ph-12m") == {
        "read": 8, "no time of the scan": 7, "unreadable diagnosis": 6, "known before": 4,
    }  # fmt: skip
    assert set(numbers(store, "inspect-ph-12m")) == {2, 3, 5, 6}


def test_conditions_that_can_say_nothing_are_refused(store, scanned, tmp_path):
    build = partial(build_inspect_ph_12m, store, **scanned.folders)
    with pytest.raises(DataError, match="none of its 1 rows has a code of 416 or I27 in condition_source_value"):
        build(conditions=conditions(tmp_path, "p1,2015-01-01,"))
    with pytest.raises(DataError, match=r"none of its patients .person_id. is one of the cohort's"):
        build(conditions=conditions(tmp_path, "900,2015-01-01,I27.0"))
    with pytest.raises(DataError, match=r"nothing.csv is missing"):
        build(conditions=tmp_path / "nothing.csv")
    with pytest.raises(DataError, match="inspect-pe takes no table of conditions"):
        build_inspect_pe(store, **scanned.folders, conditions=tmp_path / "nothing.csv")


def test_missing_images_after_balancing(store, download):
    build_inspect_readmission_12m(store, **download.folders, missing="after")
    found = flow(store, "inspect-readmission-12m")
    assert list(found)[-2:] == ["balance", "no image file"]
    assert (found["balance"], found["no image file"]) == (8, 7)  # 14 counts among the positive ones


def test_studies_without_an_impression_can_be_kept(store, download):
    report = build_inspect_readmission_12m(store, **download.folders, no_text="keep", balance="none")
    assert numbers(store, "inspect-readmission-12m", "text")[15] is None
    assert any("without text: 1 of" in line for line in report.lines())


def test_an_impression_of_which_nothing_is_left_is_none(store, download):
    download.texts[0] = "1\t___ ."
    build_inspect_readmission_12m(store, **download.write().folders, no_text="keep", balance="none")
    assert numbers(store, "inspect-readmission-12m", "text")[1] is None


def test_another_column(store, download):
    with pytest.raises(DataError, match=r"lacks the column pe_subsegmentalonly.*Known: .*pe_acute"):
        build_inspect_pe(store, **download.folders, column="pe_subsegmentalonly")
    with pytest.raises(DataError, match="no sample is of class 'no PE'"):
        build_inspect_pe(store, **download.folders, column="pe_acute")


def test_fewer_without_the_event_than_wanted_is_said(store, tmp_path):
    tree = InspectDownload(tmp_path / "few")
    for n in range(6):
        tree.study(n, f"p{n}", "TRUE" if n < 4 else "FALSE")
    report = build_inspect_readmission_12m(store, **tree.write().folders)
    assert report.n_samples == 6
    assert any("2 studies without the event, fewer than the 4 wanted" in line for line in report.lines())


def test_the_release_without_patient_ids(store, tmp_path):
    tree = InspectDownload(tmp_path / "old", old=True)
    for n in range(8):
        tree.study(n, None, "True" if n < 4 else "False")
    tree.write()
    with pytest.raises(DataError, match=r"holds no patient ids, so it cannot be split by patient\. Use the release"):
        build_inspect_readmission_12m(store, **tree.folders)
    (tree.tables / "cohort_0.2.0_master_file_anon.csv").write_text("PatientID,StudyTime,split\n1,2015-01-01,train\n")
    with pytest.raises(DataError, match=r"cohort_0.2.0_master_file_anon.csv does not help: .*without the impr"):
        build_inspect_readmission_12m(store, **tree.folders)
    with pytest.raises(DataError, match="names no patients, so nobody's earlier diagnoses"):
        build_inspect_ph_12m(store, **tree.folders, conditions=tmp_path / "conditions.csv")
    report = build_inspect_readmission_12m(store, **tree.folders, splits=SplitScheme(test_share=0.25, unit="image"))
    assert report.n_samples == 8
    assert any("every study counts as a patient" in line for line in report.lines())


def test_the_older_table_of_patients_alone_is_refused_with_the_right_files(store, tmp_path):
    tree = InspectDownload(tmp_path / "old")
    (tree.tables / "cohort_0.2.0_master_file_anon.csv").write_text("PatientID,StudyTime,split,PE\n1,2015,train,True\n")
    with pytest.raises(DataError, match=r"master_file_anon.csv is a table .*Needed are labels_\*\.tsv, study_mapping"):
        build_inspect_pe(store, **tree.folders)
