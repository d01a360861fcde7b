"""The augmentation of a whole batch, as the train step calls it."""

import zlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from imgrec import augment
from imgrec.config import AugmentConfig
from imgrec.errors import UserError

SHAPE, CLASSES, BATCH = (12, 10, 3), 7, 16
MEAN, STD = (0.5, 0.4, 0.3), (0.2, 0.21, 0.22)
KEY = jax.random.key(3)

ONE_IMAGE = {
    "pad_crop": {"pad_crop": 2},
    "reflect": {"pad_crop": 2, "pad_mode": "reflect"},
    "flip": {"flip": True},
    "rotation": {"rotation": 30.0},
    "cutout": {"cutout": 5},
    "one image": {"pad_crop": 2, "flip": True, "rotation": 30.0, "cutout": 5},
}
MIXED = {
    "mixup": {"mixup": 0.2},
    "cutmix": {"cutmix": 1.0},
    "both": {"mixup": 0.2, "cutmix": 1.0},
    "all": ONE_IMAGE["one image"] | {"mixup": 0.2, "cutmix": 1.0},
}
RANDOM = ONE_IMAGE | MIXED
ALL = {"none": {}} | RANDOM


def build(settings):
    return augment.build(AugmentConfig(**settings), SHAPE, MEAN, STD, CLASSES)


def batch(seed=0):
    rng = np.random.default_rng(seed)
    images = rng.integers(0, 256, (BATCH, *SHAPE), dtype=np.uint8)
    return images, rng.integers(0, CLASSES, BATCH).astype(np.int32)


def named(names):
    return pytest.mark.parametrize("settings", list(names.values()), ids=list(names))


@named(ALL)
def test_images_are_float32_and_targets_sum_to_one(settings):
    images, targets = jax.jit(build(settings))(*batch(), KEY)
    assert images.shape == (BATCH, *SHAPE)
    assert images.dtype == targets.dtype == jnp.float32
    assert np.isfinite(images).all()
    assert targets.shape == (BATCH, CLASSES)
    assert (np.asarray(targets) >= 0).all()
    np.testing.assert_allclose(targets.sum(axis=1), 1, atol=1e-6)


@named(ALL)
def test_the_bits_do_not_depend_on_the_number_of_devices(settings):
    program = jax.jit(build(settings))
    results = []
    for devices in (1, 2, 8):
        mesh = Mesh(np.array(jax.devices()[:devices]), ("data",))
        sharded = jax.device_put(batch(), NamedSharding(mesh, PartitionSpec("data")))
        key = jax.device_put(KEY, NamedSharding(mesh, PartitionSpec()))
        images, targets = program(*sharded, key)
        assert len(images.sharding.device_set) == devices
        results.append((np.asarray(images), np.asarray(targets)))
    for images, targets in results[1:]:
        np.testing.assert_array_equal(images, results[0][0])
        np.testing.assert_array_equal(targets, results[0][1])


@named({"all": ALL["all"], "one image": ALL["one image"]})
def test_only_mixing_moves_data_between_devices(settings):
    mesh = Mesh(np.array(jax.devices()), ("data",))
    sharded = jax.device_put(batch(), NamedSharding(mesh, PartitionSpec("data")))
    key = jax.device_put(KEY, NamedSharding(mesh, PartitionSpec()))
    program = jax.jit(build(settings)).lower(*sharded, key).compile().as_text()
    assert "all-gather" not in program
    assert "all-reduce" not in program
    assert ("collective-permute" in program) == ("mixup" in settings)


@named(ALL)
def test_it_is_the_same_without_jit(settings):
    images, targets = build(settings)(*batch(), KEY)
    jitted, jitted_targets = jax.jit(build(settings))(*batch(), KEY)
    # The compiler joins products and sums; a rotation's coordinates move by a few roundings.
    rounded = "rotation" in settings or "mixup" in settings
    np.testing.assert_allclose(images, jitted, rtol=0, atol=1e-4 if rounded else 0)
    np.testing.assert_allclose(targets, jitted_targets, rtol=0, atol=1e-6)


@named(RANDOM)
def test_a_key_decides_everything(settings):
    program = jax.jit(build(settings))
    first, again = program(*batch(), KEY)[0], program(*batch(), KEY)[0]
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, program(*batch(), jax.random.key(4))[0])


@named(RANDOM)
def test_examples_are_treated_differently(settings):
    images, labels = batch()
    same = np.broadcast_to(images[:1], images.shape)
    same = np.concatenate([same[:-1], 255 - same[:1]])  # a partner to mix that differs
    augmented = np.asarray(jax.jit(build(settings))(same, labels, KEY)[0])
    apart = {image.tobytes() for image in augmented[:-1]}
    assert len(apart) > 1


