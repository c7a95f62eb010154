"""Statistics against right answers: by hand, by scikit-learn and scipy, and by a second way to the same number."""

import math

import numpy as np
import pytest
from scipy import stats
from sklearn.metrics import average_precision_score, brier_score_loss, roc_auc_score
from sklearn.preprocessing import label_binarize

from heads.metrics import get_metric
from heads.stats import (
    INFLUENCES,
    Interval,
    by_subject,
    crossed_bootstrap,
    delong,
    detectable_difference,
    holm,
    influence,
    least_sign_flip_p,
    population_interval,
    resampled_interval,
    seeds_interval,
    seeds_needed,
    sign_flip,
    subjects_interval,
)
from heads.stats.bootstrap import Predicted
from heads.stats.weighted import WEIGHTED, weighted_metric

SMOOTH = [*sorted(WEIGHTED), "auroc_class:1", "auprc_class:0"]


def predictions(n=40, classes=3, *, seed=0, ties=True):
    rng = np.random.default_rng([seed, n, classes])
    labels = rng.permutation(np.arange(n) % classes)
    scores = rng.dirichlet(np.ones(classes), n) + 0.4 * np.eye(classes)[labels] * rng.random((n, 1))
    return labels, np.round(scores, 1) if ties else scores


def sklearn_weighted(metric, labels, probabilities, weights):
    base, _, number = metric.partition(":")
    score = roc_auc_score if base.startswith("auroc") else average_precision_score
    if number:
        return score(labels == int(number), probabilities[:, int(number)], sample_weight=weights)
    if base == "brier" and probabilities.shape[1] == 2:
        return brier_score_loss(labels, probabilities[:, 1].clip(0, 1), sample_weight=weights)
    if probabilities.shape[1] == 2:
        return score(labels, probabilities[:, 1], sample_weight=weights)
    truth = label_binarize(labels, classes=range(probabilities.shape[1]))
    if base.endswith("_macro"):
        return score(truth, probabilities, average="macro", sample_weight=weights)
    return score(truth.ravel(), probabilities.ravel(), sample_weight=np.repeat(weights, probabilities.shape[1]))


@pytest.mark.parametrize("classes", [2, 3])
@pytest.mark.parametrize("metric", ["auroc", "auroc_macro", "auprc", "auprc_macro", "auroc_class:1", "auprc_class:0"])
def test_influence_is_the_derivative_of_scikit_learns_weighted_metric(metric, classes):
    labels, probabilities = predictions(15, classes)
    value, influences = influence(metric, labels, probabilities)
    assert value == get_metric(metric)(labels, probabilities)
    step = 1e-5
    for i in range(len(labels)):
        ends = []
        for sign in (1, -1):
            weights = np.ones(len(labels))
            weights[i] += sign * step
            ends.append(sklearn_weighted(metric, labels, probabilities, weights))
        assert influences[i] == pytest.approx((ends[0] - ends[1]) / (2 * step), abs=1e-8)


@pytest.mark.parametrize("classes", [2, 4])
@pytest.mark.parametrize("metric", SMOOTH)
def test_influences_sum_to_zero(metric, classes):
    labels, probabilities = predictions(classes=classes)
    assert influence(metric, labels, probabilities)[1].sum() == pytest.approx(0, abs=1e-12)


@pytest.mark.parametrize("metric", sorted(WEIGHTED))
@pytest.mark.parametrize("classes", [2, 3])
def test_influence_and_weighted_metric_agree(metric, classes):
    labels, probabilities = predictions(classes=classes)
    step, n = 1e-5, len(labels)
    weights = np.ones((2 * n, n))
    weights[np.arange(n), np.arange(n)] += step
    weights[n + np.arange(n), np.arange(n)] -= step
    values = weighted_metric(metric, labels, probabilities, weights)
    slope = (values[:n] - values[n:]) / (2 * step)
    np.testing.assert_allclose(influence(metric, labels, probabilities)[1], slope, rtol=0, atol=1e-8)


