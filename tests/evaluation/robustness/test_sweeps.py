import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from imgrec.corruptions import dials
from imgrec.data import ArraySource, Split
from imgrec.errors import UserError
from imgrec.evaluation.robustness import curves, sweeps
from imgrec.evaluation.subject import Subject

N, SHAPE = 30, (16, 16, 1)


class Bright(nn.Module):
    """Dark, middling or bright, by the mean level."""

    @nn.compact
    def __call__(self, images, train):
        level = images.mean(axis=(1, 2, 3))
        return -50 * jnp.abs(level[:, None] - jnp.array([0.2, 0.5, 0.8]))


SUBJECT = Subject(
    module=Bright(),
    variables={},
    mean=(0.0,),
    std=(1.0,),
    image_shape=SHAPE,
    class_names=("dark", "middling", "bright"),
    batch_size=8,
    put=jax.device_put,
)
LABELS = np.arange(N) % 3
LEVELS = np.array([51, 128, 204])[LABELS].astype(np.uint8)
IMAGES = np.broadcast_to(LEVELS[:, None, None, None], (N, *SHAPE)).copy()
SPLIT = Split("test", ArraySource(IMAGES, LABELS), np.arange(N))


def test_curves_by_hand():
    found = sweeps.sweep(SUBJECT, SPLIT, names=["darkening", "rotation"])
    assert found["n"] == N
    assert found["chance"] == pytest.approx(1 / 3)
    assert found["clean_accuracy"] == 1
    darker = found["curves"]["darkening"]
    amounts = dials.SWEEPS["darkening"].amounts
    expected = []
    for amount in amounts:
        level = LEVELS / 255 * (1 - amount)
        nearest = np.abs(level[:, None] - [0.2, 0.5, 0.8]).argmin(axis=1)
        expected.append(np.mean(nearest == LABELS))
    assert darker["accuracy"] == pytest.approx(expected)
    assert darker["doses"] == pytest.approx(amounts)
    assert darker["unit"] == "share of light taken"
    assert darker["half_accuracy_dose"] == pytest.approx(
        curves.half_dose(np.array([expected]), amounts, 1 / 3)[0]
    )
    even = found["curves"]["rotation"]  # which changes nothing about an even image
    assert even["accuracy"] == [1.0] * len(dials.SWEEPS["rotation"].amounts)
    assert even["half_accuracy_dose"] is None
    assert json.loads(json.dumps(found, allow_nan=False)) == found


def test_every_curve_starts_at_the_clean_accuracy():
    found = sweeps.sweep(SUBJECT, SPLIT)
    assert set(found["curves"]) == set(dials.SWEEPS)
    for name, curve in found["curves"].items():
        assert curve["accuracy"][0] == found["clean_accuracy"], name
        assert len(curve["accuracy"]) == len(dials.SWEEPS[name].amounts)
    hidden = found["curves"]["occlusion"]
    assert hidden["half_accuracy_dose"] is not None  # grey over all, everything looks middling
    assert hidden["accuracy"][-1] == pytest.approx(1 / 3)


def test_an_unknown_curve_is_refused():
    with pytest.raises(UserError, match=r"Unknown robustness curve 'rotate'.*'rotation'"):
        sweeps.sweep(SUBJECT, SPLIT, names=["rotate"])
