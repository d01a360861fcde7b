"""DenseNets as others name them."""

from imgrec.models import ImageShape
from imgrec.models.densenet import DenseNet
from imgrec.transfer import layers
from imgrec.transfer.mapping import Table


def torchvision(module: DenseNet, image_shape: ImageShape) -> Table:
    """The names of torchvision and timm.

    Torchvision's released files have an older spelling, "norm.1" for "norm1".
    """
    entries = layers.conv_norm("features.conv0", "features.norm0", "stem")
    for stage, count in enumerate(module.layers, start=1):
        if stage > 1:
            theirs, ours = f"features.transition{stage - 1}", f"transition{stage - 1}"
            entries += [
                *layers.batch_norm(f"{theirs}.norm", f"{ours}/norm"),
                *layers.conv(f"{theirs}.conv", f"{ours}/conv"),
            ]
        for layer in range(count):
            theirs = f"features.denseblock{stage}.denselayer{layer + 1}"
            ours = f"stage{stage}_layer{layer}"
            for number in (1, 2):
                entries += [
                    *layers.batch_norm(f"{theirs}.norm{number}", f"{ours}/norm{number}"),
                    *layers.conv(f"{theirs}.conv{number}", f"{ours}/conv{number}"),
                ]
    last = f"features.norm{len(module.layers) + 1}"
    entries += [*layers.batch_norm(last, "norm"), *layers.head("classifier")]
    return Table(
        "torchvision",
        tuple(entries),
        respelled=((r"(\.denselayer\d+\.(?:norm|conv))\.([12])\.", r"\1\2."),),
        also=("timm",),
    )
