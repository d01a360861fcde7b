import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from imgrec.evaluation.explanations import taps
from imgrec.evaluation.explanations.gradcam import class_activation


class Averaged(nn.Module):
    """Convolution, rectifier, global mean, linear head: the network that CAM was made for."""

    @nn.compact
    def __call__(self, x, train=False):
        x = nn.relu(nn.Conv(6, (3, 3), name="conv")(x))
        self.sow("intermediates", "stage1", x)
        return nn.Dense(3, name="head")(x.mean(axis=(1, 2)))


class Placed(nn.Module):
    """A linear head that gives each place weights of its own."""

    @nn.compact
    def __call__(self, x, train=False):
        x = nn.relu(nn.Conv(4, (3, 3), name="conv")(x))
        self.sow("intermediates", "stage1", x)
        return nn.Dense(3, name="head")(x.reshape(len(x), -1))


class Levelled(nn.Module):
    """A layer normalisation right after the map."""

    @nn.compact
    def __call__(self, x, train=False):
        x = nn.Conv(8, (3, 3), name="conv")(x)
        self.sow("intermediates", "stage1", x)
        x = nn.LayerNorm(name="norm", epsilon=0)(x)
        return nn.Dense(3, name="head")(nn.tanh(x).mean(axis=(1, 2)))


CLASSES = np.array([2, 0, 1], np.int32)


def maps_of(subject, images):
    tap = taps.last_map(subject, taps.intermediates(subject), "stage1")
    images = jnp.asarray(images)
    run = jax.jit(functools.partial(class_activation, subject, tap))
    found = run(subject.variables, images, jnp.asarray(CLASSES))
    activation = subject.intermediates(subject.variables, images)["stage1"]
    return {name: np.asarray(m) for name, m in found.items()}, np.asarray(activation, np.float64)


def test_after_a_mean_and_a_linear_head_it_is_the_class_activation_map(subject_of, noise):
    subject = subject_of(Averaged(), (6, 8, 3))
    found, activation = maps_of(subject, noise(3, (6, 8, 3)))
    weights = np.asarray(subject.variables["params"]["head"]["kernel"], np.float64)
    expected = np.einsum("bijc,cb->bij", activation, weights[:, CLASSES]) / 48
    assert (expected < 0).any()
    np.testing.assert_allclose(found["grad_cam"], np.maximum(expected, 0), rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(found["hires_cam"], np.maximum(expected, 0), rtol=1e-4, atol=1e-6)


def test_hirescam_keeps_the_weights_of_each_place_and_gradcam_averages_them(subject_of, noise):
    subject = subject_of(Placed(), (5, 5, 3))
    found, activation = maps_of(subject, noise(3, (5, 5, 3)))
    kernel = np.asarray(subject.variables["params"]["head"]["kernel"], np.float64)
    weights = kernel.reshape(5, 5, 4, 3)[..., CLASSES]
    placed = np.einsum("bijc,ijcb->bij", activation, weights)
    averaged = np.einsum("bijc,cb->bij", activation, weights.mean(axis=(0, 1)))
    np.testing.assert_allclose(found["hires_cam"], np.maximum(placed, 0), rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(found["grad_cam"], np.maximum(averaged, 0), rtol=1e-4, atol=1e-6)


def test_plus_plus_has_the_weights_of_its_equations(subject_of, noise):
    """Equation 10 with the derivatives of exp(logit) by differentiation, entry by entry."""
    subject = subject_of(Placed(), (4, 4, 3))
    images = noise(1, (4, 4, 3))
    found, activation = maps_of(subject, images.repeat(3, axis=0))
    value, rest = taps.split_at(subject, "stage1", subject.variables, jnp.asarray(images))
    directions = jnp.eye(value.size).reshape(-1, *value.shape)

    @jax.jit
    def derivatives(label):
        bias = rest(value)[0, label]  # exp(logit - bias): a factor that cancels in equation 10

        def along(direction):
            def score(t):
                return jnp.exp(rest(value + t * direction)[0, label] - bias)

            first = jax.grad(score)
            return first(0.0), jax.grad(first)(0.0), jax.grad(jax.grad(first))(0.0)

        return jax.vmap(along)(directions)

    for i, label in enumerate(CLASSES):
        first, second, third = (
            np.asarray(derivative, np.float64).reshape(value.shape[1:])
            for derivative in derivatives(label)
        )
        denominator = 2 * second + activation[i].sum(axis=(0, 1)) * third
        alpha = np.where(denominator > 0, second / np.where(denominator > 0, denominator, 1), 0)
        weights = (alpha * np.maximum(first, 0)).sum(axis=(0, 1))
        expected = np.maximum(activation[i] @ weights, 0)
        np.testing.assert_allclose(found["grad_cam_plus_plus"][i], expected, rtol=2e-3, atol=1e-6)


def test_in_front_of_a_layer_normalisation_products_are_nothing_but_rounding(subject_of, noise):
    found, _ = maps_of(subject_of(Levelled(), (6, 6, 3)), noise(3, (6, 6, 3)))
    assert not found["hires_cam"].any()
    assert found["grad_cam"].any()


def test_an_image_has_the_same_maps_in_any_company(subject_of, noise):
    subject = subject_of(Averaged(), (6, 8, 3))
    images = noise(3, (6, 8, 3))
    together, _ = maps_of(subject, images)
    alone, _ = maps_of(subject, images[:1].repeat(3, axis=0))
    for name in together:
        np.testing.assert_allclose(alone[name][0], together[name][0], rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("name", ["grad_cam", "grad_cam_plus_plus", "hires_cam"])
def test_nothing_is_below_zero(name, subject_of, noise):
    found, _ = maps_of(subject_of(Placed(), (7, 5, 3)), noise(3, (7, 5, 3)))
    assert found[name].shape == (3, 7, 5)
    assert 0 <= found[name].min() < found[name].max()
