"""The peer in stock Flax trains."""

import jax

from imgrec import models
from imgrec.benchmarking import flax_worker, step
from imgrec.config import DataConfig, Experiment, ModelConfig


def test_it_steps_and_tells_its_size():
    plain = step.bare(
        Experiment(
            name="x",
            data=DataConfig(dataset="mnist", batch_size=2),
            model=ModelConfig(name="lenet5"),
        )
    )
    run, facts = flax_worker.prepare(step.peer_task(plain))
    run(2)  # the second is given what the first returned
    network = models.create(plain.model, 10)
    images = jax.ShapeDtypeStruct((2, 28, 28, 1), "float32")
    ours = jax.eval_shape(lambda x: network.init(jax.random.key(0), x, train=False), images)
    assert facts["parameters"] == sum(leaf.size for leaf in jax.tree.leaves(ours["params"]))
