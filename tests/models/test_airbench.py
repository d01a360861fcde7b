"""airbench's networks: the whitening by its definition, the partial identity, the groups."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from imgrec import models
from imgrec.config import ModelConfig
from imgrec.models.airbench import partial_identity, whitening_kernel


def _airbench(name="airbench94", **fields):
    return models.create(ModelConfig(name), 10).clone(**fields)


def _images(*shape):
    """Noise that is smooth along the columns, so that neighbours are alike."""
    noise = np.random.default_rng(0).normal(size=shape).astype(np.float32)
    return jnp.asarray(noise + np.roll(noise, 1, axis=1) + 0.5)


def _responses(images, kernel):
    """The kernel's answer to each patch, [patches, filters]."""
    windows = np.lib.stride_tricks.sliding_window_view(np.asarray(images), (2, 2), axis=(1, 2))
    return np.einsum("bhwcij,ijcf->bhwf", windows, kernel).reshape(-1, kernel.shape[-1])


@pytest.mark.parametrize("channels", [1, 3])
def test_responses_to_the_images_themselves_are_white(channels):
    images = _images(20, 9, 11, channels)
    kernel = np.asarray(whitening_kernel(images))
    half = 4 * channels
    assert kernel.shape == (2, 2, channels, 2 * half)
    np.testing.assert_array_equal(kernel[..., half:], -kernel[..., :half])
    responses = _responses(images, np.float64(kernel[..., :half]))
    moments = responses.T @ responses / len(responses)
    # The 0.0005 that is added to each eigenvalue takes a little of the variance away.
    np.testing.assert_allclose(moments, np.eye(half), atol=5e-3)


def test_filters_are_ordered_by_what_they_explain_and_have_one_sign():
    images = _images(20, 9, 11, 2)
    kernel = np.asarray(whitening_kernel(images)).reshape(8, 16)[:, :8]
    norms = np.linalg.norm(kernel, axis=0)
    assert np.all(np.diff(norms) >= 0)  # 1 / root of the eigenvalue
    largest = np.take_along_axis(kernel, np.abs(kernel).argmax(0)[None], 0)
    assert np.all(largest > 0)


def test_images_of_zeros_still_give_filters_of_a_usual_size():
    kernel = np.asarray(whitening_kernel(jnp.zeros((1, 8, 8, 3)))).reshape(12, 24)
    np.testing.assert_allclose(kernel[:, :12].T @ kernel[:, :12], np.eye(12), atol=1e-6)


def test_the_kernel_is_made_of_the_images_given_to_init_and_never_trained():
    module = _airbench(widths=(8, 8, 8))
    images = _images(4, 12, 12, 3)
    variables = jax.jit(functools.partial(module.init, train=False))(jax.random.key(0), images)
    assert set(variables) == {"params", "batch_stats", "whitening"}
    kernel = variables["whitening"]["whiten"]["kernel"]
    np.testing.assert_allclose(kernel, whitening_kernel(images), rtol=1e-4, atol=1e-4)
    assert set(variables["params"]["whiten"]) == {"bias"}
    train = functools.partial(module.apply, train=True, mutable=["batch_stats", "whitening"])
    _, updates = jax.jit(train)(variables, -images)
    np.testing.assert_array_equal(updates["whitening"]["whiten"]["kernel"], kernel)


def test_partial_identity_passes_the_input_on():
    kernel = partial_identity(jax.random.key(0), (3, 3, 4, 6))
    x = jnp.asarray(np.random.default_rng(0).normal(size=(2, 5, 6, 4)), jnp.float32)
    out = jax.lax.conv_general_dilated(
        x, kernel, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
    )
    np.testing.assert_allclose(out[..., :4], x, rtol=1e-5)
    rest = np.asarray(kernel[..., 4:])
    assert 0.9 / 6 < np.abs(rest).max() <= 1 / 6  # fan-in 36
    narrowing = np.asarray(partial_identity(jax.random.key(0), (3, 3, 4, 2)))
    assert narrowing.sum() == 2 and narrowing[1, 1, 0, 0] == narrowing[1, 1, 1, 1] == 1


def test_maps_of_32x32_images():
    module = _airbench("airbench96")
    images = jnp.zeros((1, 32, 32, 3))
    variables = jax.eval_shape(lambda: module.init(jax.random.key(0), images, train=False))
    maps = jax.eval_shape(lambda v: models.intermediates(module, v, images), variables)
    assert {name: value.shape[1:] for name, value in maps.items()} == {
        "stage1": (15, 15, 128),
        "stage2": (7, 7, 512),
        "stage3": (3, 3, 512),
        "pre_logits": (512,),
    }
    assert "scale" not in variables["params"]["stage1_group"]["norm1"]
    assert "bias" not in variables["params"]["head"]


@pytest.mark.parametrize(("name", "share"), [("airbench94", 0.4), ("airbench96", 0.1)])
def test_moving_statistics_move_at_the_recipe_s_pace(name, share, fill):
    module = _airbench(name, widths=(8, 8, 8))
    images = _images(4, 12, 12, 3)
    variables = fill(module, images, train=False)
    train = functools.partial(module.apply, train=True, mutable=["batch_stats"])
    zero = jax.tree.map(jnp.zeros_like, variables["batch_stats"])
    one = jax.tree.map(jnp.ones_like, variables["batch_stats"])
    step = jax.jit(lambda stats: train({**variables, "batch_stats": stats}, images)[1])
    low, high = (
        step(stats)["batch_stats"]["stage1_group"]["norm1"]["mean"] for stats in (zero, one)
    )
    np.testing.assert_allclose(high - low, 1 - share, rtol=1e-4)


def test_a_mirrored_network_answers_with_the_mean_of_both_ways(fill):
    plain, mirrored = (_airbench("airbench90", widths=(8, 8, 8), mirror=m) for m in (False, True))
    images = _images(2, 12, 14, 3)
    variables = fill(plain, images, train=False)
    turned = images[:, :, ::-1]

    def told(module, images):
        apply = functools.partial(module.apply, train=False, mutable=["intermediates"])
        logits, sown = jax.jit(apply)(variables, images)
        return logits, sown["intermediates"]

    (one, maps), (other, _), (both, kept) = (
        told(plain, images),
        told(plain, turned),
        told(mirrored, images),
    )
    assert np.abs(one - other).max() > 1e-3
    np.testing.assert_allclose(both, (one + other) / 2, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(told(mirrored, turned)[0], both, rtol=1e-4, atol=1e-6)
    # What is sown of the maps is the image's own.
    np.testing.assert_allclose(kept["stage2"][0], maps["stage2"][0], rtol=1e-4, atol=1e-5)


def test_training_sees_every_image_as_it_is(fill):
    images = _images(2, 12, 14, 3)
    modules = [_airbench("airbench90", widths=(8, 8, 8), mirror=m) for m in (False, True)]
    variables = fill(modules[0], images, train=False)
    plain, mirrored = (
        jax.jit(functools.partial(m.apply, train=True, mutable=["batch_stats"]))(variables, images)
        for m in modules
    )
    jax.tree.map(np.testing.assert_array_equal, plain, mirrored)


@pytest.mark.parametrize(
    ("name", "petaflops", "epochs"), [("airbench94", 0.36, 9.9), ("airbench95", 1.39, 15)]
)
def test_operations_are_those_of_the_published_runs(name, petaflops, epochs):
    # A run is 50,000 images an epoch, forward and backward: three times the forward pass.
    run = 3 * epochs * 50_000 * models.flops(_airbench(name), (32, 32, 3))
    assert run == pytest.approx(petaflops * 1e15, rel=0.03)
