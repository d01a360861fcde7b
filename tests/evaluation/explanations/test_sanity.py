"""The measures by hand, and with them all methods on a network that has learned shapes."""

import dataclasses
import json

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import linen as nn
from scipy import stats

from imgrec import augment
from imgrec.data import scenes
from imgrec.evaluation.explanations import METHODS, Explanations, explain, sanity
from imgrec.evaluation.subject import Subject


def test_a_hit_is_a_maximum_on_the_object():
    masks = np.zeros((3, 4, 5), bool)
    masks[:, 1:3, 1:3] = True
    maps = np.zeros((3, 4, 5))
    maps[0, 2, 2] = 1
    maps[1, 2, 3] = 1
    np.testing.assert_array_equal(sanity.hits(maps, masks), [1, 0, 4 / 20])


def test_of_equal_maxima_the_share_counts():
    masks = np.zeros((1, 2, 2), bool)
    masks[0, 0, 0] = True
    maps = np.array([[[3.0, 3.0], [1.0, 3.0]]])
    np.testing.assert_allclose(sanity.hits(maps, masks), [1 / 3])


def test_energy_is_what_lies_on_the_object_of_what_is_positive():
    masks = np.array([[[True, False]], [[True, True]], [[False, True]]])
    maps = np.array([[[3.0, 1.0]], [[2.0, -5.0]], [[-1.0, 0.0]]])
    np.testing.assert_allclose(sanity.inside(maps, masks), [0.75, 1, np.nan])


def test_a_margin_is_a_distance():
    masks = np.zeros((2, 9, 9), bool)
    masks[0, 4, 4] = True
    y, x = np.mgrid[-4:5, -4:5]
    for margin in range(4):
        found = sanity.widened(masks, margin)
        np.testing.assert_array_equal(found[0], y**2 + x**2 <= margin**2)
        assert not found[1].any()  # images do not run into one another


def test_rank_correlation_agrees_with_scipy():
    rng = np.random.default_rng(0)
    one = rng.integers(0, 5, (4, 6, 7)).astype(float)  # with ties
    other = one + rng.normal(0, 2, one.shape)
    expected = [
        stats.spearmanr(a.ravel(), b.ravel()).statistic for a, b in zip(one, other, strict=True)
    ]
    np.testing.assert_allclose(sanity.spearman(one, other), expected)
    assert np.isnan(sanity.spearman(np.zeros((1, 3, 3)), np.eye(3)[None])).all()


def test_shuffling_keeps_the_values_and_loses_their_places():
    rng = np.random.default_rng(0)
    variables = {"params": {"a": rng.normal(size=(4, 5)), "b": rng.normal(size=20).reshape(4, 5)}}
    found = sanity.shuffle(variables, seed=1)
    for name, values in variables["params"].items():
        assert found["params"][name].shape == values.shape
        np.testing.assert_array_equal(np.sort(found["params"][name], None), np.sort(values, None))
        assert np.mean(found["params"][name] == values) < 0.3
    again = sanity.shuffle(variables, seed=1)
    np.testing.assert_array_equal(found["params"]["a"], again["params"]["a"])
    other = sanity.shuffle(variables, seed=2)
    assert np.any(found["params"]["a"] != other["params"]["a"])
    order = [np.argsort(np.argsort(found["params"][n], None)) for n in ("a", "b")]
    assert np.any(order[0] != order[1])


def explanations_of(maps):
    return Explanations({"grad_cam": maps}, {}, {}, {})


def test_localisation_is_told_beside_what_no_knowledge_reaches():
    masks = np.zeros((4, 8, 8), bool)
    masks[:3, 3:5, 3:5] = True
    masks[3, 0, 0] = True
    maps = np.full((4, 8, 8), 0.1, np.float32)
    maps[:, 4, 4] = 1
    found = sanity.localisation(explanations_of(maps), masks)
    assert json.loads(json.dumps(found)) == found
    assert found["n"] == 4
    assert found["margin"] == 1  # 15 of 224 pixels are 0.5 of 8; rounded to even, 0 or 1
    numbers = found["methods"]["grad_cam"]
    assert numbers["pointing"] == 0.75
    assert numbers["energy"] == pytest.approx((3 * 1.3 + 0.1) / 4 / 7.3)
    assert set(numbers["intervals"]) == {"pointing", "energy"}
    low, high = numbers["intervals"]["pointing"]
    assert low <= 0.75 <= high
    assert found["centre"] == 0.75
    assert found["area"] == pytest.approx(13 / 256)


