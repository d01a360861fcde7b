"""Records of other projects' logits, which the tests of imgrec.transfer reproduce.

    pip install -e '.[parity]'
    python scripts/golden_logits.py              # lists the networks
    python scripts/golden_logits.py resnet50_timm

Writes tests/transfer/golden/NAME.json: names and shapes of the network's weights and its
logits for weights drawn from them (imgrec/transfer/golden.py says how).
"""

import importlib
import importlib.metadata
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from imgrec.transfer import golden

FOLDER = Path(__file__).parents[1] / "tests" / "transfer" / "golden"
CLASSES = 10
GAINS = (2.0, 1.5, 1.0, 0.7, 0.5, 0.35, 0.25)


@dataclass(frozen=True)
class Network:
    """One of another project: the same as our `model`, built by `make()`."""

    model: str
    naming: str
    image_shape: tuple[int, int, int]
    make: Callable[[], Any]
    options: dict[str, Any] = field(default_factory=dict)


def timm(name: str, **arguments: Any) -> Callable[[], Any]:
    """A network of timm, for CLASSES classes."""
    return lambda: importlib.import_module("timm").create_model(
        name, num_classes=CLASSES, **arguments
    )


def torchvision(name: str, **arguments: Any) -> Callable[[], Any]:
    """A network of torchvision, for CLASSES classes."""
    return lambda: importlib.import_module("torchvision").models.get_model(
        name, weights=None, num_classes=CLASSES, **arguments
    )


def lukemelas(package: str, name: str) -> Callable[[], Any]:
    """A network of efficientnet-pytorch or of its kin, for CLASSES classes."""
    return lambda: importlib.import_module(package).EfficientNet.from_name(
        name, num_classes=CLASSES
    )


NETWORKS = {
    "resnet50_timm": Network("resnet50", "timm", (64, 96, 3), timm("resnet50")),
    "resnet50_torchvision": Network(
        "resnet50", "torchvision", (64, 96, 3), torchvision("resnet50")
    ),
    "efficientnet_lite0_package": Network(
        "efficientnet_lite0",
        "lukemelas/EfficientNet-PyTorch",
        (64, 96, 3),
        lukemelas("efficientnet_lite_pytorch", "efficientnet-lite0"),
    ),
}


def main(names: list[str]) -> None:
    """Makes the records named."""
    if not names:
        print(*NETWORKS, sep="\n")
    for name in names:
        record = make(name)
        logits = np.array(record.logits)
        print(
            f"{name}: gain {record.gain}; logits reach {np.abs(logits).max():.3g}, and those of "
            f"two images differ by up to {np.ptp(logits, axis=0).max():.3g}"
        )
        record.write(FOLDER / f"{name}.json")


def make(name: str) -> golden.Golden:
    """The record of one network."""
    import torch

    network = NETWORKS[name]
    module = network.make().eval()
    state = module.state_dict()
    floats = {k: tuple(v.shape) for k, v in state.items() if v.is_floating_point()}
    images = torch.from_numpy(golden.images(network.image_shape).transpose(0, 3, 1, 2).copy())
    # Logits that do not depend on the image, or that are huge, would prove little.
    for gain in GAINS:
        drawn = golden.weights(floats, gain)
        module.load_state_dict({**state, **{k: torch.from_numpy(v) for k, v in drawn.items()}})
        with torch.no_grad():
            found = module(images)
        logits = getattr(found, "logits", found).numpy()
        if np.abs(logits).max() < 10:
            break
    assert np.abs(logits).max() < 10 and np.ptp(logits, axis=0).max() > 0.1, logits
    packages = ("torch", type(module).__module__.partition(".")[0])
    return golden.Golden(
        model=network.model,
        options=network.options,
        naming=network.naming,
        image_shape=network.image_shape,
        gain=gain,
        floats=floats,
        integers={k: tuple(v.shape) for k, v in state.items() if k not in floats},
        logits=[[float(f"{value:.8g}") for value in row] for row in logits],
        command=f"python scripts/golden_logits.py {name}",
        versions={p: importlib.metadata.version(p) for p in sorted(set(packages))},
    )


if __name__ == "__main__":
    main(sys.argv[1:])
