"""LeNet-5 as it was printed: partial connections, trainable subsampling, a radial basis head.

LeCun, Bottou, Bengio, Haffner 1998, "Gradient-Based Learning Applied to Document
Recognition", section II.B, figure 2 and table I, http://yann.lecun.com/exdb/publis/pdf/lecun-98.pdf.
Each of its four departures from today's habits is a field, so that they can be compared.
"""

from collections.abc import Callable
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jax.typing import DTypeLike
from jaxtyping import Array, Float, Float32, Int

from imgrec.errors import UserError
from imgrec.models import lowering
from imgrec.models.pooling import max_pool_2x2
from imgrec.models.registry import Family, ImageShape, register

# Table I: which of the six maps of S2 feed each of the sixteen maps of C3. Counted around a
# ring, the first six take each contiguous triple, the next six each contiguous quadruple,
# three more some broken quadruples, and the last one all.
TABLE_1 = (
    (0, 1, 2),
    (1, 2, 3),
    (2, 3, 4),
    (3, 4, 5),
    (0, 4, 5),
    (0, 1, 5),
    (0, 1, 2, 3),
    (1, 2, 3, 4),
    (2, 3, 4, 5),
    (0, 3, 4, 5),
    (0, 1, 4, 5),
    (0, 1, 2, 5),
    (0, 1, 3, 4),
    (1, 2, 4, 5),
    (0, 2, 3, 5),
    (0, 1, 2, 3, 4, 5),
)


