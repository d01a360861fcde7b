"""python -m imgrec.benchmarking.torch_recipe TASK.json: a whole training run in PyTorch eager.

The peer of `imgrec.benchmarking.to_accuracy`, which writes the task: the network and where its
parameters start from, the images, the learning rate of every step, and what the optimizer does
with each parameter. Data order and augmentation are drawn by PyTorch's own generator. Images are
in channels-last layout, which PyTorch's guides recommend for CPUs and which was measured to be
faster; the thread pool is PyTorch's default. The answer is a JSON file beside the task. This
module needs PyTorch and NumPy alone.
"""

import json
import math
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from imgrec.benchmarking import torch_networks

_NEWTON_SCHULZ = (3.4445, -4.7750, 2.0315)  # Jordan 2024, whose blog derives them


def main(path: str) -> None:
    """Trains and tests as the task says; writes the accuracy and the seconds."""
    task = json.loads(Path(path).read_text())
    torch.manual_seed(task["seed"])
    arrays = dict(np.load(task["arrays"]))
    network = load(task, arrays)
    optimizers = create_optimizers(network, task)
    batches = augmented(arrays["train_images"], arrays["train_labels"], task)
    begin = time.perf_counter()
    for rate in task["learning_rates"]:
        train_step(network, optimizers, next(batches), rate, task)
    accuracy = correct(network, arrays["test_images"], arrays["test_labels"], task)
    seconds = time.perf_counter() - begin
    answer = {
        "accuracy": accuracy / len(arrays["test_labels"]),
        "training_seconds": seconds,
        "parameters": sum(p.numel() for n, p in network.named_parameters() if known(n, task)),
        "torch": torch.__version__,
        "threads": torch.get_num_threads(),
    }
    Path(path).with_suffix(".answer.json").write_text(json.dumps(answer))


def load(task: Mapping[str, Any], arrays: Mapping[str, np.ndarray]) -> nn.Module:
    """The network with the parameters and fixed kernels that the task begins with.

    Arrays are named as parameters are here, with "/" for "." and "kernel" for "weight".
    """
    height, _, channels = task["image_shape"]
    network = torch_networks.create(
        task["kind"], task["fields"], channels, height, task["num_classes"]
    )
    given = {name: array for name, array in arrays.items() if name in task["parameters"]}
    given |= {name: arrays[name] for name in task["fixed"]}
    for name, parameter in network.named_parameters():
        if (own := in_our_words(name)) in given:
            value = torch.from_numpy(given.pop(own))
            axes = {4: (3, 2, 0, 1), 2: (1, 0), 1: (0,)}[value.ndim]
            parameter.data.copy_(value.permute(axes))
            parameter.requires_grad_(not task["parameters"].get(own, {"frozen": True})["frozen"])
        elif parameter.requires_grad:
            raise ValueError(f"nothing is given for {own}")
    if given:
        raise ValueError(f"the network has no {', '.join(given)}")
    return network.to(memory_format=torch.channels_last)


def in_our_words(name: str) -> str:
    """`head.weight` as `head/kernel`."""
    return name.replace(".", "/").replace("weight", "kernel")


def known(name: str, task: Mapping[str, Any]) -> bool:
    """Whether a parameter is one of the task's, and not a scale that stays at 1."""
    return in_our_words(name) in task["parameters"]


def augmented(
    images: np.ndarray, labels: np.ndarray, task: Mapping[str, Any]
) -> Iterator[tuple[Tensor, Tensor]]:
    """Batches without end: cropped from padded images, mirrored, normalised."""
    margin, (height, width, _) = task["pad_crop"], task["image_shape"]
    pads = ((0, 0), (margin, margin), (margin, margin), (0, 0))
    padded = torch.from_numpy(np.pad(images, pads, mode=task["pad_mode"]))
    targets = torch.from_numpy(labels).long()
    order = torch.empty(0, dtype=torch.long)
    size = task["batch_size"]
    while True:
        while len(order) < size:
            order = torch.cat([order, torch.randperm(len(labels))])
        chosen, order = order[:size], order[size:]
        top, left = torch.randint(0, 2 * margin + 1, (2, size, 1))
        rows, columns = top + torch.arange(height), torch.arange(width).expand(size, width)
        if task["flip"]:
            columns = torch.where(torch.rand(size, 1) < 0.5, columns.flip(1), columns)
        columns = left + columns
        taken = padded[chosen[:, None, None], rows[:, :, None], columns[:, None, :]]
        yield normalised(taken, task), targets[chosen]


