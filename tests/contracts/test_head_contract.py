"""What every head form and objective must do, in every combination: a new one is covered by its line in the table."""

from dataclasses import replace
from functools import cache

import numpy as np
import pytest

from heads.engine import HeadResult, train_heads
from heads.engine.forms import FORMS, get_form
from heads.engine.network import initial_state, untrained
from heads.engine.objectives import OBJECTIVES
from heads.reference import train_reference

from ..test_heads.heads_data import CONFIG, DIMS, make_data, make_job, readings

EPOCHS = {("classes", 2): 4, ("classes", 3): 2, ("findings", 4): 2}
"""Target and its classes -> epochs of five steps each."""


def all_jobs(target, classes):
    """One job a (form, objective, reading, dropout), each with seeds of its own."""
    jobs = []
    for form in FORMS:
        for objective in OBJECTIVES:
            for reads in readings(objective):
                for dropout in (0.0, 0.2):
                    seeds = dict.fromkeys(("init_seed", "batch_seed", "dropout_seed", "view_seed"), len(jobs))
                    what = {
                        "form": form,
                        "objective": objective,
                        "reads": reads,
                        "dropout": dropout,
                        "epochs": EPOCHS[target, classes],
                    }
                    config = replace(CONFIG, classes=classes, target=target, **what, **seeds)
                    jobs.append(make_job(config, seed=len(jobs), keep=("last", "best", "inner")))
    return jobs


@cache
def fused(target, classes):
    """Every job, trained in fleets of up to eight mixed runs."""
    data, jobs = make_data(target, classes), all_jobs(target, classes)
    return data, jobs, dict(train_heads(data, jobs, fleet_size=8))


@pytest.mark.parametrize("objective", OBJECTIVES)
@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize(("target", "classes"), EPOCHS)
def test_a_run_of_a_fleet_equals_the_reference(form, objective, target, classes):
    data, jobs, outcomes = fused(target, classes)
    for number, job in enumerate(jobs):
        if (job.config.form, job.config.objective) == (form, objective):
            assert_equal(outcomes[number], train_reference(data, job), job)


def assert_equal(result, expected, job):
    """The same parameters, losses, metrics and chosen epochs, but for float32 rounding."""
    assert isinstance(result, HeadResult)
    assert result.chosen == expected.chosen
    for choice, state in expected.states.items():
        for name, value in state.items():
            if name not in untrained(job.config):  # the reference moves those by rounding noise, to no effect
                distance = np.linalg.norm(result.states[choice][name] - value)
                assert distance <= 1e-5 * np.linalg.norm(value), (job.config, choice, name)
    for epoch, other in zip(result.epochs, expected.epochs, strict=True):
        assert epoch.train_loss == pytest.approx(other.train_loss, rel=1e-5)
        assert epoch.test_loss == pytest.approx(other.test_loss, rel=1e-5)
        assert epoch.metrics == pytest.approx(other.metrics, abs=1e-9)
        assert epoch.inner_auroc == pytest.approx(other.inner_auroc, abs=1e-9)
    for choice, probabilities in expected.probabilities.items():
        np.testing.assert_allclose(result.probabilities[choice], probabilities, atol=1e-5)


@pytest.mark.parametrize("form", FORMS)
def test_a_form_describes_itself_and_names_its_parameters_by_tower(form):
    module = get_form(form)
    assert module.SUMMARY.endswith(".")
    state = module.parameters("image", DIMS["image"], seed=0)
    assert all(name.startswith("image.") for name in state)
    assert {f"image.{name}" for name in module.UNTRAINED} <= set(state)


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_what_is_privileged_does_not_serve(objective):
    for reads in readings(objective):
        serves = OBJECTIVES[objective].serves(reads)
        assert set(serves) == set(reads) - set(OBJECTIVES[objective].privileged)
        assert serves


@pytest.mark.parametrize("form", FORMS)
def test_the_image_tower_of_a_seed_starts_equal_in_every_objective(form):
    states = [
        initial_state(replace(CONFIG, form=form, objective=objective, reads=reads), DIMS, features=28)
        for objective in OBJECTIVES
        for reads in readings(objective)
        if "image" in reads
    ]
    for name in states[0]:
        if name.startswith("image."):
            assert all(bool((state[name] == states[0][name]).all()) for state in states)
