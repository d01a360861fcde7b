"""Features of a split: the model's own, in its order, from a file where nothing has changed."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from imgrec import augment, models
from imgrec.training.features import Extractor
from imgrec.training.plan import plan


@pytest.fixture
def planned(tiny):
    tiny.data.per_class = 4
    return plan(tiny)


def extractor(planned, folder, variables=None):
    return Extractor(planned, variables or planned.initial_state().variables, folder)


def test_they_are_what_the_head_is_given(planned, tmp_path):
    variables = planned.initial_state().variables
    split = planned.dataset.train
    found = extractor(planned, tmp_path)(split)
    assert not found.from_file
    every = split.gather(np.arange(len(split)))
    images = augment.normalise(jnp.asarray(every["image"]), planned.task.mean, planned.task.std)
    expected = models.intermediates(planned.task.module, variables, images)["pre_logits"]
    np.testing.assert_allclose(found.values, expected, atol=1e-5)
    np.testing.assert_array_equal(found.labels, every["label"])


def test_a_file_gives_them_back(planned, tmp_path):
    first = extractor(planned, tmp_path)(planned.dataset.train)
    again = extractor(planned, tmp_path)(planned.dataset.train)
    assert again.from_file
    np.testing.assert_array_equal(again.values, first.values)
    np.testing.assert_array_equal(again.labels, first.labels)


def test_whatever_they_depend_on_makes_another_file(planned, tiny, tmp_path):
    def files():
        return len(list(tmp_path.glob("*.npz")))

    def compute():
        again = plan(tiny)
        extractor(again, tmp_path)(again.dataset.train)

    compute()
    for change in (
        lambda: setattr(tiny.data, "split_seed", 1),
        lambda: setattr(tiny.data, "per_class", 5),
        lambda: setattr(tiny, "seed", 1),  # other weights
        lambda: setattr(tiny.augment, "mean", (0.1,)) or setattr(tiny.augment, "std", (0.5,)),
    ):
        before = files()
        change()
        compute()
        assert files() == before + 1

    # The head is no part of the features.
    before = files()
    again = plan(tiny)
    variables = again.initial_state().variables
    head = jax.tree.map(lambda x: x + 1, variables["params"]["head"])
    other = {**variables, "params": {**variables["params"], "head": head}}
    assert extractor(again, tmp_path, other)(again.dataset.train).from_file
    assert files() == before


@pytest.mark.parametrize("damage", [b"", b"PK\x03\x04 and no more", None])
def test_a_damaged_file_is_computed_anew(planned, tmp_path, damage):
    first = extractor(planned, tmp_path)(planned.dataset.train)
    (path,) = tmp_path.glob("*.npz")
    path.write_bytes(path.read_bytes()[:-200] if damage is None else damage)
    again = extractor(planned, tmp_path)(planned.dataset.train)
    assert not again.from_file
    np.testing.assert_array_equal(again.values, first.values)
    assert extractor(planned, tmp_path)(planned.dataset.train).from_file


def test_they_do_not_depend_on_the_devices(planned, tiny, tmp_path):
    alone = extractor(planned, tmp_path / "one")(planned.dataset.test)
    tiny.mesh.data = 8
    spread = plan(tiny)
    found = extractor(spread, tmp_path / "eight")(spread.dataset.test)
    np.testing.assert_allclose(found.values, alone.values, atol=1e-5)
    np.testing.assert_array_equal(found.labels, alone.labels)
