"""The same experiment gives the same numbers on one device and on many.

Whole plans are trained for three steps, then evaluated, on one device and on others. Each case
puts together what other cases do not, so that every mesh meets batch norm, attention,
accumulation, both feeds and every kind of randomness at least once.
"""

import dataclasses
import functools

import jax
import numpy as np
import pytest
from ml_collections import ConfigDict

from imgrec.config import (
    AugmentConfig,
    DataConfig,
    Experiment,
    MeshConfig,
    ModelConfig,
    OptimizerConfig,
    TrainConfig,
)
from imgrec.models import convnext, mlp_mixer, swin, vit
from imgrec.training import plan as plans
from imgrec.training import rules
from imgrec.training.evaluator import Evaluator

STEPS, VALIDATION = 3, 97  # the last is no multiple of anything

EVERYTHING = AugmentConfig(
    random_resized_crop=True,
    pad_crop=1,
    flip=True,
    flip_vertical=True,
    rotation=10.0,
    translate=0.1,
    scale=(0.9, 1.1),
    shear=5.0,
    perspective=0.1,
    policy="randaugment",
    brightness=0.2,
    contrast=0.2,
    blur=0.3,
    sharpen=0.2,
    posterize=0.2,
    solarize=0.2,
    equalize=0.2,
    autocontrast=0.2,
    invert=0.1,
    cutout=2,
    erasing=0.5,
    erasing_fill="noise",
    mixup=0.4,
    cutmix=1.0,
)
MIXED = AugmentConfig(flip=True, mixup=0.4, cutmix=1.0)


@dataclasses.dataclass(frozen=True)
class Case:
    """What is trained; the mesh is apart. Hashable, so that one device trains it once."""

    model: str
    options: tuple = ()
    augment: str = "mixed"
    optimizer: str = "sgd"
    accumulate: int = 1
    resident: str = "off"
    sampling: str = "shuffle"


CONVOLUTIONS = Case("resnet8", augment="everything")
PARTS = Case("resnet8", accumulate=4, resident="on", sampling="class_balanced")
TRANSFORMER = Case(
    "vit_ti4", (("dropout", 0.1), ("stochastic_depth", 0.2)), optimizer="adamw", accumulate=4
)
LOOP = Case("vit_ti4", (("scan_layers", True), ("pool", "mean")), resident="on")
DEPTHWISE = Case("convnext_atto", (("patch_size", 2), ("layer_scale", 0.5), ("dropout", 0.1)))
WINDOWS = Case("swin_t", (("patch_size", 2), ("window_size", 2)))
MIXER = Case("mixer_s4", (("dropout", 0.1),), optimizer="adamw")

CASES = [
    (CONVOLUTIONS, (2, 1, 1)),
    (CONVOLUTIONS, (2, 4, 1)),
    (PARTS, (8, 1, 1)),
    (PARTS, (1, 8, 1)),
    (TRANSFORMER, (1, 1, 2)),
    (TRANSFORMER, (2, 2, 2)),
    (LOOP, (1, 8, 1)),
    (LOOP, (1, 2, 4)),
    (DEPTHWISE, (2, 1, 4)),
    (WINDOWS, (1, 4, 2)),
    (MIXER, (4, 1, 2)),
]


@pytest.fixture(autouse=True, scope="module")
def small_networks():
    """The families' smallest sizes, smaller still: what is compiled here runs three steps."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(vit._SIZES, "ti", {"width": 32, "depth": 2, "num_heads": 4})
        patch.setitem(convnext._SIZES, "atto", ((1, 1), 16, 0.2))
        patch.setitem(swin._SIZES, "t", ((2,), 64, 0.2))
        tiny = {"depth": 1, "width": 32, "token_hidden": 16, "channel_hidden": 64}
        patch.setitem(mlp_mixer._SIZES, "s", tiny)
        yield


def experiment(case, sizes):
    adam = case.optimizer == "adamw"
    return Experiment(
        name="invariance",
        data=DataConfig(
            dataset="digits",
            batch_size=32,
            validation=str(VALIDATION),
            resident=case.resident,
            sampling=case.sampling,
        ),
        augment={"everything": EVERYTHING, "mixed": MIXED}[case.augment],
        model=ModelConfig(name=case.model, options=ConfigDict(dict(case.options))),
        optimizer=OptimizerConfig(
            name=case.optimizer,
            learning_rate=1e-3 if adam else 0.05,
            weight_decay=1e-3,
            clip_norm=1.0,
            options=ConfigDict({} if adam else {"momentum": 0.9}),
        ),
        train=TrainConfig(
            duration=f"{STEPS}st",
            accumulate=case.accumulate,
            ema=0.9,
            label_smoothing=0.1,
        ),
        mesh=MeshConfig(*sizes),
    )


def train(case, sizes):
    """(metrics of each step, final state by name, scalars of the validation split)."""
    plan = plans.plan(experiment(case, sizes))
    assert plan.mesh.devices.size == np.prod(sizes)
    state, feed, metrics, train_step = plan.initial_state(), plan.feed(), [], None
    for _ in range(STEPS):
        fed = feed.take_steps(1)
        train_step = train_step or plan.compile_step(state, fed)[0]
        state, found = train_step(state, fed)
        metrics.append(jax.device_get(found))
    feed.close()
    scalars, _ = Evaluator(plan).validate(state)
    leaves = jax.tree.leaves(jax.device_get(state))
    return metrics, dict(zip(rules.names(state), leaves, strict=True)), scalars


@functools.cache
def on_one_device(case):
    return train(case, (1, 1, 1))


def deviation(found, expected):
    """The largest difference, as a share of the array's largest entry."""
    found, expected = np.asarray(found, np.float64), np.asarray(expected, np.float64)
    largest = np.abs(expected).max(initial=0)
    return np.abs(found - expected).max(initial=0) / (largest or 1)


def is_noise(name):
    """Whether a parameter has no gradient but rounding.

    The softmax takes away what a bias of the keys adds to all scores of a query, and Adam makes
    steps of full length of whatever is left. What a Mixer adds to all channels of a token its
    norms take away.
    """
    return name.endswith(("/key/bias", "/token_mixing/out/bias"))


@pytest.mark.parametrize(
    ("case", "sizes"), CASES, ids=[f"{c.model}-{'x'.join(map(str, s))}" for c, s in CASES]
)
def test_devices_change_nothing_but_rounding(case, sizes):
    expected_metrics, expected, expected_scalars = on_one_device(case)
    metrics, state, scalars = train(case, sizes)
    for now, before in zip([*metrics, scalars], [*expected_metrics, expected_scalars], strict=True):
        assert now.keys() == before.keys()
        assert {n: now[n] for n in now if deviation(now[n], before[n]) > 1e-6} == {}
    # In float32 a sum of n terms in another order moves by some 6e-8 sqrt(n) of its size, and
    # three steps pass it on: 1.3e-6 was measured. Adam divides by the gradients' own size, which
    # where they all but cancel, as for queries, is that of their rounding: 6e-5 was measured.
    limit = 2e-4 if case.optimizer == "adamw" else 5e-6
    far = {
        name: deviation(state[name], expected[name])
        for name in expected
        if not is_noise(name) and deviation(state[name], expected[name]) > limit
    }
    assert not far
