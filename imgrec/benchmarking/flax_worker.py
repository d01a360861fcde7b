"""python -m imgrec.benchmarking.flax_worker: the training step in the style of Flax's examples.

Started by `workers.Worker` without this project's XLA flags. A `TrainState` of flax.training, one
jitted step that is given the old state's memory, and optax.sgd.
"""

from collections.abc import Mapping
from typing import Any

from imgrec.benchmarking import workers


def prepare(task: Mapping[str, Any]) -> tuple[workers.Run, Mapping[str, Any]]:
    """The contestant of a task that `steps.peer_task` wrote."""
    import jax
    import jax.numpy as jnp
    import optax
    from flax.training.train_state import TrainState

    from imgrec.benchmarking import flax_networks

    network = flax_networks.create(
        task["kind"], task["fields"], task["num_classes"], jnp.dtype(task["dtype"])
    )
    keys = jax.random.split(jax.random.key(0), 3)
    images = jax.random.normal(keys[0], (task["batch_size"], *task["image_shape"]))
    labels = jax.random.randint(keys[1], (task["batch_size"],), 0, task["num_classes"])
    variables = dict(jax.jit(network.init)(keys[2], images[:1]))
    params = variables.pop("params")
    state = TrainState.create(
        apply_fn=network.apply, params=params, tx=optax.sgd(task["learning_rate"], momentum=0.9)
    )

    def loss(params: Any, statistics: Any, images: Any, labels: Any) -> tuple[Any, Any]:
        logits, changed = network.apply(
            {"params": params, **statistics}, images, train=True, mutable=["batch_stats"]
        )
        logits = logits.astype(jnp.float32)
        losses = optax.softmax_cross_entropy_with_integer_labels(logits, labels)
        return losses.mean(), changed

    def train_step(
        state: TrainState, statistics: Any, images: Any, labels: Any
    ) -> tuple[TrainState, Any, Any]:
        (value, statistics), grads = jax.value_and_grad(loss, has_aux=True)(
            state.params, statistics, images, labels
        )
        return state.apply_gradients(grads=grads), statistics, value

    jitted = jax.jit(train_step, donate_argnums=(0, 1))
    statistics = variables

    def run(steps: int) -> None:
        nonlocal state, statistics
        for _ in range(steps):
            state, statistics, value = jitted(state, statistics, images, labels)
        jax.block_until_ready(value)

    return run, {
        "parameters": sum(leaf.size for leaf in jax.tree.leaves(params)),
        "jax": jax.__version__,
        "device": jax.devices()[0].device_kind,
    }


if __name__ == "__main__":
    workers.serve(prepare)
