import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from imgrec.evaluation.explanations.integrated_gradients import integrated_gradients


class Linear(nn.Module):
    @nn.compact
    def __call__(self, x, train=False):
        return nn.Dense(3, name="head")(x.reshape(len(x), -1))


class Powers(nn.Module):
    """Logit k is the sum of all pixels to the power k."""

    @nn.compact
    def __call__(self, x, train=False):
        return jnp.stack([(x**k).sum(axis=(1, 2, 3)) for k in range(1, 6)], axis=-1)


class Smooth(nn.Module):
    @nn.compact
    def __call__(self, x, train=False):
        x = nn.tanh(nn.Conv(8, (3, 3), name="conv")(x))
        return nn.Dense(3, name="head")(nn.tanh(x.reshape(len(x), -1)))


SHAPE = (5, 4, 3)
CLASSES = np.array([2, 0], np.int32)
BASELINES = {"black": (0.0, 0.0, 0.0), "odd": (0.2, 0.9, 0.4)}


@pytest.mark.parametrize("steps", [1, 2, 64])
def test_of_a_linear_network_they_are_weights_times_differences(steps, subject_of, noise):
    subject, images = subject_of(Linear(), SHAPE), noise(2, SHAPE)
    found = integrated_gradients(subject, BASELINES, steps=steps)(
        subject.variables, images, CLASSES
    )
    kernel = np.asarray(subject.variables["params"]["head"]["kernel"], np.float64)
    weights = np.moveaxis(kernel.reshape(*SHAPE, 3)[..., CLASSES], -1, 0)
    for name, colour in BASELINES.items():
        attributions, error = found[name]
        expected = (weights * (images / 255 - colour)).sum(axis=-1)
        np.testing.assert_allclose(attributions, expected, rtol=1e-4, atol=1e-5)
        assert np.max(error) < 1e-4


def test_as_few_steps_as_gauss_says_are_exact_for_polynomials(subject_of, noise):
    """From black, the share of a pixel x in the sum of x^k is x^k; two steps reach degree 3."""
    subject, images = subject_of(Powers(), SHAPE), noise(2, SHAPE)
    for k, exact in ((1, True), (4, True), (5, False)):
        classes = np.full(2, k - 1, np.int32)
        run = integrated_gradients(subject, {"black": (0.0, 0.0, 0.0)}, steps=2)
        attributions, error = run(subject.variables, images, classes)["black"]
        expected = ((images / 255) ** k).sum(axis=-1)
        assert np.allclose(attributions, expected, rtol=1e-4, atol=1e-5) == exact
        assert (np.max(error) < 1e-4) == exact


def test_of_a_smooth_network_they_are_complete(subject_of, noise):
    subject, images = subject_of(Smooth(), SHAPE), noise(8, SHAPE)
    classes = np.arange(8, dtype=np.int32) % 3
    found = integrated_gradients(subject, BASELINES)(subject.variables, images, classes)
    pixels = jnp.asarray(images, jnp.float32) / 255
    for name, colour in BASELINES.items():
        attributions, error = found[name]
        whole = subject.logits(subject.variables, pixels)
        base = subject.logits(
            subject.variables, jnp.broadcast_to(jnp.asarray(colour), pixels.shape)
        )
        difference = np.asarray(whole - base)[np.arange(8), classes]
        np.testing.assert_allclose(attributions.sum(axis=(1, 2)), difference, rtol=1e-3, atol=1e-4)
        assert np.max(error) < 0.01


def test_the_error_is_what_the_sum_misses(subject_of, noise):
    subject, images = subject_of(Powers(), SHAPE), noise(2, SHAPE)
    run = integrated_gradients(subject, {"black": (0.0, 0.0, 0.0)}, steps=1)
    attributions, error = run(subject.variables, images, np.full(2, 2, np.int32))["black"]
    # One step takes the gradient half-way: 3 (x / 2)^2 x in place of x^3.
    np.testing.assert_allclose(error, 0.25, rtol=1e-4)
    np.testing.assert_allclose(
        attributions, 0.75 * ((images / 255) ** 3).sum(axis=-1), rtol=1e-4, atol=1e-6
    )


def test_a_picture_like_its_baseline_has_nothing_to_share(subject_of):
    subject = subject_of(Linear(), SHAPE)
    run = integrated_gradients(subject, {"black": (0.0, 0.0, 0.0)}, steps=2)
    attributions, error = run(subject.variables, np.zeros((1, *SHAPE), np.uint8), CLASSES[:1])[
        "black"
    ]
    assert not np.any(attributions)
    assert np.isnan(error).all()
