"""Each score against its formula worked out another way, and what all of them have in common."""

import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import softmax
from sklearn.covariance import LedoitWolf
from sklearn.neighbors import NearestNeighbors

from imgrec.evaluation.unknown import ood_scores

RNG = np.random.default_rng(0)
CLASSES, WIDTH = 4, 12
KERNEL = RNG.normal(size=(WIDTH, CLASSES))
BIAS = RNG.normal(size=CLASSES)


def outputs(n, shift=0.0, seed=1):
    """Features in clusters, as rectified as those of a network, and the logits of a head."""
    rng = np.random.default_rng(seed)
    label = rng.integers(0, CLASSES, n).astype(np.int32)
    centres = np.random.default_rng(7).uniform(-1, 4, (CLASSES, WIDTH))
    features = np.maximum(centres[label] + rng.normal(size=(n, WIDTH)) + shift, 0)
    features[:, -2:] = 0  # dead units
    logits = features @ KERNEL + BIAS
    return {
        "features": features.astype(np.float32),
        "logits": logits.astype(np.float32),
        "label": label,
    }


TRAIN, TEST = outputs(300), outputs(50, seed=2)
VARIABLES = {"params": {"head": {"kernel": jnp.asarray(KERNEL), "bias": jnp.asarray(BIAS)}}}


def test_every_score_has_words_and_an_order():
    fitted = ood_scores.fit(TRAIN, VARIABLES)
    found = fitted.of(TEST, odin=np.zeros(50))
    assert list(found) == list(ood_scores.SOURCES)
    assert list(fitted.of(TEST)) == [name for name in ood_scores.SOURCES if name != "odin"]
    for scores in found.values():
        assert scores.shape == (50,) and scores.dtype == np.float64 and np.isfinite(scores).all()


@pytest.mark.parametrize("name", [name for name in ood_scores.SOURCES if name != "odin"])
def test_an_images_score_does_not_depend_on_the_others(name):
    score = ood_scores.fit(TRAIN, VARIABLES).scores[name]
    part = {key: values[10:17] for key, values in TEST.items()}
    np.testing.assert_allclose(score(part), score(TEST)[10:17], rtol=1e-5)


def test_scores_of_logits_by_their_formulas():
    logits = TEST["logits"]
    np.testing.assert_allclose(ood_scores.max_softmax(logits), softmax(logits, axis=1).max(1), 1e-5)
    np.testing.assert_array_equal(ood_scores.max_logit(logits), logits.max(axis=1))
    exact = logits.astype(np.float64)
    np.testing.assert_allclose(ood_scores.energy(logits), np.log(np.exp(exact).sum(1)), 1e-12)
    huge = np.float32([[1e4, 0, 0], [-1e4, -1e4, -1e4]])
    np.testing.assert_allclose(ood_scores.max_softmax(huge), [1, 1 / 3])
    np.testing.assert_allclose(ood_scores.energy(huge), [1e4, -1e4 + np.log(3)])


def test_mahalanobis_with_scikit_learns_covariances():
    found = ood_scores.mahalanobis(TRAIN["features"], TRAIN["label"])
    x, labels = TRAIN["features"].astype(np.float64), TRAIN["label"]
    means = np.stack([x[labels == c].mean(axis=0) for c in range(CLASSES)])
    tied = LedoitWolf(assume_centered=True).fit(x - means[labels])
    whole = LedoitWolf().fit(x)
    queries = TEST["features"].astype(np.float64)
    to_classes = np.stack([tied.mahalanobis(queries - mean) for mean in means], axis=1)
    np.testing.assert_allclose(found["mahalanobis"](TEST), -to_classes.min(axis=1))
    np.testing.assert_allclose(
        found["relative_mahalanobis"](TEST),
        -(to_classes - whole.mahalanobis(queries)[:, None]).min(axis=1),
    )


def test_knn_is_scikit_learns():
    def unit(x):
        return x / np.linalg.norm(x, axis=1, keepdims=True)

    search = NearestNeighbors(n_neighbors=5).fit(unit(TRAIN["features"]))
    distances, _ = search.kneighbors(unit(TEST["features"]))
    found = ood_scores.knn(TRAIN["features"], k=5)(TEST)
    np.testing.assert_allclose(found, -distances[:, -1], atol=1e-3)
    fewer = ood_scores.knn(TRAIN["features"][:3])(TEST)  # than fifty
    assert np.isfinite(fewer).all()