def test_maps_without_anything_have_no_energy():
    masks = np.ones((2, 8, 8), bool)
    found = sanity.localisation(explanations_of(np.zeros((2, 8, 8), np.float32)), masks)
    assert found["methods"]["grad_cam"]["energy"] is None
    assert found["methods"]["grad_cam"]["intervals"]["energy"] is None


class OnePlace(nn.Module):
    """Class 0 against class 1: how bright one cell of 2x2 pixels is."""

    @nn.compact
    def __call__(self, x, train=False):
        seen = x[:, 4:6, 10:12].mean(axis=(1, 2, 3))
        return jnp.stack([4 * seen, jnp.zeros_like(seen)], axis=-1)


def test_the_class_goes_when_the_place_that_it_rests_on_is_deleted(subject_of):
    subject = subject_of(OnePlace(), (16, 16, 1), params={})
    images = np.full((2, 16, 16, 1), 255, np.uint8)
    place = np.zeros((2, 16, 16), np.float32)
    place[:, 4:6, 10:12] = 1
    ramp = np.linspace(0, 0.5, 256, dtype=np.float32).reshape(1, 16, 16)
    maps = {"grad_cam": ramp + place, "hires_cam": ramp - place}  # it comes first, it comes last
    found = sanity.deletion(subject, images, np.zeros(2, int), Explanations(maps, {}, {}, {}))
    assert json.loads(json.dumps(found)) == found
    assert found["n"] == 2
    np.testing.assert_allclose(found["shares"], np.linspace(0, 1, 17))
    seen, hidden = 1 / (1 + np.exp(-4)), 0.5
    first, last = (found["methods"][name] for name in ("grad_cam", "hires_cam"))
    np.testing.assert_allclose(first["probability"], [seen, *[hidden] * 16], rtol=1e-5)
    np.testing.assert_allclose(last["probability"], [*[seen] * 16, hidden], rtol=1e-5)
    assert first["area"] == pytest.approx(hidden + (seen - hidden) / 32)
    assert last["area"] == pytest.approx(seen - (seen - hidden) / 32)
    assert first["area"] < found["methods"]["random"]["area"] < last["area"]