@pytest.mark.parametrize("metric", sorted(WEIGHTED))
@pytest.mark.parametrize("classes", [2, 3])
def test_a_weight_of_two_counts_as_two_samples(metric, classes):
    labels, probabilities = predictions(classes=classes)
    weights = np.random.default_rng(1).integers(0, 4, (5, len(labels)))
    values = weighted_metric(metric, labels, probabilities, weights.astype(float))
    for row, value in zip(weights, values, strict=True):
        again = get_metric(metric)(np.repeat(labels, row), np.repeat(probabilities, row, axis=0))
        assert value == pytest.approx(again, abs=1e-12)


def test_weights_that_leave_a_class_out_give_no_number():
    labels, probabilities = np.array([0, 0, 1]), np.array([[0.9, 0.1], [0.4, 0.6], [0.3, 0.7]])
    values = weighted_metric("auroc", labels, probabilities, np.array([[1.0, 1, 0], [1, 0, 1]]))
    assert math.isnan(values[0])
    assert values[1] == 1.0


@pytest.mark.parametrize("metric", ["sensitivity:0.9", "calibration_error", "f1"])
def test_a_metric_without_derivative_is_refused_by_name(metric):
    with pytest.raises(KeyError, match=metric.partition(":")[0]):
        influence(metric, np.array([0, 1]), np.eye(2))
    with pytest.raises(KeyError, match=metric.partition(":")[0]):
        weighted_metric(metric, np.array([0, 1]), np.eye(2), np.ones((1, 2)))


def test_every_influence_is_tested():
    assert {name.partition(":")[0] for name in SMOOTH} == set(INFLUENCES)


@pytest.mark.parametrize("metric", ["auroc", "auroc_macro", "auroc_class:1", "auprc", "auprc_macro", "auprc_class:0"])
def test_the_influence_on_findings_is_the_derivative_of_the_weighted_metric_of_each(metric):
    rng = np.random.default_rng(3)
    labels = rng.integers(-1, 2, (30, 4))
    labels[:, 3] = 0  # never present: it takes no part in a mean over findings
    probabilities = np.round(rng.random((30, 4)), 1)
    value, each = influence(metric, labels, probabilities)
    assert each.sum() == pytest.approx(0, abs=1e-12)

    def weighted(weights):
        base, _, number = metric.partition(":")
        name, known = base.partition("_")[0], labels >= 0
        columns = [int(number)] if number else [0, 1, 2] if "_" in base else None
        if columns is None:
            of = [(labels[known], probabilities[known], np.broadcast_to(weights[:, None], labels.shape)[known])]
        else:
            of = [(labels[known[:, c], c], probabilities[known[:, c], c], weights[known[:, c]]) for c in columns]
        return np.mean([weighted_metric(name, y, np.stack([1 - p, p], axis=1), w[None])[0] for y, p, w in of])

    assert value == pytest.approx(weighted(np.ones(30)))
    for i in range(30):
        step = 1e-5 * (np.arange(30) == i)
        slope = (weighted(1 + step) - weighted(1 - step)) / 2e-5
        assert each[i] == pytest.approx(slope, abs=1e-8)


def test_influences_are_summed_by_subject():
    assert by_subject(np.array([1.0, 2.0, 4.0]), np.array([2, 0, 2]), 4).tolist() == [2.0, 0.0, 5.0, 0.0]


# Intervals


def test_the_interval_over_seeds_is_students():
    values = np.array([0.61, 0.7, 0.66, 0.72, 0.64])
    interval = seeds_interval(values, level=0.9)
    low, high = stats.t.interval(0.9, 4, loc=values.mean(), scale=stats.sem(values))
    assert (interval.low, interval.high) == pytest.approx((low, high))
    assert interval.p == pytest.approx(stats.ttest_1samp(values, 0).pvalue)
    assert math.isnan(seeds_interval(np.array([0.7])).low)


