"""Both recipes are the same; what the peer lacks is refused; runs are told apart and compared."""

import dataclasses
import importlib.util
import json
import runpy
import sys
from pathlib import Path

import jax
import numpy as np
import pytest

from imgrec import claims
from imgrec.benchmarking import synthetic, to_accuracy
from imgrec.config import DataConfig, MeshConfig, ModelConfig, OptimizerConfig
from imgrec.errors import UserError
from imgrec.models import airbench
from imgrec.training.plan import plan

CONFIGS = Path(__file__).parents[2] / "configs"
HAS_TORCH = importlib.util.find_spec("torch") is not None


def recipe(**changes):
    c = runpy.run_path(str(CONFIGS / "cifar10_fast.py"))["get_config"]()
    return dataclasses.replace(c, name="cifar10_fast", mesh=MeshConfig(data=1), **changes)


@pytest.fixture
def planned(monkeypatch):
    """A tiny network, which has all that the recipe's has; four steps on noise."""
    sizes = {"widths": (8, 12, 12), "convolutions": 2, "momentum": 0.9}
    monkeypatch.setitem(airbench._SIZES, "90", sizes)
    c = recipe(data=DataConfig(dataset="cifar10", batch_size=10, validation="0"))
    c.train.duration = "4st"
    c.optimizer.weight_decay_rules = (("(.*/)?bias", 0.0),)  # so that Adam's decay shows
    c.optimizer.learning_rate_rules = (("head/.*", 0.5),)
    c.optimizer.learning_rate = 0.05
    return plan(c, synthetic.dataset(c.data, 40))


def test_the_task_says_what_the_recipe_does(planned, tmp_path):
    task = json.loads(to_accuracy.write_task(planned, tmp_path).read_text())
    assert task["learning_rates"] == pytest.approx([0.05, 0.0375, 0.025, 0.0125])
    assert (task["label_smoothing"], task["pad_crop"], task["pad_mode"]) == (0.2, 2, "reflect")
    assert (task["beta"], task["nesterov"], task["adam_scale"]) == (0.6, True, 0.05)
    of = task["parameters"]
    assert of["stage1_group/conv1/kernel"] == {
        "kind": "matrix",
        "decay": planned.experiment.optimizer.weight_decay,
        "rate": 1.0,
        "frozen": False,
    }
    assert of["head/kernel"]["kind"] == "other" and of["head/kernel"]["rate"] == 0.5
    assert of["whiten/bias"]["frozen"] and of["whiten/bias"]["decay"] == 0
    arrays = np.load(task["arrays"])
    assert task["fixed"] == ["whiten/kernel"]
    assert set(of) | {"whiten/kernel"} < set(arrays)
    assert arrays["train_images"].shape == (40, 32, 32, 3)


@pytest.mark.skipif(not HAS_TORCH, reason="PyTorch is not installed")
def test_the_peer_takes_our_steps_and_gives_our_answers(planned, tmp_path, monkeypatch):
    """Without augmentation, on the same batch: losses, parameters and logits agree."""
    import torch

    from imgrec.benchmarking import torch_recipe

    task = json.loads(to_accuracy.write_task(planned, tmp_path).read_text())
    arrays = np.load(task["arrays"])
    network = torch_recipe.load(task, arrays)
    optimizers = torch_recipe.create_optimizers(network, task)
    images, labels = arrays["train_images"][:10], arrays["train_labels"][:10]
    monkeypatch.setattr(
        type(planned.task),
        "prepare",
        lambda self, batch, key: {
            "image": (batch["image"] / 255 - np.array(self.mean)) / np.array(self.std),
            "target": jax.nn.one_hot(batch["label"], 10),
        },
    )
    state, step = planned.initial_state(), jax.jit(planned.train_step())
    for rate in task["learning_rates"]:
        state, metrics = step(state, {"image": images.astype(np.float32), "label": labels})
        batch = (
            torch_recipe.normalised(torch.from_numpy(images), task),
            torch.from_numpy(labels).long().long(),
        )
        loss = torch_recipe.train_step(network, optimizers, batch, rate, task)
        assert loss.item() == pytest.approx(float(metrics["loss"]), rel=1e-4)
    ours = to_accuracy._named(state.params)
    for name, parameter in network.named_parameters():
        if torch_recipe.known(name, task):
            value = parameter.detach().numpy()
            value = value.transpose({4: (2, 3, 1, 0), 2: (1, 0), 1: (0,)}[value.ndim])
            np.testing.assert_allclose(value, ours[torch_recipe.in_our_words(name)], atol=2e-3)
    # PyTorch's moving variances are unbiased and ours are not.
    logits = planned.task.predict(state.variables, jax.numpy.asarray(images))
    network.eval()
    with torch.no_grad():
        theirs = network(torch_recipe.normalised(torch.from_numpy(images), task)).numpy()
    np.testing.assert_allclose(theirs, logits, atol=0.02)


