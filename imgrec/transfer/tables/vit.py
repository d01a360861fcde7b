"""Vision transformers as others name them.

PyTorch's have the exact GELU, those of JAX its tanh approximation, and no weight tells which.
"""

import numpy as np

from imgrec.models import ImageShape
from imgrec.models.vit import VisionTransformer
from imgrec.transfer import layers
from imgrec.transfer.mapping import Entry, Grid, Table
from imgrec.transfer.turns import LINEAR, Arrays, Turn, fused, shaped

_EXACT = {"gelu": "erf"}
_TANH = {"gelu": "tanh"}


def timm(module: VisionTransformer, image_shape: ImageShape) -> Table:
    """The names of timm, which are also those of DeiT and of the vision transformers of MAE."""
    entries = layers.conv("patch_embed.proj", "embedding", bias=True)
    entries += _tokens(module, image_shape, "cls_token", "pos_embed")
    for i in range(module.depth):
        theirs, ours = f"blocks.{i}", f"block{i}"
        entries += [
            *layers.norm(f"{theirs}.norm1", f"{ours}/norm1"),
            *_fused(f"{theirs}.attn.qkv.weight", f"{theirs}.attn.qkv.bias", ours),
            *layers.linear(f"{theirs}.attn.proj", f"{ours}/self_attention/out"),
            *layers.norm(f"{theirs}.norm2", f"{ours}/norm2"),
            *layers.linear(f"{theirs}.mlp.fc1", f"{ours}/mlp/hidden"),
            *layers.linear(f"{theirs}.mlp.fc2", f"{ours}/mlp/out"),
        ]
    entries += [*layers.norm("norm", "norm"), *layers.head("head")]
    return Table("timm", tuple(entries), made_with=_EXACT)


def torchvision(module: VisionTransformer, image_shape: ImageShape) -> Table:
    """The names of torchvision, today's and those of its first released files."""
    entries = layers.conv("conv_proj", "embedding", bias=True)
    entries += _tokens(module, image_shape, "class_token", "encoder.pos_embedding")
    for i in range(module.depth):
        theirs, ours = f"encoder.layers.encoder_layer_{i}", f"block{i}"
        attention = f"{theirs}.self_attention"
        entries += [
            *layers.norm(f"{theirs}.ln_1", f"{ours}/norm1"),
            *_fused(f"{attention}.in_proj_weight", f"{attention}.in_proj_bias", ours),
            *layers.linear(f"{attention}.out_proj", f"{ours}/self_attention/out"),
            *layers.norm(f"{theirs}.ln_2", f"{ours}/norm2"),
            *layers.linear(f"{theirs}.mlp.0", f"{ours}/mlp/hidden"),
            *layers.linear(f"{theirs}.mlp.3", f"{ours}/mlp/out"),
        ]
    entries += [*layers.norm("encoder.ln", "norm"), *layers.head("heads.head")]
    return Table(
        "torchvision",
        tuple(entries),
        respelled=((r"\.mlp\.linear_1\.", ".mlp.0."), (r"\.mlp\.linear_2\.", ".mlp.3.")),
        made_with=_EXACT,
    )


def huggingface(module: VisionTransformer, image_shape: ImageShape) -> Table:
    """The names of ViT in HuggingFace's transformers, with a head or without."""
    embeddings = "vit.embeddings"
    entries = layers.conv(f"{embeddings}.patch_embeddings.projection", "embedding", bias=True)
    entries += _tokens(
        module, image_shape, f"{embeddings}.cls_token", f"{embeddings}.position_embeddings"
    )
    for i in range(module.depth):
        theirs, ours = f"vit.encoder.layer.{i}", f"block{i}"
        for name in ("query", "key", "value"):
            entries += layers.linear(
                f"{theirs}.attention.attention.{name}", f"{ours}/self_attention/{name}"
            )
        entries += [
            *layers.norm(f"{theirs}.layernorm_before", f"{ours}/norm1"),
            *layers.linear(f"{theirs}.attention.output.dense", f"{ours}/self_attention/out"),
            *layers.norm(f"{theirs}.layernorm_after", f"{ours}/norm2"),
            *layers.linear(f"{theirs}.intermediate.dense", f"{ours}/mlp/hidden"),
            *layers.linear(f"{theirs}.output.dense", f"{ours}/mlp/out"),
        ]
    entries += [*layers.norm("vit.layernorm", "norm"), *layers.head("classifier")]
    return Table(
        "transformers",
        tuple(entries),
        # The pooler belongs to another head, which classification does not use.
        ignored=(r"(vit\.)?pooler\.dense\.(weight|bias)",),
        stem="vit.",
        made_with=_EXACT,
    )


