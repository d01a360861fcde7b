import jax
import jax.numpy as jnp
import numpy as np
import pytest

from imgrec.augment.erase import cutout, erasing

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


def test_erasing_hides_boxes_of_the_shares_asked_for_as_often_as_asked():
    keys = jax.random.split(jax.random.key(0), 600)
    hidden = np.asarray(
        jax.vmap(lambda key: erasing(key, 30, 40, 0.4, (0.1, 0.3), (0.5, 2.0)))(keys)
    )
    some = hidden.any(axis=(1, 2))
    assert abs(some.mean() - 0.4) < 5 * (0.24 / 600) ** 0.5
    shares = hidden[some].mean(axis=(1, 2))
    assert 0.08 < shares.min() < 0.12 and 0.28 < shares.max() < 0.32
    for one in hidden[some]:
        rows, columns = np.nonzero(one)
        assert len(rows) == (np.ptp(rows) + 1) * (np.ptp(columns) + 1)
    assert hidden.any(axis=0)[3:-3, 3:-3].all()  # corners are rare, as for any box inside
