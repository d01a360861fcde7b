"""Swin transformers as others name them."""

from collections.abc import Iterator
from dataclasses import dataclass

from imgrec.models import ImageShape
from imgrec.models.swin import SwinTransformer
from imgrec.transfer import layers
from imgrec.transfer.mapping import Entry, Table

_EXACT = {"gelu": "erf"}
# Which offsets and which windows follow from the sizes of window and map.
_INDICES = (r".*\.relative_position_index", r".*\.attn_mask")


def timm(module: SwinTransformer, image_shape: ImageShape) -> Table | None:
    """The names of timm since 0.9, where a stage begins with the merging before it."""
    return _layers(module, "timm", merging_after=0, head="head.fc")


def microsoft(module: SwinTransformer, image_shape: ImageShape) -> Table | None:
    """The names of the authors' release, where a stage ends with the merging after it."""
    return _layers(module, "microsoft/Swin-Transformer", merging_after=1, head="head")


def torchvision(module: SwinTransformer, image_shape: ImageShape) -> Table | None:
    """The names of torchvision, which counts the mergings among the stages."""
    if not module.self_attention:
        return None
    entries = _stem("features.0.0", "features.0.2")
    for stage in range(1, len(module.depths)):
        entries += _merging(f"features.{2 * stage}", stage)
    for block in _blocks(module):
        theirs = f"features.{2 * block.stage + 1}.{block.index}"
        entries += [
            *_attended(theirs, block),
            *layers.linear(f"{theirs}.mlp.0", f"{block.ours}/mlp/hidden"),
            *layers.linear(f"{theirs}.mlp.3", f"{block.ours}/mlp/out"),
        ]
    entries += [*layers.norm("norm", "norm"), *layers.head("head")]
    return Table("torchvision", tuple(entries), ignored=_INDICES, made_with=_EXACT)


def huggingface(module: SwinTransformer, image_shape: ImageShape) -> Table | None:
    """The names of HuggingFace's transformers, with a head or without."""
    if not module.self_attention:
        return None
    embeddings = "swin.embeddings"
    entries = _stem(f"{embeddings}.patch_embeddings.projection", f"{embeddings}.norm")
    for stage in range(1, len(module.depths)):
        entries += _merging(f"swin.encoder.layers.{stage - 1}.downsample", stage)
    for block in _blocks(module):
        theirs = f"swin.encoder.layers.{block.stage}.blocks.{block.index}"
        attention, ours = f"{theirs}.attention.self", f"{block.ours}/window_attention"
        for name in ("query", "key", "value"):
            entries += layers.linear(f"{attention}.{name}", f"{ours}/attend/{name}")
        entries += [
            _offsets(f"{attention}.relative_position_bias_table", block),
            *layers.linear(f"{theirs}.attention.output.dense", f"{ours}/attend/out"),
            *layers.norm(f"{theirs}.layernorm_before", f"{block.ours}/norm1"),
            *layers.norm(f"{theirs}.layernorm_after", f"{block.ours}/norm2"),
            *layers.linear(f"{theirs}.intermediate.dense", f"{block.ours}/mlp/hidden"),
            *layers.linear(f"{theirs}.output.dense", f"{block.ours}/mlp/out"),
        ]
    entries += [*layers.norm("swin.layernorm", "norm"), *layers.head("classifier")]
    return Table("transformers", tuple(entries), ignored=_INDICES, stem="swin.", made_with=_EXACT)


@dataclass(frozen=True)
class _Block:
    stage: int  # counted from 0, as others do
    index: int

    @property
    def ours(self) -> str:
        return f"stage{self.stage + 1}_block{self.index}"


def _blocks(module: SwinTransformer) -> Iterator[_Block]:
    for stage, depth in enumerate(module.depths):
        for index in range(depth):
            yield _Block(stage, index)


def _layers(module: SwinTransformer, naming: str, *, merging_after: int, head: str) -> Table | None:
    """The names of the authors and of timm, which differ in whose the mergings are."""
    if not module.self_attention:
        return None
    entries = _stem("patch_embed.proj", "patch_embed.norm")
    for stage in range(1, len(module.depths)):
        entries += _merging(f"layers.{stage - merging_after}.downsample", stage)
    for block in _blocks(module):
        theirs = f"layers.{block.stage}.blocks.{block.index}"
        entries += [
            *_attended(theirs, block),
            *layers.linear(f"{theirs}.mlp.fc1", f"{block.ours}/mlp/hidden"),
            *layers.linear(f"{theirs}.mlp.fc2", f"{block.ours}/mlp/out"),
        ]
    entries += [*layers.norm("norm", "norm"), *layers.head(head)]
    return Table(naming, tuple(entries), ignored=_INDICES, made_with=_EXACT)


def _stem(conv: str, norm: str) -> list[Entry]:
    return [*layers.conv(conv, "embedding", bias=True), *layers.norm(norm, "embedding_norm")]


def _merging(theirs: str, stage: int) -> list[Entry]:
    """What comes before a stage, counted from 0."""
    ours = f"stage{stage + 1}_merging"
    return [
        *layers.norm(f"{theirs}.norm", f"{ours}/norm"),
        *layers.linear(f"{theirs}.reduction", f"{ours}/reduction", bias=False),
    ]


def _attended(theirs: str, block: _Block) -> list[Entry]:
    """A block but for its MLP, as the authors name it, and others after them."""
    attend = f"{block.ours}/window_attention/attend"
    return [
        *layers.norm(f"{theirs}.norm1", f"{block.ours}/norm1"),
        _offsets(f"{theirs}.attn.relative_position_bias_table", block),
        *layers.query_key_value(f"{theirs}.attn.qkv.weight", f"{theirs}.attn.qkv.bias", attend),
        *layers.linear(f"{theirs}.attn.proj", f"{attend}/out"),
        *layers.norm(f"{theirs}.norm2", f"{block.ours}/norm2"),
    ]


def _offsets(theirs: str, block: _Block) -> Entry:
    """The bias of each offset between two places of a window."""
    return Entry((theirs,), (f"params/{block.ours}/window_attention/positions",))
