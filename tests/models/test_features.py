"""Intermediates: what is handed out is what the logits are computed from, and costs nothing."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from ml_collections import ConfigDict

from imgrec import models
from imgrec.config import ModelConfig

IMAGES = {
    "lenet5": (28, 28, 1),
    "small_cnn": (12, 12, 1),
    "resnet8": (8, 8, 3),
    "wrn10_1": (8, 8, 3),
    "vit_ti8": (16, 16, 3),
    "resnet18": (32, 32, 3),
    "preact_resnet18": (32, 32, 3),
    "vgg11_bn": (32, 32, 3),
    "densenet121": (32, 32, 3),
    "airbench94": (9, 9, 3),
    "deit_ti16_distilled": (16, 16, 3),
    "efficientnet_lite0": (32, 32, 3),
    "mobilenet_v3_small": (32, 32, 3),
    "convnext_atto": (32, 32, 3),
    "mixer_s16": (16, 16, 3),
    "swin_t": (32, 32, 3),
}


def _case(name):
    options = {"head": "linear"} if name == "lenet5" else {}
    module = models.create(ModelConfig(name, ConfigDict(options)), 3)
    images = jnp.zeros((2, *IMAGES[name]))
    variables = jax.eval_shape(lambda: module.init(jax.random.key(0), images, train=False))
    return module, variables, images


@pytest.mark.parametrize("name", IMAGES)
def test_names_are_flat_and_every_model_has_pre_logits(name):
    module, variables, images = _case(name)
    named = jax.eval_shape(lambda v: models.intermediates(module, v, images), variables)
    kernel = variables["params"]["head"]["kernel"]
    assert named["pre_logits"].shape == (2, kernel.shape[0])
    assert all(value.shape[0] == 2 for value in named.values())


@pytest.mark.parametrize("name", IMAGES)
def test_nothing_is_kept_unless_asked_for(name):
    module, variables, images = _case(name)
    assert "intermediates" not in variables
    program = jax.make_jaxpr(lambda v: module.apply(v, images, train=False))(variables)
    assert len(program.out_avals) == 1


def test_the_head_turns_pre_logits_into_logits(fill):
    module, _, _ = _case("lenet5")
    images = jnp.asarray(np.random.default_rng(1).normal(size=(2, 28, 28, 1)), jnp.float32)
    variables = fill(module, images, train=False)
    named = jax.jit(lambda: models.intermediates(module, variables, images))()
    head = variables["params"]["head"]
    expected = named["pre_logits"] @ head["kernel"] + head["bias"]
    logits = jax.jit(lambda: module.apply(variables, images, train=False))()
    np.testing.assert_allclose(logits, expected, rtol=1e-4, atol=1e-4)
