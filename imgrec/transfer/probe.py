"""A linear probe: multinomial logistic regression on features, by L-BFGS.

What the features of a network are worth without changing it, as CLIP (Radford et al. 2021, section
3.2) and the task adaptation benchmark (Zhai et al. 2019) measure it.
"""

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float, Float32, Int, Int32


@dataclass(frozen=True, eq=False)
class Linear:
    """logits = features @ kernel + bias."""

    kernel: Float32[np.ndarray, "features classes"]
    bias: Float32[np.ndarray, " classes"]

    def __call__(self, features: Float32[np.ndarray, "n features"]) -> Float32[np.ndarray, "n k"]:
        """The logits."""
        return features @ self.kernel + self.bias


@dataclass(frozen=True, eq=False)
class Fit:
    """A probe, and how far its optimisation came."""

    linear: Linear
    objective: float
    gradient: float  # largest component
    iterations: int


def fit(
    features: Float32[np.ndarray, "n features"],
    labels: Int32[np.ndarray, " n"],
    num_classes: int,
    *,
    l2: tuple[float, ...],
    max_iterations: int = 1000,
    tolerance: float = 1e-5,
) -> list[Fit]:
    """One probe for each strength of regularisation.

    Each minimises mean cross-entropy + l2 / 2 * |kernel|^2, the kernel being of features
    standardised by their means and deviations, which the result has folded in; the bias is free.
    In scikit-learn's terms C = 1 / (n l2). Strengths are gone through from the greatest, each fit
    starting from the last.

    Args:
      features: of the training images.
      labels: of them.
      num_classes: that there are, whether or not they occur.
      l2: strengths, in the order of the result.
      max_iterations: of each fit.
      tolerance: of the gradient's largest component, at which a fit ends.
    """
    mean = features.mean(axis=0, dtype=np.float64)
    std = features.std(axis=0, dtype=np.float64)
    # A feature that never varies here, a dead rectifier, would otherwise be divided by 0.
    std = np.where(std > 1e-6 * np.maximum(1, np.abs(mean)), std, np.inf)
    x = jnp.asarray((features - mean) / std, jnp.float32)
    weights: Any = (
        jnp.zeros((features.shape[1], num_classes)),
        jnp.zeros(num_classes),
    )
    found: dict[int, Fit] = {}
    for i in sorted(range(len(l2)), key=lambda i: -l2[i]):
        weights, objective, gradient, iterations = _minimise(
            weights, x, jnp.asarray(labels), l2[i], max_iterations, tolerance
        )
        kernel, bias = (np.asarray(w, np.float64) for w in weights)
        kernel = kernel / std[:, None]
        linear = Linear(kernel.astype(np.float32), (bias - mean @ kernel).astype(np.float32))
        found[i] = Fit(linear, float(objective), float(gradient), int(iterations))
    return [found[i] for i in range(len(l2))]


def objective(
    weights: tuple[Float[Array, "features classes"], Float[Array, " classes"]],
    features: Float[Array, "n features"],
    labels: Int[Array, " n"],
    l2: Float[Array, ""] | float,
) -> Float[Array, ""]:
    """Mean cross-entropy + l2 / 2 * |kernel|^2."""
    kernel, bias = weights
    losses = optax.softmax_cross_entropy_with_integer_labels(features @ kernel + bias, labels)
    return losses.mean() + l2 / 2 * jnp.sum(kernel**2)


@jax.jit
def _minimise(
    weights: Any, x: Array, labels: Array, l2: Any, max_iterations: Any, tolerance: Any
) -> tuple[Any, Array, Array, Array]:
    """(weights, objective, largest component of its gradient, iterations) at the minimum."""

    def loss(w: Any) -> Array:
        return objective(w, x, labels, l2)

    optimizer = optax.lbfgs()
    evaluate = optax.value_and_grad_from_state(loss)

    def largest(gradient: Any) -> Array:
        return jnp.max(jnp.array([jnp.abs(leaf).max() for leaf in jax.tree.leaves(gradient)]))

    def going_on(carry: Any) -> Array:
        _, _, i, gradient = carry
        return (i < max_iterations) & (gradient > tolerance)

    def iterate(carry: Any) -> Any:
        w, state, i, _ = carry
        value, gradient = evaluate(w, state=state)
        updates, state = optimizer.update(
            gradient, state, w, value=value, grad=gradient, value_fn=loss
        )
        w = optax.apply_updates(w, updates)
        return w, state, i + 1, largest(optax.tree_utils.tree_get(state, "grad"))

    start = (weights, optimizer.init(weights), jnp.int32(0), largest(jax.grad(loss)(weights)))
    w, _, iterations, gradient = jax.lax.while_loop(going_on, iterate, start)
    return w, loss(w), gradient, iterations
