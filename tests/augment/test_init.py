"""The augmentation of a whole batch, as the train step calls it."""

import functools
import zlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from imgrec import augment
from imgrec.augment.policies import POLICIES
from imgrec.config import AugmentConfig
from imgrec.errors import UserError

SHAPE, CLASSES, BATCH = (20, 18, 3), 7, 16
MEAN, STD = (0.5, 0.4, 0.3), (0.2, 0.21, 0.22)
KEY = jax.random.key(3)

ONE_IMAGE = {
    "pad_crop": {"pad_crop": 2},
    "reflect": {"pad_crop": 2, "pad_mode": "reflect"},
    "flip": {"flip": True},
    "rotation": {"rotation": 30.0},
    "cutout": {"cutout": 5},
    "random_resized_crop": {"random_resized_crop": True},
    "flip_vertical": {"flip_vertical": True},
    "translate": {"translate": 0.3},
    "scale": {"scale": (0.7, 1.4)},
    "shear": {"shear": 20.0, "fill": 100},
    "perspective": {"perspective": 0.4},
    "brightness": {"brightness": 0.5},
    "contrast": {"contrast": 0.5},
    "saturation": {"saturation": 0.5},
    "hue": {"hue": 0.3},
    "greyscale": {"greyscale": 0.5},
    "blur": {"blur": 0.5},
    "sharpen": {"sharpen": 0.5},
    "posterize": {"posterize": 0.5, "posterize_bits": 2},
    "solarize": {"solarize": 0.5},
    "equalize": {"equalize": 0.5},
    "autocontrast": {"autocontrast": 0.5},
    "invert": {"invert": 0.5},
    "erasing": {"erasing": 0.5},
    "erasing noise": {"erasing": 0.5, "erasing_fill": "noise"},
    **{f"policy {name}": {"policy": name} for name in POLICIES},
    "one image": {"pad_crop": 2, "flip": True, "rotation": 30.0, "cutout": 5},
}
MIXED = {
    "mixup": {"mixup": 0.2},
    "cutmix": {"cutmix": 1.0},
    "both": {"mixup": 0.2, "cutmix": 1.0},
    "all": ONE_IMAGE["one image"] | {"mixup": 0.2, "cutmix": 1.0},
    "everything": {"pad_mode": "reflect", "policy": "randaugment", "mixup": 0.2, "cutmix": 1.0}
    | {
        key: value
        for name, settings in ONE_IMAGE.items()
        if not name.startswith("policy")
        for key, value in settings.items()
    },
}
RANDOM = ONE_IMAGE | MIXED
ALL = {"none": {}} | RANDOM


def build(settings):
    return augment.build(AugmentConfig(**settings), SHAPE, MEAN, STD, CLASSES)


@functools.cache
def program(name):
    """The compiled augmentation of a batch of numpy arrays; compiling is what takes time."""
    return jax.jit(build(ALL[name]))


@functools.cache
def compiled(name, devices):
    """The augmentation compiled for a mesh, and a batch and a key placed on it."""
    mesh = Mesh(np.array(jax.devices()[:devices]), ("data",))
    sharded = jax.device_put(batch(), NamedSharding(mesh, PartitionSpec("data")))
    key = jax.device_put(KEY, NamedSharding(mesh, PartitionSpec()))
    return jax.jit(build(ALL[name])).lower(*sharded, key).compile(), (*sharded, key)


def batch(seed=0):
    rng = np.random.default_rng(seed)
    images = rng.integers(16, 240, (BATCH, *SHAPE), dtype=np.uint8)  # room for contrast
    return images, rng.integers(0, CLASSES, BATCH).astype(np.int32)


def of(names):
    return pytest.mark.parametrize("name", list(names))


@of(ALL)
def test_images_are_float32_and_targets_sum_to_one(name):
    images, targets = program(name)(*batch(), KEY)
    assert images.shape == (BATCH, *SHAPE)
    assert images.dtype == targets.dtype == jnp.float32
    assert np.isfinite(images).all()
    assert targets.shape == (BATCH, CLASSES)
    assert (np.asarray(targets) >= 0).all()
    np.testing.assert_allclose(targets.sum(axis=1), 1, atol=1e-6)


@of(RANDOM)
def test_the_bits_do_not_depend_on_the_number_of_devices(name):
    results = [tuple(map(np.asarray, program(name)(*batch(), KEY)))]
    for devices in (2, 8) if name == "all" else (8,):
        run, arguments = compiled(name, devices)
        images, targets = run(*arguments)
        assert len(images.sharding.device_set) == devices
        results.append((np.asarray(images), np.asarray(targets)))
    for images, targets in results[1:]:
        np.testing.assert_array_equal(images, results[0][0])
        np.testing.assert_array_equal(targets, results[0][1])


