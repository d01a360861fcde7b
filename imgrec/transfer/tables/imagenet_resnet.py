"""ImageNet ResNets and ResNeXts as others name them."""

from imgrec.models import ImageShape
from imgrec.models.imagenet_resnet import ResNet
from imgrec.transfer import layers
from imgrec.transfer.mapping import Entry, Table


def timm(module: ResNet, image_shape: ImageShape) -> Table:
    """The names of timm and, but for the deep stem, of torchvision."""
    entries = _stem(module)
    for stage, blocks in enumerate(module.blocks, start=1):
        for block in range(blocks):
            theirs, ours = f"layer{stage}.{block}", f"stage{stage}_block{block}"
            for number in range(1, 4 if module.bottleneck else 3):
                entries += [
                    *layers.conv(f"{theirs}.conv{number}", f"{ours}/conv{number}"),
                    *layers.batch_norm(f"{theirs}.bn{number}", f"{ours}/norm{number}"),
                ]
            # The first stage keeps the stem's resolution, so only a bottleneck needs one there.
            if block == 0 and (stage > 1 or module.bottleneck):
                first = 1 if module.shortcut == "mean" else 0
                entries += [
                    *layers.conv(f"{theirs}.downsample.{first}", f"{ours}/projection/conv"),
                    *layers.batch_norm(
                        f"{theirs}.downsample.{first + 1}", f"{ours}/projection/norm"
                    ),
                ]
    return Table("timm", (*entries, *layers.head("fc")), also=("torchvision",))


def _stem(module: ResNet) -> list[Entry]:
    if module.stem != "deep":
        return [*layers.conv("conv1", "stem/conv"), *layers.batch_norm("bn1", "stem/norm")]
    return [
        *layers.conv("conv1.0", "stem1/conv"),
        *layers.batch_norm("conv1.1", "stem1/norm"),
        *layers.conv("conv1.3", "stem2/conv"),
        *layers.batch_norm("conv1.4", "stem2/norm"),
        *layers.conv("conv1.6", "stem3/conv"),
        *layers.batch_norm("bn1", "stem3/norm"),
    ]