@pytest.mark.skipif(not HAS_TORCH, reason="PyTorch is not installed")
def test_the_peer_crops_and_mirrors_and_sees_every_image_once_an_epoch(tmp_path):
    import torch

    from imgrec.benchmarking import torch_recipe

    torch.manual_seed(0)
    size = {"image_shape": [6, 6, 1], "batch_size": 8, "mean": [0.0], "std": [1 / 255]}
    task = {**size, "pad_crop": 2, "pad_mode": "reflect", "flip": True}
    images = np.random.default_rng(0).integers(0, 256, (16, 6, 6, 1), dtype=np.uint8)
    batches = torch_recipe.augmented(images, np.arange(16), task)
    padded = np.pad(images[..., 0], ((0, 0), (2, 2), (2, 2)), mode="reflect")
    seen, kinds = [], set()
    for _ in range(40):
        taken, labels = next(batches)
        seen += labels.tolist()
        for image, label in zip(taken[:, 0].numpy(), labels, strict=True):
            found = [
                (y, x, flipped)
                for y in range(5)
                for x in range(5)
                for flipped in (1, -1)
                if np.array_equal(padded[label, y : y + 6, x : x + 6][:, ::flipped], image)
            ]
            assert len(found) == 1
            kinds.update(found)
    assert all(sorted(seen[i : i + 16]) == list(range(16)) for i in range(0, 320, 16))
    assert len(kinds) == 50


@pytest.mark.skipif(not HAS_TORCH, reason="PyTorch is not installed")
def test_a_peer_s_run_leaves_its_accuracy_over_all_images(planned, tmp_path):
    path = to_accuracy.write_task(planned, tmp_path)
    answer = to_accuracy._theirs(path, sys.executable)
    assert answer["accuracy"] * 40 == pytest.approx(round(answer["accuracy"] * 40))
    assert 0 < answer["training"] < answer["process"]


@pytest.mark.parametrize(
    "changes, said",
    [
        ({"model": ModelConfig(name="resnet20")}, "No PyTorch recipe of resnet20.*cifar10_fast"),
        ({"optimizer": OptimizerConfig(name="sgd")}, "no optimizer 'sgd'.*muon"),
    ],
)
def test_a_recipe_without_a_peer_is_refused(changes, said):
    with pytest.raises(UserError, match=said):
        to_accuracy.check(recipe(**changes))


@pytest.mark.parametrize(
    "section, field, value",
    [
        ("augment", "cutout", 8),
        ("train", "ema", 0.9),
        ("optimizer", "clip_norm", 1.0),
        ("data", "mixture", (("svhn", 1.0),)),
    ],
)
def test_what_the_peer_lacks_is_refused(section, field, value):
    c = recipe()
    to_accuracy.check(c)
    setattr(getattr(c, section), field, value)
    with pytest.raises(UserError, match=rf"no {section}\.{field}="):
        to_accuracy.check(c)


def test_an_interpreter_without_pytorch_is_refused_before_anything_runs():
    with pytest.raises(UserError, match=r"lacks.*--torch_python=PATH"):
        to_accuracy.measure(recipe(), [], rounds=1, torch_python="false")


def test_a_run_that_fails_says_what_it_said():
    with pytest.raises(to_accuracy.RunError, match="no such thing"):
        to_accuracy._timed([sys.executable, "-c", "raise SystemExit('no such thing')"])


def test_rounds_alternate_and_ratios_above_one_mean_that_ours_is_faster(monkeypatch):
    order, seeds = [], []
    times = {"imgrec": iter([100.0, 110.0]), "torch": iter([150.0, 220.0])}

    def run(who):
        order.append(who)
        seconds = next(times[who])
        return {"process": seconds, "training": seconds / 2, "accuracy": 0.9}

    def ours(arguments, seed, workdir):
        seeds.append(seed)
        return run("imgrec")

    monkeypatch.setattr(to_accuracy, "_check_torch", lambda python: None)
    monkeypatch.setattr(to_accuracy, "plan", lambda c: None)
    monkeypatch.setattr(to_accuracy, "write_task", lambda planned, folder: folder)
    monkeypatch.setattr(to_accuracy, "_ours", ours)
    monkeypatch.setattr(to_accuracy, "_theirs", lambda task, python: run("torch"))
    found = to_accuracy.measure(recipe(seed=3), [], rounds=2, told=str)
    assert order == ["imgrec", "torch", "torch", "imgrec"] and seeds == [3, 4]
    assert found["values"] == [1.5, 2.0] and found["median"] == 1.75 and found["reached"]
    assert found["spans"]["training"]["minimum"] == 1.5
    seconds = {"imgrec": [100.0, 110.0], "torch": [150.0, 220.0]}
    assert found["spans"]["process"]["seconds"] == seconds and found["seconds"] == 580
    assert found["accuracies"] == {"imgrec": [0.9, 0.9], "torch": [0.9, 0.9]}
    whole = claims.complete({**found, "device": "x", "git_revision": "0" * 40, "command": "x"})
    assert whole["rule"] == "rounds" and whole["value"] == 1.75
    claims.check({**whole, "git_dirty": False, "versions": {}})
