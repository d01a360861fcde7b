import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from imgrec.corruptions import weather
from imgrec.corruptions.textures import ice, plasma

KEY = jax.random.key(0)


@pytest.fixture(scope="module")
def photograph(photographs):
    return jnp.asarray(photographs(32, 32)[4].astype(np.float32) / 255)


def test_luma_weighs_the_channels():
    image = jnp.array([[[1.0, 0, 0], [0, 1, 0], [0, 0, 1]]])
    np.testing.assert_allclose(weather.luma(image)[0, :, 0], [0.299, 0.587, 0.114])
    np.testing.assert_array_equal(weather.luma(image[..., :1]), image[..., :1])


def test_fog_adds_plasma_and_keeps_the_brightest_as_bright(photograph):
    on = jax.jit(functools.partial(weather.fog, density=(0, 0, 0, 1.5, 0), decay=(2,) * 5))
    fog = on(photograph, KEY, 4)
    cloud = np.asarray(jax.jit(lambda key: plasma(key, 32, 2))(KEY))[..., None]
    brightest = float(photograph.max())
    expected = (photograph + 1.5 * cloud) * brightest / (brightest + 1.5)
    np.testing.assert_allclose(fog, expected, atol=1e-5)
    assert fog.max() <= brightest + 1e-6


def test_frost_is_a_sum_with_ice(photograph):
    constants = {"through": (1, 0.7, 1, 1, 1), "cover": (0, 0.6, 0, 0, 0), "grain": 5}
    on = jax.jit(functools.partial(weather.frost, **constants))
    frost = on(photograph, KEY, 2)
    texture = jax.jit(lambda key: ice(key, 32, 32, 5))(KEY)
    np.testing.assert_allclose(frost, np.clip(0.7 * photograph + 0.6 * texture, 0, 1), atol=1e-6)
    grey = on(photograph[..., :1], KEY, 2)
    expected = np.clip(0.7 * photograph[..., :1] + 0.6 * weather.luma(texture), 0, 1)
    np.testing.assert_allclose(grey, expected, atol=1e-6)


SNOW = {
    "mean": (0, 0.1, 0.1, 0.1, 0.1),
    "scale": (0, 0.3, 0.3, 0.3, 0.3),
    "zoom": (1, 1, 2, 3, 4),
    "threshold": (0.5, 0.5, 0.5, 0.5, 0.5),
    "radius": (10, 10, 10, 10, 10),
    "sigma": (4, 4, 4, 4, 4),
    "keep": (0.8, 1, 1, 1, 1),
}
FALLEN = jax.jit(functools.partial(weather.snow, **SNOW))


def test_without_flakes_snow_pales_the_image(photograph):
    found = FALLEN(photograph, KEY, 1)
    pale = np.maximum(photograph, 1.5 * weather.luma(photograph) + 0.5)
    np.testing.assert_allclose(found, np.clip(0.8 * photograph + 0.2 * pale, 0, 1), atol=1e-6)


def test_flakes_are_larger_when_enlarged_fall_steeply_and_lie_upside_down_too():
    black = jnp.zeros((64, 64, 1))
    coarseness = []
    for severity in (2, 3, 4):
        flakes = np.asarray(FALLEN(black, KEY, severity))[..., 0]
        assert flakes.max() > 0.1
        np.testing.assert_allclose(flakes, flakes[::-1, ::-1], atol=1e-6)
        across, down = (np.abs(np.diff(flakes, axis=axis)).mean() for axis in (1, 0))
        assert across > down
        coarseness.append(flakes.std() / across)
    assert coarseness == sorted(coarseness)
