import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from ml_collections import ConfigDict

from imgrec import models
from imgrec.config import ModelConfig
from imgrec.evaluation.explanations import taps
from imgrec.evaluation.explanations.taps import UnsupportedError
from imgrec.models.efficientnet import Stage


class TwoMaps(nn.Module):
    """A network whose gradient with respect to its map can be written down."""

    @nn.compact
    def __call__(self, x, train=False):
        x = nn.relu(nn.Conv(3, (3, 3), name="conv")(x))
        self.sow("intermediates", "stage1", x)
        self.sow("intermediates", "unused", x + 1)
        return nn.Dense(4, name="head")(nn.tanh(x).sum(axis=(1, 2)))


@pytest.fixture(scope="module")
def two_maps(subject_of):
    return subject_of(TwoMaps(), (9, 7, 3))


def test_the_two_parts_are_the_whole(two_maps, noise):
    images = jnp.asarray(noise(3, (9, 7, 3)))
    value, rest = taps.split_at(two_maps, "stage1", two_maps.variables, images)
    expected = two_maps.intermediates(two_maps.variables, images)["stage1"]
    np.testing.assert_allclose(value, expected, rtol=1e-6)
    np.testing.assert_allclose(
        rest(value), two_maps.logits(two_maps.variables, images), rtol=1e-5, atol=1e-5
    )


def test_the_gradient_is_that_of_what_follows_the_map(two_maps, noise):
    images = noise(2, (9, 7, 3))

    def gradient(variables, images):
        value, rest = taps.split_at(two_maps, "stage1", variables, images)
        return value, jax.grad(lambda planted: rest(planted)[:, 2].sum())(value)

    value, found = jax.jit(gradient)(two_maps.variables, images)
    kernel = two_maps.variables["params"]["head"]["kernel"]
    expected = (1 - np.tanh(value) ** 2) * np.asarray(kernel)[:, 2]
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-6)


def test_a_value_that_the_logits_do_not_need_is_refused(two_maps, noise):
    with pytest.raises(UnsupportedError, match="do not follow from 'unused'"):
        taps.split_at(two_maps, "unused", two_maps.variables, jnp.asarray(noise(1, (9, 7, 3))))


def created(name, fields, **options):
    return models.create(ModelConfig(name, ConfigDict(options)), 5).clone(**fields)


_STAGES = (Stage(3, 1, 8, 1, 1), Stage(5, 3, 8, 2, 2))
_BLOCKS = {"width": 24, "depth": 3, "num_heads": 3}
# Each architecture at a size that compiles in a second, and the map that is to be chosen:
# its name, its grid, and where its first cell looks (None: its share of the image).
FAMILIES = {
    "lenet5": (created("lenet5", {}), (28, 28, 1), "stage2", (5, 5), 5.5),
    "small_cnn": (created("small_cnn", {}, width=4), (28, 28, 1), "stage2", (7, 7), 1),
    "resnet8": (created("resnet8", {}), (32, 32, 3), "stage3", (8, 8), 0),
    "wrn10_1": (created("wrn10_1", {}), (16, 16, 3), "stage3", (4, 4), 0),
    "resnet18": (
        created("resnet18", {"blocks": (1, 1, 1)}, width=4, attention="se"),
        (48, 48, 3),
        "stage2",
        (6, 6),
        0,
    ),
    "preact_resnet18": (
        created("preact_resnet18", {"blocks": (1, 1)}, width=4),
        (32, 32, 3),
        "stage2",
        (4, 4),
        0,
    ),
    "vgg11_bn": (
        created("vgg11_bn", {"layers": (1, 1, 1)}, width=4, hidden=8),
        (32, 40, 3),
        "stage3",
        (4, 5),
        3.5,
    ),
    "densenet121": (
        created("densenet121", {"layers": (2, 1), "growth_rate": 4, "stem_features": 6}),
        (32, 32, 3),
        "stage2",
        (4, 4),
        2,
    ),
    "airbench96": (
        created("airbench96", {"widths": (24, 8, 8)}),
        (40, 40, 3),
        "stage3",
        (4, 4),
        4,
    ),
    "mobilenet_v2": (
        created("mobilenet_v2", {"stages": ((1, 8, 1, 2), (2, 8, 1, 2))}, squeeze_excitation=True),
        (32, 32, 3),
        "stage2",
        (4, 4),
        0,
    ),
    "efficientnet_b0": (
        created("efficientnet_b0", {"stem": 8, "final": 16, "stages": _STAGES}),
        (16, 16, 3),
        "stage2",
        (4, 4),
        3,
    ),
    "convnext_tiny": (
        created("convnext_tiny", {"depths": (1, 1), "width": 8}),
        (32, 32, 3),
        "stage2",
        (4, 4),
        3.5,
    ),
    "swin_t": (
        created("swin_t", {"depths": (1, 2), "width": 32}),
        (32, 32, 3),
        "norm",
        (4, 4),
        None,
    ),
    "mixer_s8": (
        created("mixer_s8", {"width": 16, "depth": 2}),
        (32, 24, 3),
        "block1/norm1",
        (4, 3),
        None,
    ),
    "vit_ti8": (created("vit_ti8", _BLOCKS), (32, 24, 3), "block2/norm1", (4, 3), None),
    "vit_ti8 mean": (
        created("vit_ti8", _BLOCKS, pool="mean", registers=2),
        (16, 24, 3),
        "block2/norm1",
        (2, 3),
        None,
    ),
    "vit_ti8 that mixes nothing": (
        created("vit_ti8", _BLOCKS, pool="mean", self_attention=False),
        (16, 24, 3),
        "encoded",
        (2, 3),
        None,
    ),
    "deit_ti8_distilled": (
        created("deit_ti8_distilled", _BLOCKS),
        (16, 16, 3),
        "block2/norm1",
        (2, 2),
        None,
    ),
}


