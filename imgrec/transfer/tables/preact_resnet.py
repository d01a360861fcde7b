"""Pre-activation ResNets as others name them."""

from imgrec.models import ImageShape
from imgrec.models.preact_resnet import PreActivationResNet
from imgrec.transfer import layers
from imgrec.transfer.mapping import Table


def timm(module: PreActivationResNet, image_shape: ImageShape) -> Table | None:
    """The names of timm's resnetv2_50 and the like, which have no attention."""
    if module.attention != "none":
        return None
    entries = layers.conv("stem.conv", "stem")
    for stage, blocks in enumerate(module.blocks, start=1):
        for block in range(blocks):
            theirs, ours = f"stages.{stage - 1}.blocks.{block}", f"stage{stage}_block{block}"
            for number in range(1, 4 if module.bottleneck else 3):
                entries += [
                    *layers.batch_norm(f"{theirs}.norm{number}", f"{ours}/norm{number}"),
                    *layers.conv(f"{theirs}.conv{number}", f"{ours}/conv{number}"),
                ]
            if block == 0 and (stage > 1 or module.bottleneck):
                entries += layers.conv(f"{theirs}.downsample.conv", f"{ours}/projection")
    entries += [*layers.batch_norm("norm", "norm"), *layers.head("head.fc", pointwise=True)]
    return Table("timm", tuple(entries))
