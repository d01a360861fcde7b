"""The networks in the plain style of Flax's own examples: stock layers, nothing done for speed."""

import functools
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

Array = jax.Array


def create(kind: str, fields: Mapping[str, Any], num_classes: int, dtype: Any) -> nn.Module:
    """The network; fields are those of this project's module of the same name."""
    frozen = {k: tuple(map(tuple, v)) if isinstance(v, list) else v for k, v in fields.items()}
    return NETWORKS[kind](num_classes=num_classes, dtype=dtype, **frozen)


class LeNet5(nn.Module):
    """LeNet-5 with the paper's parts or with today's."""

    num_classes: int
    activation: str
    pool: str
    connections: str
    head: str
    table: tuple[tuple[int, ...], ...]
    dtype: Any

    @nn.compact
    def __call__(self, x: Array, train: bool = True) -> Array:
        """Logits [batch, classes]."""
        conv = functools.partial(nn.Conv, kernel_size=(5, 5), padding="VALID", dtype=self.dtype)
        if x.shape[1] == 28:
            x = jnp.pad(x, ((0, 0), (2, 2), (2, 2), (0, 0)), mode="edge")
        x = self._pool(self._squash(conv(6)(x)), "s2")
        x = conv(16)(x) if self.connections == "full" else self._partial(x)
        x = self._pool(self._squash(x), "s4")
        x = self._squash(conv(120)(x))
        x = x.reshape((x.shape[0], -1))
        x = self._squash(nn.Dense(84, dtype=self.dtype)(x))
        if self.head == "linear":
            return nn.Dense(self.num_classes, dtype=self.dtype)(x)
        codes = np.random.default_rng(0).choice([-1.0, 1.0], (self.num_classes, 84))
        return -jnp.sum((x[:, None] - codes.astype(np.float32)) ** 2, -1) / np.sqrt(np.float32(84))

    def _squash(self, x: Array) -> Array:
        if self.activation == "scaled_tanh":
            return 1.7159 * jnp.tanh(2 / 3 * x)
        return nn.relu(x) if self.activation == "relu" else nn.tanh(x)

    def _pool(self, x: Array, name: str) -> Array:
        if self.pool == "max":
            return nn.max_pool(x, (2, 2), strides=(2, 2))
        x = nn.avg_pool(x, (2, 2), strides=(2, 2))
        if self.pool == "average":
            return x
        scale = self.param(f"{name}_scale", nn.initializers.constant(0.25), (x.shape[-1],))
        bias = self.param(f"{name}_bias", nn.initializers.zeros, (x.shape[-1],))
        return self._squash(4 * x * scale.astype(self.dtype) + bias.astype(self.dtype))

    def _partial(self, x: Array) -> Array:
        pairs = [(source, j) for j, sources in enumerate(self.table) for source in sources]
        inputs, outputs = np.array(pairs).T
        weights = self.param("weights", nn.initializers.normal(0.1), (5, 5, len(pairs)))
        bias = self.param("bias", nn.initializers.zeros, (len(self.table),))
        kernel = jnp.zeros((5, 5, x.shape[-1], len(self.table)), self.dtype)
        kernel = kernel.at[:, :, inputs, outputs].set(weights.astype(self.dtype))
        layout = ("NHWC", "HWIO", "NHWC")
        x = jax.lax.conv_general_dilated(x, kernel, (1, 1), "VALID", dimension_numbers=layout)
        return x + bias.astype(self.dtype)


