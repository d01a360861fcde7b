"""Vision transformers as others name them.

PyTorch's have the exact GELU, those of JAX its tanh approximation, and no weight tells which.
"""

import numpy as np

from imgrec.models import ImageShape
from imgrec.models.vit import VisionTransformer
from imgrec.transfer import layers
from imgrec.transfer.mapping import Entry, Grid, Table
from imgrec.transfer.turns import Arrays, Turn, shaped

_EXACT = {"gelu": "erf"}
_TANH = {"gelu": "tanh"}


def timm(module: VisionTransformer, image_shape: ImageShape) -> Table | None:
    """The names of timm, which are also those of DeiT and of the vision transformers of MAE.

    With registers it is DINOv2, whose class token has no position. What reads the mean of the
    tokens has no class token (timm's "gap" networks); others of timm normalise the mean instead.
    """
    pooled_and_distilled = module.pool == "mean" and module.distillation
    registered_and_distilled = module.registers > 0 and module.distillation
    if not module.self_attention or pooled_and_distilled or registered_and_distilled:
        return None
    entries = layers.conv("patch_embed.proj", "embedding", bias=True)
    if module.registers:
        entries += [Entry(("reg_token",), ("params/registers",))]
        entries += _tokens_without_position(module, image_shape, "cls_token", "pos_embed")
    else:
        entries += _tokens(module, image_shape, "cls_token", "pos_embed", "dist_token")
    for i in range(module.depth):
        theirs, ours = f"blocks.{i}", f"block{i}"
        attention, attend = f"{theirs}.attn", f"{ours}/self_attention"
        entries += [
            *layers.norm(f"{theirs}.norm1", f"{ours}/norm1"),
            *layers.query_key_value(f"{attention}.qkv.weight", f"{attention}.qkv.bias", attend),
            *layers.linear(f"{attention}.proj", f"{attend}/out"),
            *layers.norm(f"{theirs}.norm2", f"{ours}/norm2"),
            *layers.linear(f"{theirs}.mlp.fc1", f"{ours}/mlp/hidden"),
            *layers.linear(f"{theirs}.mlp.fc2", f"{ours}/mlp/out"),
        ]
        if module.qk_norm:
            entries += layers.norm(f"{attention}.q_norm", f"{attend}/norm_query")
            entries += layers.norm(f"{attention}.k_norm", f"{attend}/norm_key")
        if module.layer_scale:
            entries += [
                Entry((f"{theirs}.ls{number}.gamma",), (f"params/{ours}/gamma{number}",))
                for number in (1, 2)
            ]
    entries += [*layers.norm("norm", "norm"), *layers.head("head")]
    if module.distillation:
        entries += layers.head("head_dist", "distillation_head")
    return Table("timm", tuple(entries), made_with=_EXACT)


