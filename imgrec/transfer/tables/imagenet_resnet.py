"""ImageNet ResNets and ResNeXts as others name them."""

from imgrec.models import ImageShape
from imgrec.models.imagenet_resnet import ResNet
from imgrec.transfer import layers
from imgrec.transfer.mapping import Entry, Table


def timm(module: ResNet, image_shape: ImageShape) -> Table | None:
    """The names of timm (ResNet-D, squeeze-excitation and ResNeXt too) and of torchvision.

    Its attention modules other than squeeze-excitation are not ours. Nor are its anti-aliased
    networks where their shortcuts take every other pixel; the "resnetblur...d", which average
    there, are the same.
    """
    if module.attention == "cbam":
        return None
    entries = _stem(module)
    for stage, block in _blocks(module):
        theirs, ours = f"layer{stage}.{block}", f"stage{stage}_block{block}"
        for number in _convolutions(module):
            entries += [
                *layers.conv(f"{theirs}.conv{number}", f"{ours}/conv{number}"),
                *layers.batch_norm(f"{theirs}.bn{number}", f"{ours}/norm{number}"),
            ]
        if module.attention == "se":
            entries += [
                *layers.pointwise(f"{theirs}.se.fc1", f"{ours}/attention/hidden"),
                *layers.pointwise(f"{theirs}.se.fc2", f"{ours}/attention/out"),
            ]
        if _projects(module, stage, block):
            # Where the mean is taken it comes first, even where nothing is left to be halved.
            first = 1 if module.shortcut == "mean" else 0
            entries += layers.conv_norm(
                f"{theirs}.downsample.{first}",
                f"{theirs}.downsample.{first + 1}",
                f"{ours}/projection",
            )
    standard = module.stem != "deep" and module.shortcut == "every_other"
    return Table(
        "timm",
        (*entries, *layers.head("fc")),
        also=("torchvision",) if standard and module.attention == "none" else (),
        made_with={"anti_aliased": False} if module.shortcut == "every_other" else {},
    )


def huggingface(module: ResNet, image_shape: ImageShape) -> Table | None:
    """The names of ResNet in HuggingFace's transformers, which has the refinements of none."""
    if (module.attention, module.stem, module.shortcut) != ("none", "standard", "every_other"):
        return None
    if module.groups > 1:
        return None
    entries = layers.conv_norm(*_layer("resnet.embedder.embedder"), "stem")
    for stage, block in _blocks(module):
        theirs = f"resnet.encoder.stages.{stage - 1}.layers.{block}"
        ours = f"stage{stage}_block{block}"
        for number in _convolutions(module):
            conv, norm = _layer(f"{theirs}.layer.{number - 1}")
            entries += [
                *layers.conv(conv, f"{ours}/conv{number}"),
                *layers.batch_norm(norm, f"{ours}/norm{number}"),
            ]
        if _projects(module, stage, block):
            entries += layers.conv_norm(*_layer(f"{theirs}.shortcut"), f"{ours}/projection")
    return Table(
        "transformers",
        (*entries, *layers.head("classifier.1")),
        stem="resnet.",
        made_with={"anti_aliased": False},
    )


def _stem(module: ResNet) -> list[Entry]:
    if module.stem != "deep":
        return layers.conv_norm("conv1", "bn1", "stem")
    return [
        *layers.conv_norm("conv1.0", "conv1.1", "stem1"),
        *layers.conv_norm("conv1.3", "conv1.4", "stem2"),
        *layers.conv_norm("conv1.6", "bn1", "stem3"),
    ]


def _layer(theirs: str) -> tuple[str, str]:
    """Convolution and norm of one of HuggingFace's layers."""
    return f"{theirs}.convolution", f"{theirs}.normalization"


def _blocks(module: ResNet) -> list[tuple[int, int]]:
    """Each block's stage and number within it."""
    return [
        (stage, block)
        for stage, blocks in enumerate(module.blocks, start=1)
        for block in range(blocks)
    ]


def _convolutions(module: ResNet) -> range:
    """Numbers of a block's convolutions."""
    return range(1, 4 if module.bottleneck else 3)


def _projects(module: ResNet, stage: int, block: int) -> bool:
    # The first stage keeps the stem's resolution, so only a bottleneck needs a projection there.
    return block == 0 and (stage > 1 or module.bottleneck)
