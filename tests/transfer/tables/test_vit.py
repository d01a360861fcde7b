"""Vision transformers from PyTorch and Flax in five namings: the same logits from each."""

import functools

import flax
import flax.linen
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from imgrec.models.vit import VisionTransformer
from imgrec.transfer import bigvision, mapping, safetensors, sources, tables

torch = pytest.importorskip("torch")
nn = torch.nn

SHAPE = (8, 12, 3)  # 2 x 3 patches of 4
WIDTH, DEPTH, HEADS = 24, 2, 3


def ours(**options):
    options = {"num_classes": 10, "gelu": "erf", **options}
    return VisionTransformer(patch_size=4, width=WIDTH, depth=DEPTH, num_heads=HEADS, **options)


def shapes_of(module, shape=SHAPE):
    images = jnp.zeros((1, *shape))
    found = jax.eval_shape(lambda: module.init(jax.random.key(0), images))
    return flax.core.unfreeze(found)["params"]


def filled(module):
    """Parameters none of which is at its initial value."""
    rng = np.random.default_rng(0)

    def value(path, leaf):
        noise = rng.normal(size=leaf.shape) / np.sqrt(max(1, np.prod(leaf.shape[:-1])))
        return np.float32(noise + (path[-1].key == "scale"))

    return jax.tree_util.tree_map_with_path(value, shapes_of(module))


def images_of(shape=SHAPE):
    return np.random.default_rng(1).normal(size=(3, *shape)).astype(np.float32)


@functools.cache
def forward(module):
    return jax.jit(functools.partial(module.apply, train=False))


def converted(arrays, module, naming, shape=SHAPE):
    table = mapping.choose(arrays, tables.known(module, shape))
    assert table.naming == naming
    params, model_state, accounting = mapping.convert(arrays, table, shapes_of(module, shape), {})
    assert model_state == {}
    return params, accounting


def agree(network, arrays, naming, module=None):
    module = module or ours()
    params, accounting = converted(arrays, module, naming)
    with torch.no_grad():
        expected = network(torch.from_numpy(images_of().transpose(0, 3, 1, 2).copy())).numpy()
    found = forward(module)({"params": params}, images_of())
    assert np.ptp(expected, axis=0).max() > 0.3
    np.testing.assert_allclose(found, expected, atol=1e-4)
    return accounting


def state(network):
    return {name: tensor.numpy() for name, tensor in network.state_dict().items()}


def layer_norm():
    return nn.LayerNorm(WIDTH, eps=1e-6)


def attend(query, key, value):
    """Heads apart, PyTorch's own attention, heads together."""
    batch, tokens, _ = query.shape
    heads = [t.reshape(batch, tokens, HEADS, -1).transpose(1, 2) for t in (query, key, value)]
    y = nn.functional.scaled_dot_product_attention(*heads)
    return y.transpose(1, 2).reshape(batch, tokens, WIDTH)


def tokens_of(projection, images, cls, positions):
    x = projection(images).flatten(2).transpose(1, 2)
    if cls is not None:
        x = torch.cat([cls.expand(len(x), -1, -1), x], dim=1)
    return x + positions


class TimmBlock(nn.Module):
    def __init__(self):
        super().__init__()
        self.norm1, self.norm2 = layer_norm(), layer_norm()
        self.attn, self.mlp = nn.Module(), nn.Module()
        self.attn.qkv, self.attn.proj = nn.Linear(WIDTH, 3 * WIDTH), nn.Linear(WIDTH, WIDTH)
        self.mlp.fc1, self.mlp.fc2 = nn.Linear(WIDTH, 4 * WIDTH), nn.Linear(4 * WIDTH, WIDTH)

    def forward(self, x):
        x = x + self.attn.proj(attend(*self.attn.qkv(self.norm1(x)).chunk(3, dim=-1)))
        return x + self.mlp.fc2(nn.functional.gelu(self.mlp.fc1(self.norm2(x))))


class Timm(nn.Module):
    def __init__(self, classes=10, grid=6):
        super().__init__()
        self.cls_token = nn.Parameter(torch.zeros(1, 1, WIDTH))
        self.pos_embed = nn.Parameter(torch.zeros(1, 1 + grid, WIDTH))
        self.patch_embed = nn.Module()
        self.patch_embed.proj = nn.Conv2d(3, WIDTH, 4, 4)
        self.blocks = nn.Sequential(*[TimmBlock() for _ in range(DEPTH)])
        self.norm, self.head = layer_norm(), nn.Linear(WIDTH, classes)

    def forward(self, images):
        x = tokens_of(self.patch_embed.proj, images, self.cls_token, self.pos_embed)
        return self.head(self.norm(self.blocks(x))[:, 0])


