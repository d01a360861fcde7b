"""Our own contestant is the step of a run."""

import json

import jax

from imgrec import config, models
from imgrec.benchmarking import step_worker
from imgrec.config import ModelConfig
from imgrec.training import compilation_cache, xla


def test_it_steps_and_tells_its_size(tiny, monkeypatch):
    # Flags and the cache are of a process that does nothing else.
    monkeypatch.setattr(xla, "configure", lambda experiment: "as they are")
    monkeypatch.setattr(compilation_cache, "configure", lambda: "as it is")
    tiny.model = ModelConfig(name="small_cnn")
    run, facts = step_worker.prepare(json.loads(json.dumps(config.to_dict(tiny))))
    run(2)  # the second is given what the first returned
    network = models.create(tiny.model, 10)
    images = jax.ShapeDtypeStruct((2, 8, 8, 1), "float32")
    ours = jax.eval_shape(lambda x: network.init(jax.random.key(0), x, train=False), images)
    assert facts["parameters"] == sum(leaf.size for leaf in jax.tree.leaves(ours["params"]))
    assert facts["flops"] > 0 and facts["devices"] == 1 and facts["said"] == "as they are"
