import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from imgrec import corruptions
from imgrec.corruptions import CATEGORIES, EXTRA, PROFILES, PUBLISHED, corrupt, names, severities

# The strength of the others does not grow with every step: a glass blur has less reach and more
# rounds, elastic maps exchange affine for local, spatter is water and then mud.
GROWING = (
    *("gaussian_noise", "shot_noise", "impulse_noise", "speckle_noise", "defocus_blur"),
    *("gaussian_blur", "zoom_blur", "fog", "brightness", "contrast", "pixelate"),
    "jpeg_compression",
)
PUBLISHED_PROFILES = {"cifar_c": 32, "tiny_imagenet_c": 64, "imagenet_c": 64}


@functools.cache
def program(profile):
    """All kinds of a profile and all severities, in one function that is traced once a shape."""

    @jax.jit
    def run(images, index, kind, severity):
        return corrupt(images, index, profile=profile, kind=kind, severity=severity, seed=0)

    return run


def conditions(profile):
    return [(k, s) for k in range(len(names(profile))) for s in severities(profile)]


def all_conditions(profile, images, index=None):
    index = np.arange(len(images)) if index is None else index
    runs = [program(profile)(images, index, k, s) for k, s in conditions(profile)]
    return np.stack([np.asarray(run) for run in runs]).astype(int)


def nearly_equal(found, expected):
    """Equal but where a value is at the edge of a level, so that its rounding shows."""
    return np.abs(found - expected).max() <= 1 and (found != expected).mean() < 1e-4


def test_nineteen_kinds_have_a_category_in_every_published_profile():
    assert len(PUBLISHED) == 15
    assert len(EXTRA) == 4
    for profile in PUBLISHED_PROFILES:
        assert names(profile) == PUBLISHED + EXTRA
        assert corruptions.published(profile) == PUBLISHED
    categories = [CATEGORIES[name] for name in PUBLISHED + EXTRA]
    assert {c: categories.count(c) for c in set(categories)} == {
        "noise": 4,
        "blur": 5,
        "weather": 5,
        "digital": 5,
    }


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("profile", PUBLISHED_PROFILES)
def test_every_kind_keeps_the_shape_of_any_image(profile, channels):
    for height, width in ((28, 28), (37, 50)):
        image = jax.ShapeDtypeStruct((height, width, channels), jnp.float32)
        for corruption in PROFILES[profile].values():
            out = jax.eval_shape(corruption, image, jax.random.key(0), jnp.int32(1))
            assert (out.shape, out.dtype) == (image.shape, image.dtype)


def check_everything(profile, photographs, channels):
    side = PUBLISHED_PROFILES[profile]
    images = photographs(side, side, channels)
    found = all_conditions(profile, images)
    assert program(profile)._cache_size() == 1
    assert found.shape == (95, *images.shape)
    changes = np.abs(found - images).mean(axis=(1, 2, 3, 4)).reshape(19, 5)
    assert (changes < 120).all()
    for name, change in zip(names(profile), changes, strict=True):
        if name == "saturate" and channels == 1:
            assert (change == 0).all()
        else:
            assert (change > 0.2).all(), name
        if name in GROWING:
            assert (np.diff(change) > 0).all(), name
    again = all_conditions(profile, images)
    np.testing.assert_array_equal(again, found)


def test_all_conditions_of_cifar_c_are_one_program(photographs):
    check_everything("cifar_c", photographs, 3)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("profile", "channels"),
    [("cifar_c", 1), ("tiny_imagenet_c", 3), ("imagenet_c", 3)],
)
def test_all_conditions_of_the_others_are_one_program(profile, channels, photographs):
    program.cache_clear()
    check_everything(profile, photographs, channels)


# Optimized as for users, each profile takes three long compilations. The other two have the
# functions of cifar_c (test_profiles.py), with other constants.
@pytest.mark.slow
@pytest.mark.parametrize("profile", ["cifar_c", "mnist_c"])
def test_an_image_is_corrupted_alike_in_any_batch_and_on_any_devices(profile, photographs):
    jax.config.update("jax_disable_most_optimizations", False)
    images = photographs(32, 32, 1 if profile == "mnist_c" else 3)
    index = np.arange(100, 108)
    found = all_conditions(profile, images, index)
    singly = [all_conditions(profile, images[i : i + 1], index[i : i + 1]) for i in range(8)]
    assert nearly_equal(np.concatenate(singly, axis=1), found)
    backwards = all_conditions(profile, images[::-1].copy(), index[::-1].copy())
    assert nearly_equal(backwards[:, ::-1], found)
    mesh = Mesh(np.array(jax.devices()[:4]), ("data",))
    sharding = NamedSharding(mesh, PartitionSpec("data"))
    spread = [jax.device_put(array, sharding) for array in (images, index)]
    assert nearly_equal(all_conditions(profile, *spread), found)


