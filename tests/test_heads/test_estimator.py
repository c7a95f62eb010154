"""The estimator behaves as scikit-learn's classifiers do."""

import numpy as np
import pytest
from sklearn.base import clone
from sklearn.model_selection import cross_validate

from heads import HeadClassifier

FAST = HeadClassifier(epochs=15, lr=0.02, batch_size=8)


@pytest.fixture(scope="module")
def samples():
    """Sixty samples of five tokens, of which the first number says the class."""
    rng = np.random.default_rng(0)
    labels = np.array(["no", "yes"])[np.arange(60) % 2]
    tokens = rng.normal(size=(60, 5, 8))
    tokens[:, :, 0] += 2.0 * (labels == "yes")[:, None]
    return tokens, labels


def test_it_works_in_cross_validate(samples):
    tokens, labels = samples
    assert cross_validate(FAST, tokens, labels, scoring="roc_auc")["test_score"].mean() > 0.9
    ragged = [array[: 2 + i % 4] for i, array in enumerate(tokens)]
    assert cross_validate(FAST, ragged, labels, scoring="accuracy")["test_score"].mean() > 0.8


@pytest.mark.parametrize("head", ["attention", "multihead", "query", "mean"])
def test_probabilities_are_of_the_sorted_classes(samples, head):
    tokens, labels = samples
    fitted = clone(FAST).set_params(head=head).fit(tokens, labels)
    said = fitted.predict_proba(tokens)
    assert fitted.classes_.tolist() == ["no", "yes"]
    np.testing.assert_allclose(said.sum(axis=1), 1.0, rtol=1e-5)
    assert (fitted.predict(tokens) == labels).mean() > 0.9
    assert fitted.loss_curve_[-1] < fitted.loss_curve_[0]


def test_the_same_seed_gives_the_same_head(samples):
    tokens, labels = samples
    first, again, other = (clone(FAST).set_params(random_state=s).fit(tokens, labels).state_ for s in (1, 1, 2))
    assert all(np.array_equal(first[name], again[name]) for name in first)
    assert not all(np.array_equal(first[name], other[name]) for name in first)


def test_one_vector_a_sample_is_one_token(samples):
    tokens, labels = samples
    vectors = clone(FAST).fit(tokens.mean(axis=1), labels)
    assert np.array_equal(
        vectors.predict_proba(tokens.mean(axis=1)), vectors.predict_proba(tokens.mean(axis=1)[:, None])
    )


def test_what_cannot_be_fitted_is_named(samples):
    tokens, labels = samples
    with pytest.raises(ValueError, match=r"y holds \(3,\) labels for 60 samples"):
        clone(FAST).fit(tokens, labels[:3])
    with pytest.raises(ValueError, match="one class only, 'no'"):
        clone(FAST).fit(tokens[::2], labels[::2])
    with pytest.raises(ValueError, match="tokens of 3 dimensions; the head was trained on 8"):
        clone(FAST).fit(tokens, labels).predict(tokens[:, :, :3])
    with pytest.raises(ValueError, match="'ridge' is scikit-learn's own"):
        clone(FAST).set_params(head="ridge").fit(tokens, labels)
