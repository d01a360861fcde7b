"""Weights out: the file is another project's, and comes back bit for bit."""

import json
import struct

import flax
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from ml_collections import ConfigDict

from imgrec import models
from imgrec.config import ModelConfig
from imgrec.errors import UserError
from imgrec.transfer import mapping, sources, tables, writing

SHAPE = (16, 24, 3)


def model(name, **options):
    """A module, and variables in which no two arrays are alike."""
    module = models.create(ModelConfig(name, ConfigDict(options)), 10)
    shapes = jax.eval_shape(lambda: module.init(jax.random.key(0), jnp.zeros((1, *SHAPE))))
    rng = np.random.default_rng(0)
    filled = jax.tree.map(lambda x: rng.normal(size=x.shape).astype(x.dtype), shapes)
    return module, flax.core.unfreeze(filled)


@pytest.mark.parametrize(
    ("name", "options", "naming"),
    [
        ("resnet8", {}, "akamaster/pytorch_resnet_cifar10"),
        ("wrn10_1", {}, "xternalz/WideResNet-pytorch"),
        ("vgg11_bn", {"hidden": 8, "width": 4}, "timm"),
        ("vit_ti4", {}, "transformers"),
        ("resnet18", {"width": 8}, "torchvision"),
    ],
)
def test_a_file_gives_back_every_variable_exactly(name, options, naming, tmp_path):
    module, variables = model(name, **options)
    path = tmp_path / "folder" / "weights.safetensors"
    said = writing.write(path, module, {**variables, "intermediates": {}}, SHAPE, naming)

    arrays = sources.read(path).arrays
    numbers = sum(leaf.size for leaf in jax.tree.leaves(variables))
    assert said[0].endswith(
        f"{len(arrays)} arrays of {numbers:,} numbers, in the naming of {naming}"
    )
    table = mapping.choose(arrays, tables.known(module, SHAPE))
    assert naming in (table.naming, *table.also)
    params = variables.pop("params")
    found = mapping.convert(arrays, table, params, variables)
    jax.tree.map(np.testing.assert_array_equal, found[:2], (params, variables))
    assert found[2].replaced == ()


def test_the_file_says_whose_layout_it_has(tmp_path):
    module, variables = model("wrn10_1")
    path = tmp_path / "a.safetensors"
    writing.write(path, module, variables, SHAPE, "xternalz/WideResNet-pytorch")
    content = path.read_bytes()
    header = json.loads(content[8 : 8 + struct.unpack("<Q", content[:8])[0]])
    assert header["__metadata__"] == {"format": "pt"}
    # [out, in, height, width], as PyTorch has it.
    assert header["conv1.weight"]["shape"] == [16, 3, 3, 3]


def test_what_differs_in_their_networks_is_said(tmp_path):
    path = tmp_path / "a.safetensors"
    module, variables = model("mobilenet_v2", width_factor=0.25, padding="same")
    said = writing.write(path, module, variables, SHAPE, "torchvision")
    assert said[1:] == (
        "networks of this naming have padding='half', and this model has 'same'; give theirs the "
        "same, or its logits differ",
    )


def test_refusals_leave_no_file(tmp_path):
    module, variables = model("wrn10_1")
    with pytest.raises(UserError, match=r"not as a\.pth; give a name such as .*a\.safetensors"):
        writing.write(tmp_path / "a.pth", module, variables, SHAPE, "xternalz/WideResNet-pytorch")
    with pytest.raises(UserError, match="naming of WideResNet 'timm'"):
        writing.write(tmp_path / "a.safetensors", module, variables, SHAPE, "timm")
    assert not list(tmp_path.iterdir())
