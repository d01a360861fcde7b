"""Turns: exact both ways, and each against the layer of PyTorch that it is for."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from imgrec.transfer import turns


def noise(*shape):
    return np.random.default_rng(0).normal(size=shape).astype(np.float32)


@pytest.mark.parametrize(
    ("turn", "shapes"),
    [
        (turns.SAME, [(3, 4)]),
        (turns.CONV, [(6, 5, 3, 2)]),
        (turns.LINEAR, [(3, 4)]),
        (turns.transposed(2, 0, 1), [(2, 3, 4)]),
        (turns.reordered([2, 0, 3, 1], 1), [(3, 4)]),
        (turns.shaped((3, 2, 2), (3, 4)), [(3, 2, 2)]),
        (turns.fused(3), [(6, 4)]),
        (turns.fused(3).then(turns.LINEAR), [(6, 4)]),
        (turns.shaped((4, 3, 1, 1), (4, 3)).then(turns.LINEAR), [(4, 3, 1, 1)]),
        (turns.reordered([1, 2, 0], 0).then(turns.reordered([1, 0], 1)), [(3, 2)]),
    ],
)
def test_there_and_back_is_nothing(turn, shapes):
    theirs = tuple(noise(*shape) for shape in shapes)
    ours = turn.into(theirs)
    for before, after in zip(theirs, turn.out(ours), strict=True):
        np.testing.assert_array_equal(before, after)
    for before, after in zip(ours, turn.into(turn.out(ours)), strict=True):
        np.testing.assert_array_equal(before, after)


def test_by_hand():
    array = np.arange(6).reshape(3, 2)
    (found,) = turns.reordered([2, 0, 1], 0).into((array,))
    np.testing.assert_array_equal(found, [[4, 5], [0, 1], [2, 3]])
    query, key, value = turns.fused(3).into((array,))
    assert (query.tolist(), key.tolist(), value.tolist()) == ([[0, 1]], [[2, 3]], [[4, 5]])


@pytest.mark.parametrize("groups", [1, 2, 6], ids=["plain", "grouped", "depthwise"])
def test_convolutions_against_torch(groups):
    torch = pytest.importorskip("torch")
    kernel, image = noise(12, 6 // groups, 3, 2), noise(1, 6, 7, 8)
    expected = torch.nn.functional.conv2d(
        torch.from_numpy(image), torch.from_numpy(kernel), groups=groups
    )
    (ours,) = turns.CONV.into((kernel,))
    layer = nn.Conv(12, (3, 2), padding="VALID", feature_group_count=groups, use_bias=False)
    found = layer.apply({"params": {"kernel": ours}}, image.transpose(0, 2, 3, 1))
    np.testing.assert_allclose(found.transpose(0, 3, 1, 2), expected.numpy(), atol=1e-5)


@pytest.mark.parametrize(("side", "grid"), [(7, (12, 12)), (14, (7, 7)), (4, (3, 6)), (5, (5, 9))])
def test_positions_are_resized_as_torch_does_with_antialiasing(side, grid):
    torch = pytest.importorskip("torch")
    positions = noise(1, 2 + side * side, 5)
    found = turns.resized(positions, grid, prefix=2)
    assert found.shape == (1, 2 + grid[0] * grid[1], 5)
    np.testing.assert_array_equal(found[:, :2], positions[:, :2])
    images = torch.from_numpy(positions[:, 2:].reshape(1, side, side, 5)).permute(0, 3, 1, 2)
    expected = torch.nn.functional.interpolate(images, size=grid, mode="bicubic", antialias=True)
    np.testing.assert_allclose(
        found[:, 2:].reshape(*grid, 5), expected[0].permute(1, 2, 0).numpy(), atol=1e-5
    )


def test_positions_resized_to_their_own_grid_are_the_same():
    positions = noise(1, 17, 3)
    found = jax.jit(jnp.asarray)(turns.resized(positions, (4, 4), prefix=1))
    np.testing.assert_allclose(found, positions, atol=1e-6)
