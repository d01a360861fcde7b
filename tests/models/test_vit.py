"""ViT: positions, pools, extra tokens and heads; its blocks are in test_transformer.py."""

import flax
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from ml_collections import ConfigDict
from PIL import Image

from imgrec import models
from imgrec.config import ModelConfig
from imgrec.errors import UserError
from imgrec.models.vit import resample_positions, sincos_positions


def _thin(**options):
    """ViT with patches of 4 and two narrow blocks."""
    module = models.create(ModelConfig("vit_ti4", ConfigDict(options)), 10)
    return module.clone(width=16, depth=2, num_heads=4)


def _images(*shape):
    return jnp.asarray(np.random.default_rng(1).normal(size=shape), jnp.float32)


def test_sincos_positions_against_their_formula():
    rows, columns, width = 3, 5, 16
    positions = sincos_positions(rows, columns, width)
    assert positions.shape == (15, 16)
    for row in range(rows):
        for column in range(columns):
            for i in range(4):
                w = 1 / 10_000 ** (i / 3)
                token = np.asarray(positions[row * columns + column])
                expected = [
                    np.sin(column * w),
                    np.cos(column * w),
                    np.sin(row * w),
                    np.cos(row * w),
                ]
                np.testing.assert_allclose(token[i::4], expected, atol=1e-6)


@pytest.mark.parametrize(
    ("pool", "positions", "shape"),
    [
        ("cls", "learned", (1, 7, 16)),
        ("mean", "learned", (1, 6, 16)),
        ("cls", "sincos", None),
        ("mean", "sincos", None),
    ],
)
def test_parameters_of_pools_and_positions(pool, positions, shape):
    module = _thin(pool=pool, positions=positions)
    images = jnp.zeros((1, 8, 12, 3))
    params = jax.eval_shape(lambda: module.init(jax.random.key(0), images))["params"]
    assert ("cls" in params) == (pool == "cls")
    assert ("positions" in params) == (positions == "learned")
    if shape:
        assert params["positions"].shape == shape


def test_initialisation():
    module = _thin()
    images = jnp.zeros((1, 64, 64, 3))
    params = jax.jit(lambda: module.init(jax.random.key(0), images))()["params"]
    assert not params["head"]["kernel"].any()
    assert not params["cls"].any()
    assert np.std(params["positions"]) == pytest.approx(0.02, rel=0.05)
    hidden = params["block0"]["mlp"]["hidden"]
    bound = np.sqrt(6 / (16 + 64))
    assert 0.95 * bound < np.abs(hidden["kernel"]).max() <= bound
    assert 0 < np.abs(hidden["bias"]).max() < 1e-5
    query = np.abs(params["block0"]["self_attention"]["query"]["kernel"]).max()
    assert 0.9 * np.sqrt(6 / 32) < query <= np.sqrt(6 / 32)


def test_a_patch_is_seen_by_its_own_token_in_reading_order(fill):
    # Without blocks, a token is its patch's embedding; so each changed patch changes one.
    module = _thin(pool="mean", positions="sincos").clone(depth=0)
    images = jnp.zeros((1, 8, 12, 1))
    variables = fill(module, images)
    encoded = jax.jit(lambda x: models.intermediates(module, variables, x)["encoded"][0])
    before = encoded(images)
    for token, (row, column) in enumerate([(r, c) for r in range(2) for c in range(3)]):
        after = encoded(images.at[0, 4 * row + 1, 4 * column + 2].set(1.0))
        changed = np.any(np.asarray(before != after), axis=-1)
        assert np.flatnonzero(changed).tolist() == [token]


def test_without_positions_the_order_of_patches_would_not_matter(fill):
    module = _thin()
    images = _images(1, 8, 8, 3)
    swapped = jnp.concatenate([images[:, 4:], images[:, :4]], axis=1)
    variables = fill(module, images)
    logits = jax.jit(lambda v, x: module.apply(v, x, train=False))
    assert not np.allclose(logits(variables, images), logits(variables, swapped), atol=1e-4)

    params = {**variables["params"], "positions": jnp.zeros((1, 5, 16))}
    blind = {"params": params}
    np.testing.assert_allclose(logits(blind, images), logits(blind, swapped), atol=1e-4)


