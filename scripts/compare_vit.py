"""Does our ViT's loss fall as a reference implementation's does? Step by step, beside PyTorch.

    pip install -e '.[bench]'
    python scripts/compare_vit.py --data_root=FOLDER

The reference is built from torch.nn.TransformerEncoderLayer and trained by torch.optim.AdamW.
It starts from our parameters and sees our augmented batches; dropout and stochastic depth are
off, since their draws could not be the same. Everything else is configs/cifar10_vit.py, with
a shorter warm-up and smaller batches. Writes `results/compare_vit.json`.
"""

import argparse
import os
import runpy
import sys
import time
from collections.abc import Mapping
from pathlib import Path

import jax
import numpy as np
import torch
from flax.traverse_util import flatten_dict
from torch import nn
from torch.nn import functional

from imgrec import claims, config, randomness
from imgrec.models.vit import sincos_positions
from imgrec.training import run_folder
from imgrec.training.plan import Plan, plan

ROOT = Path(__file__).parents[1]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data_root", default="", help="folder with the official files")
    parser.add_argument("--steps", type=int, default=150)
    parser.add_argument("--batch_size", type=int, default=64)
    parser.add_argument("--out", default=str(claims.root() / "results" / "compare_vit.json"))
    arguments = parser.parse_args()
    if arguments.data_root:
        os.environ["IMGREC_DATA"] = arguments.data_root
    experiment = runpy.run_path(str(ROOT / "configs" / "cifar10_vit.py"))["get_config"]()
    experiment.data.batch_size = arguments.batch_size
    experiment.data.resident = "off"  # batches that PyTorch can be given too
    experiment.model.options.update({"dropout": 0.0, "stochastic_depth": 0.0})
    experiment.train.duration = f"{arguments.steps}st"
    experiment.schedule.warmup = "10%"
    planned = plan(experiment)

    state, feed = planned.initial_state(), planned.feed()
    batch = next(feed)
    step, _ = planned.compile_step(state, batch)
    prepare = jax.jit(planned.task.prepare)
    reference = Reference(planned, _flat(state.params))
    ours: list[float] = []
    theirs: list[float] = []
    seconds = {"imgrec": 0.0, "torch": 0.0}
    for i in range(arguments.steps):
        key = randomness.named(randomness.at_step(experiment.seed, i), "augment")
        prepared = jax.device_get(prepare(batch, key))
        begin = time.perf_counter()
        state, metrics = step(state, batch)
        ours.append(float(metrics["loss"]))
        middle = time.perf_counter()
        theirs.append(reference.step(prepared, float(metrics["learning_rate"])))
        seconds["imgrec"] += middle - begin
        seconds["torch"] += time.perf_counter() - middle
        batch = next(feed)
        print(f"step {i + 1}: imgrec {ours[-1]:.4f}, torch {theirs[-1]:.4f}", flush=True)

    a, b = np.array(ours), np.array(theirs)
    early, tail = slice(0, 10), slice(-30, None)
    result = {
        "claim": "the loss of ViT-Ti/4 on CIFAR-10 falls as a PyTorch reference's does",
        "metric": "largest relative difference of the loss over the first 10 steps",
        "values": [float(np.max(np.abs(a - b)[early] / b[early]))],
        "mean_of_last_30_steps": {"imgrec": float(a[tail].mean()), "torch": float(b[tail].mean())},
        "relative_difference_of_those_means": float(abs(a[tail].mean() / b[tail].mean() - 1)),
        "target": 1e-3,
        "reached": bool(np.max(np.abs(a - b)[early] / b[early]) <= 1e-3)
        and bool(abs(a[tail].mean() / b[tail].mean() - 1) <= 0.02),
        "loss": {"imgrec": ours, "torch": theirs},
        "seconds": seconds,
        "n": arguments.steps,
        "seeds": [experiment.seed],
        "device": f"{run_folder.processor()}, {os.cpu_count()} cores, {jax.default_backend()}",
        "torch": torch.__version__,
        "git_revision": run_folder.git("rev-parse", "HEAD"),
        "command": "python scripts/compare_vit.py --data_root=FOLDER",
        "fingerprint": config.fingerprint(planned.experiment),
    }
    Path(arguments.out).parent.mkdir(exist_ok=True)
    claims.write(Path(arguments.out), result)
    print(f"first 10 steps differ by at most {result['values'][0]:.2e}; {arguments.out}")
    return 0


