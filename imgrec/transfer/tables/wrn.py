"""Wide residual networks as others name them."""

from imgrec.models import ImageShape
from imgrec.models.wrn import WideResNet
from imgrec.transfer import layers
from imgrec.transfer.mapping import Table


def xternalz(module: WideResNet, image_shape: ImageShape) -> Table | None:
    """The names of https://github.com/xternalz/WideResNet-pytorch, which many forks share."""
    if module.attention != "none":
        return None
    entries = layers.conv("conv1", "stem")
    for stage in (1, 2, 3):
        for block in range((module.depth - 4) // 6):
            theirs, ours = f"block{stage}.layer.{block}", f"stage{stage}_block{block}"
            entries += [
                *layers.batch_norm(f"{theirs}.bn1", f"{ours}/norm1"),
                *layers.conv(f"{theirs}.conv1", f"{ours}/conv1"),
                *layers.batch_norm(f"{theirs}.bn2", f"{ours}/norm2"),
                *layers.conv(f"{theirs}.conv2", f"{ours}/conv2"),
            ]
            # With a widening factor of 1 the first stage is as wide as the stem.
            if block == 0 and (stage > 1 or module.widen_factor > 1):
                entries += layers.conv(f"{theirs}.convShortcut", f"{ours}/projection")
    entries += [*layers.batch_norm("bn1", "norm"), *layers.head("fc")]
    return Table("xternalz/WideResNet-pytorch", tuple(entries))
