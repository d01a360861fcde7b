import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from jax import lax

from imgrec.evaluation.explanations import receptive
from imgrec.evaluation.explanations.receptive import Field
from imgrec.models.convolution import conv


def convolved(x, window, stride, padding, dilation=1, weight=1.0):
    kernel = jnp.full((*window, x.shape[-1], 2), weight)
    return lax.conv_general_dilated(
        x,
        kernel,
        (stride, stride),
        padding,
        rhs_dilation=(dilation, dilation),
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
    )


def residual(x):
    branch = convolved(convolved(x, (3, 3), 2, ((1, 1), (1, 1))), (3, 3), 1, ((1, 1), (1, 1)))
    return jax.nn.relu(branch + x[:, ::2, ::2])


def gated(x):
    x = convolved(x, (3, 3), 1, "SAME")
    return x * jax.nn.sigmoid(x.mean(axis=(1, 2), keepdims=True))


STACKS = {
    "one convolution": lambda x: convolved(x, (3, 5), 1, ((1, 1), (0, 2))),
    "strides": lambda x: convolved(convolved(x, (3, 3), 2, "SAME"), (5, 5), 2, "VALID"),
    "dilation": lambda x: convolved(x, (3, 3), 1, "SAME", dilation=3),
    "mean pooling": lambda x: nn.avg_pool(convolved(x, (3, 3), 1, "SAME"), (2, 2), (2, 2)),
    "overlapping pooling": lambda x: nn.avg_pool(x, (3, 3), (2, 2), padding=((1, 1), (1, 1))),
    "zeros around": lambda x: jnp.pad(x, ((0, 0), (3, 0), (1, 2), (0, 0)))[:, 1:, :-1],
    "its edge around": lambda x: nn.avg_pool(
        jnp.pad(x, ((0, 0), (2, 2), (3, 1), (0, 0)), mode="edge"), (2, 2), (2, 2)
    ),
    "every third pixel": lambda x: x[:, 1::3, 2::3],
    "two ways that meet": residual,
    "maps beside maps": lambda x: jnp.concatenate([x, convolved(x, (5, 5), 1, "SAME")], -1),
    "within compiled functions": lambda x: jax.jit(jax.nn.relu)(
        jax.checkpoint(lambda y: convolved(y, (3, 3), 2, "VALID"))(x)
    ),
}


@pytest.mark.parametrize("name", STACKS)
def test_fields_are_what_the_gradient_of_an_inner_cell_reaches(name):
    function = STACKS[name]
    x = jnp.asarray(np.random.default_rng(0).uniform(1, 2, (1, 24, 30, 2)), jnp.float32)
    fields = receptive.receptive_fields(function, jax.ShapeDtypeStruct(x.shape, x.dtype))
    cells = jax.eval_shape(function, x).shape[1:3]
    row, column = cells[0] // 2, cells[1] // 2
    reached = jax.grad(lambda x: function(x)[0, row, column].sum())(x)[0].sum(-1) != 0
    for field, axis, cell in zip(fields, (1, 0), (row, column), strict=True):
        seen = np.flatnonzero(np.asarray(reached).any(axis=axis))
        expected = [field.first + field.stride * cell, field.last + field.stride * cell]
        assert [seen[0], seen[-1]] == expected


def test_a_gate_of_the_whole_map_looks_nowhere_in_particular():
    shape = jax.ShapeDtypeStruct((1, 20, 20, 2), jnp.float32)
    rows, columns = receptive.receptive_fields(gated, shape)
    assert rows == columns == Field(1, -1, 1)


@pytest.mark.parametrize("groups", [1, 4])
@pytest.mark.parametrize("size", [1, 3])
def test_convolutions_that_cpus_compute_otherwise_see_the_same(size, groups):
    layer = conv(4, size, strides=2, groups=groups, dtype=jnp.float32, name="layer")
    x = jnp.zeros((1, 12, 12, 4))
    variables = jax.eval_shape(lambda: layer.init(jax.random.key(0), x))
    variables = jax.tree.map(lambda leaf: jnp.ones(leaf.shape), variables)
    rows, columns = receptive.receptive_fields(
        lambda x: layer.apply(variables, x), jax.ShapeDtypeStruct(x.shape, x.dtype)
    )
    assert rows == columns == Field(2, -(size // 2), size // 2)


@pytest.mark.parametrize(
    "function",
    [
        lambda x: x.swapaxes(1, 2),
        lambda x: jax.image.resize(x, (1, 8, 8, 2), "linear"),
        lambda x: x.reshape(1, 16, 16, 2)[:, :, ::-1].reshape(1, 8, 32, 2),
        lambda x: x + convolved(x, (1, 1), 2, "VALID")[:, :1, :1],
    ],
)
def test_what_does_not_follow_is_not_guessed_or_stays_at_its_place(function):
    shape = jax.ShapeDtypeStruct((1, 16, 16, 2), jnp.float32)
    found = receptive.receptive_fields(function, shape)
    assert found in (None, receptive.PIXEL)


def test_between_the_centres_the_map_is_interpolated():
    field = Field(4, -2, 13)  # LeNet's last maps: centres at 5.5, 9.5, ..., 21.5
    weights = receptive.interpolation(field, 5, 28)
    assert weights.shape == (28, 5)
    ramp = weights @ np.arange(5)
    inner = np.arange(6, 22)
    np.testing.assert_allclose(ramp[inner], (inner - 5.5) / 4, atol=1e-6)


def test_beyond_the_last_centre_a_cell_goes_on_for_its_width_and_fades():
    weights = receptive.interpolation(Field(4, -2, 13), 5, 28)
    first = weights[:, 0]
    np.testing.assert_allclose(first[:6], [0.125, 0.375, 0.625, 0.875, 1, 1], atol=1e-6)
    np.testing.assert_allclose(weights[::-1, -1], first, atol=1e-6)  # 28 pixels: symmetric
    assert np.all(weights.sum(axis=1) <= 1 + 1e-6)


@pytest.mark.parametrize(("cells", "pixels"), [(1, 7), (4, 16), (7, 28), (3, 32)])
def test_cells_that_share_the_image_cover_it_evenly(cells, pixels):
    weights = receptive.interpolation(None, cells, pixels)
    np.testing.assert_allclose(weights.sum(axis=1), 1, atol=1e-6)
    np.testing.assert_allclose(weights, weights[::-1, ::-1], atol=1e-6)