def test_intermediates_of_every_block(fill):
    module = _thin()
    images = _images(2, 8, 12, 3)
    variables = fill(module, images)
    named = jax.jit(lambda: models.intermediates(module, variables, images))()
    assert {name: value.shape for name, value in named.items()} == {
        "block0/attention": (2, 4, 7, 7),
        "block0/output": (2, 7, 16),
        "block1/attention": (2, 4, 7, 7),
        "block1/output": (2, 7, 16),
        "encoded": (2, 7, 16),
        "pre_logits": (2, 16),
    }
    np.testing.assert_allclose(named["block1/attention"].sum(-1), 1, rtol=1e-5)
    np.testing.assert_array_equal(named["encoded"][:, 0], named["pre_logits"])


def test_mean_pooling_is_the_mean_of_the_encoded_tokens(fill):
    module = _thin(pool="mean")
    images = _images(2, 8, 8, 3)
    variables = fill(module, images)
    named = jax.jit(lambda: models.intermediates(module, variables, images))()
    np.testing.assert_allclose(named["pre_logits"], named["encoded"].mean(1), atol=1e-6)


def test_names_of_the_parameters():
    module = _thin()
    params = jax.eval_shape(lambda: module.init(jax.random.key(0), jnp.zeros((1, 8, 8, 3))))
    names = set(flax.traverse_util.flatten_dict(params["params"], sep="/"))
    assert {
        "embedding/kernel",
        "cls",
        "positions",
        "block1/norm1/scale",
        "block1/self_attention/query/kernel",
        "block1/self_attention/out/bias",
        "block1/mlp/hidden/kernel",
        "norm/scale",
        "head/kernel",
    } <= names


def test_extra_tokens_are_class_distillation_registers_in_this_order(fill):
    module = _thin(distillation=True, registers=3).clone(depth=0)
    images = _images(2, 8, 12, 3)
    variables = fill(module, images)
    params = variables["params"]
    assert params["registers"].shape == (1, 3, 16)
    # Registers have no position.
    assert params["positions"].shape == (1, 2 + 6, 16)

    def encoded(params):
        return jax.jit(lambda: models.intermediates(module, {"params": params}, images))()[
            "encoded"
        ]

    before = encoded(params)
    assert before.shape == (2, 2 + 3 + 6, 16)
    for name, changed in {"cls": [0], "distillation": [1], "registers": [2, 3, 4]}.items():
        # Noise, as the normalisation takes a constant away.
        after = encoded({**params, name: params[name] + _images(*params[name].shape)})
        assert np.flatnonzero(np.any(before != after, axis=(0, 2))).tolist() == changed


def test_mean_pooling_is_over_the_patches_alone(fill):
    module = _thin(pool="mean", distillation=True, registers=2)
    images = _images(2, 8, 8, 3)
    variables = fill(module, images)
    named = jax.jit(lambda: models.intermediates(module, variables, images))()
    patches = named["encoded"][:, 3:]
    assert patches.shape == (2, 4, 16)
    np.testing.assert_allclose(named["pre_logits"], patches.mean(1), atol=1e-6)
    np.testing.assert_array_equal(named["distillation_pre_logits"], named["encoded"][:, 0])


