"""The peers' networks in plain PyTorch: the layers that a careful user of it would write.

They compute what the networks of `imgrec.models` compute, with as many parameters; the
benchmark compares the counts before it measures. Fields are those of the Flax modules.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional


def create(
    kind: str, fields: Mapping[str, Any], channels: int, side: int, num_classes: int
) -> nn.Module:
    """The network for square images of `side` pixels."""
    size = {"channels": channels, "num_classes": num_classes}
    if kind == "VisionTransformer":
        size["side"] = side
    return NETWORKS[kind](**fields, **size)


class LeNet5(nn.Module):
    """LeNet-5 with the paper's parts or with today's (see `imgrec.models.lenet`)."""

    def __init__(
        self,
        *,
        activation: str,
        pool: str,
        connections: str,
        head: str,
        table: list[list[int]],
        channels: int,
        num_classes: int,
    ):
        super().__init__()
        self.activation, self.pool = activation, pool
        self.c1 = nn.Conv2d(channels, 6, 5)
        if connections == "full":
            self.c3: nn.Module = nn.Conv2d(6, 16, 5)
        else:
            self.c3 = PartialConv(table)
        trainable = pool == "subsampling"
        self.s2 = Subsampling(6) if trainable else nn.Identity()
        self.s4 = Subsampling(16) if trainable else nn.Identity()
        self.c5 = nn.Conv2d(16, 120, 5)
        self.f6 = nn.Linear(120, 84)
        self.head = nn.Linear(84, num_classes) if head == "linear" else None
        codes = torch.randint(0, 2, (num_classes, 84)) * 2.0 - 1
        self.register_buffer("codes", codes)

    def forward(self, x: Tensor) -> Tensor:
        """Logits [batch, classes]."""
        if x.shape[-1] == 28:
            x = functional.pad(x, (2, 2, 2, 2), mode="replicate")
        x = self.pooled(self.squash(self.c1(x)), self.s2)
        x = self.pooled(self.squash(self.c3(x)), self.s4)
        x = self.squash(self.c5(x)).flatten(1)
        x = self.squash(self.f6(x))
        if self.head is not None:
            return self.head(x)
        distance = ((x[:, None] - self.codes[None]) ** 2).sum(-1)
        return -distance / math.sqrt(84)

    def squash(self, x: Tensor) -> Tensor:
        """The activation."""
        if self.activation == "relu":
            return functional.relu(x)
        if self.activation == "tanh":
            return torch.tanh(x)
        return 1.7159 * torch.tanh(2 / 3 * x)

    def pooled(self, x: Tensor, subsampling: nn.Module) -> Tensor:
        """The maps at half their resolution."""
        if self.pool == "max":
            return functional.max_pool2d(x, 2)
        x = functional.avg_pool2d(x, 2)
        return x if self.pool == "average" else self.squash(subsampling(x))


class PartialConv(nn.Module):
    """A convolution with a 5x5 patch of weights for each connection of a table alone."""

    def __init__(self, table: list[list[int]]):
        super().__init__()
        pairs = [(j, source) for j, sources in enumerate(table) for source in sources]
        outputs, inputs = torch.tensor(pairs).T
        self.register_buffer("outputs", outputs)
        self.register_buffer("inputs", inputs)
        self.shape = (len(table), int(inputs.max()) + 1, 5, 5)
        self.weight = nn.Parameter(torch.randn(len(pairs), 5, 5) / 10)
        self.bias = nn.Parameter(torch.zeros(len(table)))

    def forward(self, x: Tensor) -> Tensor:
        """The maps, 4 pixels smaller each way."""
        dense = self.weight.new_zeros(self.shape)
        dense = dense.index_put((self.outputs, self.inputs), self.weight)
        return functional.conv2d(x, dense, self.bias)


class Subsampling(nn.Module):
    """The sum of each 2x2 square times a coefficient, plus a bias; of averages."""

    def __init__(self, features: int):
        super().__init__()
        self.scale = nn.Parameter(torch.full((features, 1, 1), 0.25))
        self.bias = nn.Parameter(torch.zeros(features, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        """Of maps that are averaged already."""
        return 4 * x * self.scale + self.bias


class CifarResNet(nn.Module):
    """He et al. 2015, section 4.2."""

    def __init__(self, *, depth: int, shortcut: str, channels: int, num_classes: int):
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(channels, 16, 3, padding=1, bias=False), _norm(16))
        blocks: list[nn.Module] = []
        before = 16
        for stage, features in enumerate((16, 32, 64)):
            for block in range((depth - 2) // 6):
                strides = 2 if stage and not block else 1
                blocks.append(BasicBlock(before, features, strides, shortcut))
                before = features
        self.blocks = nn.Sequential(*blocks)
        self.head = nn.Linear(64, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        """Logits [batch, classes]."""
        x = self.blocks(functional.relu(self.stem(x), inplace=True))
        return self.head(x.mean((2, 3)))


class BasicBlock(nn.Module):
    """Two 3x3 convolutions around a shortcut."""

    def __init__(self, before: int, features: int, strides: int, shortcut: str):
        super().__init__()
        self.conv1 = nn.Conv2d(before, features, 3, strides, 1, bias=False)
        self.norm1 = _norm(features)
        self.conv2 = nn.Conv2d(features, features, 3, padding=1, bias=False)
        self.norm2 = _norm(features)
        self.strides, self.gained, self.shortcut = strides, features - before, shortcut
        self.projection = (
            nn.Sequential(nn.Conv2d(before, features, 1, strides, bias=False), _norm(features))
            if shortcut == "B" and (strides > 1 or self.gained)
            else None
        )

    def forward(self, x: Tensor) -> Tensor:
        """The rectified sum."""
        y = functional.relu(self.norm1(self.conv1(x)), inplace=True)
        y = self.norm2(self.conv2(y))
        if self.shortcut == "none":
            return functional.relu(y, inplace=True)
        if self.projection is not None:
            x = self.projection(x)
        elif self.strides > 1 or self.gained:
            x = x[:, :, :: self.strides, :: self.strides]
            x = functional.pad(x, (0, 0, 0, 0, 0, self.gained))
        return functional.relu(x + y, inplace=True)


class WideResNet(nn.Module):
    """Zagoruyko and Komodakis 2016, without dropout."""

    def __init__(self, *, depth: int, widen_factor: int, channels: int, num_classes: int):
        super().__init__()
        self.stem = nn.Conv2d(channels, 16, 3, padding=1, bias=False)
        blocks: list[nn.Module] = []
        before = 16
        for stage in range(3):
            features = 16 * 2**stage * widen_factor
            for block in range((depth - 4) // 6):
                strides = 2 if stage and not block else 1
                blocks.append(PreActivationBlock(before, features, strides))
                before = features
        self.blocks = nn.Sequential(*blocks)
        self.norm = _norm(before)
        self.head = nn.Linear(before, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        """Logits [batch, classes]."""
        x = functional.relu(self.norm(self.blocks(self.stem(x))), inplace=True)
        return self.head(x.mean((2, 3)))


class PreActivationBlock(nn.Module):
    """Norm, ReLU, convolution, twice, added to the input."""

    def __init__(self, before: int, features: int, strides: int):
        super().__init__()
        self.norm1 = _norm(before)
        self.conv1 = nn.Conv2d(before, features, 3, strides, 1, bias=False)
        self.norm2 = _norm(features)
        self.conv2 = nn.Conv2d(features, features, 3, padding=1, bias=False)
        changes = before != features or strides != 1
        self.projection = nn.Conv2d(before, features, 1, strides, bias=False) if changes else None

    def forward(self, x: Tensor) -> Tensor:
        """The block's output."""
        activated = functional.relu(self.norm1(x), inplace=True)
        if self.projection is not None:
            x = self.projection(activated)
        y = functional.relu(self.norm2(self.conv1(activated)), inplace=True)
        return x + self.conv2(y)