def big_vision(module: VisionTransformer, image_shape: ImageShape) -> Table:
    """The names in big_vision's .npz files."""
    grid = _grid(module, image_shape, prefix=0)
    cls, positions = Entry(("cls",), ("params/cls",)), ("pos_embedding",)
    match module.pool, module.positions:
        case "cls", "learned":
            # There, the class token has no position. Here its position is 0, which is the same.
            ours = ("params/positions", "params/cls")
            tokens = [Entry((*positions, "cls"), ours, _WITHOUT_POSITION, grid=grid)]
        case "cls", _:
            tokens = [cls]
        case _, "learned":
            tokens = [Entry(positions, ("params/positions",), grid=grid)]
        case _:
            tokens = []
    return Table("big_vision", (*tokens, *_flax(module, 0, 0, 1, 0)), made_with=_TANH)


def vision_transformer(module: VisionTransformer, image_shape: ImageShape) -> Table:
    """The names in the .npz files of google-research/vision_transformer (AugReg among them)."""
    positions = "Transformer/posembed_input/pos_embedding"
    tokens = _tokens(module, image_shape, "cls", positions)
    return Table(
        "google-research/vision_transformer",
        (*tokens, *_flax(module, 0, 1, 2, 3)),
        respelled=((r"^Transformer/pos_embedding$", positions),),
        made_with=_TANH,
    )


def _tokens(
    module: VisionTransformer, image_shape: ImageShape, cls: str, positions: str
) -> list[Entry]:
    """The class token, and positions that it has one of."""
    entries = []
    if module.pool == "cls":
        entries.append(Entry((cls,), ("params/cls",)))
    if module.positions == "learned":
        grid = _grid(module, image_shape, prefix=1 if module.pool == "cls" else 0)
        entries.append(Entry((positions,), ("params/positions",), grid=grid))
    return entries


def _grid(module: VisionTransformer, image_shape: ImageShape, prefix: int) -> Grid:
    rows, columns = (side // module.patch_size for side in image_shape[:2])
    return Grid(rows, columns, prefix)


def _fused(weight: str, bias: str, ours: str) -> list[Entry]:
    """Query, key and value as one layer."""
    parts = [f"params/{ours}/self_attention/{name}" for name in ("query", "key", "value")]
    return [
        Entry((weight,), tuple(f"{part}/kernel" for part in parts), fused(3).then(LINEAR)),
        Entry((bias,), tuple(f"{part}/bias" for part in parts), fused(3)),
    ]


def _flax(
    module: VisionTransformer, norm1: int, attention: int, norm2: int, mlp: int
) -> list[Entry]:
    """All but the tokens, as Flax numbers the layers inside a block."""
    width, heads = module.width, (module.num_heads, module.width // module.num_heads)
    entries = _same("embedding", "embedding", ("kernel", "bias"))
    for i in range(module.depth):
        theirs, ours = f"Transformer/encoderblock_{i}", f"block{i}"
        attended = f"{theirs}/MultiHeadDotProductAttention_{attention}"
        entries += _same(f"{theirs}/LayerNorm_{norm1}", f"{ours}/norm1", ("scale", "bias"))
        for name in ("query", "key", "value"):
            part = f"params/{ours}/self_attention/{name}"
            split = shaped((width, *heads), (width, width))
            entries += [
                Entry((f"{attended}/{name}/kernel",), (f"{part}/kernel",), split),
                Entry((f"{attended}/{name}/bias",), (f"{part}/bias",), shaped(heads, (width,))),
            ]
        out = f"params/{ours}/self_attention/out"
        joined = shaped((*heads, width), (width, width))
        entries += [
            Entry((f"{attended}/out/kernel",), (f"{out}/kernel",), joined),
            Entry((f"{attended}/out/bias",), (f"{out}/bias",)),
            *_same(f"{theirs}/LayerNorm_{norm2}", f"{ours}/norm2", ("scale", "bias")),
            *_same(f"{theirs}/MlpBlock_{mlp}/Dense_0", f"{ours}/mlp/hidden", ("kernel", "bias")),
            *_same(f"{theirs}/MlpBlock_{mlp}/Dense_1", f"{ours}/mlp/out", ("kernel", "bias")),
        ]
    entries += _same("Transformer/encoder_norm", "norm", ("scale", "bias"))
    entries += [
        Entry(("head/kernel",), ("params/head/kernel",), classes_axis=1),
        Entry(("head/bias",), ("params/head/bias",), classes_axis=0),
    ]
    return entries


def _same(theirs: str, ours: str, leaves: tuple[str, str]) -> list[Entry]:
    return [Entry((f"{theirs}/{leaf}",), (f"params/{ours}/{leaf}",)) for leaf in leaves]


def _positioned(arrays: Arrays) -> Arrays:
    """(positions of the grid, class token) with a position of 0 for the token."""
    grid, cls = arrays
    return np.concatenate([np.zeros_like(cls), grid], axis=1), cls


def _unpositioned(arrays: Arrays) -> Arrays:
    """(positions, class token) with the token's position added to the token instead."""
    positions, cls = arrays
    return positions[:, 1:], cls + positions[:, :1]


_WITHOUT_POSITION = Turn(into=_positioned, out=_unpositioned)