@functools.cache
def family(subject_of, name):
    module, image_shape, *expected = FAMILIES[name]
    return subject_of(module, image_shape), *expected


@pytest.mark.parametrize("name", FAMILIES)
def test_of_every_family_the_right_map_is_taken_and_laid_where_it_belongs(name, subject_of):
    subject, expected, grid, first = family(subject_of, name)
    tap = taps.last_map(subject, taps.intermediates(subject))
    height, width, _ = subject.image_shape
    assert (tap.name, tap.grid) == (expected, grid)
    if first is None:
        first = (height / grid[0] - 1) / 2
    # The first cell has all of the weight at its centre, or as near as pixels are to it.
    share = tap.rows[[int(np.floor(first)), int(np.ceil(first))], 0]
    np.testing.assert_allclose(share.max(), 1, atol=0.13)
    assert tap.rows.shape == (height, grid[0])
    assert tap.columns.shape == (width, grid[1])


QUICK = ("lenet5", "resnet8", "vit_ti8")


@pytest.mark.parametrize(
    "name", [n if n in QUICK else pytest.param(n, marks=pytest.mark.slow) for n in FAMILIES]
)
def test_every_family_can_be_split_at_its_map(name, subject_of, noise):
    subject = family(subject_of, name)[0]
    tap = taps.last_map(subject, taps.intermediates(subject))

    @jax.jit
    def parts(variables, images):
        value, rest = taps.split_at(subject, tap.name, variables, images)
        gradient = jax.grad(lambda planted: rest(planted)[:, 1].sum())(value)
        return rest(value), subject.logits(variables, images), tap.as_map(gradient)

    found, expected, gradient = parts(subject.variables, noise(2, subject.image_shape))
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)
    assert gradient.shape[:3] == (2, *tap.grid)
    assert np.isfinite(gradient).all()
    assert np.abs(gradient).max(axis=(1, 2, 3)).min() > 0


class Nothing(nn.Module):
    @nn.compact
    def __call__(self, x, train=False):
        x = x.mean(axis=(1, 2))
        self.sow("intermediates", "pre_logits", x)
        return nn.Dense(2, name="head")(x)


def test_what_a_network_lacks_is_said(subject_of):
    subject = subject_of(Nothing(), (8, 8, 3))
    shapes = taps.intermediates(subject)
    with pytest.raises(UnsupportedError, match="it sows no feature maps"):
        taps.last_map(subject, shapes)
    with pytest.raises(UnsupportedError, match="no intermediate 'stage3' among pre_logits"):
        taps.last_map(subject, shapes, "stage3")
    with pytest.raises(UnsupportedError, match="'pre_logits' has no places"):
        taps.last_map(subject, shapes, "pre_logits")
    with pytest.raises(UnsupportedError, match="not lie on a known grid"):
        taps.token_grid(subject, 16)


def test_a_class_token_that_hears_nothing_is_said(subject_of):
    subject = subject_of(created("vit_ti8", _BLOCKS, self_attention=False), (16, 16, 3))
    with pytest.raises(UnsupportedError, match="class token that no attention tells"):
        taps.last_map(subject, taps.intermediates(subject))


def test_another_map_is_taken_by_its_name(subject_of):
    subject = family(subject_of, "resnet8")[0]
    tap = taps.last_map(subject, taps.intermediates(subject), "stage1")
    assert (tap.name, tap.grid) == ("stage1", (32, 32))
    np.testing.assert_array_equal(tap.rows, np.eye(32, dtype=np.float32))


def test_extra_tokens_are_no_part_of_the_grid(subject_of):
    subject = family(subject_of, "deit_ti8_distilled")[0]
    tap = taps.last_map(subject, taps.intermediates(subject))
    tokens = jnp.arange(6.0).reshape(1, 6, 1)
    np.testing.assert_array_equal(tap.as_map(tokens)[0, ..., 0], [[2, 3], [4, 5]])
