"""MLP-Mixers as others name them.

PyTorch's have the exact GELU, those of JAX its tanh approximation, and no weight tells which.
"""

from imgrec.models import ImageShape
from imgrec.models.mlp_mixer import MLPMixer
from imgrec.transfer import layers
from imgrec.transfer.mapping import Table

_MLPS = ("token_mixing", "channel_mixing")


def timm(module: MLPMixer, image_shape: ImageShape) -> Table:
    """The names of timm."""
    entries = layers.conv("stem.proj", "embedding", bias=True)
    for i in range(module.depth):
        for number, (theirs, ours) in enumerate(
            zip(("mlp_tokens", "mlp_channels"), _MLPS, strict=True), start=1
        ):
            entries += [
                *layers.norm(f"blocks.{i}.norm{number}", f"block{i}/norm{number}"),
                *layers.linear(f"blocks.{i}.{theirs}.fc1", f"block{i}/{ours}/hidden"),
                *layers.linear(f"blocks.{i}.{theirs}.fc2", f"block{i}/{ours}/out"),
            ]
    entries += [*layers.norm("norm", "norm"), *layers.head("head")]
    return Table("timm", tuple(entries), made_with={"gelu": "erf"})


def big_vision(module: MLPMixer, image_shape: ImageShape) -> Table:
    """The names in the authors' .npz files, which are also those of big_vision."""
    entries = layers.flax("stem", "embedding")
    for i in range(module.depth):
        for number, mlp in enumerate(_MLPS):
            theirs, ours = f"MixerBlock_{i}", f"block{i}"
            entries += [
                *layers.flax_norm(f"{theirs}/LayerNorm_{number}", f"{ours}/norm{number + 1}"),
                *layers.flax(f"{theirs}/{mlp}/Dense_0", f"{ours}/{mlp}/hidden"),
                *layers.flax(f"{theirs}/{mlp}/Dense_1", f"{ours}/{mlp}/out"),
            ]
    entries += [*layers.flax_norm("pre_head_layer_norm", "norm"), *layers.flax_head("head")]
    return Table("big_vision", tuple(entries), made_with={"gelu": "tanh"})
