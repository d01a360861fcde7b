import jax.numpy as jnp
import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

from imgrec.transfer import probe

CLASSES = 4


@pytest.fixture(scope="module")
def data():
    rng = np.random.default_rng(0)
    labels = (np.arange(120) % CLASSES).astype(np.int32)
    centres = rng.normal(0, 1.0, (CLASSES, 6))
    features = (centres[labels] + rng.normal(0, 1.0, (120, 6))) * [1, 10, 0.1, 1, 5, 1] + 3
    return features.astype(np.float32), labels


def test_the_objective_by_hand():
    x, y = np.array([[1.0, 2.0], [0.0, -1.0]]), np.array([0, 2])
    kernel, bias = np.arange(6.0).reshape(2, 3) / 5, np.array([0.1, 0.0, -0.2])
    z = x @ kernel + bias
    p = np.exp(z) / np.exp(z).sum(1, keepdims=True)
    expected = -np.log(p[[0, 1], y]).mean() + 0.3 / 2 * (kernel**2).sum()
    weights = (jnp.float32(kernel), jnp.float32(bias))
    found = probe.objective(weights, jnp.float32(x), jnp.asarray(y), 0.3)
    np.testing.assert_allclose(found, expected, rtol=1e-6)


def test_it_is_scikit_learns_logistic_regression(data):
    features, labels = data
    strengths = (0.01, 1.0, 0.1)  # in no order
    exact = features.astype(np.float64)
    scaled = (exact - exact.mean(0)) / exact.std(0)
    fits = probe.fit(features, labels, CLASSES, l2=strengths)
    for l2, found in zip(strengths, fits, strict=True):
        peer = LogisticRegression(C=1 / (len(labels) * l2), tol=1e-10, max_iter=10_000)
        peer.fit(scaled, labels)
        logp = peer.predict_log_proba(scaled)
        objective = -logp[np.arange(120), labels].mean() + l2 / 2 * (peer.coef_**2).sum()
        np.testing.assert_allclose(found.objective, objective, rtol=1e-5)
        assert found.gradient <= 1e-5
        # The peer's coefficients are of standardised features, ours of the features themselves.
        expected = peer.coef_.T / exact.std(0)[:, None]
        centred = found.linear.kernel - found.linear.kernel.mean(1, keepdims=True)
        np.testing.assert_allclose(centred, expected, atol=2e-3 / exact.std(0).min())
        logits = found.linear(features)
        shift = logits - logits.mean(1, keepdims=True)
        decision = peer.decision_function(scaled)
        np.testing.assert_allclose(
            shift, decision - decision.mean(1, keepdims=True), rtol=0.01, atol=0.01
        )


def test_a_feature_that_never_varies_counts_for_nothing(data):
    features, labels = data
    (plain,) = probe.fit(features, labels, CLASSES, l2=(0.1,))
    with_dead = np.concatenate([features, np.full((120, 2), [0.0, 7.0], np.float32)], axis=1)
    (found,) = probe.fit(with_dead, labels, CLASSES, l2=(0.1,))
    np.testing.assert_array_equal(found.linear.kernel[6:], 0)
    np.testing.assert_allclose(found.linear(with_dead), plain.linear(features), atol=1e-3)


def test_a_class_without_examples_becomes_unlikely(data):
    features, labels = data
    (found,) = probe.fit(features, labels, CLASSES + 1, l2=(0.01,))
    assert (found.linear(features).argmax(1) < CLASSES).all()


def test_it_stops_when_told_to(data):
    features, labels = data
    (short,) = probe.fit(features, labels, CLASSES, l2=(1e-4,), max_iterations=2)
    assert short.iterations == 2
    assert short.gradient > 1e-5