def test_the_order_of_deletion_is_that_of_the_means_of_cells(subject_of):
    """Against one cell after the other, in images that the grid does not divide evenly."""

    class Weighted(nn.Module):
        @nn.compact
        def __call__(self, x, train=False):
            weights = jnp.linspace(-1, 1, 19 * 13).reshape(19, 13, 1)
            return jnp.stack([(x * weights).sum(axis=(1, 2, 3)) / 30, jnp.zeros(len(x))], axis=-1)

    subject = dataclasses.replace(subject_of(Weighted(), (19, 13, 1), params={}), mean=(0.5,))
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (1, 19, 13, 1), dtype=np.uint8)
    maps = rng.normal(size=(1, 19, 13)).astype(np.float32)
    found = sanity.deletion(
        subject, images, np.zeros(1, int), Explanations({"occlusion": maps}, {}, {}, {})
    )
    cells = {}
    for y, x in np.ndindex(19, 13):
        cells.setdefault((y * 8 // 19, x * 8 // 13), []).append((y, x))
    ranked = sorted(cells.values(), key=lambda pixels: -np.mean([maps[0, y, x] for y, x in pixels]))
    pixels, expected = images[0] / 255, []
    for k in range(65):
        if k % 4 == 0:
            seen = jnp.asarray(pixels, jnp.float32)[None]
            logit = subject.logits(subject.variables, seen)[0, 0]
            expected.append(1 / (1 + np.exp(-float(logit))))
        for y, x in ranked[k] if k < 64 else []:
            pixels[y, x] = 0.5
    np.testing.assert_allclose(found["methods"]["occlusion"]["probability"], expected, rtol=1e-4)


# What follows trains a network of 24,000 parameters to tell four shapes apart.


LAYERS = ((16, 5, 2), (24, 3, 2), (32, 3, 1), (32, 3, 1))  # features, size, strides


class Net(nn.Module):
    """Four convolutions, a mean and a linear head; `guided` is for guided backpropagation."""

    guided: bool = False

    @nn.compact
    def __call__(self, x, train=False):
        squash = guided_relu if self.guided else nn.relu
        for i, (features, size, strides) in enumerate(LAYERS):
            x = nn.Conv(features, (size, size), strides=strides, name=f"conv{i}")(x)
            x = squash(x)
        self.sow("intermediates", "stage1", x)
        x = x.mean(axis=(1, 2))
        self.sow("intermediates", "pre_logits", x)
        return nn.Dense(4, name="head")(x)


@jax.custom_vjp
def guided_relu(x):
    """Lets through only gradients above 0 (Springenberg et al. 2014)."""
    return nn.relu(x)


guided_relu.defvjp(
    lambda x: (nn.relu(x), x), lambda x, gradient: ((x > 0) * jnp.maximum(gradient, 0),)
)

KNOBS = scenes.Knobs(
    resolution=32,
    scale=(0.3, 0.4),
    shapes=("circle", "cross", "triangle", "square"),
    rotation=20,
    clutter=(0, 4),
)
N = 64


@pytest.fixture(scope="module")
def trained():
    """(subject, images, labels, masks), of images that it names rightly."""
    source = scenes.SceneSource(0, range(2_000), KNOBS)
    batch = source.gather(np.arange(2_000))
    mean, std = (0.35,) * 3, (0.25,) * 3
    module = Net()
    params = module.init(jax.random.key(0), jnp.zeros((1, 32, 32, 3)))["params"]
    optimizer = optax.adam(optax.cosine_decay_schedule(4e-3, 600))

    @jax.jit
    def step(params, state, images, labels):
        def loss(params):
            logits = module.apply({"params": params}, augment.normalise(images, mean, std))
            return optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()

        updates, state = optimizer.update(jax.grad(loss)(params), state)
        return optax.apply_updates(params, updates), state

    state = optimizer.init(params)
    rng = np.random.default_rng(0)
    for _ in range(600):
        rows = rng.integers(0, 2_000, 64)
        params, state = step(params, state, batch["image"][rows], batch["label"][rows])

    test = scenes.SceneSource(0, range(2**32, 2**32 + 160), KNOBS)
    seen = test.gather(np.arange(160))
    subject = Subject(
        module=module,
        variables={"params": params},
        mean=mean,
        std=std,
        image_shape=(32, 32, 3),
        class_names=KNOBS.classes,
        batch_size=16,
        put=lambda batch: batch,
    )
    logits = jax.jit(subject.logits)(subject.variables, seen["image"])
    right = np.flatnonzero(np.argmax(logits, axis=-1) == seen["label"])
    assert len(right) > 140
    chosen = right[:N]
    masks = np.stack([scenes.masks(test.scene(int(i)))[0] for i in chosen])
    return subject, seen["image"][chosen], seen["label"][chosen], masks


@pytest.mark.slow
def test_maps_of_a_trained_network_point_at_the_object(trained):
    subject, images, labels, masks = trained
    found = sanity.localisation(explain(subject, images, labels), masks)
    assert found["centre"] < 0.6
    for name, numbers in found["methods"].items():
        assert numbers["pointing"] >= 0.9, name
        assert numbers["energy"] > 2 * found["area"], name


@pytest.mark.slow
def test_what_maps_point_at_matters(trained):
    subject, images, labels, _ = trained
    found = sanity.deletion(subject, images, labels, explain(subject, images, labels))["methods"]
    random = found.pop("random")
    assert random["probability"][0] > 0.9 > 0.5 > random["probability"][-1]
    for name, numbers in found.items():
        assert numbers["area"] < random["area"] - 0.05, name


@pytest.mark.slow
def test_maps_depend_on_what_was_learned(trained):
    subject, images, labels, _ = trained
    found = sanity.randomisation(subject, images, labels)
    assert json.loads(json.dumps(found)) == found
    assert found["n"] == N
    assert set(found["methods"]) == set(METHODS) - {"rollout"}
    correlations = {name: numbers["spearman"] for name, numbers in found["methods"].items()}
    # Without normalisation, Grad-CAM++ shows where the rectified maps are active, whatever made
    # them so: its weights come from the gradients' positive parts. That is for the check to tell.
    assert correlations.pop("grad_cam_plus_plus") > 0.5
    assert max(map(abs, correlations.values())) <= 0.3
    assert all(numbers["n"] > N / 2 for numbers in found["methods"].values())


@pytest.mark.slow
def test_the_check_finds_out_guided_backpropagation(trained):
    """Whose maps are known to stay as they are, whatever the parameters (Adebayo et al.)."""
    subject, images, labels, _ = trained
    guided = dataclasses.replace(subject, module=Net(guided=True))

    def saliency(variables):
        def score(pixels):
            return jnp.take_along_axis(guided.logits(variables, pixels), labels[:, None], 1).sum()

        gradient = jax.grad(score)(jnp.asarray(images, jnp.float32) / 255)
        return np.asarray(jnp.abs(gradient).max(axis=-1))

    own = saliency(subject.variables)
    other = saliency(sanity.shuffle(subject.variables))
    assert np.nanmean(sanity.spearman(own, other)) > 0.3
