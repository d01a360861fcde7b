"""python -m imgrec.benchmarking.torch_worker: the training step in PyTorch eager.

Started by `workers.Worker`. Images in channels-last layout, SGD with momentum, bfloat16 by
autocast: what PyTorch's own guides recommend for CPUs, without its compiler. The thread pool is
PyTorch's default.
"""

from collections.abc import Mapping
from typing import Any

from imgrec.benchmarking import workers


def prepare(task: Mapping[str, Any]) -> tuple[workers.Run, Mapping[str, Any]]:
    """The contestant of a task that `steps.peer_task` wrote."""
    import torch
    from torch.nn import functional

    from imgrec.benchmarking import torch_networks

    torch.manual_seed(0)
    height, width, channels = task["image_shape"]
    assert height == width
    device = "cuda" if torch.cuda.is_available() else "cpu"
    network = torch_networks.create(
        task["kind"], task["fields"], channels, height, task["num_classes"]
    ).to(device, memory_format=torch.channels_last)
    optimizer = torch.optim.SGD(network.parameters(), lr=task["learning_rate"], momentum=0.9)
    images = torch.randn(task["batch_size"], channels, height, width, device=device)
    images = images.to(memory_format=torch.channels_last)
    labels = torch.randint(0, task["num_classes"], (task["batch_size"],), device=device)
    halved = task["dtype"] == "bfloat16"

    def run(steps: int) -> None:
        for _ in range(steps):
            optimizer.zero_grad(set_to_none=True)
            with torch.autocast(device, torch.bfloat16, enabled=halved):
                loss = functional.cross_entropy(network(images), labels)
            loss.backward()
            optimizer.step()
        loss.item()

    return run, {
        "parameters": sum(p.numel() for p in network.parameters()),
        "torch": torch.__version__,
        "threads": torch.get_num_threads(),
        "device": torch.cuda.get_device_name() if device == "cuda" else "cpu",
    }


if __name__ == "__main__":
    workers.serve(prepare)