def test_the_interval_over_subjects_is_delongs_where_each_has_one_sample():
    rng = np.random.default_rng(3)
    labels = np.arange(400) % 2
    scores = rng.normal(size=400) + labels
    p = np.stack([-scores, scores], axis=1)
    value, influences = influence("auroc", labels, p)
    interval = subjects_interval(influences[None], value)
    _, se, _ = delong(labels, scores, np.zeros(400), np.arange(400))  # constant scores add no variance
    assert interval.se == pytest.approx(se, rel=2e-3)  # S / (S - 1) against n1 / (n1 - 1) and n0 / (n0 - 1)


def test_a_subject_that_brings_its_samples_twice_adds_no_information():
    labels, probabilities = predictions(60, 2, ties=False)
    value, single = influence("auroc", labels, probabilities)
    twice = influence("auroc", np.repeat(labels, 2), np.repeat(probabilities, 2, axis=0))[1]
    clustered = by_subject(twice, np.repeat(np.arange(60), 2), 60)
    assert subjects_interval(clustered[None], value).se == pytest.approx(subjects_interval(single[None], value).se)
    naive = subjects_interval(twice[None], value).se
    assert naive == pytest.approx(subjects_interval(single[None], value).se / math.sqrt(2), rel=0.01)


def test_the_population_interval_by_hand():
    # S^2 = 0.02, so S^2 / n = 0.01. Two seeds and four subjects, two of each class: factor 4 / 2, one df.
    values = np.array([0.6, 0.8])
    influences = np.array([[0.1, -0.2, 0.1, 0.05], [0.2, -0.1, -0.1, 0.1]])
    shared = 4 / 2 * (0.1 * 0.2 + 0.2 * 0.1 - 0.1 * 0.1 + 0.05 * 0.1)  # 0.07
    interval = population_interval(values, influences)
    assert interval.estimate == pytest.approx(0.7)
    assert interval.se**2 == pytest.approx(0.01 + shared)
    assert interval.df == pytest.approx((0.01 + shared) ** 2 / (0.01**2 / 1 + shared**2 / 1))


def test_a_negative_covariance_counts_as_nothing():
    influences = np.array([[0.1, -0.1, 0.1], [-0.1, 0.1, -0.1]])
    values = np.array([0.6, 0.8])
    assert population_interval(values, influences).se == pytest.approx(seeds_interval(values).se)


def test_one_seed_leaves_the_subjects():
    influences = np.array([[0.1, -0.2, 0.1, 0.1]])
    one = population_interval(np.array([0.7]), influences)
    assert one.se**2 == pytest.approx(4 / 2 * (0.01 + 0.04 + 0.01 + 0.01))
    assert one.df == 1


def test_two_subjects_do_not_tell_how_subjects_differ():
    assert math.isnan(subjects_interval(np.array([[0.1, -0.1, 0.0]]), 0.7).se)


def test_heads_that_nobody_moves_have_no_variance():
    perfect = population_interval(np.ones(3), np.zeros((3, 8)))
    assert (perfect.low, perfect.high) == perfect.between_0_and_1() == (1.0, 1.0)


def test_the_resampled_interval_widens_by_nadeau_and_bengios_factor():
    values = np.array([0.6, 0.7, 0.65, 0.72])
    plain, wider = seeds_interval(values), resampled_interval(values, 1 / 3)
    assert wider.se == pytest.approx(plain.se * math.sqrt((1 / 4 + 1 / 3) / (1 / 4)))
    assert wider.df == 3


def test_the_resampled_interval_takes_the_smaller_covariance():
    # Two seeds test other halves of eight subjects: V = 4 / 2 * 0.0016, S^2 = 0.005. Of the pool a quarter trains.
    values = np.array([0.6, 0.7])
    influences = 0.02 * np.array([[1, -1, 1, -1, 0, 0, 0, 0], [0, 0, 0, 0, 1, -1, 1, -1]])
    of_test, between, tested, trained = 0.0032, 0.005, 1 / 2, 1 / 8
    covariance = tested * of_test + trained / (1 - trained) * (between - (1 - tested) * of_test)
    found = resampled_interval(values, 1.0, fraction=0.25, influences=influences)
    assert found.se**2 == pytest.approx(between / 2 + covariance)
    parts = (1 / 2 + 1 / 7) * between, (1 / 2 - 1 / 14) * of_test
    assert found.df == pytest.approx(sum(parts) ** 2 / (parts[0] ** 2 / 1 + parts[1] ** 2 / 1))
    alone = resampled_interval(values, 1.0)
    assert found.se < alone.se
    # All of the pool is trained on: the other estimate is larger, so nothing changes.
    whole = resampled_interval(values, 0.1, fraction=1.0, influences=influences)
    assert whole == resampled_interval(values, 0.1)


