"""LeNet-5 against its paper: table I, the counts layer by layer, every unusual unit by hand."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from ml_collections import ConfigDict
from scipy.signal import correlate2d

from imgrec import models
from imgrec.config import ModelConfig
from imgrec.models.lenet import (
    TABLE_1,
    PartialConv,
    Subsampling,
    class_codes,
    rbf_logits,
    scaled_tanh,
)

TODAY = {"activation": "relu", "pool": "max", "connections": "full", "head": "linear"}


def _lenet(**options):
    return models.create(ModelConfig("lenet5", ConfigDict(options)), 10)


def _images(*shape):
    return jnp.asarray(np.random.default_rng(1).normal(size=shape), jnp.float32)


@functools.cache
def _params(**options):
    images = jnp.zeros((1, 32, 32, 1))
    init = jax.jit(lambda: _lenet(**options).init(jax.random.key(0), images, train=False))
    return init()["params"]


def _counts(**options):
    images = jnp.zeros((1, 32, 32, 1))
    module = _lenet(**options)
    variables = jax.eval_shape(lambda: module.init(jax.random.key(0), images, train=False))
    layers = variables["params"].items()
    return {name: models.count_parameters({"params": layer}) for name, layer in layers}


def test_parameters_layer_by_layer_are_those_of_the_paper():
    # Section II.B gives each number; the codes of the output layer are fixed.
    assert _counts() == {
        "c1": 156,
        "s2": 12,
        "c3": 1_516,
        "s4": 32,
        "c5": 48_120,
        "f6": 10_164,
    }


def test_lenet_of_today_has_its_usual_count():
    assert _counts(**TODAY) == {
        "c1": 156,
        "c3": 2_416,
        "c5": 48_120,
        "f6": 10_164,
        "head": 850,
    }


def test_table_1_printed_as_in_the_paper():
    rows = [
        "X   XXX  XXXX XX",
        "XX   XXX  XXXX X",
        "XXX   XXX  X XXX",
        " XXX  XXXX  X XX",
        "  XXX  XXXX XX X",
        "   XXX  XXXX XXX",
    ]
    printed = ["".join("X" if s2 in c3 else " " for c3 in TABLE_1) for s2 in range(6)]
    assert printed == rows
    assert sum(map(len, TABLE_1)) == 60


def test_partial_conv_is_a_sum_over_the_connections_of_the_table():
    rng = np.random.default_rng(0)
    x = jnp.asarray(rng.normal(size=(1, 7, 6, 6)), jnp.float32)
    layer = PartialConv(TABLE_1, he_normal=False, dtype=jnp.float32)
    out, variables = layer.init_with_output(jax.random.key(0), x)
    kernel, bias = (np.asarray(variables["params"][k]) for k in ("kernel", "bias"))
    assert kernel.shape == (5, 5, 60)
    connection = 0
    for j, sources in enumerate(TABLE_1):
        expected = np.full((3, 2), bias[j])
        for source in sources:
            expected += correlate2d(x[0, :, :, source], kernel[:, :, connection], mode="valid")
            connection += 1
        np.testing.assert_allclose(out[0, :, :, j], expected, atol=1e-5)


def test_an_absent_connection_carries_nothing_forward():
    layer = PartialConv(TABLE_1, he_normal=False, dtype=jnp.float32)
    x = jax.random.normal(jax.random.key(1), (1, 5, 5, 6))
    variables = layer.init(jax.random.key(0), x)
    forward = jax.jit(layer.apply)
    before = forward(variables, x)
    for source in range(6):
        after = forward(variables, x.at[..., source].add(100.0))
        changed = np.asarray(before != after)[0, 0, 0]
        assert changed.tolist() == [source in sources for sources in TABLE_1]


def test_weights_start_uniform_within_the_bound_of_their_own_fan_in():
    params = _params()
    fan_in = {"c1": 25, "s2": 4, "s4": 4, "c5": 400, "f6": 120}
    for name, inputs in fan_in.items():
        for parameter in jax.tree.leaves(params[name]):
            assert np.abs(parameter).max() <= 2.4 / inputs
        weights = params[name].get("kernel", params[name].get("scale"))
        assert np.abs(weights).max() > 0.7 * 2.4 / inputs
    # A map of C3 that hears three maps has 75 inputs, one that hears all has 150.
    kernel = np.abs(params["c3"]["kernel"])
    first = 0
    for sources in TABLE_1:
        bound = 2.4 / (25 * len(sources))
        last = first + len(sources)
        assert 0.95 * bound < kernel[:, :, first:last].max() <= bound
        first = last


def test_rectified_weights_start_by_hes_rule_with_biases_zero():
    params = _params(**{**TODAY, "connections": "table1"})
    assert np.std(params["c5"]["kernel"]) == pytest.approx(np.sqrt(2 / 400), rel=0.02)
    assert np.std(params["c3"]["kernel"][:, :, -6:]) == pytest.approx(np.sqrt(2 / 150), rel=0.2)
    assert not any(np.any(layer["bias"]) for layer in params.values())


def test_scaled_tanh():
    x = np.linspace(-4, 4, 17, dtype=np.float32)
    np.testing.assert_allclose(scaled_tanh(jnp.asarray(x)), 1.7159 * np.tanh(2 * x / 3), rtol=1e-5)
    np.testing.assert_allclose(scaled_tanh(jnp.array([-1.0, 1.0])), [-1, 1], atol=1e-4)


def test_subsampling_by_hand():
    x = jnp.arange(16, dtype=jnp.float32).reshape(1, 4, 4, 1)
    variables = {"params": {"scale": np.float32([0.5]), "bias": np.float32([-1])}}
    out = Subsampling(jnp.float32).apply(variables, x)
    # 0 + 1 + 4 + 5 = 10, halved, minus 1.
    np.testing.assert_allclose(out[0, :, :, 0], [[4, 8], [20, 24]], rtol=1e-6)


def test_codes_are_signs_that_differ_and_never_change():
    codes = class_codes(10, 84)
    assert set(np.unique(codes)) == {-1.0, 1.0}
    assert len(np.unique(codes, axis=0)) == 10
    np.testing.assert_array_equal(codes, class_codes(10, 84))
    np.testing.assert_array_equal(codes, class_codes(100, 84)[:10])
    # Were they to change with a version of numpy, saved models would lose their meaning.
    assert codes[0, :8].tolist() == [-1, 1, 1, -1, 1, -1, -1, -1]


def test_rbf_logits_are_minus_the_scaled_squared_distance():
    codes = np.float32([[1, 1, -1, 1], [-1, 1, 1, 1]])
    features = jnp.array([[1.0, 1.0, -1.0, 1.0], [0.0, 0.5, 0.0, 2.0]])
    logits = rbf_logits(features, codes)
    # Over sqrt(4): (0, 4 + 4) and (1 + .25 + 1 + 1) twice.
    np.testing.assert_allclose(logits, [[0, -4], [-1.625, -1.625]], rtol=1e-6)


def test_28x28_images_are_extended_by_their_border(fill):
    module = _lenet()
    small = _images(2, 28, 28, 1)
    large = jnp.asarray(np.pad(small, ((0, 0), (2, 2), (2, 2), (0, 0)), mode="edge"))
    variables = fill(module, small, train=False)
    predict = jax.jit(functools.partial(module.apply, train=False))
    np.testing.assert_allclose(predict(variables, small), predict(variables, large), rtol=1e-5)


@pytest.mark.parametrize("pool", ["subsampling", "average", "max"])
def test_maps_have_the_sizes_of_figure_2(pool):
    module = _lenet(pool=pool)
    images = jnp.zeros((2, 32, 32, 1))
    variables = jax.eval_shape(lambda: module.init(jax.random.key(0), images, train=False))
    maps = jax.eval_shape(lambda v: models.intermediates(module, v, images), variables)
    assert {name: value.shape for name, value in maps.items()} == {
        "stage1": (2, 14, 14, 6),
        "stage2": (2, 5, 5, 16),
        "pre_logits": (2, 84),
    }


def test_each_option_changes_what_is_computed(fill):
    images = _images(2, 32, 32, 1)

    def logits(**options):
        module = _lenet(**options)
        variables = fill(module, images, train=False)
        return jax.jit(functools.partial(module.apply, train=False))(variables, images)

    paper = logits()
    for option, value in {**TODAY, "activation": "tanh"}.items():
        assert not np.allclose(paper, logits(**{option: value})), option
