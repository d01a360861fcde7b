"""Inverted residual blocks as timm and torchvision name them, in whatever network."""

from dataclasses import dataclass

from imgrec.transfer import layers
from imgrec.transfer.mapping import Entry


@dataclass(frozen=True)
class Names:
    """A block of ours.

    Attributes:
      ours: its name in the model ("stage1_block0").
      expands: whether it has more channels inside than come in.
      squeezes: whether it has a squeeze-excitation.
      fused: whether its first convolution filters as well.
    """

    ours: str
    expands: bool
    squeezes: bool
    fused: bool = False

    @property
    def convolutions(self) -> tuple[str, ...]:
        """What we call its convolutions, in their order."""
        if self.fused:
            return ("expand", "project") if self.expands else ("expand",)
        return ("expand", "depthwise", "project") if self.expands else ("depthwise", "project")


# By whether a block is fused and whether it expands.
_TIMM = {
    (False, True): ("conv_pw", "conv_dw", "conv_pwl"),
    (False, False): ("conv_dw", "conv_pw"),
    (True, True): ("conv_exp", "conv_pwl"),
    (True, False): ("conv",),
}


def timm(block: Names, theirs: str) -> list[Entry]:
    """The block that timm calls `theirs` ("blocks.0.0")."""
    kinds = zip(_TIMM[block.fused, block.expands], block.convolutions, strict=True)
    entries = []
    for number, (kind, ours) in enumerate(kinds, start=1):
        entries += layers.conv_norm(
            f"{theirs}.{kind}", f"{theirs}.bn{number}", f"{block.ours}/{ours}"
        )
    return entries + gate(block, f"{theirs}.se.conv_reduce", f"{theirs}.se.conv_expand")


def torchvision(block: Names, theirs: str) -> list[Entry]:
    """The block whose layers torchvision keeps in a row called `theirs` ("features.1.block")."""
    last = len(block.convolutions) - 1
    entries = []
    for number, ours in enumerate(block.convolutions):
        # The gate is one of the row, before the last convolution.
        place = f"{theirs}.{number + 1 if block.squeezes and number == last else number}"
        entries += layers.conv_norm(f"{place}.0", f"{place}.1", f"{block.ours}/{ours}")
    return entries + gate(block, f"{theirs}.{last}.fc1", f"{theirs}.{last}.fc2")


def gate(block: Names, reduce: str, expand: str) -> list[Entry]:
    """The two layers of the squeeze-excitation, where the block has one."""
    if not block.squeezes:
        return []
    ours = f"{block.ours}/squeeze_excitation"
    return [
        *layers.pointwise(reduce, f"{ours}/reduce"),
        *layers.pointwise(expand, f"{ours}/expand"),
    ]
