"""Distillation on phantoms with known answers: a small version of `benchmarks/science.py`."""

from benchmarks.science import gains


def test_a_teacher_that_knows_the_state_helps_and_one_that_read_other_reports_does_not():
    means, found = gains("prognosis", sets=10, n_train=60, head="mean")
    assert means["teacher"] > means["image"] + 0.02
    for baseline in ("image", "self-distill"):
        mean, error = found["distill", baseline]
        assert mean > 2 * error
    mean, error = found["distill-shuffled", "self-distill"]
    assert mean < 2 * error


def test_a_report_that_states_the_label_teaches_nothing():
    means, found = gains("diagnosis", sets=10, n_train=60, head="mean")
    assert means["teacher"] > 0.99
    mean, error = found["distill", "image"]
    assert abs(mean) < max(0.005, 2 * error)
