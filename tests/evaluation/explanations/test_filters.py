import dataclasses

import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from ml_collections import ConfigDict

from imgrec import models
from imgrec.config import ModelConfig
from imgrec.evaluation.explanations import first_filters
from imgrec.evaluation.explanations.taps import UnsupportedError


@pytest.mark.parametrize(
    ("name", "fields", "image_shape", "parameter", "shape"),
    [
        ("lenet5", {}, (28, 28, 1), "c1/kernel", (5, 5, 1, 6)),
        ("resnet8", {}, (16, 16, 3), "stem/conv/kernel", (3, 3, 3, 16)),
        ("wrn10_1", {}, (16, 16, 3), "stem/kernel", (3, 3, 3, 16)),
        (
            "vit_ti4",
            {"width": 24, "depth": 1, "num_heads": 3},
            (8, 8, 3),
            "embedding/kernel",
            (4, 4, 3, 24),
        ),
        ("airbench96", {"widths": (24, 8, 8)}, (32, 32, 3), "whiten/kernel", (2, 2, 3, 24)),
        (
            "vgg11_bn",
            {"layers": (1, 1), "width": 4, "hidden": 8},
            (16, 16, 3),
            "stage1_layer0/conv/kernel",
            (3, 3, 3, 4),
        ),
    ],
)
def test_the_first_kernel_is_found(name, fields, image_shape, parameter, shape, subject_of):
    module = models.create(ModelConfig(name, ConfigDict()), 5).clone(**fields)
    found = first_filters(subject_of(module, image_shape))
    assert (found.name, found.kernel.shape) == (parameter, shape)


def test_the_strongest_filters_come_first_and_are_whole(subject_of):
    subject = subject_of(models.create(ModelConfig("resnet8", ConfigDict()), 5), (16, 16, 3))
    kernel = np.asarray(subject.variables["params"]["stem"]["conv"]["kernel"])
    found = first_filters(subject).kernel
    strength = (found**2).sum(axis=(0, 1, 2))
    assert np.all(np.diff(strength) <= 0)
    for i in range(16):
        assert any(np.array_equal(found[..., i], kernel[..., j]) for j in range(16))


class NoConvolution(nn.Module):
    @nn.compact
    def __call__(self, x, train=False):
        return nn.Dense(2, name="head")(jnp.mean(x, axis=(1, 2)))


def test_a_network_without_filters_says_so(subject_of):
    with pytest.raises(UnsupportedError, match="over the 3 channels"):
        first_filters(subject_of(NoConvolution(), (8, 8, 3)))


def test_a_kernel_over_other_channels_is_none_of_the_images(subject_of):
    subject = subject_of(models.create(ModelConfig("lenet5", ConfigDict()), 5), (28, 28, 1))
    with pytest.raises(UnsupportedError, match="over the 4 channels"):
        first_filters(dataclasses.replace(subject, image_shape=(28, 28, 4)))
