import jax
import jax.numpy as jnp
import numpy as np
import pytest

from imgrec.augment.erase import cutout

HEIGHT, WIDTH = 6, 8


@pytest.mark.parametrize("side", [3, 4])
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
    areas = (cut == 0).any(axis=-1).sum(axis=(1, 2))
    assert areas.min() == ((side + 1) // 2) ** 2  # in a corner
    assert areas.max() == side**2