class Reference:
    """The same network from PyTorch's own layers, and PyTorch's AdamW."""

    def __init__(self, planned: Plan, params: Mapping[str, np.ndarray]):
        """Starts from our parameters."""
        c, module = planned.experiment, planned.task.module
        self._smoothing = c.train.label_smoothing
        self._clip = c.optimizer.clip_norm
        self._network = _Network(module, planned.dataset.info.image_shape[2])
        self._network.load_state_dict(_translated(params, module.depth), strict=True)
        side = planned.dataset.info.image_shape[0] // module.patch_size
        self._network.positions = torch.tensor(
            np.array(sincos_positions(side, side, module.width))
        )[None]
        decayed, kept = [], []
        for parameter in self._network.parameters():
            (decayed if parameter.ndim > 1 else kept).append(parameter)
        self._optimizer = torch.optim.AdamW(
            [
                {"params": decayed, "weight_decay": c.optimizer.weight_decay},
                {"params": kept, "weight_decay": 0.0},
            ]
        )

    def step(self, batch: Mapping[str, np.ndarray], learning_rate: float) -> float:
        """One step on a prepared batch; gives the loss before it."""
        images = torch.tensor(batch["image"]).permute(0, 3, 1, 2)
        loss = functional.cross_entropy(
            self._network(images),
            torch.tensor(batch["target"]),
            label_smoothing=self._smoothing,
        )
        self._optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self._network.parameters(), self._clip)
        for group in self._optimizer.param_groups:
            group["lr"] = learning_rate
        self._optimizer.step()
        return loss.item()


class _Network(nn.Module):
    def __init__(self, module: object, channels: int):
        super().__init__()
        width, patch = module.width, module.patch_size
        self.embedding = nn.Conv2d(channels, width, patch, patch)
        layers = [
            nn.TransformerEncoderLayer(
                width,
                module.num_heads,
                4 * width,
                dropout=0.0,
                activation=lambda x: functional.gelu(x, approximate="tanh"),
                layer_norm_eps=1e-6,
                batch_first=True,
                norm_first=True,
            )
            for _ in range(module.depth)
        ]
        self.blocks = nn.ModuleList(layers)
        self.norm = nn.LayerNorm(width, eps=1e-6)
        self.head = nn.Linear(width, module.num_classes)
        self.positions = torch.zeros(())

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        x = self.embedding(images).flatten(2).transpose(1, 2) + self.positions
        for block in self.blocks:
            x = block(x)
        return self.head(self.norm(x).mean(1))


def _flat(params: object) -> dict[str, np.ndarray]:
    return {name: np.array(value) for name, value in flatten_dict(params, sep="/").items()}


def _translated(params: Mapping[str, np.ndarray], depth: int) -> dict[str, torch.Tensor]:
    """Our parameters under PyTorch's names and in its layout, [out, in, ...]."""
    theirs = {
        "embedding.weight": params["embedding/kernel"].transpose(3, 2, 0, 1),
        "embedding.bias": params["embedding/bias"],
        "norm.weight": params["norm/scale"],
        "norm.bias": params["norm/bias"],
        "head.weight": params["head/kernel"].T,
        "head.bias": params["head/bias"],
    }
    for i in range(depth):
        block = f"block{i}"
        attention = f"{block}/self_attention"
        projections = [f"{attention}/{name}" for name in ("query", "key", "value")]
        theirs |= {
            f"blocks.{i}.self_attn.in_proj_weight": np.concatenate(
                [params[f"{name}/kernel"].T for name in projections]
            ),
            f"blocks.{i}.self_attn.in_proj_bias": np.concatenate(
                [params[f"{name}/bias"] for name in projections]
            ),
        }
        for name, ours in {
            "self_attn.out_proj": f"{attention}/out",
            "linear1": f"{block}/mlp/hidden",
            "linear2": f"{block}/mlp/out",
        }.items():
            theirs[f"blocks.{i}.{name}.weight"] = params[f"{ours}/kernel"].T
            theirs[f"blocks.{i}.{name}.bias"] = params[f"{ours}/bias"]
        for name in ("norm1", "norm2"):
            theirs[f"blocks.{i}.{name}.weight"] = params[f"{block}/{name}/scale"]
            theirs[f"blocks.{i}.{name}.bias"] = params[f"{block}/{name}/bias"]
    return {name: torch.tensor(np.ascontiguousarray(value)) for name, value in theirs.items()}


if __name__ == "__main__":
    sys.exit(main())
