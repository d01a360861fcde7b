"""MobileNets, the second and the third, as others name them."""

from collections.abc import Iterator
from typing import Any

from imgrec.models import ImageShape
from imgrec.models.mobilenet_v2 import MobileNetV2
from imgrec.models.mobilenet_v3 import MobileNetV3
from imgrec.transfer import layers
from imgrec.transfer.mapping import Entry, Table
from imgrec.transfer.tables import inverted_residual
from imgrec.transfer.tables.inverted_residual import Names

_V2 = {"padding": "half", "norm_epsilon": 1e-5}


def v2_timm(module: MobileNetV2, image_shape: ImageShape) -> Table:
    """The names of timm's mobilenetv2_100 and its other widths."""
    entries = layers.conv_norm("conv_stem", "bn1", "stem")
    for stage, index, block in _v2_blocks(module):
        entries += inverted_residual.timm(block, f"blocks.{stage - 1}.{index}")
    entries += [*layers.conv_norm("conv_head", "bn2", "final"), *layers.head("classifier")]
    return Table("timm", tuple(entries), made_with=_V2)


def v2_torchvision(module: MobileNetV2, image_shape: ImageShape) -> Table | None:
    """The names of torchvision, whose blocks have no squeeze-excitation."""
    if module.squeeze_excitation:
        return None
    entries = layers.conv_norm("features.0.0", "features.0.1", "stem")
    number = 0
    for number, (_, _, block) in enumerate(_v2_blocks(module), start=1):
        theirs = f"features.{number}.conv"
        *activated, last = block.convolutions
        for place, ours in enumerate(activated):
            entries += layers.conv_norm(
                f"{theirs}.{place}.0", f"{theirs}.{place}.1", f"{block.ours}/{ours}"
            )
        # No activation follows the last one, so it and its norm lie in the row themselves.
        place = len(activated)
        entries += layers.conv_norm(
            f"{theirs}.{place}", f"{theirs}.{place + 1}", f"{block.ours}/{last}"
        )
    final = f"features.{number + 1}"
    entries += [
        *layers.conv_norm(f"{final}.0", f"{final}.1", "final"),
        *layers.head("classifier.1"),
    ]
    return Table("torchvision", tuple(entries), made_with=_V2)


def v2_huggingface(module: MobileNetV2, image_shape: ImageShape) -> Table | None:
    """The names of MobileNetV2 in HuggingFace's transformers, whose weights are TensorFlow's."""
    if module.squeeze_excitation:
        return None
    stem = "mobilenet_v2.conv_stem"
    names = {"expand": "expand_1x1", "depthwise": "conv_3x3", "project": "reduce_1x1"}
    entries = _huggingface(f"{stem}.first_conv", "stem")
    for number, (_, _, block) in enumerate(_v2_blocks(module)):
        # The block that expands nothing is there a part of the stem.
        theirs = f"mobilenet_v2.layer.{number - 1}" if block.expands else stem
        for ours in block.convolutions:
            entries += _huggingface(f"{theirs}.{names[ours]}", f"{block.ours}/{ours}")
    entries += [*_huggingface("mobilenet_v2.conv_1x1", "final"), *layers.head("classifier")]
    made_with: dict[str, Any] = {"padding": "same", "norm_epsilon": 1e-3}
    return Table("transformers", tuple(entries), stem="mobilenet_v2.", made_with=made_with)


def v3_timm(module: MobileNetV3, image_shape: ImageShape) -> Table:
    """The names of timm, with "tf_" in front of the network's own name or without."""
    entries = layers.conv_norm("conv_stem", "bn1", "stem")
    for stage, index, block in _v3_blocks(module):
        entries += inverted_residual.timm(block, f"blocks.{stage - 1}.{index}")
    final = f"blocks.{len(module.stages)}.0"
    entries += [
        *layers.conv_norm(f"{final}.conv", f"{final}.bn1", "final"),
        *layers.pointwise("conv_head", "hidden"),
        *layers.head("classifier"),
    ]
    # Networks called "tf_" pad and normalise as TensorFlow does, the others do neither.
    made_with = {"norm_epsilon": 1e-3 if module.padding == "same" else 1e-5}
    return Table("timm", tuple(entries), made_with=made_with)


def v3_torchvision(module: MobileNetV3, image_shape: ImageShape) -> Table:
    """The names of torchvision."""
    entries = layers.conv_norm("features.0.0", "features.0.1", "stem")
    number = 0
    for number, (_, _, block) in enumerate(_v3_blocks(module), start=1):
        entries += inverted_residual.torchvision(block, f"features.{number}.block")
    final = f"features.{number + 1}"
    entries += [
        *layers.conv_norm(f"{final}.0", f"{final}.1", "final"),
        *layers.linear("classifier.0", "hidden"),
        *layers.head("classifier.3"),
    ]
    made_with: dict[str, Any] = {"padding": "half", "norm_epsilon": 1e-3}
    return Table("torchvision", tuple(entries), made_with=made_with)


def _v2_blocks(module: MobileNetV2) -> Iterator[tuple[int, int, Names]]:
    """Stage, number within it, and names of each block."""
    for stage, (expansion, _, repeats, _) in enumerate(module.stages, start=1):
        for index in range(repeats):
            ours = f"stage{stage}_block{index}"
            yield stage, index, Names(ours, expansion != 1, module.squeeze_excitation)


def _v3_blocks(module: MobileNetV3) -> Iterator[tuple[int, int, Names]]:
    """Stage, number within it, and names of each block."""
    for stage, rows in enumerate(module.stages, start=1):
        for index, row in enumerate(rows):
            # The stem's 16 channels are as many as the first block has inside.
            expands = (stage, index) != (1, 0)
            squeezes = row[3] and module.squeeze_excitation
            yield stage, index, Names(f"stage{stage}_block{index}", expands, squeezes)


def _huggingface(theirs: str, ours: str) -> list[Entry]:
    return layers.conv_norm(f"{theirs}.convolution", f"{theirs}.normalization", ours)