def torchvision(module: VisionTransformer, image_shape: ImageShape) -> Table | None:
    """The names of torchvision, today's and those of its first released files."""
    if module.distillation or not _plain(module):
        return None
    entries = layers.conv("conv_proj", "embedding", bias=True)
    entries += _tokens(module, image_shape, "class_token", "encoder.pos_embedding")
    for i in range(module.depth):
        theirs, ours = f"encoder.layers.encoder_layer_{i}", f"block{i}"
        attention, attend = f"{theirs}.self_attention", f"{ours}/self_attention"
        entries += [
            *layers.norm(f"{theirs}.ln_1", f"{ours}/norm1"),
            *layers.query_key_value(
                f"{attention}.in_proj_weight", f"{attention}.in_proj_bias", attend
            ),
            *layers.linear(f"{attention}.out_proj", f"{attend}/out"),
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


def huggingface(module: VisionTransformer, image_shape: ImageShape) -> Table | None:
    """The names of ViT and of distilled DeiT in the files of HuggingFace's transformers.

    A head may be missing. DeiT without distillation is a ViT there.
    """
    if not _plain(module) or (module.pool == "mean" and module.distillation):
        return None
    stem = "deit" if module.distillation else "vit"
    embeddings = f"{stem}.embeddings"
    entries = layers.conv(f"{embeddings}.patch_embeddings.projection", "embedding", bias=True)
    entries += _tokens(
        module,
        image_shape,
        f"{embeddings}.cls_token",
        f"{embeddings}.position_embeddings",
        f"{embeddings}.distillation_token",
    )
    for i in range(module.depth):
        theirs, ours = f"{stem}.encoder.layer.{i}", f"block{i}"
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
    entries += layers.norm(f"{stem}.layernorm", "norm")
    if module.distillation:
        entries += layers.head("cls_classifier")
        entries += layers.head("distillation_classifier", "distillation_head")
    else:
        entries += layers.head("classifier")
    return Table(
        "transformers",
        tuple(entries),
        # The pooler belongs to another head, which classification does not use.
        ignored=(rf"({stem}\.)?pooler\.dense\.(weight|bias)",),
        stem=f"{stem}.",
        made_with=_EXACT,
    )


def big_vision(module: VisionTransformer, image_shape: ImageShape) -> Table | None:
    """The names in big_vision's .npz files."""
    if module.distillation or not _plain(module):
        return None
    tokens = _tokens_without_position(module, image_shape, "cls", "pos_embedding")
    return Table("big_vision", (*tokens, *_flax(module, 0, 0, 1, 0)), made_with=_TANH)


def vision_transformer(module: VisionTransformer, image_shape: ImageShape) -> Table | None:
    """The names in the .npz files of google-research/vision_transformer (AugReg among them)."""
    if module.distillation or not _plain(module):
        return None
    positions = "Transformer/posembed_input/pos_embedding"
    tokens = _tokens(module, image_shape, "cls", positions)
    return Table(
        "google-research/vision_transformer",
        (*tokens, *_flax(module, 0, 1, 2, 3)),
        respelled=((r"^Transformer/pos_embedding$", positions),),
        made_with=_TANH,
    )


def _plain(module: VisionTransformer) -> bool:
    """Whether the blocks and their tokens are those of the first paper."""
    extras = module.registers or module.qk_norm or module.layer_scale
    return module.self_attention and not extras


def _tokens(
    module: VisionTransformer,
    image_shape: ImageShape,
    cls: str,
    positions: str,
    distillation: str = "",
) -> list[Entry]:
    """The extra tokens, and positions that they have some of."""
    extra = [(cls, "params/cls")] if module.pool == "cls" else []
    if module.distillation:
        extra.append((distillation, "params/distillation"))
    entries = [Entry((theirs,), (ours,)) for theirs, ours in extra]
    if module.positions == "learned":
        grid = _grid(module, image_shape, prefix=len(extra))
        entries.append(Entry((positions,), ("params/positions",), grid=grid))
    return entries


def _tokens_without_position(
    module: VisionTransformer, image_shape: ImageShape, cls: str, positions: str
) -> list[Entry]:
    """The class token, and positions that are the patches' alone."""
    grid = _grid(module, image_shape, prefix=0)
    match module.pool, module.positions:
        case "cls", "learned":
            # There, the class token has no position. Here its position is 0, which is the same.
            ours = ("params/positions", "params/cls")
            return [Entry((positions, cls), ours, _WITHOUT_POSITION, grid=grid)]
        case "cls", _:
            return [Entry((cls,), ("params/cls",))]
        case _, "learned":
            return [Entry((positions,), ("params/positions",), grid=grid)]
        case _:
            return []


def _grid(module: VisionTransformer, image_shape: ImageShape, prefix: int) -> Grid:
    rows, columns = (side // module.patch_size for side in image_shape[:2])
    return Grid(rows, columns, prefix)


def _flax(
    module: VisionTransformer, norm1: int, attention: int, norm2: int, mlp: int
) -> list[Entry]:
    """All but the tokens, as Flax numbers the layers inside a block."""
    width, heads = module.width, (module.num_heads, module.width // module.num_heads)
    entries = layers.flax("embedding", "embedding")
    for i in range(module.depth):
        theirs, ours = f"Transformer/encoderblock_{i}", f"block{i}"
        attended = f"{theirs}/MultiHeadDotProductAttention_{attention}"
        entries += layers.flax_norm(f"{theirs}/LayerNorm_{norm1}", f"{ours}/norm1")
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
            *layers.flax_norm(f"{theirs}/LayerNorm_{norm2}", f"{ours}/norm2"),
            *layers.flax(f"{theirs}/MlpBlock_{mlp}/Dense_0", f"{ours}/mlp/hidden"),
            *layers.flax(f"{theirs}/MlpBlock_{mlp}/Dense_1", f"{ours}/mlp/out"),
        ]
    entries += layers.flax_norm("Transformer/encoder_norm", "norm")
    entries += layers.flax_head("head")
    return entries


def _positioned(arrays: Arrays) -> Arrays:
    """(positions of the grid, class token) with a position of 0 for the token."""
    grid, cls = arrays
    return np.concatenate([np.zeros_like(cls), grid], axis=1), cls


def _unpositioned(arrays: Arrays) -> Arrays:
    """(positions, class token) with the token's position added to the token instead."""
    positions, cls = arrays
    return positions[:, 1:], cls + positions[:, :1]


_WITHOUT_POSITION = Turn(into=_positioned, out=_unpositioned)
