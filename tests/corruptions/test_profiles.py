"""The tables of constants: complete, in range, and as strong as their severities say.

The pictures they make are compared with the published programs' in test_parity.py.
"""

import inspect

import numpy as np
import pytest

from imgrec.corruptions import profiles
from imgrec.corruptions.severity import LEVELS

TABLES = {
    "cifar_c": profiles.CIFAR_C,
    "tiny_imagenet_c": profiles.TINY_IMAGENET_C,
    "imagenet_c": profiles.IMAGENET_C,
}
# Constants of one meaning, which alone decide how strong a kind is, and where they rise to.
RISING = {
    "gaussian_noise": "scale",
    "impulse_noise": "amount",
    "speckle_noise": "scale",
    "gaussian_blur": "sigma",
    "zoom_blur": "stop",
    "brightness": "shift",
    "frost": "cover",
}
FALLING = {
    "shot_noise": "photons",
    "contrast": "factor",
    "pixelate": "share",
    "jpeg_compression": "quality",
    "frost": "through",
    "fog": "decay",
}


def constants(kind):
    """Name and table of the constants of a kind that hang on the severity."""
    return {name: v for name, v in kind.keywords.items() if not isinstance(v, int | float)}


@pytest.mark.parametrize("profile", TABLES)
def test_every_kind_can_be_called_and_has_a_constant_for_each_severity(profile):
    for name, kind in TABLES[profile].items():
        inspect.signature(kind.func).bind("image", "key", "severity", **kind.keywords)
        assert constants(kind), name
        for parameter, table in constants(kind).items():
            assert len(table) == LEVELS, (name, parameter)
            assert np.isfinite(table).all() and min(table) >= 0, (name, parameter)


def test_the_profiles_are_the_same_kinds_with_other_constants():
    for profile, table in TABLES.items():
        assert tuple(table) == tuple(profiles.CATEGORIES), profile
        for name, kind in table.items():
            reference = profiles.IMAGENET_C[name]
            assert kind.func is reference.func, (profile, name)
            assert kind.keywords.keys() == reference.keywords.keys(), (profile, name)


@pytest.mark.parametrize("profile", TABLES)
def test_a_higher_severity_is_not_weaker(profile):
    for sign, parameters in ((1, RISING), (-1, FALLING)):
        for kind, parameter in parameters.items():
            steps = sign * np.diff(TABLES[profile][kind].keywords[parameter])
            assert (steps >= 0).all() and steps.sum() > 0, (kind, parameter)


@pytest.mark.parametrize("kind", ["gaussian_noise", "impulse_noise", "speckle_noise", "pixelate"])
def test_at_a_higher_resolution_what_is_no_length_is_as_strong_or_stronger(kind):
    parameter = {**RISING, **FALLING}[kind]
    sign = 1 if kind in RISING else -1
    small, middle, large = (sign * np.array(t[kind].keywords[parameter]) for t in TABLES.values())
    assert (small <= middle).all() and (middle <= large).all()


def test_shares_are_shares_and_qualities_those_of_jpeg():
    for profile, table in TABLES.items():
        for kind, parameter in (
            ("impulse_noise", "amount"),
            ("pixelate", "share"),
            ("snow", "keep"),
            ("frost", "through"),
        ):
            found = np.array(table[kind].keywords[parameter])
            assert ((found > 0) & (found <= 1)).all(), (profile, kind)
        quality = table["jpeg_compression"].keywords["quality"]
        assert all(isinstance(q, int) and 1 <= q <= 100 for q in quality), profile
        assert set(table["spatter"].keywords["mud"]) == {0, 1}, profile  # water, then mud


def test_elastic_constants_of_imagenet_c_are_the_published_pixels():
    """Multiples of 244 in `make_imagenet_c.py`, for images of 224 pixels; here, of the side."""
    found = profiles.IMAGENET_C["elastic_transform"].keywords
    assert np.multiply(found["strength"], 224) == pytest.approx(
        [488, 488, 0.05 * 244, 0.07 * 244, 0.12 * 244]
    )
    assert np.multiply(found["sigma"], 224) == pytest.approx([170.8, 19.52, 2.44, 2.44, 2.44])
    assert np.multiply(found["affine"], 224) == pytest.approx([24.4, 48.8, 4.88, 4.88, 4.88])


def test_what_tests_and_what_validates_are_apart():
    assert len(profiles.PUBLISHED) == 15 and len(profiles.EXTRA) == 4
    assert not set(profiles.PUBLISHED) & set(profiles.EXTRA)
    assert profiles.EXTRA == ("speckle_noise", "gaussian_blur", "spatter", "saturate")
    assert set(profiles.CATEGORIES.values()) == {"noise", "blur", "weather", "digital"}
