"""What the dry run says of memory is what the compiler finds, and what it advises fits."""

import dataclasses
import re

import jax
import jax.numpy as jnp
import pytest
from jax.errors import JaxRuntimeError
from ml_collections import ConfigDict

from imgrec.config import DataConfig, Experiment, MeshConfig, ModelConfig, OptimizerConfig
from imgrec.errors import UserError
from imgrec.training import dry_run, exhaustion, fitting, memory
from imgrec.training.memory import Need
from imgrec.training.plan import plan

MB = 10**6


def vit(**mesh):
    """A narrow ViT on the digits, on up to eight devices."""
    return Experiment(
        name="vit",
        data=DataConfig(dataset="digits", batch_size=64, validation="96"),
        model=ModelConfig("vit_ti4", ConfigDict({"scan_layers": True})),
        optimizer=OptimizerConfig(name="adamw", learning_rate=1e-3),
        mesh=MeshConfig(**{"data": 1} | mesh),
    )


@pytest.mark.parametrize("resident", ["on", "off"])
@pytest.mark.parametrize("devices", [1, 2])
def test_shapes_are_those_of_what_the_feed_hands_out(tiny, resident, devices):
    tiny.data.resident, tiny.mesh.data = resident, devices
    planned = plan(tiny)
    feed = planned.feed()
    batch = feed.take_steps(1)
    feed.close()
    found = memory.batch_shapes(planned)
    assert jax.tree.structure(found) == jax.tree.structure(batch)
    for here, there in zip(jax.tree.leaves(found), jax.tree.leaves(batch), strict=True):
        assert (here.shape, here.dtype, here.sharding) == (
            there.shape,
            there.dtype,
            there.sharding,
        )


@pytest.mark.parametrize("case", ["resnet", "vit_fsdp", "ema_and_accumulation"])
def test_it_is_what_the_compiler_finds_for_the_runs_own_program(tiny, case):
    experiment = tiny
    if case == "vit_fsdp":
        experiment = vit(fsdp=2)
    elif case == "ema_and_accumulation":
        tiny.train.ema, tiny.train.accumulate = 0.9, 2
    planned = plan(experiment)
    need = memory.of_step(planned)
    feed = planned.feed()
    step, cost = planned.compile_step(planned.initial_state(), feed.take_steps(1))
    feed.close()
    found = step.func.memory_analysis()
    arguments = found.argument_size_in_bytes
    peak = found.temp_size_in_bytes + found.output_size_in_bytes - found.alias_size_in_bytes
    assert need.total == pytest.approx(arguments + peak, rel=0.01)
    assert need.state + need.data == pytest.approx(arguments, rel=0.01)
    assert need.flops == cost["flops"]
    if case == "resnet":
        assert need.state == planned.state_bytes


def test_state_falls_with_the_number_of_devices():
    needs = [memory.of_step(plan(vit(fsdp=n))) for n in (1, 4)]
    assert needs[1].state == pytest.approx(needs[0].state / 4, rel=0.02)
    assert needs[1].work < 0.45 * needs[0].work


def test_momentum_in_half_the_bytes():
    experiment = vit()
    whole = memory.of_step(plan(experiment)).state
    experiment.optimizer.state_dtype = "bfloat16"
    # Parameters and two moments of four bytes each; then one of them has two.
    assert memory.of_step(plan(experiment)).state == pytest.approx(whole * 10 / 12, rel=0.001)


def test_recomputing_takes_less():
    experiment = vit()
    most = memory.of_step(plan(experiment)).work
    experiment.train.remat = "blocks"
    assert memory.of_step(plan(experiment)).work < 0.6 * most