class TorchvisionBlock(nn.Module):
    def __init__(self):
        super().__init__()
        self.ln_1, self.ln_2 = layer_norm(), layer_norm()
        self.self_attention = nn.MultiheadAttention(WIDTH, HEADS, batch_first=True)
        self.mlp = nn.Sequential(
            nn.Linear(WIDTH, 4 * WIDTH),
            nn.GELU(),
            nn.Dropout(0.0),
            nn.Linear(4 * WIDTH, WIDTH),
        )

    def forward(self, x):
        y = self.ln_1(x)
        x = x + self.self_attention(y, y, y, need_weights=False)[0]
        return x + self.mlp(self.ln_2(x))


class Torchvision(nn.Module):
    def __init__(self):
        super().__init__()
        self.class_token = nn.Parameter(torch.zeros(1, 1, WIDTH))
        self.conv_proj = nn.Conv2d(3, WIDTH, 4, 4)
        self.encoder = nn.Module()
        self.encoder.pos_embedding = nn.Parameter(torch.zeros(1, 7, WIDTH))
        self.encoder.layers = nn.Sequential()
        for i in range(DEPTH):
            self.encoder.layers.add_module(f"encoder_layer_{i}", TorchvisionBlock())
        self.encoder.ln = layer_norm()
        self.heads = nn.Sequential()
        self.heads.add_module("head", nn.Linear(WIDTH, 10))

    def forward(self, images):
        x = tokens_of(self.conv_proj, images, self.class_token, self.encoder.pos_embedding)
        return self.heads(self.encoder.ln(self.encoder.layers(x))[:, 0])


class HuggingFaceBlock(nn.Module):
    def __init__(self):
        super().__init__()
        self.layernorm_before, self.layernorm_after = layer_norm(), layer_norm()
        self.attention = nn.ModuleDict({"attention": nn.Module(), "output": nn.Module()})
        for name in ("query", "key", "value"):
            self.attention["attention"].add_module(name, nn.Linear(WIDTH, WIDTH))
        self.attention["output"].dense = nn.Linear(WIDTH, WIDTH)
        self.intermediate, self.output = nn.Module(), nn.Module()
        self.intermediate.dense = nn.Linear(WIDTH, 4 * WIDTH)
        self.output.dense = nn.Linear(4 * WIDTH, WIDTH)

    def forward(self, x):
        y, inner = self.layernorm_before(x), self.attention["attention"]
        y = attend(inner.query(y), inner.key(y), inner.value(y))
        x = x + self.attention["output"].dense(y)
        y = nn.functional.gelu(self.intermediate.dense(self.layernorm_after(x)))
        return x + self.output.dense(y)


class HuggingFace(nn.Module):
    def __init__(self):
        super().__init__()
        self.vit = nn.Module()
        self.vit.embeddings = nn.Module()
        self.vit.embeddings.cls_token = nn.Parameter(torch.zeros(1, 1, WIDTH))
        self.vit.embeddings.position_embeddings = nn.Parameter(torch.zeros(1, 7, WIDTH))
        self.vit.embeddings.patch_embeddings = nn.Module()
        self.vit.embeddings.patch_embeddings.projection = nn.Conv2d(3, WIDTH, 4, 4)
        self.vit.encoder = nn.Module()
        self.vit.encoder.layer = nn.Sequential(*[HuggingFaceBlock() for _ in range(DEPTH)])
        self.vit.layernorm, self.classifier = layer_norm(), nn.Linear(WIDTH, 10)

    def forward(self, images):
        e = self.vit.embeddings
        x = tokens_of(e.patch_embeddings.projection, images, e.cls_token, e.position_embeddings)
        return self.classifier(self.vit.layernorm(self.vit.encoder.layer(x))[:, 0])


def test_timm_through_both_kinds_of_file(randomised, tmp_path):
    network = randomised(Timm())
    torch.save({"model": network.state_dict()}, tmp_path / "deit.pth")
    agree(network, sources.read(tmp_path / "deit.pth").arrays, "timm")
    safetensors.write(tmp_path / "timm.safetensors", state(network))
    agree(network, sources.read(tmp_path / "timm.safetensors").arrays, "timm")


