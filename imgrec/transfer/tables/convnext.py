"""ConvNeXts as others name them."""

from collections.abc import Iterator
from dataclasses import dataclass

from imgrec.models import ImageShape
from imgrec.models.convnext import ConvNeXt
from imgrec.transfer import layers
from imgrec.transfer.mapping import Entry, Table
from imgrec.transfer.turns import SAME, Turn, shaped

_EXACT = {"gelu": "erf"}


def timm(module: ConvNeXt, image_shape: ImageShape) -> Table:
    """The names of timm, where the sizes below Tiny have the MLP as 1x1 convolutions."""
    dense = layers.pointwise if module.width < 96 else layers.linear
    entries = _stem("stem.0", "stem.1")
    for stage in range(1, len(module.depths)):
        theirs = f"stages.{stage}.downsample"
        entries += _downsample(stage, f"{theirs}.0", f"{theirs}.1")
    for block in _blocks(module):
        theirs = f"stages.{block.stage}.blocks.{block.index}"
        entries += [
            *layers.conv(f"{theirs}.conv_dw", f"{block.ours}/depthwise", bias=True),
            *layers.norm(f"{theirs}.norm", f"{block.ours}/norm"),
            *dense(f"{theirs}.mlp.fc1", f"{block.ours}/mlp/hidden"),
            *dense(f"{theirs}.mlp.fc2", f"{block.ours}/mlp/out"),
            *_gamma(module, f"{theirs}.gamma", block),
        ]
    entries += [*layers.norm("head.norm", "norm"), *layers.head("head.fc")]
    return Table("timm", tuple(entries), made_with=_EXACT)


def facebook(module: ConvNeXt, image_shape: ImageShape) -> Table:
    """The names of the authors' release, facebookresearch/ConvNeXt."""
    entries = _stem("downsample_layers.0.0", "downsample_layers.0.1")
    for stage in range(1, len(module.depths)):
        theirs = f"downsample_layers.{stage}"
        entries += _downsample(stage, f"{theirs}.0", f"{theirs}.1")
    for block in _blocks(module):
        theirs = f"stages.{block.stage}.{block.index}"
        entries += [
            *_released(theirs, f"{theirs}.norm", block),
            *_gamma(module, f"{theirs}.gamma", block),
        ]
    entries += [*layers.norm("norm", "norm"), *layers.head("head")]
    return Table("facebookresearch/ConvNeXt", tuple(entries), made_with=_EXACT)


def huggingface(module: ConvNeXt, image_shape: ImageShape) -> Table:
    """The names of HuggingFace's transformers, with a head or without."""
    embeddings = "convnext.embeddings"
    entries = _stem(f"{embeddings}.patch_embeddings", f"{embeddings}.layernorm")
    for stage in range(1, len(module.depths)):
        theirs = f"convnext.encoder.stages.{stage}.downsampling_layer"
        entries += _downsample(stage, f"{theirs}.0", f"{theirs}.1")
    for block in _blocks(module):
        theirs = f"convnext.encoder.stages.{block.stage}.layers.{block.index}"
        entries += [
            *_released(theirs, f"{theirs}.layernorm", block),
            *_gamma(module, f"{theirs}.layer_scale_parameter", block),
        ]
    entries += [*layers.norm("convnext.layernorm", "norm"), *layers.head("classifier")]
    return Table("transformers", tuple(entries), stem="convnext.", made_with=_EXACT)


def torchvision(module: ConvNeXt, image_shape: ImageShape) -> Table | None:
    """The names of torchvision, which counts the halvings among the stages."""
    if not module.layer_scale:
        return None
    entries = _stem("features.0.0", "features.0.1")
    for stage in range(1, len(module.depths)):
        theirs = f"features.{2 * stage}"
        entries += _downsample(stage, f"{theirs}.0", f"{theirs}.1")
    for block in _blocks(module):
        theirs = f"features.{2 * block.stage + 1}.{block.index}"
        # A map's factors, where ours and other projects' are a vector's.
        factors = shaped((-1, 1, 1), (-1,))
        entries += [
            *layers.conv(f"{theirs}.block.0", f"{block.ours}/depthwise", bias=True),
            *layers.norm(f"{theirs}.block.2", f"{block.ours}/norm"),
            *layers.linear(f"{theirs}.block.3", f"{block.ours}/mlp/hidden"),
            *layers.linear(f"{theirs}.block.5", f"{block.ours}/mlp/out"),
            *_gamma(module, f"{theirs}.layer_scale", block, factors),
        ]
    entries += [*layers.norm("classifier.0", "norm"), *layers.head("classifier.2")]
    return Table("torchvision", tuple(entries), made_with=_EXACT)


@dataclass(frozen=True)
class _Block:
    stage: int  # counted from 0, as others do
    index: int

    @property
    def ours(self) -> str:
        return f"stage{self.stage + 1}_block{self.index}"


def _blocks(module: ConvNeXt) -> Iterator[_Block]:
    for stage, depth in enumerate(module.depths):
        for index in range(depth):
            yield _Block(stage, index)


def _stem(conv: str, norm: str) -> list[Entry]:
    return [*layers.conv(conv, "embedding", bias=True), *layers.norm(norm, "embedding_norm")]


def _downsample(stage: int, norm: str, conv: str) -> list[Entry]:
    """What comes before a stage, counted from 0."""
    ours = f"stage{stage + 1}_downsample"
    return [*layers.norm(norm, f"{ours}/norm"), *layers.conv(conv, f"{ours}/conv", bias=True)]


def _released(theirs: str, norm: str, block: _Block) -> list[Entry]:
    """A block but for its factors, as the authors name it, and HuggingFace after them."""
    return [
        *layers.conv(f"{theirs}.dwconv", f"{block.ours}/depthwise", bias=True),
        *layers.norm(norm, f"{block.ours}/norm"),
        *layers.linear(f"{theirs}.pwconv1", f"{block.ours}/mlp/hidden"),
        *layers.linear(f"{theirs}.pwconv2", f"{block.ours}/mlp/out"),
    ]


def _gamma(module: ConvNeXt, theirs: str, block: _Block, turn: Turn = SAME) -> list[Entry]:
    """The factor of each channel, where the model has them."""
    return [Entry((theirs,), (f"params/{block.ours}/gamma",), turn)] if module.layer_scale else []
