import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from imgrec.corruptions import noise

GREY = jnp.full((256, 256, 3), 0.5)
KEY = jax.random.key(0)


def test_gaussian_noise_has_the_standard_deviation_of_the_severity():
    for severity, scale in ((1, 0.02), (4, 0.08)):
        noisy = noise.gaussian_noise(GREY, KEY, severity, scale=(0.02, 0.04, 0.06, 0.08, 0.1))
        assert noisy.mean() == pytest.approx(0.5, abs=1e-3)
        assert noisy.std() == pytest.approx(scale, rel=0.01)
    channels = np.asarray(noisy - 0.5).reshape(-1, 3)
    assert np.abs(np.corrcoef(channels.T) - np.eye(3)).max() < 0.02


def test_speckle_noise_grows_with_the_pixel():
    ramp = jnp.broadcast_to(jnp.array([0.0, 0.25, 0.5]), (256, 256, 3))
    noisy = noise.speckle_noise(ramp, KEY, 2, scale=(0.1, 0.2, 0.3, 0.4, 0.5))
    np.testing.assert_allclose(noisy.std(axis=(0, 1)), [0, 0.05, 0.1], rtol=0.02)


def test_impulse_noise_is_half_salt_and_half_pepper():
    noisy = noise.impulse_noise(GREY, KEY, 5, amount=(0.1, 0.2, 0.3, 0.4, 0.5))
    shares = [(noisy == level).mean() for level in (0.0, 0.5, 1.0)]
    np.testing.assert_allclose(shares, [0.25, 0.5, 0.25], atol=0.005)


def test_shot_noise_is_poisson_in_whole_photons():
    noisy = noise.shot_noise(GREY, KEY, 3, photons=(1, 2, 50, 4, 5))
    photons = np.asarray(noisy) * 50
    np.testing.assert_allclose(photons, np.round(photons), atol=1e-4)
    assert photons.mean() == pytest.approx(25, rel=0.005)
    assert photons.var() == pytest.approx(25, rel=0.02)
    black = noise.shot_noise(jnp.zeros((8, 8, 1)), KEY, 3, photons=(1, 2, 50, 4, 5))
    assert (black == 0).all()


@pytest.mark.parametrize("mean", [0.3, 3.0, 9.9, 10.1, 60.0, 500.0])
def test_poisson_draws_follow_the_distribution(mean):
    draws = np.asarray(noise.poisson(KEY, jnp.full((200_000,), mean))).astype(int)
    assert draws.min() >= 0
    counts = np.bincount(draws)
    expected = stats.poisson(mean).pmf(np.arange(len(counts)))
    # Half the sum of the differences, of which sampling makes about sqrt(bins / draws) / 2.
    distance = np.abs(counts / len(draws) - expected).sum() / 2
    assert distance < 0.003 + 0.5 * np.sqrt(4 * np.sqrt(mean) / len(draws))