def test_two_heads_answer_and_the_logits_are_their_mean(fill):
    module = _thin(distillation=True)
    images = _images(2, 8, 8, 3)
    variables = fill(module, images)
    params = variables["params"]
    logits = jax.jit(lambda: module.apply(variables, images))()
    named = jax.jit(lambda: models.intermediates(module, variables, images))()
    expected = {}
    for name, token, head in [("class", 0, "head"), ("distillation", 1, "distillation_head")]:
        y = named["encoded"][:, token] @ params[head]["kernel"] + params[head]["bias"]
        expected[name] = y
        np.testing.assert_allclose(named[f"{name}_logits"], y, rtol=1e-4, atol=1e-5)
    assert np.abs(expected["class"] - expected["distillation"]).max() > 0.1
    mean = (expected["class"] + expected["distillation"]) / 2
    np.testing.assert_allclose(logits, mean, rtol=1e-4, atol=1e-5)


def test_without_attention_tokens_do_not_see_each_other(fill):
    module = _thin(self_attention=False, pool="mean", positions="sincos")
    images = _images(1, 8, 8, 3)
    variables = fill(module, images)
    assert set(variables["params"]["block0"]) == {"norm2", "mlp"}
    encoded = jax.jit(lambda x: models.intermediates(module, variables, x)["encoded"][0])
    changed = np.any(encoded(images) != encoded(images.at[0, 5, 1].add(1.0)), axis=-1)
    assert np.flatnonzero(changed).tolist() == [2]


def test_deit_starts_normal_everywhere_with_the_papers_defaults():
    module = models.create(ModelConfig("deit_ti4_distilled"), 10)
    assert (module.gelu, module.stochastic_depth) == ("erf", 0.1)
    module = module.clone(width=64, depth=1, num_heads=4)
    images = jnp.zeros((1, 32, 32, 3))
    params = jax.jit(lambda: module.init(jax.random.key(0), images))()["params"]
    for path, leaf in flax.traverse_util.flatten_dict(params).items():
        if path[-1] == "bias":
            assert not leaf.any(), path
        elif path[-1] != "scale":
            assert np.std(leaf) == pytest.approx(0.02, rel=0.3), path


def test_layer_scale_starts_where_it_is_told():
    module = _thin(layer_scale=0.25)
    params = jax.jit(lambda: module.init(jax.random.key(0), jnp.zeros((1, 8, 8, 3))))()["params"]
    for name in ("gamma1", "gamma2"):
        np.testing.assert_array_equal(params["block1"][name], np.full(16, 0.25, np.float32))


@pytest.mark.parametrize(("grid", "new_grid"), [((3, 4), (6, 9)), ((8, 6), (3, 4))])
def test_resampled_positions_against_pillow(grid, new_grid):
    # Pillow's bicubic is antialiased where it shrinks, too.
    width, extra = 5, 2
    positions = _images(1, extra + grid[0] * grid[1], width)
    resampled = resample_positions(positions, grid, new_grid)
    assert resampled.shape == (1, extra + new_grid[0] * new_grid[1], width)
    np.testing.assert_array_equal(resampled[:, :extra], positions[:, :extra])
    for i in range(width):
        plane = Image.fromarray(np.asarray(positions[0, extra:, i]).reshape(grid))
        expected = plane.resize(new_grid[::-1], Image.Resampling.BICUBIC)
        np.testing.assert_allclose(
            resampled[0, extra:, i].reshape(new_grid), expected, rtol=1e-4, atol=1e-4
        )


def test_positions_on_their_own_grid_stay():
    positions = _images(1, 1 + 12, 4)
    same = resample_positions(positions, (3, 4), (3, 4))
    np.testing.assert_allclose(same, positions, atol=1e-6)


def test_positions_of_another_grid_are_refused():
    with pytest.raises(UserError, match="13 positions cannot be those of a grid of 4x4"):
        resample_positions(_images(1, 13, 4), (4, 4), (2, 2))


def test_the_size_for_a_cpu_is_small():
    module = models.create(ModelConfig("vit_xs7"), 10)
    assert (module.width, module.depth, module.num_heads, module.patch_size) == (96, 6, 3, 7)
    # A block has 4 + 8 matrices of width squared; 16 patches of 7x7 on Fashion-MNIST.
    assert 650_000 < models.cost_of(module, (28, 28, 1)).parameters < 700_000
