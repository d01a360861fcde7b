"""Integrated gradients: each pixel's share of what the image adds to a logit.

Sundararajan, Taly and Yan 2017, "Axiomatic Attribution for Deep Networks", equation 1,
https://arxiv.org/abs/1703.01365. The shares add up to the difference between the logit of the
image and that of a baseline; how far the sum in place of the integral misses it is reported.
"""

from collections.abc import Callable, Mapping

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, UInt8

from imgrec.evaluation.subject import Subject, Variables

STEPS = 64

Images = UInt8[Array | np.ndarray, "batch height width channels"]
Classes = Int[Array | np.ndarray, "batch"]
Attributed = tuple[Float[Array, "batch height width"], Float[Array, "batch"]]


def integrated_gradients(
    subject: Subject, baselines: Mapping[str, tuple[float, ...]], *, steps: int = STEPS
) -> Callable[[Variables, Images, Classes], dict[str, Attributed]]:
    """A function that attributes the logits of classes to pixels.

    The integral is a Gauss-Legendre sum, which is exact for polynomials of degree 2 steps - 1.

    Args:
      subject: the network.
      baselines: a colour for each, on the scale [0, 1]; the image that shows nothing.
      steps: gradients for each baseline.

    Returns:
      (variables, raw images, a class for each) -> for each baseline (attributions, completeness
      error). Attributions are summed over the channels, signed, in units of the logit; the
      error is |sum of the attributions - logit difference| / |logit difference|.
    """
    nodes, weights = np.polynomial.legendre.leggauss(steps)
    # The two ends weigh nothing; their logits are what the attributions are to explain.
    path = [(0.0, 0.0), *zip((nodes + 1) / 2, weights / 2, strict=True), (1.0, 0.0)]

    # One step is compiled and not the sum: XLA's compiler for CPUs runs the gradient of a
    # ResNet-20 fifteen times slower inside a loop of the program.
    @jax.jit
    def step(
        variables: Variables,
        pixels: Array,
        classes: Array,
        colour: Array,
        at: tuple[Array, Array],
        total: Array,
    ) -> tuple[Array, Array]:
        def score(seen: Array) -> tuple[Array, Array]:
            logits = subject.logits(variables, seen)
            scores = jnp.take_along_axis(logits, classes[:, None], axis=1)[:, 0]
            return scores.sum(), scores

        position, weight = at
        seen = colour + position * (pixels - colour)
        gradient, scores = jax.grad(score, has_aux=True)(seen)
        return total + weight * gradient, scores

    @jax.jit
    def summed(
        pixels: Array, colour: Array, mean: Array, first: Array, last: Array
    ) -> tuple[Array, Array]:
        attributions = ((pixels - colour) * mean).sum(axis=-1)
        difference = last - first
        error = jnp.abs(attributions.sum(axis=(1, 2)) - difference) / jnp.abs(difference)
        return attributions, error

    def attribute(variables: Variables, images: Images, classes: Classes) -> dict[str, Attributed]:
        pixels = jnp.asarray(images, jnp.float32) / 255
        found = {}
        for name, colour in baselines.items():
            base = np.asarray(colour, np.float32)
            total, scores = jnp.zeros_like(pixels), []
            for at in np.asarray(path, np.float32):
                total, score = step(variables, pixels, classes, base, (at[0], at[1]), total)
                scores.append(score)
            found[name] = summed(pixels, base, total, scores[0], scores[-1])
        return found

    return attribute
