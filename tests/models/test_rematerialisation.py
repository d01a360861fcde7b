"""Recomputed blocks: the same losses, statistics, random numbers and gradients, in less memory."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from ml_collections import ConfigDict

from imgrec import models
from imgrec.config import ModelConfig
from imgrec.errors import UserError
from imgrec.models import rematerialisation
from imgrec.models.rematerialisation import compiler_options, rematerialised

DROPPING = {"stochastic_depth": 0.3}
CASES = {
    "resnet8": DROPPING,
    "vit_ti8": DROPPING | {"dropout": 0.1},
    "looped": DROPPING | {"dropout": 0.1, "scan_layers": True},
}


def build(name):
    options = ConfigDict(CASES[name])
    if name == "resnet8":
        module, images = models.create(ModelConfig(name, options), 3), (32, 16, 16, 3)
    else:
        module = models.create(ModelConfig("vit_ti8", options), 3)
        module, images = module.clone(width=32, depth=4, num_heads=2), (32, 64, 64, 3)
    images = jnp.asarray(np.random.default_rng(0).normal(size=images), jnp.float32)
    variables = dict(jax.jit(lambda: module.init(jax.random.key(0), images[:1]))())
    return module, variables.pop("params"), variables, images


@functools.cache
def trained(name, remat):
    """Loss, new statistics and gradients of one training pass; bytes it took; its program."""
    module, params, rest, images = build(name)

    def loss(params, rest):
        logits, new = module.apply(
            {"params": params, **rest},
            images,
            train=True,
            mutable=list(rest),
            rngs={"dropout": jax.random.key(3)},
        )
        return jnp.mean((logits - 1) ** 2), new

    with rematerialised(remat):
        traced = jax.jit(jax.value_and_grad(loss, has_aux=True)).trace(params, rest)
    options = compiler_options(remat, on_cpu=True)
    compiled = traced.lower().compile(compiler_options=options)
    return compiled(params, rest), compiled.memory_analysis().temp_size_in_bytes, str(traced.jaxpr)


@pytest.mark.parametrize("remat", ["blocks", "dots"])
@pytest.mark.parametrize("name", CASES)
def test_nothing_but_the_memory_changes(name, remat):
    (((loss, state), grads), most, _) = trained(name, "none")
    (((again, state_again), grads_again), less, program) = trained(name, remat)
    assert again == loss
    jax.tree.map(np.testing.assert_array_equal, state_again, state)
    # Sums may come in another order.
    for found, wanted in zip(*map(jax.tree.leaves, (grads_again, grads)), strict=True):
        np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-6)
    assert "remat" in program or "checkpoint" in program
    assert less < (0.6 if name != "resnet8" and remat == "blocks" else 0.9) * most


def test_recomputing_less_takes_more_memory():
    assert trained("vit_ti8", "blocks")[1] < trained("vit_ti8", "dots")[1]


def test_none_changes_no_program():
    module, params, rest, images = build("resnet8")
    plain = jax.make_jaxpr(lambda p: module.apply({"params": p, **rest}, images))(params)
    with rematerialised("none"):
        same = jax.make_jaxpr(lambda p: module.apply({"params": p, **rest}, images))(params)
    assert str(plain) == str(same)


@pytest.mark.parametrize(
    ("name", "blocks"),
    [
        ("wrn10_1", 3),
        ("vgg11_bn", 8),
        ("airbench94", 3),
        ("convnext_atto", 12),
        ("mixer_s16", 8),
    ],
)
def test_every_family_tells_its_blocks(name, blocks):
    module = models.create(ModelConfig(name), 3)
    images = jnp.zeros((1, 32, 32, 3))
    variables = jax.eval_shape(lambda: module.init(jax.random.key(0), images))
    with rematerialised("blocks"):
        program = jax.make_jaxpr(lambda v: module.apply(v, images))(variables)
    assert sum(e.primitive.name in ("checkpoint", "remat2") for e in program.jaxpr.eqns) == blocks
    rematerialisation.check(module, "blocks", (32, 32, 3), name)


def test_a_network_without_blocks_is_told():
    module = models.create(ModelConfig("lenet5"), 10)
    rematerialisation.check(module, "none", (28, 28, 1), "lenet5")
    with pytest.raises(UserError, match=r"'lenet5' has none\. Set --config\.train\.remat=none"):
        rematerialisation.check(module, "blocks", (28, 28, 1), "lenet5")