def test_torchvision_in_todays_spelling_and_the_first(randomised):
    network = randomised(Torchvision())
    arrays = state(network)
    agree(network, arrays, "torchvision")
    older = {
        name.replace("mlp.0.", "mlp.linear_1.").replace("mlp.3.", "mlp.linear_2."): array
        for name, array in arrays.items()
    }
    assert older.keys() != arrays.keys()
    agree(network, older, "torchvision")


def test_huggingface_with_and_without_its_head(randomised):
    network = randomised(HuggingFace())
    arrays = state(network)
    agree(network, arrays, "transformers")

    backbone = {k.removeprefix("vit."): v for k, v in arrays.items() if "classifier" not in k}
    backbone["pooler.dense.weight"] = np.ones((WIDTH, WIDTH), np.float32)
    module = ours()
    params, accounting = converted(backbone, module, "transformers")
    assert accounting.replaced == ("params/head/bias", "params/head/kernel")
    assert accounting.head == "the file has none"
    assert accounting.ignored == ("pooler.dense.weight",)
    whole, _ = converted(arrays, module, "transformers")
    for name in params.keys() - {"head"}:
        jax.tree.map(np.testing.assert_array_equal, params[name], whole[name])


class FlaxMLP(flax.linen.Module):
    @flax.linen.compact
    def __call__(self, x):
        hidden = flax.linen.gelu(flax.linen.Dense(4 * WIDTH, name="Dense_0")(x))
        return flax.linen.Dense(WIDTH, name="Dense_1")(hidden)


class FlaxBlock(flax.linen.Module):
    numbers: tuple[int, int, int, int]

    @flax.linen.compact
    def __call__(self, x):
        norm1, attention, norm2, mlp = self.numbers
        y = flax.linen.LayerNorm(name=f"LayerNorm_{norm1}")(x)
        name = f"MultiHeadDotProductAttention_{attention}"
        x = x + flax.linen.MultiHeadDotProductAttention(HEADS, name=name)(y, y)
        y = flax.linen.LayerNorm(name=f"LayerNorm_{norm2}")(x)
        return x + FlaxMLP(name=f"MlpBlock_{mlp}")(y)


class FlaxEncoder(flax.linen.Module):
    numbers: tuple[int, int, int, int]
    positions: bool

    @flax.linen.compact
    def __call__(self, x):
        if self.positions:
            x = x + FlaxPositions(name="posembed_input")(x)
        for i in range(DEPTH):
            x = FlaxBlock(self.numbers, name=f"encoderblock_{i}")(x)
        return flax.linen.LayerNorm(name="encoder_norm")(x)


class FlaxPositions(flax.linen.Module):
    @flax.linen.compact
    def __call__(self, x):
        return self.param("pos_embedding", flax.linen.initializers.ones, (1, *x.shape[1:]))


class FlaxViT(flax.linen.Module):
    """With Flax's own attention: big_vision's way, or that of the project before it."""

    big_vision: bool
    pool: str

    @flax.linen.compact
    def __call__(self, images):
        x = flax.linen.Conv(WIDTH, (4, 4), (4, 4), padding="VALID", name="embedding")(images)
        x = x.reshape(len(x), -1, WIDTH)
        if self.big_vision:
            x = x + self.param("pos_embedding", flax.linen.initializers.ones, (1, *x.shape[1:]))
        if self.pool == "cls":
            cls = self.param("cls", flax.linen.initializers.zeros, (1, 1, WIDTH))
            x = jnp.concatenate([jnp.tile(cls, (len(x), 1, 1)), x], axis=1)
        numbers = (0, 0, 1, 0) if self.big_vision else (0, 1, 2, 3)
        x = FlaxEncoder(numbers, not self.big_vision, name="Transformer")(x)
        x = x[:, 0] if self.pool == "cls" else x.mean(axis=1)
        return flax.linen.Dense(10, name="head")(x)