def test_seeds_that_differ_less_than_their_test_patients_do_are_put_down_to_these():
    influences = np.array([[0.1, -0.1, 0.1, -0.1, 0, 0, 0, 0], [0, 0, 0, 0, 0.1, -0.1, 0.1, -0.1]])
    values = np.array([0.6, 0.7])  # S^2 = 0.005, and V = 0.08
    found = resampled_interval(values, 1.0, fraction=0.25, influences=influences)
    assert found == resampled_interval(values, 1.0)  # t V = 0.04 is above S^2


def test_ends_on_the_logit_scale_by_hand():
    found = Interval(0.9, 0.03, math.inf).between_0_and_1()
    room = 1.959964 * 0.03 / 0.09
    assert found == pytest.approx([1 / (1 + math.exp(-(math.log(9) + sign * room))) for sign in (-1, 1)], abs=1e-6)
    wide = Interval(0.98, 0.05, 4).between_0_and_1()
    assert 0 < wide[0] < 0.98 < wide[1] < 1


# Tests


def test_sign_flip_by_hand():
    # Of 8 sign patterns of (1, 2, 3) the sums 6 and -6 are as far out; of (1, 2, -3), whose sum is 0, all are.
    assert sign_flip(np.array([1.0, 2.0, 3.0])) == pytest.approx(2 / 8)
    assert sign_flip(np.array([1.0, 2.0, -3.0])) == 1.0
    assert sign_flip(np.zeros(5)) == 1.0


@pytest.mark.parametrize("n", [2, 5, 10, 12])
def test_the_smallest_p_of_a_sign_flip_test(n):
    assert sign_flip(np.arange(1.0, n + 1)) == pytest.approx(2 / 2**n) == least_sign_flip_p(n)


def test_many_seeds_are_flipped_at_random_and_reproducibly():
    differences = np.random.default_rng(0).normal(0.5, 1, 20)
    p = sign_flip(differences)
    assert p == sign_flip(differences)
    assert p == pytest.approx(stats.ttest_1samp(differences, 0).pvalue, abs=0.02)


def test_seeds_needed():
    assert [seeds_needed(0.05), seeds_needed(0.0625), seeds_needed(0.05, 60), seeds_needed(0.05, 3)] == [6, 5, 12, 7]


def test_holm_by_hand():
    # 4 x 0.01, 3 x 0.02, then 2 x 0.03 = 0.06 and 1 x 0.04, which may not fall below.
    np.testing.assert_allclose(holm(np.array([0.03, 0.01, 0.04, 0.02])), [0.06, 0.04, 0.06, 0.06])
    np.testing.assert_allclose(holm(np.array([0.5, 0.9])), [1.0, 1.0])
    np.testing.assert_allclose(holm(np.array([0.02, np.nan, 0.04])), [0.04, np.nan, 0.04])
    assert len(holm(np.array([]))) == 0


def test_the_detectable_difference_is_found_in_four_of_five_studies():
    rng = np.random.default_rng(0)
    sd, n = 0.02, 5
    smallest = detectable_difference(sd / math.sqrt(n), n - 1)
    found = stats.ttest_1samp(rng.normal(smallest, sd, (20_000, n)), 0, axis=1).pvalue < 0.05
    assert found.mean() == pytest.approx(0.8, abs=0.01)
    assert detectable_difference(1.0, math.inf) == pytest.approx(1.959964 + 0.841621, abs=1e-4)
    assert detectable_difference(0.0, 4) == 0.0
    assert math.isnan(detectable_difference(math.nan, 4))


