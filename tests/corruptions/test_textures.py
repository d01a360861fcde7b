import jax
import jax.numpy as jnp
import numpy as np
import pytest

from imgrec.corruptions import textures


def test_plasma_is_the_diamond_square_algorithm():
    size, decay = 16, 1.7
    draws = np.asarray(jax.random.uniform(jax.random.key(0), (size**2,), minval=-1, maxval=1))
    cloud = np.zeros((size, size))
    step, used = size, 1
    while step > 1:
        half, n = step // 2, size // step
        noise = draws[used : used + 3 * n * n].reshape(3, n, n) / decay ** (2 * np.log2(n))
        used += 3 * n * n
        for i in range(n):
            for j in range(n):
                y, x = i * step, j * step
                corners = [
                    cloud[(y + dy) % size, (x + dx) % size] for dy in (0, step) for dx in (0, step)
                ]
                cloud[y + half, x + half] = np.mean(corners) + noise[0, i, j]
        for i in range(n):
            for j in range(n):
                for k, (y, x) in enumerate(
                    [(i * step, j * step + half), (i * step + half, j * step)]
                ):
                    around = [(-half, 0), (half, 0), (0, -half), (0, half)]
                    mean = np.mean([cloud[(y + dy) % size, (x + dx) % size] for dy, dx in around])
                    cloud[y, x] = mean + noise[1 + k, i, j]
        step = half
    expected = (cloud - cloud.min()) / (cloud.max() - cloud.min())
    found = jax.jit(textures.plasma, static_argnums=1)(jax.random.key(0), size, decay)
    np.testing.assert_allclose(found, expected, atol=1e-5)


@pytest.mark.parametrize("grain", [1, 5])
def test_ice_is_bright_and_bluish_and_differs_from_pane_to_pane(grain):
    panes = jax.jit(jax.vmap(lambda key: textures.ice(key, 48, 48, grain)))
    ice = np.asarray(panes(jax.random.split(jax.random.key(0), 64)))
    assert ice.min() >= 0
    assert ice.max() <= 1
    means = ice.mean(axis=(0, 1, 2))
    # The photographs of the published sets: 0.57, 0.66, 0.70 on average.
    np.testing.assert_allclose(means, [0.57, 0.66, 0.70], atol=0.05)
    assert 0.06 < ice.mean(axis=-1).std(axis=(1, 2)).mean() < 0.12  # theirs: 0.09
    assert ice.mean(axis=(1, 2, 3)).std() > 0.08


def test_a_texture_of_a_key_is_always_the_same():
    ice = jax.jit(lambda key: textures.ice(key, 16, 24, 2.5))
    one, same, other = (ice(jax.random.key(seed)) for seed in (0, 0, 1))
    assert one.shape == (16, 24, 3)
    np.testing.assert_array_equal(one, same)
    assert jnp.abs(one - other).mean() > 0.01