@of(RANDOM)
def test_only_mixing_moves_data_between_devices(name):
    text = compiled(name, 8)[0].as_text()
    assert "all-gather" not in text
    assert "all-reduce" not in text
    assert ("collective-permute" in text) == (name in MIXED)


@pytest.mark.parametrize(("name", "tolerance"), [("pad_crop", 0), ("all", 1e-4)])
def test_it_is_the_same_without_jit(name, tolerance):
    """But for roundings: the compiler joins products and sums, a rotation moves by them."""
    images, targets = build(ALL[name])(*map(jnp.asarray, batch()), KEY)
    jitted, jitted_targets = program(name)(*batch(), KEY)
    np.testing.assert_allclose(images, jitted, rtol=0, atol=tolerance)
    np.testing.assert_allclose(targets, jitted_targets, rtol=0, atol=tolerance)


@of(RANDOM)
def test_a_key_decides_everything(name):
    first, again = program(name)(*batch(), KEY)[0], program(name)(*batch(), KEY)[0]
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, program(name)(*batch(), jax.random.key(4))[0])


@of(ONE_IMAGE)
def test_equal_images_are_treated_differently(name):
    images, labels = batch()
    same = np.ascontiguousarray(np.broadcast_to(images[:1], images.shape))
    augmented = np.asarray(program(name)(same, labels, KEY)[0])
    assert len({image.tobytes() for image in augmented}) > 1


@of(ALL)
def test_an_example_depends_on_its_position_and_its_partner_alone(name):
    images, labels = batch()
    other_images, other_labels = batch(seed=1)
    used = [4, 5] if name in MIXED else [5]
    other_images[used], other_labels[used] = images[used], labels[used]
    expected, expected_targets = program(name)(images, labels, KEY)
    found, found_targets = program(name)(other_images, other_labels, KEY)
    np.testing.assert_array_equal(found[5], expected[5])
    np.testing.assert_array_equal(found_targets[5], expected_targets[5])
    assert not np.array_equal(found[9], expected[9])


def test_an_example_does_not_depend_on_the_size_of_the_batch():
    images, labels = batch()
    whole = program("one image")(images, labels, KEY)
    part = program("one image")(images[:8], labels[:8], KEY)
    np.testing.assert_array_equal(whole[0][:8], part[0])


@pytest.mark.parametrize("name", ["pad_crop", "flip", "rotation"])
def test_one_augmentation_does_not_change_the_draws_of_another(name):
    images, labels = batch()
    alone, _ = program(name)(images, labels, KEY)
    with_cutout, _ = jax.jit(build(ONE_IMAGE[name] | {"cutout": 4}))(images, labels, KEY)
    visible = ~(np.asarray(with_cutout) == 0).all(axis=-1)
    assert 0.5 < visible.mean() < 1
    np.testing.assert_array_equal(np.asarray(with_cutout)[visible], np.asarray(alone)[visible])


def test_nothing_happens_with_everything_off():
    images, labels = batch()
    augmented, targets = program("none")(images, labels, KEY)
    np.testing.assert_array_equal(augmented, augment.normalise(images, MEAN, STD))
    np.testing.assert_array_equal(targets, np.eye(CLASSES)[labels])


def test_nothing_is_drawn_with_everything_off():
    assert "threefry" in program("flip").lower(*batch(), KEY).as_text()
    assert "threefry" not in program("none").lower(*batch(), KEY).as_text()


@pytest.mark.parametrize("name", ["pad_crop", "flip", "rotation", "cutout", "mixup", "cutmix"])
def test_an_augmentation_that_is_off_is_not_in_the_program(name):
    """Each folds the hash of its own name into the key, and flip alone reverses."""
    images, labels = map(jnp.asarray, batch())
    settings = dict(ALL["all"])
    hashed = str(zlib.crc32(name.encode()))
    assert hashed in str(jax.make_jaxpr(build(settings))(images, labels, KEY))
    del settings[name]
    text = str(jax.make_jaxpr(build(settings))(images, labels, KEY))
    assert hashed not in text
    assert ("rev[" in text) == (name != "flip")


def black_and_white():
    """Black and white images in turn, labelled 0 and 1."""
    images = np.zeros((BATCH, *SHAPE), np.uint8)
    images[1::2] = 255
    return images, np.arange(BATCH, dtype=np.int32) % 2


