import dataclasses
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from imgrec.data import ArraySource, Split
from imgrec.evaluation.robustness import adversarial
from imgrec.evaluation.subject import Subject

RNG = np.random.default_rng(0)
N, SHAPE, CLASSES = 60, (6, 5, 1), 3
IMAGES = RNG.integers(0, 256, (N, *SHAPE), dtype=np.uint8)
FLOATS = jnp.asarray(IMAGES / 255, jnp.float32)


class Linear(nn.Module):
    @nn.compact
    def __call__(self, images, train):
        return nn.Dense(CLASSES)(images.reshape(len(images), -1))


class Curved(nn.Module):
    """A network whose gradient turns on the way, so that several steps go further than one."""

    @nn.compact
    def __call__(self, images, train):
        hidden = nn.tanh(nn.Dense(40)(images.reshape(len(images), -1)))
        return nn.Dense(CLASSES)(jnp.sin(3 * hidden))


def subject(module, shape=SHAPE):
    variables = module.init(jax.random.key(0), jnp.zeros((1, *shape)), train=False)
    return Subject(
        module=module,
        variables=variables,
        mean=(0.5,),
        std=(0.25,),
        image_shape=shape,
        class_names=tuple("abc"),
        batch_size=16,
        put=jax.device_put,
    )


def network(module):
    model = subject(module)
    return lambda images: model.logits(model.variables, images)


def own_labels(module):
    """Labels that the network gives itself, so that it begins with an accuracy of 1."""
    return jnp.asarray(network(module)(FLOATS).argmax(axis=1), jnp.int32)


def test_fgsm_on_a_linear_network_is_the_closed_form():
    model = subject(Linear())
    kernel = np.asarray(model.variables["params"]["Dense_0"]["kernel"])
    labels = own_labels(Linear())
    probabilities = np.asarray(jax.nn.softmax(network(Linear())(FLOATS)))
    # The gradient of cross-entropy is W (p - onehot), over the std, which keeps its sign.
    pull = (probabilities - np.eye(CLASSES)[np.asarray(labels)]) @ kernel.T
    expected = np.clip(np.asarray(FLOATS) + 0.07 * np.sign(pull).reshape(FLOATS.shape), 0, 1)
    found = adversarial.fgsm(
        adversarial.ascent(network(Linear())), FLOATS, labels, jnp.float32(0.07)
    )
    np.testing.assert_allclose(found, expected, atol=1e-7)


@jax.jit
def attacked(epsilon):
    labels, keys = own_labels(Curved()), jax.random.split(jax.random.key(1), N)
    return {
        "fgsm": adversarial.fgsm(adversarial.ascent(network(Curved())), FLOATS, labels, epsilon),
        "pgd": adversarial.pgd(
            adversarial.ascent(network(Curved())), FLOATS, labels, epsilon, keys, steps=8
        ),
    }


def attacks(epsilon):
    return attacked(jnp.float32(epsilon))


@pytest.mark.parametrize("epsilon", [0.0, 1 / 255, 0.1, 1.0])
@pytest.mark.parametrize("attack", ["fgsm", "pgd"])
def test_no_value_moves_further_than_epsilon_or_out_of_the_image(attack, epsilon):
    found = np.asarray(attacks(epsilon)[attack])
    assert np.abs(found - np.asarray(FLOATS)).max() <= epsilon + 1e-7
    assert found.min() >= 0
    assert found.max() <= 1
    if epsilon == 0:
        np.testing.assert_array_equal(found, FLOATS)
    else:
        assert np.abs(found - np.asarray(FLOATS)).mean() > 0.3 * min(epsilon, 0.5)


def test_many_steps_go_further_than_one():
    labels = own_labels(Curved())
    losses = {}
    for name, images in attacks(0.1).items():
        log_probabilities = jax.nn.log_softmax(network(Curved())(images))
        losses[name] = -log_probabilities[jnp.arange(N), labels].mean()
    assert losses["pgd"] > losses["fgsm"] > 0


def test_an_image_starts_from_its_own_key():
    labels, reach = own_labels(Curved()), jnp.float32(0.1)
    keys = jax.random.split(jax.random.key(1), N)
    together = adversarial.pgd(
        adversarial.ascent(network(Curved())), FLOATS, labels, reach, keys, steps=3
    )
    part = slice(7, 12)
    alone = adversarial.pgd(
        adversarial.ascent(network(Curved())),
        FLOATS[part],
        labels[part],
        reach,
        keys[part],
        steps=3,
    )
    np.testing.assert_allclose(together[part], alone, atol=1e-6)


def split():
    labels = np.asarray(own_labels(Curved()))
    labels = np.where(np.arange(N) % 5 == 0, (labels + 1) % CLASSES, labels)
    return Split("test", ArraySource(IMAGES, labels), np.arange(N))


def test_the_section():
    told = []
    found = adversarial.adversarial(
        subject(Curved()),
        split(),
        epsilons=(0, 0.02, 0.2),
        steps=5,
        progress=lambda done, total: told.append((done, total)),
    )
    assert found["n"] == N
    assert found["clean_accuracy"] == pytest.approx(0.8)
    for attack in ("fgsm", "pgd"):
        accuracy = found[attack]["accuracy"]
        assert accuracy[0] == found["clean_accuracy"]
        assert accuracy[0] > accuracy[1] > accuracy[2]
        assert len(found[attack]["accuracy_interval"]) == 3
    assert np.mean(found["pgd"]["accuracy"]) <= np.mean(found["fgsm"]["accuracy"])
    assert found["pgd"]["steps"] == 5
    assert found["pgd"]["step_over_epsilon"] == 0.5
    assert told[-1] == (12, 12)
    assert json.loads(json.dumps(found, allow_nan=False)) == found


def test_batches_change_nothing():
    one = adversarial.adversarial(subject(Curved()), split(), epsilons=(0.1,), steps=3)
    model = dataclasses.replace(subject(Curved()), batch_size=7)
    other = adversarial.adversarial(model, split(), epsilons=(0.1,), steps=3)
    assert one == other


def test_the_usual_epsilons_hang_on_the_images():
    photographs = adversarial.adversarial(subject(Linear()), split(), steps=1)
    assert photographs["epsilons"] == pytest.approx([1 / 255, 2 / 255, 4 / 255, 8 / 255])
    grey = subject(Linear(), shape=(28, 28, 1))
    images = ArraySource(np.zeros((2, 28, 28, 1), np.uint8), np.array([0, 1]))
    handwriting = adversarial.adversarial(grey, Split("test", images, np.arange(2)), steps=1)
    assert handwriting["epsilons"] == [0.1, 0.2, 0.3]