class VisionTransformer(nn.Module):
    """A pre-normalised ViT with one product for queries, keys and values, as timm has it."""

    def __init__(
        self,
        *,
        patch_size: int,
        width: int,
        depth: int,
        num_heads: int,
        pool: str,
        positions: str,
        gelu: str,
        channels: int,
        side: int,
        num_classes: int,
    ):
        super().__init__()
        tokens = (side // patch_size) ** 2 + (pool == "cls")
        self.embedding = nn.Conv2d(channels, width, patch_size, patch_size)
        self.cls = nn.Parameter(torch.zeros(1, 1, width)) if pool == "cls" else None
        start = 0.02 * torch.randn(1, tokens, width)
        if positions == "learned":
            self.positions = nn.Parameter(start)
        else:  # fixed ones, whose values do not matter here
            self.register_buffer("positions", start)
        self.blocks = nn.Sequential(*(EncoderBlock(width, num_heads, gelu) for _ in range(depth)))
        self.norm = nn.LayerNorm(width, eps=1e-6)
        self.head = nn.Linear(width, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        """Logits [batch, classes]."""
        x = self.embedding(x).flatten(2).transpose(1, 2)
        if self.cls is not None:
            x = torch.cat((self.cls.expand(len(x), -1, -1), x), 1)
        x = self.norm(self.blocks(x + self.positions))
        return self.head(x.mean(1) if self.cls is None else x[:, 0])


class EncoderBlock(nn.Module):
    """Attention, then an MLP."""

    def __init__(self, width: int, num_heads: int, gelu: str):
        super().__init__()
        self.num_heads = num_heads
        self.norm1 = nn.LayerNorm(width, eps=1e-6)
        self.qkv = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)
        self.norm2 = nn.LayerNorm(width, eps=1e-6)
        self.mlp = nn.Sequential(
            nn.Linear(width, 4 * width),
            nn.GELU(approximate="tanh" if gelu == "tanh" else "none"),
            nn.Linear(4 * width, width),
        )

    def forward(self, x: Tensor) -> Tensor:
        """The tokens after both branches."""
        batch, tokens, width = x.shape
        qkv = self.qkv(self.norm1(x)).view(batch, tokens, 3, self.num_heads, -1)
        query, key, value = qkv.permute(2, 0, 3, 1, 4).unbind(0)
        attended = functional.scaled_dot_product_attention(query, key, value)
        x = x + self.out(attended.transpose(1, 2).reshape(batch, tokens, width))
        return x + self.mlp(self.norm2(x))


class Airbench(nn.Module):
    """Jordan 2024; submodules are named as `imgrec.models.airbench` names them.

    Of the whitening and of the norms nothing but biases is trained. The whitening kernel and the
    parameters are loaded from ours.
    """

    def __init__(
        self,
        *,
        widths: Sequence[int],
        convolutions: int,
        momentum: float,
        mirror: bool,
        channels: int,
        num_classes: int,
    ):
        super().__init__()
        self.mirror = mirror
        self.whiten = nn.Conv2d(channels, 8 * channels, 2)
        self.whiten.weight.requires_grad_(False)
        before = 8 * channels
        for stage, features in enumerate(widths, start=1):
            group = ConvGroup(before, features, convolutions, 1 - momentum)
            self.add_module(f"stage{stage}_group", group)
            before = features
        self.head = nn.Linear(before, num_classes, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Logits [batch, classes]."""
        features = self.features(x)
        if self.mirror and not self.training:
            features = (features + self.features(x.flip(3))) / 2
        return self.head(features) / 9

    def features(self, x: Tensor) -> Tensor:
        """What the head sees, [batch, features]."""
        x = functional.gelu(self.whiten(x))
        return self.stage3_group(self.stage2_group(self.stage1_group(x))).amax((2, 3))


class ConvGroup(nn.Module):
    """Convolution, pooling, norm and GELU, then the others at the lower resolution."""

    def __init__(self, before: int, features: int, convolutions: int, momentum: float):
        super().__init__()
        self.convolutions = convolutions
        for number in range(1, convolutions + 1):
            conv = nn.Conv2d(before, features, 3, padding=1, bias=False)
            norm = nn.BatchNorm2d(features, eps=1e-12, momentum=momentum)
            norm.weight.requires_grad_(False)
            self.add_module(f"conv{number}", conv)
            self.add_module(f"norm{number}", norm)
            before = features

    def forward(self, x: Tensor) -> Tensor:
        """The maps at half the resolution."""
        x = functional.gelu(self.norm1(functional.max_pool2d(self.conv1(x), 2)))
        y = self.norm2(self.conv2(x))
        if self.convolutions == 3:
            y = x + self.norm3(self.conv3(functional.gelu(y)))
        return functional.gelu(y)


def _norm(features: int) -> nn.BatchNorm2d:
    return nn.BatchNorm2d(features, eps=1e-5, momentum=0.1)


NETWORKS: Mapping[str, type[nn.Module]] = {
    "Airbench": Airbench,
    "CifarResNet": CifarResNet,
    "LeNet5": LeNet5,
    "VisionTransformer": VisionTransformer,
    "WideResNet": WideResNet,
}
