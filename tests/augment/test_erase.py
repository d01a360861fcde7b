import jax
import jax.numpy as jnp
import numpy as np
import pytest

from imgrec.augment.erase import cutout

HEIGHT, WIDTH = 6, 8


@pytest.mark.parametrize("side", [1, 3, 4])
def test_cutout_hides_a_clipped_square_about_any_pixel(side):
    image = np.random.default_rng(0).uniform(1, 2, (HEIGHT, WIDTH, 3)).astype(np.float32)
    centers = {}
    for row in range(HEIGHT):
        for column in range(WIDTH):
            expected = image.copy()
            top, left = row - side // 2, column - side // 2
            expected[max(top, 0) : top + side, max(left, 0) : left + side] = 0
            centers[expected.tobytes()] = (row, column)
    assert len(centers) == HEIGHT * WIDTH

    keys = jax.random.split(jax.random.key(0), 600)
    cut = np.asarray(jax.jit(jax.vmap(lambda key: cutout(jnp.asarray(image), key, side)))(keys))
    assert {centers[one.tobytes()] for one in cut} == set(centers.values())


@pytest.mark.parametrize("side", [2, 4])
def test_hidden_area_is_a_quarter_of_the_square_to_all_of_it(side):
    image = np.ones((HEIGHT, WIDTH, 1), np.float32)
    keys = jax.random.split(jax.random.key(1), 300)
    cut = np.asarray(jax.jit(jax.vmap(lambda key: cutout(jnp.asarray(image), key, side)))(keys))
    areas = (cut == 0).sum(axis=(1, 2, 3))
    assert areas.min() == side**2 // 4
    assert areas.max() == side**2
