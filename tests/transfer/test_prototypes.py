import numpy as np
import pytest
from sklearn.neighbors import NearestCentroid

from imgrec.errors import UserError
from imgrec.transfer import prototypes
from imgrec.transfer.neighbours import normalised

rng = np.random.default_rng(0)
LABELS = (np.arange(60) % 3).astype(np.int32)
FEATURES = (rng.normal(size=(60, 5)) + LABELS[:, None]).astype(np.float32)
QUERIES = rng.normal(1.0, 2.0, (40, 5)).astype(np.float32)


def test_the_nearest_mean_is_scikit_learns():
    peer = NearestCentroid().fit(FEATURES, LABELS)
    means = prototypes.class_means(FEATURES, LABELS, 3)
    np.testing.assert_allclose(means, peer.centroids_, atol=1e-6)
    logits = prototypes.euclidean(means)(QUERIES)
    np.testing.assert_array_equal(logits.argmax(1), peer.predict(QUERIES))
    distance = ((QUERIES[:, None] - means[None]) ** 2).sum(-1)
    expected = -distance / 2
    np.testing.assert_allclose(
        logits - logits[:, :1], expected - expected[:, :1], rtol=1e-4, atol=1e-4
    )


def test_cosines():
    means = prototypes.class_means(normalised(FEATURES), LABELS, 3)
    found = prototypes.cosine(means, QUERIES, temperature=0.5)
    for query, row in zip(QUERIES, found, strict=True):
        expected = [q @ query / np.linalg.norm(q) / np.linalg.norm(query) / 0.5 for q in means]
        np.testing.assert_allclose(row, expected, rtol=1e-4, atol=1e-5)


def test_a_class_without_images_is_refused():
    with pytest.raises(UserError, match=r"2 of 5 classes have no training image.*number 3"):
        prototypes.class_means(FEATURES, LABELS, 5)