@named(ALL)
def test_an_example_depends_on_its_position_and_its_partner_alone(settings):
    program = jax.jit(build(settings))
    images, labels = batch()
    other_images, other_labels = batch(seed=1)
    alone = [5, 6] if settings.keys() & {"mixup", "cutmix"} else [5]
    for array, other in ((images, other_images), (labels, other_labels)):
        for i in alone:
            other[i - len(alone) + 1] = array[i - len(alone) + 1]
    expected, expected_targets = program(images, labels, KEY)
    found, found_targets = program(other_images, other_labels, KEY)
    np.testing.assert_array_equal(found[5], expected[5])
    np.testing.assert_array_equal(found_targets[5], expected_targets[5])
    assert not np.array_equal(found[9], expected[9])


@named(ONE_IMAGE)
def test_an_example_does_not_depend_on_the_size_of_the_batch(settings):
    images, labels = batch()
    program = jax.jit(build(settings))
    whole, part = program(images, labels, KEY), program(images[:8], labels[:8], KEY)
    np.testing.assert_array_equal(whole[0][:8], part[0])


@pytest.mark.parametrize("name", ["pad_crop", "flip", "rotation"])
def test_one_augmentation_does_not_change_the_draws_of_another(name):
    images, labels = batch()
    alone, _ = jax.jit(build(ONE_IMAGE[name]))(images, labels, KEY)
    with_cutout, _ = jax.jit(build(ONE_IMAGE[name] | {"cutout": 4}))(images, labels, KEY)
    visible = ~(np.asarray(with_cutout) == 0).all(axis=-1)
    assert 0.5 < visible.mean() < 1
    np.testing.assert_array_equal(np.asarray(with_cutout)[visible], np.asarray(alone)[visible])


def test_nothing_happens_with_everything_off():
    images, labels = batch()
    augmented, targets = jax.jit(build({}))(images, labels, KEY)
    np.testing.assert_array_equal(augmented, augment.normalise(images, MEAN, STD))
    np.testing.assert_array_equal(targets, np.eye(CLASSES)[labels])


def test_nothing_is_drawn_with_everything_off():
    def program(settings):
        return jax.jit(build(settings)).lower(*batch(), KEY).as_text()

    assert "threefry" in program({"flip": True})
    assert "threefry" not in program({})


@pytest.mark.parametrize("name", ["pad_crop", "flip", "rotation", "cutout", "mixup", "cutmix"])
def test_an_augmentation_that_is_off_is_not_in_the_program(name):
    """Each folds the hash of its own name into the key, and flip alone reverses."""
    settings = dict(ALL["all"])
    hashed = str(zlib.crc32(name.encode()))
    assert hashed in str(jax.make_jaxpr(build(settings))(*batch(), KEY))
    del settings[name]
    program = str(jax.make_jaxpr(build(settings))(*batch(), KEY))
    assert hashed not in program
    assert ("rev[" in program) == (name != "flip")
    assert ("cos" in program) or name != "rotation"


@pytest.mark.parametrize("settings", [MIXED["mixup"], MIXED["cutmix"], MIXED["both"]])
def test_targets_agree_with_the_pixels(settings):
    """A white and a black image in turn: the brightness is the white one's share."""
    images = np.zeros((BATCH, *SHAPE), np.uint8)
    images[::2] = 255
    labels = np.arange(BATCH, dtype=np.int32) % 2
    program = jax.jit(augment.build(AugmentConfig(**settings), SHAPE, (0.0,) * 3, (1.0,) * 3, 2))
    mixed, targets = program(images, labels, KEY)
    np.testing.assert_allclose(mixed.mean(axis=(1, 2, 3)), targets[:, 0], atol=1e-6)
    assert 0 < np.asarray(targets).min() < 0.5


def test_with_both_on_each_example_is_mixed_in_one_of_the_two_ways():
    images = np.zeros((BATCH, *SHAPE), np.uint8)
    images[::2] = 255
    labels = np.arange(BATCH, dtype=np.int32) % 2
    mixed = np.asarray(jax.jit(build({"mixup": 1.0, "cutmix": 1.0}))(images, labels, KEY)[0])
    levels = [len(np.unique(image[..., 0])) for image in mixed]
    between = [not np.isin(image[..., 0], mixed[..., 0].flat[[0]]).all() for image in mixed]
    assert set(levels) == {1, 2}  # mixup is uniform; CutMix shows both
    assert any(between)


def test_cutout_is_the_mean():
    images, labels = batch()
    cut, _ = jax.jit(build({"cutout": 5}))(images, labels, KEY)
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
        ({"pad_crop": 10}, "pad_crop=10", "0 .off. to 9"),
        ({"pad_crop": 12, "pad_mode": "reflect"}, "pad_crop=12", "--config.augment.pad_crop=1"),
        ({"cutout": 11}, "cutout=11", "--config.augment.cutout=5"),
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
    settings = {"pad_crop": 9, "pad_mode": "reflect", "cutout": 10, "rotation": 180.0}
    assert np.isfinite(jax.jit(build(settings))(images, labels, KEY)[0]).all()