def test_delong_on_a_case_small_enough_to_do_by_hand():
    # Positives 3 and 1 against negatives 2 and 0: 3 of 4 pairs are right; the second classifier has all right.
    labels = np.array([1, 1, 0, 0])
    difference, se, p = delong(labels, np.array([3.0, 1, 2, 0]), np.array([3.0, 2, 1, 0]), np.arange(4))
    assert difference == -0.25
    # The pairs' differences are [[0, 0], [-1, 0]]: means by positive (0, -.5), by negative (-.5, 0): variances .125.
    assert se == pytest.approx(math.sqrt(0.125 / 2 + 0.125 / 2))
    assert p == pytest.approx(2 * stats.norm.sf(0.25 / se))


@pytest.mark.parametrize(
    ("labels", "subjects", "message"),
    [([0, 1, 2], [0, 1, 2], "two classes"), ([1, 1, 1], [0, 1, 2], "two classes"), ([0, 1, 1], [0, 1, 1], "3 samples")],
)
def test_delong_refuses_all_but_its_case(labels, subjects, message):
    with pytest.raises(ValueError, match=message):
        delong(np.array(labels), np.arange(3.0), np.arange(3.0), np.array(subjects))


# Bootstrap


def bootstrap_case(n_seeds=4, n_subjects=25):
    """Two methods, seeds with test sets of their own, one to three samples a subject."""
    rng = np.random.default_rng(7)
    subjects = np.repeat(np.arange(n_subjects), rng.integers(1, 4, n_subjects))
    labels = (subjects % 2).astype(np.int64)
    runs, groups = [], []
    for seed in range(n_seeds):
        test = np.isin(subjects, rng.permutation(n_subjects)[:16])
        for group in range(2):
            score = np.round(rng.normal(size=test.sum()) + (1 + group) * labels[test], 1)
            runs.append(Predicted(labels[test], np.stack([-score, score], axis=1), subjects[test], seed))
            groups.append(group)
    return runs, np.array(groups)


def test_the_crossed_bootstrap_equals_one_that_copies_samples():
    runs, groups = bootstrap_case()
    draws = crossed_bootstrap("auroc", runs, groups, draws=15, seed=3)
    rng = np.random.default_rng(3)  # the same counts; all else is another way
    seed_counts = rng.multinomial(4, [1 / 4] * 4, size=15)
    subject_counts = rng.multinomial(25, [1 / 25] * 25, size=15)
    for b in range(15):
        for group in (0, 1):
            values = []
            for run, of in zip(runs, groups, strict=True):
                rows = np.repeat(np.arange(len(run.labels)), subject_counts[b][run.subjects])
                if of == group and len(set(run.labels[rows])) == 2:
                    values += [roc_auc_score(run.labels[rows], run.probabilities[rows, 1])] * seed_counts[b][run.seed]
            assert draws[b, group] == pytest.approx(np.mean(values), abs=1e-12)


def test_the_bootstrap_pairs_runs():
    runs, groups = bootstrap_case()
    same = [run for run, group in zip(runs, groups, strict=True) if group == 0]
    draws = crossed_bootstrap("auroc", [*same, *same], np.repeat([0, 1], len(same)), draws=30)
    assert (draws[:, 0] == draws[:, 1]).all()


def test_the_bootstraps_variance_is_that_of_the_components():
    """Large in seeds and subjects, where the pigeonhole's extra part is small."""
    rng = np.random.default_rng(0)
    labels, common = np.arange(300) % 2, rng.normal(size=300)
    runs = []
    for seed in range(15):
        score = labels * 1.0 + common + 0.3 * rng.normal(size=300)
        runs.append(Predicted(labels, np.stack([-score, score], axis=1), np.arange(300), seed))
    draws = crossed_bootstrap("auroc", runs, np.zeros(15, int), draws=1000)[:, 0]
    measured = [influence("auroc", run.labels, run.probabilities) for run in runs]
    interval = population_interval(np.array([v for v, _ in measured]), np.array([i for _, i in measured]))
    assert draws.std() == pytest.approx(interval.se, rel=0.1)