def test_a_batch_of_one_and_of_eight_and_four_devices_give_the_same_noise(photographs):
    images, index = photographs(32, 32), np.arange(8)

    @jax.jit
    def run(images, index):
        return corrupt(images, index, profile="cifar_c", kind="impulse_noise", severity=3, seed=0)

    found = np.asarray(run(images, index)).astype(int)
    singly = [run(images[i : i + 1], index[i : i + 1]) for i in range(8)]
    assert nearly_equal(np.concatenate(singly).astype(int), found)
    mesh = Mesh(np.array(jax.devices()[:4]), ("data",))
    sharding = NamedSharding(mesh, PartitionSpec("data"))
    spread = run(*(jax.device_put(array, sharding) for array in (images, index)))
    assert spread.sharding.is_equivalent_to(sharding, 4)
    assert nearly_equal(np.asarray(spread).astype(int), found)


def test_the_draws_differ_by_seed_kind_severity_and_index():
    grey = jnp.full((2, 16, 16, 1), 128, jnp.uint8)
    run = functools.partial(corrupt, grey, profile="imagenet_c")
    first = {"kind": "gaussian_noise", "severity": 1, "seed": 0, "index": jnp.array([0, 1])}
    found = np.asarray(run(**first)).astype(float) - 128
    assert np.corrcoef(found.reshape(2, -1))[0, 1] < 0.3
    for other in (
        {"seed": 1},
        {"kind": "speckle_noise"},
        {"severity": 2},
        {"index": jnp.array([2, 3])},
    ):
        changed = np.asarray(run(**(first | other))).astype(float) - 128
        assert abs(np.corrcoef(changed.ravel(), found.ravel())[0, 1]) < 0.3, other


def test_a_kind_by_name_or_number_and_a_severity_traced_or_not_are_the_same(photographs):
    images, index = jnp.asarray(photographs(16, 16)), jnp.arange(8)
    run = functools.partial(corrupt, images, index, profile="cifar_c", seed=3)
    for name in ("impulse_noise", "contrast"):
        position = names("cifar_c").index(name)
        found = np.asarray(run(kind=name, severity=2))
        np.testing.assert_array_equal(run(kind=position, severity=2), found)
        traced = jax.jit(lambda severity, name=name: run(kind=name, severity=severity))(2)
        np.testing.assert_array_equal(traced, found)


def test_levels_are_cut_off_but_whole_ones_stay():
    levels = jnp.arange(256, dtype=jnp.uint8).reshape(1, 16, 16, 1)
    run = functools.partial(corrupt, levels, jnp.arange(1), profile="cifar_c", severity=1, seed=0)
    np.testing.assert_array_equal(run(kind="saturate"), levels)  # of grey images: nothing
    brighter = np.asarray(run(kind="brightness")).ravel()
    assert brighter[100] == 112  # 100 + 0.05 * 255 = 112.75


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"profile": "cifar"}, "No profile 'cifar'.*cifar_c, tiny_imagenet_c"),
        ({"kind": "mist"}, "No corruption 'mist' in cifar_c.*fog"),
        ({"kind": 19}, "kind=19: cifar_c has 19"),
        ({"kind": -1}, "kind=-1"),
        ({"severity": 0}, "severity=0: cifar_c has .*5"),
        ({"severity": 6}, "severity=6"),
    ],
)
def test_what_does_not_exist_is_refused_by_name(given, message):
    known = {"profile": "cifar_c", "kind": "fog", "severity": 1}
    with pytest.raises(ValueError, match=message):
        corrupt(jnp.zeros((1, 8, 8, 1), jnp.uint8), jnp.arange(1), seed=0, **(known | given))


@pytest.mark.parametrize(
    ("side", "profile"),
    [
        (8, "cifar_c"),
        (28, "cifar_c"),
        (32, "cifar_c"),
        (64, "tiny_imagenet_c"),
        (96, "tiny_imagenet_c"),
        (128, "imagenet_c"),
        (224, "imagenet_c"),
    ],
)
def test_the_profile_is_that_of_the_nearest_published_resolution(side, profile):
    assert corruptions.profile_for((side, 2 * side, 3)) == profile