def costs(planned) -> Need:
    """A law of memory in place of the compiler, so that what is chosen can be told by hand."""
    c = planned.experiment
    shards = planned.mesh.shape["data"] * planned.mesh.shape["fsdp"]
    work = 10 * MB * c.data.batch_size / shards / c.train.accumulate
    work /= {"none": 1, "dots": 2, "blocks": 8}[c.train.remat]
    return Need(state=80 * MB // planned.mesh.shape["fsdp"], data=0, work=int(work))


def advised(experiment, limit, **changes):
    planned = plan(dataclasses.replace(experiment, **changes))
    found = fitting.remedies(planned, costs(planned), limit * MB, costs)
    assert all(remedy.need.total <= limit * MB for remedy in found)
    return [remedy.flags for remedy in found]


def residual(tiny):
    """A batch of 64 on two devices."""
    tiny.mesh.data, tiny.data.batch_size = 2, 64
    return tiny


def test_each_change_that_is_enough_is_advised_the_mildest_first(tiny):
    experiment = residual(tiny)
    assert costs(plan(experiment)).total == 400 * MB
    assert advised(experiment, 250) == [
        "--config.train.remat=dots",
        "--config.train.accumulate=2",
        "--config.data.batch_size=32",
    ]
    assert advised(experiment, 390)[2] == "--config.mesh.data=1 --config.mesh.fsdp=2"
    # 80 of state, and an eighth of the rest; fsdp alone would be 360.
    assert advised(experiment, 121) == [
        "--config.train.remat=blocks",
        "--config.train.accumulate=8",
        "--config.data.batch_size=8",
    ]


def test_what_no_single_change_reaches_is_reached_together(tiny):
    experiment = residual(tiny)
    assert advised(experiment, 81) == [
        "--config.train.remat=blocks --config.mesh.data=1 --config.mesh.fsdp=2"
    ]
    assert advised(experiment, 60) == [
        "--config.train.remat=blocks --config.mesh.data=1 --config.mesh.fsdp=2 "
        "--config.train.accumulate=2",
        "--config.train.remat=blocks --config.mesh.data=1 --config.mesh.fsdp=2 "
        "--config.data.batch_size=32",
    ]
    assert advised(experiment, 30) == []


def test_a_network_without_blocks_is_not_advised_to_recompute_them(tiny):
    tiny.model, tiny.data.batch_size = ModelConfig("small_cnn"), 64
    assert advised(tiny, 410) == [
        "--config.train.accumulate=2",
        "--config.data.batch_size=32",
    ]


def test_what_the_compiler_says_fits_fits(tiny):
    planned = plan(tiny)
    need = memory.of_step(planned)
    said = list(dry_run.fit(planned, need, need.total - need.work // 3))
    assert said[0].startswith("  DOES NOT FIT into ")
    assert any("--config.train.accumulate=" in line for line in said)
    (fits,) = dry_run.fit(planned, need, 2 * need.total)
    assert fits.startswith("  fits: 50% of ")
    (unknown,) = dry_run.fit(planned, need, None)
    assert "--memory_limit=40GB" in unknown


@pytest.mark.parametrize(
    ("text", "size"),
    [("40GB", 40 * 10**9), ("1.5 gib", 3 * 2**29), ("512MiB", 2**29), ("123", 123)],
)
def test_sizes(text, size):
    assert memory.parse_size(text, "--memory_limit") == size


@pytest.mark.parametrize("text", ["much", "GB", "-1GB", "0", "3XB", "1e3"])
def test_what_is_no_size_is_refused(text):
    with pytest.raises(UserError, match="is no size of memory; write for example"):
        memory.parse_size(text, "--memory_limit")


def test_a_device_without_memory_says_what_fits(tiny, tmp_path, monkeypatch):
    planned = plan(tiny)
    with pytest.raises(JaxRuntimeError) as raised, exhaustion.noted(planned):
        jax.jit(lambda: jnp.zeros(2**46, jnp.uint8))()  # no machine has as much
    assert exhaustion.is_exhausted(raised.value)
    note = raised.value.__notes__[-1]  # what other processes of the run would print
    size = re.search(r"--dry_run --simulate=1 --memory_limit=(\S+)\.$", note)[1]
    limit = memory.of_device(planned)
    assert limit - 10**6 < memory.parse_size(size, "--memory_limit") <= limit
    need = memory.of_step(planned)
    monkeypatch.setattr(memory, "of_device", lambda planned: need.total * 4 // 5)
    said = "\n".join(exhaustion.explain(raised.value, planned, tmp_path))
    assert "no memory left (RESOURCE_EXHAUSTED: Out of memory allocating" in said
    assert str(need) in said
    assert "--config.train.accumulate=2: " in said
    assert "--allow_config_change" in said
    monkeypatch.setattr(memory, "of_device", lambda planned: 2 * need.total)
    said = "\n".join(exhaustion.explain(raised.value, planned, tmp_path))
    assert "so something else holds some" in said
    assert "--config.train.accumulate=2: " in said
    assert not exhaustion.is_exhausted(JaxRuntimeError("INTERNAL: something else"))


def test_advice_is_of_the_experiments_own_data(tiny, monkeypatch):
    """The data set is not read once more for every change."""
    planned = plan(tiny)
    monkeypatch.setattr("imgrec.data.load", None)
    need = costs(planned)
    assert fitting.remedies(planned, need, need.total - 1, costs)
    assert tiny.train.accumulate == 1  # a copy is changed