def test_vim_by_the_papers_steps():
    score, note = ood_scores.vim(TRAIN["features"], TRAIN["logits"], (KERNEL, BIAS))
    assert note == "ViM takes its origin from the network's head."
    origin = -np.linalg.lstsq(KERNEL.T, BIAS, rcond=None)[0]
    x = TRAIN["features"].astype(np.float64) - origin
    _, _, directions = np.linalg.svd(x)  # falling
    rest = directions[WIDTH // 2 :].T
    alpha = TRAIN["logits"].max(axis=1).mean() / np.linalg.norm(x @ rest, axis=1).mean()
    logits = TEST["logits"].astype(np.float64)
    residual = np.linalg.norm((TEST["features"] - origin) @ rest, axis=1)
    np.testing.assert_allclose(
        score(TEST), np.log(np.exp(logits).sum(axis=1)) - alpha * residual, rtol=1e-6, atol=1e-6
    )
    # The probability of the virtual class, and how it orders.
    with_virtual = softmax(np.concatenate([logits, alpha * residual[:, None]], axis=1), axis=1)
    assert (np.argsort(score(TEST)) == np.argsort(-with_virtual[:, -1])).all()


def test_vim_without_a_linear_head_fits_one():
    _, note = ood_scores.vim(TRAIN["features"], TRAIN["logits"], None)
    assert "least squared error" in note
    whole = {**TRAIN, "features": RNG.normal(size=(300, WIDTH)).astype(np.float32)}
    whole["logits"] = (whole["features"] @ KERNEL + BIAS).astype(np.float32)
    known, _ = ood_scores.vim(whole["features"], whole["logits"], (KERNEL, BIAS))
    fitted, _ = ood_scores.vim(whole["features"], whole["logits"], None)
    np.testing.assert_allclose(fitted(TEST), known(TEST), rtol=1e-3)  # the same head is found
    _, note = ood_scores.vim(TRAIN["features"], 2 * TRAIN["logits"], (KERNEL, BIAS))
    assert "no linear layer on its features" in note  # a head that does not give these logits
    _, note = ood_scores.vim(TRAIN["features"], TRAIN["logits"][:, :2], (KERNEL, BIAS))
    assert "no linear layer on its features" in note


def test_the_head_is_found_where_it_is_linear():
    kernel, bias = ood_scores.linear_head(VARIABLES)
    np.testing.assert_allclose(kernel, KERNEL, rtol=1e-6)
    np.testing.assert_allclose(bias, BIAS, rtol=1e-6)
    without = {"params": {"head": {"kernel": KERNEL}}}
    np.testing.assert_array_equal(ood_scores.linear_head(without)[1], np.zeros(CLASSES))
    for other in ({}, {"params": {}}, {"params": {"head": {"centres": KERNEL}}}):
        assert ood_scores.linear_head(other) is None
    assert ood_scores.linear_head({"params": {"head": {"kernel": np.zeros((1, 1, 3, 4))}}}) is None


def test_logits_that_are_not_numbers_give_no_score_and_no_warning():
    for logits in (np.float32([[np.nan, 1]]), np.float32([[np.inf, np.inf]])):
        assert not np.isfinite(ood_scores.max_softmax(logits)).any()
        assert not np.isfinite(ood_scores.energy(logits)).any()


def test_features_that_are_not_numbers_leave_what_needs_them_out():
    broken = {**TRAIN, "features": np.full((300, WIDTH), np.nan, np.float32)}
    fitted = ood_scores.fit(broken, VARIABLES)
    assert list(fitted.of(TEST)) == ["max_softmax", "max_logit", "energy"]
    assert "not all finite" in fitted.notes[0]


def test_features_that_do_not_vary():
    same = {**TRAIN, "features": np.ones((300, WIDTH), np.float32)}
    fitted = ood_scores.fit(same)
    assert "mahalanobis" not in fitted.scores and "do not vary" in fitted.notes[0]
    for scores in fitted.of(TEST).values():
        assert np.isfinite(scores).all()


def test_a_class_that_the_sample_lacks():
    some = {key: values[TRAIN["label"] != 1] for key, values in TRAIN.items()}
    assert all(np.isfinite(s).all() for s in ood_scores.fit(some, VARIABLES).of(TEST).values())