@pytest.mark.parametrize("pool", ["cls", "mean"])
@pytest.mark.parametrize("naming", ["big_vision", "google-research/vision_transformer"])
def test_npz_of_flax(naming, pool, tmp_path):
    network = FlaxViT(naming == "big_vision", pool)
    params = filled(network)
    arrays = flax.traverse_util.flatten_dict(params, sep="/")
    before = "params/" if naming == "big_vision" else ""
    np.savez(tmp_path / "vit.npz", **{before + name: array for name, array in arrays.items()})
    read = bigvision.read(tmp_path / "vit.npz")

    module = ours(pool=pool, gelu="tanh")
    expected = jax.jit(network.apply)({"params": params}, images_of())
    params, accounting = converted(read, module, naming)
    assert accounting.prefix == before
    found = forward(module)({"params": params}, images_of())
    assert np.ptp(expected, axis=0).max() > 0.3
    np.testing.assert_allclose(found, expected, atol=1e-5)

    # And back, though our position of the class token is theirs added to the token.
    table = tables.named(module, SHAPE, naming)
    exported = mapping.export(params, {}, table)
    assert exported.keys() == arrays.keys()
    for name, array in arrays.items():
        np.testing.assert_array_equal(exported[name], array, err_msg=name)


def test_the_combined_positions_of_older_npz_files_have_another_name():
    module = ours()
    table = tables.named(module, SHAPE, "google-research/vision_transformer")
    old = {"Transformer/pos_embedding", *table.theirs}
    old.remove("Transformer/posembed_input/pos_embedding")
    arrays = mapping.export(
        jax.tree.map(lambda s: np.ones(s.shape, s.dtype), shapes_of(module)), {}, table
    )
    arrays["Transformer/pos_embedding"] = arrays.pop("Transformer/posembed_input/pos_embedding")
    converted(arrays, module, table.naming)


@pytest.mark.parametrize(
    "naming", ["timm", "torchvision", "transformers", "google-research/vision_transformer"]
)
@pytest.mark.parametrize("options", [{}, {"pool": "mean"}, {"positions": "sincos"}], ids=str)
def test_out_and_in_again_is_exact(naming, options):
    module = ours(**options)
    params = filled(module)
    table = tables.named(module, SHAPE, naming)
    exported = mapping.export(params, {}, table)
    assert all(array.flags.c_contiguous for array in exported.values())
    back, _, accounting = mapping.convert(exported, table, shapes_of(module), {})
    jax.tree.map(np.testing.assert_array_equal, back, params)
    assert accounting.replaced == ()


def test_exported_weights_load_strictly_into_pytorch():
    module, network = ours(), Timm()
    params = filled(module)
    exported = mapping.export(params, {}, tables.named(module, SHAPE, "timm"))
    network.load_state_dict({name: torch.from_numpy(a.copy()) for name, a in exported.items()})
    with torch.no_grad():
        found = network(torch.from_numpy(images_of().transpose(0, 3, 1, 2).copy())).numpy()
    np.testing.assert_allclose(found, forward(module)({"params": params}, images_of()), atol=1e-4)


def test_another_image_size_and_other_classes(randomised):
    """16 patches in a square become 2 x 3, and the rest of the network is taken as it is."""
    network = randomised(Timm(classes=1000, grid=16))
    arrays = state(network)
    module = ours()
    params, accounting = converted(arrays, module, "timm")
    assert accounting.resized == ("pos_embed from 4x4 to 2x3 patches, bicubic",)
    assert accounting.head == "1000 classes there, 10 here"
    assert accounting.left_out == ("head.weight", "head.bias")
    assert set(accounting.replaced) == {"params/head/kernel", "params/head/bias"}
    assert isinstance(params["head"]["kernel"], jax.ShapeDtypeStruct)

    grid = network.pos_embed.data[:, 1:].reshape(1, 4, 4, WIDTH).permute(0, 3, 1, 2)
    grid = nn.functional.interpolate(grid, (2, 3), mode="bicubic", antialias=True)
    grid = grid.permute(0, 2, 3, 1).reshape(1, 6, WIDTH)
    network.pos_embed.data = torch.cat([network.pos_embed.data[:, :1], grid], dim=1)
    params["head"] = {"kernel": jnp.eye(WIDTH, 10), "bias": jnp.zeros(10)}
    network.head.weight.data, network.head.bias.data = torch.eye(10, WIDTH), torch.zeros(10)
    with torch.no_grad():
        expected = network(torch.from_numpy(images_of().transpose(0, 3, 1, 2).copy())).numpy()
    found = forward(module)({"params": params}, images_of())
    np.testing.assert_allclose(found, expected, atol=1e-4)
