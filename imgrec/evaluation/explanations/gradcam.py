"""Class activation maps: which cells of the last feature map speak for a class.

Grad-CAM: Selvaraju et al. 2017, https://arxiv.org/abs/1610.02391, equations 1 and 2.
Grad-CAM++: Chattopadhay et al. 2018, https://arxiv.org/abs/1710.11063, equations 10 to 19.
HiResCAM: Draelos and Carin 2020, https://arxiv.org/abs/2011.08891, equation 6.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Num, UInt8

from imgrec.evaluation.explanations.taps import Tap, split_at
from imgrec.evaluation.subject import Subject, Variables


def class_activation(
    subject: Subject,
    tap: Tap,
    variables: Variables,
    images: UInt8[Array, "batch height width channels"],
    classes: Int[Array, "batch"],
) -> dict[str, Float[Array, "batch height width"]]:
    """All three maps from one gradient, as large as the images and not below 0.

    Args:
      subject: the network.
      tap: where the gradient is taken.
      variables: of the network.
      images: raw.
      classes: whose logit is explained, one for each image.

    Returns:
      "grad_cam", "grad_cam_plus_plus" and "hires_cam", in units of their own.
    """
    value, rest = split_at(subject, tap.name, variables, images, tap.shapes)

    def total(planted: Array) -> Array:
        return jnp.take_along_axis(rest(planted), classes[:, None], axis=1).sum()

    gradient = tap.as_map(jax.grad(total)(value))
    activation = tap.as_map(value)
    cells = {
        "grad_cam": _weighed(gradient.mean(axis=(1, 2)), activation),
        "grad_cam_plus_plus": _weighed(_plus_plus(gradient, activation), activation),
        "hires_cam": _products(gradient, activation, exact_to=float(jnp.finfo(value.dtype).eps)),
    }
    return {name: jax.nn.relu(tap.spread(cam)) for name, cam in cells.items()}


def _weighed(
    weights: Float[Array, "batch channels"], activation: Num[Array, "batch rows columns channels"]
) -> Float[Array, "batch rows columns"]:
    return jnp.einsum("bc,bijc->bij", weights, activation)


def _products(
    gradient: Float[Array, "batch rows columns channels"],
    activation: Float[Array, "batch rows columns channels"],
    exact_to: float,
) -> Float[Array, "batch rows columns"]:
    """The sum over the channels, or 0 where that is nothing but rounding.

    In front of a layer normalisation, which no factor changes, it is 0 everywhere.
    """
    products = gradient * activation
    total = products.sum(axis=-1)
    rounding = max(1e-5, exact_to) * jnp.abs(products).sum(axis=-1)
    return jnp.where(jnp.abs(total) > rounding, total, 0)


def _plus_plus(
    gradient: Float[Array, "batch rows columns channels"],
    activation: Float[Array, "batch rows columns channels"],
) -> Float[Array, "batch channels"]:
    """The weights of equation 11 without the factor exp(logit), which is the same for all.

    The score is taken to be exp(logit), as the authors do, so that its higher derivatives are
    powers of the logit's gradient (equation 19).
    """
    square, cube = gradient**2, gradient**3
    whole = activation.sum(axis=(1, 2), keepdims=True) * cube
    denominator = 2 * square + whole
    # Maps that are not rectified can bring it to 0 or below, where it has no meaning.
    alpha = jnp.where(denominator > 0, square / jnp.where(denominator > 0, denominator, 1), 0)
    return jnp.sum(alpha * jax.nn.relu(gradient), axis=(1, 2))