@of(sorted(MIXED.keys() - {"all", "everything"}))
def test_targets_agree_with_the_pixels(name):
    images, targets = program(name)(*black_and_white(), KEY)
    brightness = (np.asarray(images) * STD + MEAN).mean(axis=(1, 2, 3))
    np.testing.assert_allclose(brightness, targets[:, 1], atol=1e-5)
    own = np.asarray(targets)[np.arange(BATCH), np.arange(BATCH) % 2]
    assert own.min() < 0.9


def test_with_both_on_each_example_is_mixed_in_one_of_the_two_ways():
    images, _ = program("both")(*black_and_white(), KEY)
    grey = np.asarray(images)[..., 0] * STD[0] + MEAN[0]
    uniform = np.ptp(grey, axis=(1, 2)) < 1e-5
    pure = (np.minimum(np.abs(grey), np.abs(1 - grey)) < 1e-5).all(axis=(1, 2))
    assert (uniform | pure).all()
    assert (~uniform).any()  # CutMix: black beside white
    assert (~pure).any()  # mixup: grey


def test_cutout_is_the_mean():
    images, labels = batch()
    cut, _ = program("cutout")(images, labels, KEY)
    plain = augment.normalise(images, MEAN, STD)
    hidden = (np.asarray(cut) != np.asarray(plain)).any(axis=-1)
    assert (np.asarray(cut)[hidden] == 0).all()
    assert (hidden.sum(axis=(1, 2)) <= 25).all()


def test_the_mean_and_std_of_the_config_go_before_the_data_sets():
    images, labels = batch()
    settings = {"mean": (0.1, 0.2, 0.3), "std": (0.5, 0.6, 0.7)}
    expected = augment.normalise(images, settings["mean"], settings["std"])
    np.testing.assert_array_equal(jax.jit(build(settings))(images, labels, KEY)[0], expected)


@pytest.mark.parametrize("shape", [SHAPE, (4, *SHAPE), (2, 3, *SHAPE)])
def test_normalise_takes_off_the_mean_and_divides_by_the_deviation(shape):
    images = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    expected = (images / 255 - np.array(MEAN)) / np.array(STD)
    for given in (images, (images / 255).astype(np.float32)):
        normalised = augment.normalise(given, MEAN, STD)
        assert normalised.dtype == jnp.float32
        np.testing.assert_allclose(normalised, expected, atol=1e-6)


@pytest.mark.parametrize(
    ("settings", "field", "remedy"),
    [
        ({"pad_crop": 18}, "pad_crop=18", "0 .off. to 17"),
        ({"pad_crop": 20, "pad_mode": "reflect"}, "pad_crop=20", "--config.augment.pad_crop=2"),
        ({"cutout": 19}, "cutout=19", "--config.augment.cutout=9"),
        ({"mean": (0.5,), "std": (0.2,)}, "mean=.* 1 numbers", "3 channels"),
        ({"mean": MEAN, "std": (0.2, 0.2)}, "std=.* 2 numbers", "3 channels"),
        ({"mean": (125.3, 123.0, 113.9), "std": STD}, "mean=", "Divide by 255"),
        ({"mean": MEAN, "std": (0.2, 0.2, 0.0)}, "std=", "above 0 to 1"),
    ],
)
def test_what_images_cannot_have_is_refused(settings, field, remedy):
    with pytest.raises(UserError, match=rf"config\.augment\.{field}.*{remedy}"):
        build(settings)


def test_the_largest_settings_that_are_possible_work():
    images, labels = batch()
    settings = {"pad_crop": 17, "pad_mode": "reflect", "cutout": 18, "rotation": 180.0}
    assert np.isfinite(jax.jit(build(settings))(images, labels, KEY)[0]).all()


@pytest.mark.parametrize(
    ("channels", "settings"),
    [
        (1, {"saturation": 0.2}),
        (1, {"hue": 0.2}),
        (1, {"greyscale": 0.2}),
        (4, {"contrast": 0.2}),
        (2, {"policy": "augmix"}),
    ],
)
def test_colours_that_images_do_not_have_are_refused(channels, settings):
    (name,) = settings
    message = rf"config\.augment\.{name}=.*these have {channels}\. Leave it out"
    with pytest.raises(UserError, match=message):
        augment.build(
            AugmentConfig(**settings), (20, 18, channels), (0.5,) * channels, (0.2,) * channels, 7
        )
