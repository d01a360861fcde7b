"""Heads by name: what cannot be is refused before features are computed; every one classifies."""

import numpy as np
import pytest
from ml_collections import ConfigDict

from imgrec.config import HeadConfig
from imgrec.errors import UserError
from imgrec.transfer import heads

rng = np.random.default_rng(0)
LABELS = (np.arange(90) % 3).astype(np.int32)
FEATURES = (rng.normal(size=(90, 5)) + 8 * np.eye(5)[LABELS]).astype(np.float32)


def head(name, **options):
    return HeadConfig(name=name, options=ConfigDict(options))


@pytest.mark.parametrize(
    ("config", "validated", "message"),
    [
        (head("prob"), True, "Unknown head 'prob'. Did you mean 'probe'"),
        (head("probe", l3=(1.0,)), True, "Unknown option of head 'probe' 'l3'. Did you mean 'l2'"),
        (head("probe", l2=(-1.0,)), True, "config.head.options.l2=(-1.0,) is impossible"),
        (head("probe", l2=0.1), True, "config.head.options.l2=0.1 has the type float; expected"),
        (head("probe", l2=()), True, "config.head.options.l2 has no value"),
        (head("probe"), False, "chooses among 11 values of l2 by the validation split, and there"),
        (head("knn"), False, "--config.head.options.k='(1,)'"),
        (head("knn", k=(0,)), True, "config.head.options.k=(0,) is impossible"),
        (head("knn", temperature=0.0), True, "temperature=0.0 is impossible"),
        (head("prototype", metric="l1"), True, "metric='l1' is impossible"),
        (head("trained", k=(1,)), True, "config.head.options.k is set, and a head that is trained"),
        (HeadConfig(cache="x"), True, "config.head.cache is set, and a head that is trained"),
    ],
)
def test_what_cannot_be_is_refused(config, validated, message):
    with pytest.raises(UserError) as error:
        heads.check(config, has_validation=validated)
    assert message in str(error.value)


def test_one_value_needs_no_validation():
    heads.check(head("probe", l2=(0.1,)), has_validation=False)
    heads.check(head("knn", k=(5,)), has_validation=False)
    heads.check(head("prototype"), has_validation=False)
    assert heads.check(HeadConfig(), has_validation=False) == {}


@pytest.mark.parametrize(
    "config",
    [
        head("probe", l2=(0.1, 0.01)),
        head("knn", k=(1, 7, 1000)),
        head("prototype"),
        head("prototype", metric="euclidean"),
    ],
    ids=["probe", "knn", "prototype", "euclidean"],
)
def test_every_head_tells_plain_classes_apart(config):
    found = heads.fit(config, FEATURES, LABELS, 3, validated=True)
    n = len(found.settings)
    assert n == len(found.linear) == (1 if config.name == "prototype" else 2)
    every = found.logits(FEATURES, range(n))
    assert len(every) == n
    for i, logits in enumerate(every):
        assert logits.shape == (90, 3)
        assert np.mean(logits.argmax(1) == LABELS) > 0.95
        np.testing.assert_allclose(found.logits(FEATURES, [i])[0], logits, atol=1e-5)
        if found.linear[i] is not None:
            np.testing.assert_array_equal(found.linear[i](FEATURES), logits)


def test_more_neighbours_than_images_are_left_out_or_refused():
    found = heads.fit(head("knn", k=(5, 1000)), FEATURES, LABELS, 3, validated=True)
    assert [each["k"] for each in found.settings] == [5]
    with pytest.raises(UserError, match="more neighbours than there are training images"):
        heads.fit(head("knn", k=(1000,)), FEATURES, LABELS, 3, validated=True)
