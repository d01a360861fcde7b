import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from imgrec.augment import mix


def over_keys(function, n):
    return np.asarray(jax.jit(jax.vmap(function))(jax.random.split(jax.random.key(0), n)))


@pytest.mark.parametrize("alpha", [0.05, 0.2, 1.0, 40.0])
def test_symmetric_beta_has_the_distribution_function_of_beta(alpha):
    n = 4000
    draws = over_keys(lambda key: mix.symmetric_beta(key, alpha), n)
    assert ((draws >= 0) & (draws <= 1)).all()
    # float32 cannot tell 1 - 1e-9 from 1, so points, not a Kolmogorov-Smirnov test.
    points = np.array([1e-4, 0.01, 0.1, 0.3, 0.45, 0.5, 0.6, 0.8, 0.95, 0.9999])
    expected = stats.beta(alpha, alpha).cdf(points)
    deviation = np.sqrt(expected * (1 - expected) / n)
    shares = (draws[:, None] <= points).mean(axis=0)
    assert (np.abs(shares - expected) <= 4 * deviation + 1e-9).all()


def test_mixup_weighs_all_pixels_alike():
    maps = over_keys(lambda key: mix.mixup(key, 4, 5, 1.0), 50)
    assert maps.shape == (50, 4, 5)
    assert (maps == maps[:, :1, :1]).all()
    assert len(np.unique(maps)) == 50


def test_cutmix_weighs_a_box_by_zero():
    maps = over_keys(lambda key: mix.cutmix(key, 6, 8, 1.0), 200)
    assert set(np.unique(maps)) == {0, 1}
    for weights in maps:
        rows, columns = np.nonzero(weights == 0)
        if len(rows):
            height, width = np.ptp(rows) + 1, np.ptp(columns) + 1
            assert len(rows) == height * width


def test_boxes_of_cutmix_have_sides_of_sqrt_one_minus_lambda_and_any_center():
    # So large an alpha leaves only lambda = 1/2, and sides of 16 sqrt(1/2) = 11.3 pixels.
    maps = over_keys(lambda key: mix.cutmix(key, 16, 16, 1e6), 400)
    heights = (maps == 0).any(axis=2).sum(axis=1)
    tops = (maps == 0).any(axis=2).argmax(axis=1)
    # Clipped above: 11 - 5 at least. Clipped below: the centre is in the image, so 5 + 1.
    assert heights.min() == 6
    assert heights.max() == 11
    assert set(tops) == set(range(11))


def test_either_draws_each_map_half_of_the_time():
    ones, zeros = jnp.ones((2, 2)), jnp.zeros((2, 2))
    maps = over_keys(lambda key: mix.either(key, ones, zeros), 300)
    assert (maps == maps[:, :1, :1]).all()
    assert 110 < maps[:, 0, 0].sum() < 190


def test_mix_blends_with_the_example_before():
    rng = np.random.default_rng(0)
    images = rng.normal(size=(5, 3, 4, 2)).astype(np.float32)
    targets = np.eye(5, 6, dtype=np.float32)
    weights = rng.uniform(size=(5, 3, 4)).astype(np.float32)
    mixed, mixed_targets = mix.mix(*map(jnp.asarray, (images, targets, weights)))
    for i in range(5):
        w, share = weights[i][..., None], weights[i].mean()
        expected = w * images[i] + (1 - w) * images[i - 1]
        np.testing.assert_allclose(mixed[i], expected, atol=1e-6)
        expected = share * targets[i] + (1 - share) * targets[i - 1]
        np.testing.assert_allclose(mixed_targets[i], expected, atol=1e-6)


def test_mix_is_exact_at_the_weights_one_and_zero():
    rng = np.random.default_rng(0)
    images = (1e3 ** rng.normal(size=(4, 6, 6, 1))).astype(np.float32)
    targets = np.eye(4, dtype=np.float32)
    weights = rng.integers(0, 2, (4, 6, 6)).astype(np.float32)
    mixed, _ = mix.mix(*map(jnp.asarray, (images, targets, weights)))
    expected = np.where(weights[..., None] == 1, images, np.roll(images, 1, axis=0))
    np.testing.assert_array_equal(mixed, expected)
