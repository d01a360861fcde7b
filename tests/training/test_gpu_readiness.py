"""What can be known of training on GPUs without one: the program that CUDA's compiler would get."""

import re
import runpy
from pathlib import Path

import jax
import jax.numpy as jnp
import pytest
from jax._src.array import ArrayImpl
from rich.console import Console

from imgrec.benchmarking import synthetic
from imgrec.training import loop, profiling
from imgrec.training.plan import plan
from imgrec.training.window import MetricWindow

CONFIGS = Path(__file__).parents[2] / "configs"


def lowered(config, model, dtype):
    """StableHLO for CUDA of the train step of a config on one device, at batch 8."""
    experiment = runpy.run_path(str(CONFIGS / f"{config}.py"))["get_config"]()
    experiment.data.batch_size, experiment.mesh.data = 8, 1
    experiment.data.resident = "off"
    experiment.model.name = model or experiment.model.name
    experiment.train.compute_dtype = dtype
    planned = plan(experiment, synthetic.dataset(experiment.data, 8))
    batch = next(planned.feed())
    step = jax.jit(planned.train_step(), donate_argnums=0)
    return step.trace(planned.state, batch).lower(lowering_platforms=("cuda",)).as_text()


@pytest.mark.parametrize(
    "config, model",
    [
        ("cifar10_resnet", "resnet8"),
        ("cifar10_wrn", "wrn10_1"),
        ("cifar10_vit", ""),
        ("mnist_lenet", ""),
    ],
)
def test_the_step_lowers_for_cuda_in_bfloat16(config, model):
    text = lowered(config, model, "bfloat16")
    convolutions = re.findall(r"stablehlo\.convolution.*? : \((.*?)\)", text)
    products = re.findall(r"stablehlo\.dot_general.*? : \((.*?)\)", text)
    assert products and convolutions
    # Every convolution and every product but the head's loss reads bfloat16 on both sides.
    for operands in convolutions:
        assert operands.count("bf16>") == 2, operands
    halved = sum(operands.count("bf16>") == 2 for operands in products)
    assert halved >= 0.6 * len(products), products
    # No kernel of the CPU's own is left in it.
    assert "imgrec" not in "".join(re.findall(r"custom_call @(\S+)", text))


def test_forward_convolutions_are_channels_last_for_cuda():
    text = lowered("cifar10_resnet", "resnet8", "float32")
    layouts = re.findall(r"dim_numbers = (\[.*?\]x\[.*?\]->\[.*?\])", text)
    forward = [layout for layout in layouts if layout.startswith("[b, 0, 1, f]x[0, 1, i, o]")]
    assert len(forward) >= 7 and all(layout.endswith("->[b, 0, 1, f]") for layout in forward)


def test_the_state_is_donated(tiny):
    planned = plan(tiny)
    batch = next(planned.feed())
    state = planned.initial_state()
    step, _ = planned.compile_step(planned.state, batch)
    leaves = jax.tree.leaves(state)
    step(state, batch)
    assert all(leaf.is_deleted() for leaf in leaves)


def test_the_device_is_asked_for_numbers_only_where_they_are_logged(tiny, tmp_path, monkeypatch):
    """Between two log lines nothing is brought to the host, so that steps can run ahead."""
    tiny.train.duration = "12st"
    tiny.log.every = tiny.eval.every = tiny.checkpoint.every = "6st"
    reads: list[int] = []
    before: list[int] = []  # reads by then, at the start of each step
    value = ArrayImpl._value
    logged = MetricWindow.close

    def counted(array):
        reads.append(0)
        return value.fget(array)

    monkeypatch.setattr(ArrayImpl, "_value", property(counted))
    fetched: list[int] = []

    def close(window, step):
        fetched.append(len(reads))
        means = logged(window, step)
        fetched.append(len(reads))
        return means

    monkeypatch.setattr(MetricWindow, "close", close)
    quiet = Console(quiet=True)
    loop.train(plan(tiny), tmp_path, quiet, observe=lambda step, _: before.append(len(reads)))
    first, second = before[:6], before[6:12]
    assert len(set(first)) == len(set(second)) == 1, before
    assert fetched[1] > fetched[0] == first[0]  # the counting works, and logging reads


def test_tracing_changes_no_result(tiny, tmp_path):
    tiny.train.duration = "3st"
    planned, quiet = plan(tiny), Console(quiet=True)
    alone = loop.train(planned, tmp_path / "a", quiet)
    with profiling.tracing(tmp_path / "b", range(1, 2), lambda line: None) as observe:
        traced = loop.train(planned, tmp_path / "b", quiet, observe=observe)
    assert traced.test == alone.test and traced.steps == alone.steps == 3
    assert jnp.isfinite(traced.test["loss"])