class CifarResNet(nn.Module):
    """He et al. 2015, section 4.2."""

    num_classes: int
    depth: int
    shortcut: str
    dtype: Any

    @nn.compact
    def __call__(self, x: Array, train: bool = True) -> Array:
        """Logits [batch, classes]."""
        conv, norm = _conv(self.dtype), _norm(self.dtype, train)
        x = nn.relu(norm()(conv(16, (3, 3))(x)))
        for stage, features in enumerate((16, 32, 64)):
            for block in range((self.depth - 2) // 6):
                strides = 2 if stage and not block else 1
                y = nn.relu(norm()(conv(features, (3, 3), strides=strides)(x)))
                y = norm()(conv(features, (3, 3))(y))
                if self.shortcut == "none":
                    x = nn.relu(y)
                    continue
                if x.shape != y.shape and self.shortcut == "B":
                    x = norm()(conv(features, (1, 1), strides=strides)(x))
                elif x.shape != y.shape:
                    gained = features - x.shape[-1]
                    x = jnp.pad(x[:, ::2, ::2], ((0, 0), (0, 0), (0, 0), (0, gained)))
                x = nn.relu(x + y)
        return nn.Dense(self.num_classes, dtype=self.dtype)(jnp.mean(x, axis=(1, 2)))


class WideResNet(nn.Module):
    """Zagoruyko and Komodakis 2016, without dropout."""

    num_classes: int
    depth: int
    widen_factor: int
    dtype: Any

    @nn.compact
    def __call__(self, x: Array, train: bool = True) -> Array:
        """Logits [batch, classes]."""
        conv, norm = _conv(self.dtype), _norm(self.dtype, train)
        x = conv(16, (3, 3))(x)
        for stage in range(3):
            features = 16 * 2**stage * self.widen_factor
            for block in range((self.depth - 4) // 6):
                strides = 2 if stage and not block else 1
                activated = nn.relu(norm()(x))
                y = nn.relu(norm()(conv(features, (3, 3), strides=strides)(activated)))
                y = conv(features, (3, 3))(y)
                if x.shape != y.shape:
                    x = conv(features, (1, 1), strides=strides)(activated)
                x = x + y
        x = jnp.mean(nn.relu(norm()(x)), axis=(1, 2))
        return nn.Dense(self.num_classes, dtype=self.dtype)(x)


class VisionTransformer(nn.Module):
    """A pre-normalised ViT on Flax's own attention."""

    num_classes: int
    patch_size: int
    width: int
    depth: int
    num_heads: int
    pool: str
    positions: str
    gelu: str
    dtype: Any

    @nn.compact
    def __call__(self, x: Array, train: bool = True) -> Array:
        """Logits [batch, classes]."""
        norm = functools.partial(nn.LayerNorm, epsilon=1e-6, dtype=self.dtype)
        dense = functools.partial(nn.Dense, dtype=self.dtype)
        patch = (self.patch_size, self.patch_size)
        x = nn.Conv(self.width, patch, strides=patch, padding="VALID", dtype=self.dtype)(x)
        x = x.reshape((x.shape[0], -1, self.width))
        if self.pool == "cls":
            cls = self.param("cls", nn.initializers.zeros, (1, 1, self.width))
            cls = jnp.tile(cls.astype(self.dtype), (x.shape[0], 1, 1))
            x = jnp.concatenate([cls, x], axis=1)
        shape = (1, x.shape[1], self.width)
        if self.positions == "learned":
            positions = self.param("positions", nn.initializers.normal(0.02), shape)
        else:  # fixed ones, whose values do not matter here
            positions = jnp.asarray(np.random.default_rng(0).normal(0, 0.02, shape), jnp.float32)
        x = x + jnp.asarray(positions, self.dtype)
        for _ in range(self.depth):
            y = norm()(x)
            attention = nn.MultiHeadDotProductAttention(self.num_heads, dtype=self.dtype)
            x = x + attention(y, y)
            y = dense(4 * self.width)(norm()(x))
            x = x + dense(self.width)(nn.gelu(y, approximate=self.gelu == "tanh"))
        x = norm()(x)
        return dense(self.num_classes)(x[:, 0] if self.pool == "cls" else jnp.mean(x, axis=1))


def _conv(dtype: Any) -> functools.partial[nn.Conv]:
    def conv(features: int, size: tuple[int, int], strides: int = 1) -> nn.Conv:
        margin = size[0] // 2
        padding = ((margin, margin), (margin, margin))
        return nn.Conv(
            features, size, (strides, strides), padding=padding, use_bias=False, dtype=dtype
        )

    return functools.partial(conv)


def _norm(dtype: Any, train: bool) -> functools.partial[nn.BatchNorm]:
    return functools.partial(
        nn.BatchNorm, use_running_average=not train, momentum=0.9, epsilon=1e-5, dtype=dtype
    )


NETWORKS: Mapping[str, type[nn.Module]] = {
    "CifarResNet": CifarResNet,
    "LeNet5": LeNet5,
    "VisionTransformer": VisionTransformer,
    "WideResNet": WideResNet,
}