def scaled_tanh(x: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
    """The squashing function 1.7159 tanh(2x/3) of equation 6, which maps 1 to 1 and -1 to -1."""
    return 1.7159 * jnp.tanh(2 / 3 * x)


_ACTIVATIONS: dict[str, Callable[[Array], Array]] = {
    "scaled_tanh": scaled_tanh,
    "tanh": jnp.tanh,
    "relu": nn.relu,
}


class LeNet5(nn.Module):
    """Convolutions C1, C3, C5 with subsampling S2, S4 between them, then F6 and the output.

    Attributes:
      num_classes: number of logits.
      activation: "scaled_tanh" of the paper, "tanh" or "relu".
      pool: "subsampling" sums 2x2 pixels, multiplies the sum by a trainable coefficient, adds
        a trainable bias and squashes (section II.B); "average" and "max" are without parameters.
      connections: between S2 and C3, of "table1" or "full".
      head: "rbf" has a fixed code of +-1 per class and measures how far F6 is from it;
        "linear" is a trainable layer.
      dtype: of the arithmetic.

    With activation="relu", pool="max", connections="full", head="linear" it is the LeNet-5 of
    today's tutorials, with 61,706 parameters.

    Images are 32x32, or 28x28 and then extended by their border pixels (the background,
    whatever it became by normalisation). Weights and biases start uniform in
    +-2.4 / fan-in (appendix A), or normal by He's rule with biases 0 where the activation is relu.

    Intermediates: "stage1" (S2), "stage2" (S4), "pre_logits" (F6) [batch, 84].
    """

    num_classes: int
    activation: Literal["scaled_tanh", "relu", "tanh"] = "scaled_tanh"
    pool: Literal["subsampling", "average", "max"] = "subsampling"
    connections: Literal["table1", "full"] = "table1"
    head: Literal["rbf", "linear"] = "rbf"
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(
        self, images: Float[Array, "batch height width channels"], *, train: bool = False
    ) -> Float32[Array, "batch classes"]:
        """Logits, the same in training and evaluation."""
        del train  # nothing here behaves differently in training
        squash = _ACTIVATIONS[self.activation]
        x = images.astype(self.dtype)
        if x.shape[1:3] == (28, 28):
            x = jnp.pad(x, ((0, 0), (2, 2), (2, 2), (0, 0)), mode="edge")

        x = squash(self._conv(6, fan_in=25 * x.shape[-1], name="c1")(x))
        x = self._subsampled(x, "s2")
        self.sow("intermediates", "stage1", x)
        if self.connections == "table1":
            he_normal = self.activation == "relu"
            x = PartialConv(TABLE_1, he_normal=he_normal, dtype=self.dtype, name="c3")(x)
        else:
            x = self._conv(16, fan_in=25 * 6, name="c3")(x)
        x = self._subsampled(squash(x), "s4")
        self.sow("intermediates", "stage2", x)
        x = squash(self._conv(120, fan_in=25 * 16, name="c5")(x))
        x = x.reshape(x.shape[0], 120)
        x = squash(self._dense(84, fan_in=120, name="f6")(x))
        self.sow("intermediates", "pre_logits", x)
        if self.head == "linear":
            logits = self._dense(self.num_classes, fan_in=84, name="head")(x)
            return logits.astype(jnp.float32)
        return rbf_logits(x, class_codes(self.num_classes, 84))

    def _conv(self, features: int, *, fan_in: int, name: str) -> nn.Conv:
        return nn.Conv(
            features,
            (5, 5),
            padding="VALID",
            conv_general_dilated=lowering.conv_general_dilated,
            dtype=self.dtype,
            name=name,
            **self._init(fan_in),
        )

    def _subsampled(self, x: Array, name: str) -> Array:
        if self.pool == "max":
            return max_pool_2x2(x)
        if self.pool == "average":
            return nn.avg_pool(x, (2, 2), (2, 2))
        x = Subsampling(dtype=self.dtype, name=name)(x)
        return _ACTIVATIONS[self.activation](x)

    def _dense(self, features: int, *, fan_in: int, name: str) -> nn.Dense:
        return nn.Dense(features, dtype=self.dtype, name=name, **self._init(fan_in))

    def _init(self, fan_in: int) -> dict[str, Any]:
        if self.activation == "relu":
            return {"kernel_init": nn.initializers.he_normal()}
        uniform = _uniform(2.4 / fan_in)
        return {"kernel_init": uniform, "bias_init": uniform}


class PartialConv(nn.Module):
    """A 5x5 convolution, unpadded, that has weights only for the connections of a table.

    `table[j]` lists the input maps that feed output map j. The parameter "kernel" holds one
    5x5 patch per connection, in the order of the table, so an absent connection is neither a
    parameter nor anything that weight decay or an optimizer could touch.
    """

    table: tuple[tuple[int, ...], ...]
    he_normal: bool
    dtype: DTypeLike

    @nn.compact
    def __call__(
        self, x: Float[Array, "batch height width channels"]
    ) -> Float[Array, "batch height_out width_out features"]:
        """The convolved maps, 4 pixels smaller each way."""
        inputs, outputs = _connections(self.table)
        fan_in = 25 * np.array([len(sources) for sources in self.table], np.float32)

        def init_kernel(key: Array, shape: tuple[int, ...]) -> Array:
            fan_in_of_weight = fan_in[outputs]
            if self.he_normal:
                return jax.random.normal(key, shape) * np.sqrt(2 / fan_in_of_weight)
            return jax.random.uniform(key, shape, minval=-1) * (2.4 / fan_in_of_weight)

        def init_bias(key: Array, shape: tuple[int, ...]) -> Array:
            if self.he_normal:
                return jnp.zeros(shape)
            return jax.random.uniform(key, shape, minval=-1) * (2.4 / fan_in)

        kernel = self.param("kernel", init_kernel, (5, 5, len(inputs)))
        bias = self.param("bias", init_bias, (len(self.table),))
        dense = jnp.zeros((5, 5, x.shape[-1], len(self.table)), self.dtype)
        dense = dense.at[:, :, inputs, outputs].set(kernel.astype(self.dtype))
        x = jax.lax.conv_general_dilated(
            x, dense, (1, 1), "VALID", dimension_numbers=("NHWC", "HWIO", "NHWC")
        )
        return x + bias.astype(self.dtype)


class Subsampling(nn.Module):
    """The sum of each 2x2 square, times a coefficient, plus a bias, both one per map."""

    dtype: DTypeLike

    @nn.compact
    def __call__(
        self, x: Float[Array, "batch height width channels"]
    ) -> Float[Array, "batch height//2 width//2 channels"]:
        """The maps at half their resolution."""
        init = _uniform(2.4 / 4)
        scale = self.param("scale", init, (x.shape[-1],))
        bias = self.param("bias", init, (x.shape[-1],))
        total = 4 * nn.avg_pool(x, (2, 2), (2, 2))
        return total * scale.astype(self.dtype) + bias.astype(self.dtype)


def class_codes(num_classes: int, features: int) -> Float32[np.ndarray, "classes features"]:
    """One code of +-1 per class, the same in every run.

    The paper drew little pictures of the characters for the ninety-five it had to tell apart,
    and names random components with equal probabilities as the other possibility.
    """
    # numpy promises the same stream for ever only from its legacy generator.
    bits = np.random.RandomState(1998).randint(0, 2, (num_classes, features))
    return np.float32(2) * bits.astype(np.float32) - 1


def rbf_logits(
    features: Float[Array, "batch features"], codes: Float32[np.ndarray, "classes features"]
) -> Float32[Array, "batch classes"]:
    """Minus the squared distance to each class's code (equation 7), over sqrt(features).

    The distance is the paper's penalty, in effect a negative log-likelihood; softmax
    cross-entropy of its negative is the paper's discriminative loss (equation 9) without
    the rubbish class. Two random codes are 2 * features apart, which would saturate the
    softmax, hence the scale.
    """
    x = features.astype(jnp.float32)
    distance = jnp.sum((x[:, None, :] - codes[None, :, :]) ** 2, axis=-1)
    return -distance / np.sqrt(codes.shape[1], dtype=np.float32)


def _connections(
    table: tuple[tuple[int, ...], ...],
) -> tuple[Int[np.ndarray, " n"], Int[np.ndarray, " n"]]:
    """Input map and output map of each connection."""
    pairs = [(source, j) for j, sources in enumerate(table) for source in sources]
    inputs, outputs = np.array(pairs).T
    return inputs, outputs


def _uniform(bound: float) -> Callable[..., Array]:
    """An initialiser that is uniform in +-bound."""

    def init(key: Array, shape: tuple[int, ...], dtype: DTypeLike = jnp.float32) -> Array:
        return jax.random.uniform(key, shape, dtype, -bound, bound)

    return init


def _check(module: LeNet5, image_shape: ImageShape) -> None:
    height, width, _ = image_shape
    if (height, width) not in ((28, 28), (32, 32)):
        raise UserError(
            f"LeNet-5 takes images of 32x32 or 28x28 pixels, and these are {height}x{width}. "
            "Set config.data.image_size=32."
        )


register(
    Family(
        name="lenet",
        summary="LeNet-5, the convolutional network that read bank cheques",
        paper="LeCun et al. 1998, section II.B, http://yann.lecun.com/exdb/publis/pdf/lecun-98.pdf",
        pattern="lenet5",
        module=LeNet5,
        variants={"lenet5": "60,000"},
        image_shape=(32, 32, 1),
        num_classes=10,
        dense_convolutions=True,
        check=_check,
    )
)