def normalised(images: Tensor, task: Mapping[str, Any]) -> Tensor:
    """uint8 [batch, height, width, channels] as float32 in PyTorch's order of axes."""
    mean, std = (255 * torch.tensor(task[name]) for name in ("mean", "std"))
    return ((images.float() - mean) / std).permute(0, 3, 1, 2)


def train_step(
    network: nn.Module,
    optimizers: list[torch.optim.Optimizer],
    batch: tuple[Tensor, Tensor],
    rate: float,
    task: Mapping[str, Any],
) -> Tensor:
    """One step at a learning rate; returns the loss."""
    images, labels = batch
    network.train()
    with autocast(task):
        loss = functional.cross_entropy(
            network(images), labels, label_smoothing=task["label_smoothing"]
        )
    loss.backward()
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            group["lr"] = rate * group["times"]
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
    return loss


@torch.no_grad()
def correct(
    network: nn.Module, images: np.ndarray, labels: np.ndarray, task: Mapping[str, Any]
) -> int:
    """How many images are answered right, each asked once."""
    network.eval()
    size, hits = task["eval_batch_size"], 0
    for start in range(0, len(labels), size):
        batch = normalised(torch.from_numpy(images[start : start + size]), task)
        with autocast(task):
            answers = network(batch).argmax(1)
        hits += int((answers == torch.from_numpy(labels[start : start + size])).sum())
    return hits


def autocast(task: Mapping[str, Any]) -> torch.autocast:
    """The task's precision, in the way that PyTorch's guides recommend."""
    return torch.autocast("cpu", torch.bfloat16, enabled=task["dtype"] == "bfloat16")


def create_optimizers(network: nn.Module, task: Mapping[str, Any]) -> list[torch.optim.Optimizer]:
    """Muon for the matrices and Adam for the others, with what the task says of each."""
    groups: dict[str, list[dict[str, Any]]] = {"matrix": [], "other": []}
    scale = task["adam_scale"]
    for name, parameter in network.named_parameters():
        if not parameter.requires_grad:
            continue
        said = task["parameters"][in_our_words(name)]
        group = {"params": [parameter], "times": said["rate"], "weight_decay": said["decay"]}
        if said["kind"] == "other":
            # AdamW multiplies its decay with the learning rate, which is scaled here.
            group["times"] *= scale
            group["weight_decay"] /= scale
        groups[said["kind"]].append(group)
    muon = Muon(groups["matrix"], beta=task["beta"], nesterov=task["nesterov"])
    return [muon, torch.optim.AdamW(groups["other"])]


class Muon(torch.optim.Optimizer):
    """Jordan 2024, with the bias-corrected momentum of optax and decoupled decay."""

    def __init__(self, groups: list[dict[str, Any]], *, beta: float, nesterov: bool):
        """Takes groups of parameters, each with its own `weight_decay` and, later, `lr`."""
        super().__init__(groups, {"beta": beta, "nesterov": nesterov, "lr": 0.0})

    @torch.no_grad()
    def step(self) -> None:
        """Moves each parameter against its orthogonalised momentum."""
        for group in self.param_groups:
            beta, rate = group["beta"], group["lr"]
            for parameter in group["params"]:
                state = self.state[parameter]
                state["steps"] = steps = state.get("steps", 0) + 1
                gradient = parameter.grad
                mean = state.setdefault("mean", torch.zeros_like(gradient))
                mean.lerp_(gradient, 1 - beta)
                if group["nesterov"]:
                    ahead = mean * (beta / (1 - beta ** (steps + 1)))
                    ahead.add_(gradient, alpha=(1 - beta) / (1 - beta**steps))
                else:
                    ahead = mean
                matrix = ahead.flatten(1)
                update = orthogonalised(matrix) * math.sqrt(
                    max(1, matrix.shape[0] / matrix.shape[1])
                )
                parameter.mul_(1 - rate * group["weight_decay"])
                parameter.add_(update.view_as(parameter), alpha=-rate)


def orthogonalised(matrix: Tensor) -> Tensor:
    """The matrix with singular values of about 1, by five Newton-Schulz iterations."""
    a, b, c = _NEWTON_SCHULZ
    x = matrix / (matrix.norm() + 1e-8)
    if tall := x.shape[0] > x.shape[1]:
        x = x.T
    for _ in range(5):
        square = x @ x.T
        x = a * x + (b * square + c * square @ square) @ x
    return x.T if tall else x


if __name__ == "__main__":
    main(sys.argv[1])
