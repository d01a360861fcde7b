"""The section on features, and the maps of them."""

import json

import numpy as np
import pytest
from sklearn.decomposition import PCA
from sklearn.neighbors import KNeighborsClassifier

from imgrec.evaluation.features import representations as module
from imgrec.evaluation.features.representations import knn, likeness, pca, representations, t_sne

CLASSES, WIDTH = 4, 10


def outputs(n, seed, spread=1.0):
    rng = np.random.default_rng(seed)
    label = (np.arange(n) % CLASSES).astype(np.int32)
    centres = np.random.default_rng(0).normal(size=(CLASSES, WIDTH))
    features = centres[label] + spread * rng.normal(size=(n, WIDTH))
    return {"features": features.astype(np.float32), "label": label}


TRAIN, VALIDATION, TEST = outputs(160, 1), outputs(80, 2), outputs(120, 3)
SETS = {"train": TRAIN, "validation": VALIDATION, "test": TEST, "class_names": tuple("abcd")}


def test_the_section_is_whole_and_plain():
    found = representations(**SETS)
    assert json.loads(json.dumps(found, allow_nan=False)) == found
    assert (found["n"], found["n_train"], found["features"]) == (120, 160, WIDTH)
    assert [each["k"] for each in found["knn"]] == [5, 20]
    assert found["few_shot"]["n"] == 120 and len(found["few_shot"]["shots"]) == 4
    found = likeness(TEST, tuple("abcd"))
    assert json.loads(json.dumps(found, allow_nan=False)) == found
    assert found["n"] == found["retrieval"]["n"] == 120 and found["class_names"] == list("abcd")
    assert found["maps"]["pca"]["n"] == 120 and found["maps"]["tsne"] is None
    assert "not asked for" in found["reasons"]["tsne"]


def test_the_vote_of_neighbours_is_scikit_learns():
    def unit(x):
        return x / np.linalg.norm(x, axis=1, keepdims=True)

    def weights(distances):  # of unit vectors: d^2 = 2 - 2 cos
        return np.exp((1 - distances**2 / 2) / module.TEMPERATURE)

    for found in knn(TRAIN, TEST, CLASSES):
        model = KNeighborsClassifier(found["k"], weights=weights)
        model.fit(unit(TRAIN["features"].astype(float)), TRAIN["label"])
        expected = model.score(unit(TEST["features"].astype(float)), TEST["label"])
        assert found["accuracy"] == pytest.approx(expected) and found["n"] == 120
        low, high = found["intervals"]["accuracy"]
        assert low < found["accuracy"] < high


def test_fewer_training_images_than_neighbours():
    few = {key: values[:7] for key, values in TRAIN.items()}
    assert [each["k"] for each in knn(few, TEST, CLASSES)] == [5, 20]


def test_the_plane_is_scikit_learns():
    found = pca(TEST["features"], TEST["label"])
    model = PCA(2).fit(TEST["features"].astype(float))
    expected = model.transform(TEST["features"].astype(float))
    points = np.stack([found["x"], found["y"]], axis=1)
    signs = np.sign((points * expected).sum(axis=0))  # a direction may be its opposite
    np.testing.assert_allclose(points, expected * signs, atol=1e-6)
    np.testing.assert_allclose(found["explained"], model.explained_variance_ratio_, rtol=1e-6)
    assert found["label"] == TEST["label"].tolist()
    flipped = pca(TEST["features"][::-1].copy(), TEST["label"][::-1].copy())
    np.testing.assert_allclose(flipped["x"][::-1], found["x"], atol=1e-5)


def test_the_plane_of_more_features_than_images():
    wide = np.random.default_rng(0).normal(size=(12, 40)).astype(np.float32)
    found = pca(wide, np.zeros(12, np.int32))
    model = PCA(2).fit(wide.astype(float))
    points = np.stack([found["x"], found["y"]], axis=1)
    expected = model.transform(wide.astype(float))
    signs = np.sign((points * expected).sum(axis=0))
    np.testing.assert_allclose(points, expected * signs, atol=1e-6)
    np.testing.assert_allclose(found["explained"], model.explained_variance_ratio_, rtol=1e-6)


@pytest.mark.parametrize("shape", [(1, 5), (2, 5), (6, 1), (4, 3)])
def test_a_plane_of_hardly_anything(shape):
    found = pca(np.ones(shape, np.float32), np.zeros(shape[0], np.int32))
    np.testing.assert_allclose([*found["x"], *found["y"], *found["explained"]], 0, atol=1e-6)
    assert found["n"] == shape[0]


def test_a_map_keeps_clusters_together():
    apart = outputs(80, 5, spread=0.05)
    found = t_sne(apart["features"], apart["label"], seed=0)
    points = np.stack([found["x"], found["y"]], axis=1)
    distances = np.linalg.norm(points[:, None] - points[None], axis=2)
    np.fill_diagonal(distances, np.inf)
    assert (apart["label"][distances.argmin(axis=1)] == apart["label"]).mean() > 0.95
    assert t_sne(apart["features"], apart["label"], seed=0) == found
    assert found["perplexity"] == pytest.approx(79 / 3)


def test_a_map_in_the_section_shows_a_part_of_many_images(monkeypatch):
    monkeypatch.setattr(module, "POINTS", 30)
    found = likeness(TEST, tuple("abcd"), tsne=True)
    chosen = module.sampled(120, 0)
    assert len(chosen) == 30 and (np.diff(chosen) > 0).all()
    for name in ("pca", "tsne"):
        assert found["maps"][name]["n"] == len(found["maps"][name]["x"]) == 30
        assert found["maps"][name]["label"] == TEST["label"][chosen].tolist()
    assert found["retrieval"]["n"] == 120 and found["reasons"] == {}


def test_three_images_make_no_map():
    few = {key: values[:3] for key, values in TEST.items()}
    found = likeness(few, tuple("abcd"), tsne=True)
    assert found["maps"]["tsne"] is None and "3 images make no map" in found["reasons"]["tsne"]
    assert found["retrieval"]["map_at_all"] is None
    json.dumps(found, allow_nan=False)


def test_without_validation_there_are_no_few_shots():
    found = representations(**{**SETS, "validation": None})
    assert found["few_shot"]["shots"] == [] and found["knn"][0]["accuracy"] > 0.5


def test_what_makes_no_section():
    nothing = {key: values[:0] for key, values in TEST.items()}
    for name in ("train", "test"):
        with pytest.raises(ValueError, match="some are needed"):
            representations(**{**SETS, name: nothing})
        broken = {**SETS[name], "features": np.full_like(SETS[name]["features"], np.nan)}
        with pytest.raises(ValueError, match="not all finite"):
            representations(**{**SETS, name: broken})
