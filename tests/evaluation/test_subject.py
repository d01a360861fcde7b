import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from imgrec.data import ArraySource, Split
from imgrec.evaluation.subject import Subject

RNG = np.random.default_rng(0)
IMAGES = RNG.integers(0, 256, (21, 3, 2, 2), dtype=np.uint8)
KERNEL = RNG.normal(size=(12, 4)).astype(np.float32)
MEAN, STD = (0.4, 0.6), (0.2, 0.5)


class Linear(nn.Module):
    """Logits from a flat image, which is what the head is handed."""

    @nn.compact
    def __call__(self, images, train):
        assert not train
        flat = images.reshape(len(images), -1)
        self.sow("intermediates", "pre_logits", flat.astype(jnp.bfloat16))
        return flat @ self.param("kernel", nn.initializers.zeros, KERNEL.shape)


def subject(batch_size=8, put=jax.device_put) -> Subject:
    return Subject(
        module=Linear(),
        variables={"params": {"kernel": KERNEL}},
        mean=MEAN,
        std=STD,
        image_shape=(3, 2, 2),
        class_names=tuple("abcd"),
        batch_size=batch_size,
        put=put,
    )


def normalised():
    return ((IMAGES / 255 - MEAN) / STD).reshape(len(IMAGES), -1)


def test_logits_are_of_normalised_images_from_bytes_or_floats():
    model = subject()
    found = model.logits(model.variables, jnp.asarray(IMAGES))
    np.testing.assert_allclose(found, normalised() @ KERNEL, rtol=1e-4, atol=1e-4)
    floats = model.logits(model.variables, jnp.float32(IMAGES) / 255)
    np.testing.assert_allclose(floats, found, rtol=1e-6, atol=1e-6)


def test_in_floats_it_is_differentiable():
    """By the chain rule each channel's standard deviation is in the gradient."""
    model, image = subject(), jnp.float32(IMAGES[:1]) / 255
    found = jax.grad(lambda x: model.logits(model.variables, x)[0, 2])(image)
    np.testing.assert_allclose(found[0], KERNEL[:, 2].reshape(3, 2, 2) / STD, rtol=1e-5)


def test_features_are_what_the_head_is_handed_in_the_same_pass():
    model = subject()
    found = jax.jit(model.outputs)(model.variables, IMAGES)
    assert set(found) == {"logits", "features"}
    np.testing.assert_allclose(found["features"], normalised(), rtol=1e-2, atol=1e-2)
    assert found["features"].dtype == jnp.float32
    np.testing.assert_allclose(
        found["logits"], model.logits(model.variables, jnp.asarray(IMAGES)), rtol=1e-6, atol=1e-6
    )
    inner = model.intermediates(model.variables, jnp.asarray(IMAGES))
    assert any(name.endswith("pre_logits") for name in inner)


def test_a_compiled_program_holds_no_copy_of_the_variables():
    model = subject()
    run = jax.jit(model.logits)
    first = run(model.variables, IMAGES)
    doubled = run({"params": {"kernel": 2 * KERNEL}}, IMAGES)
    np.testing.assert_allclose(doubled, 2 * first, rtol=1e-6)
    assert run._cache_size() == 1
    constants = jax.make_jaxpr(model.logits)(model.variables, jnp.asarray(IMAGES)).consts
    assert not any(np.shape(constant) == KERNEL.shape for constant in constants)


def spread(batch):
    sharding = NamedSharding(Mesh(np.array(jax.devices()), ("data",)), PartitionSpec("data"))
    return jax.device_put(dict(batch), sharding)


@pytest.mark.parametrize("put", [jax.device_put, spread], ids=["one device", "eight"])
@pytest.mark.parametrize("batch_size", [8, 24])
def test_a_pass_tells_of_every_example_once_in_the_order_of_the_split(batch_size, put):
    labels = np.arange(21, dtype=np.int32) % 4
    # Neither all images nor in their order, and no whole number of batches.
    rows = np.random.default_rng(1).permutation(21)[:19]
    split = Split("test", ArraySource(IMAGES, labels), rows)
    model = subject(batch_size, put)

    @jax.jit
    def compute(variables, batch):
        return {"logits": model.logits(variables, batch["image"]), "seen": batch["label"]}

    found = model.over(split, compute)
    np.testing.assert_array_equal(found["index"], np.arange(19))
    np.testing.assert_array_equal(found["label"], labels[rows])
    np.testing.assert_array_equal(found["seen"], labels[rows])
    np.testing.assert_allclose(found["logits"], (normalised() @ KERNEL)[rows], rtol=1e-4, atol=1e-4)
    assert all(isinstance(values, np.ndarray) for values in found.values())
