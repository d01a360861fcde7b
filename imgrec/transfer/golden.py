"""Logits that another project's network gave once, kept to be reproduced without that project.

The weights need no file: they are drawn from their names and shapes, the images from their
shape, by a generator whose stream NumPy has frozen. So a record of a hundred-megabyte network
is a few kilobytes, and whoever reads it needs neither PyTorch nor the network's package.
`scripts/golden_logits.py` makes records, tests/transfer/test_golden.py reproduces them.
"""

import json
import math
import re
import zlib
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float32

from imgrec.files import write_text

Shape = tuple[int, ...]

# Of what is neither a matrix that sums over inputs nor a scale or shift; a layer that has such a
# word in its name has weights and biases like any other.
_TOKENS = re.compile(r"pos|token|query|relative|class_embedding")


@dataclass(frozen=True)
class Golden:
    """A network of another project, and what it made of random images.

    Attributes:
      model: what the same network is called here.
      options: of the model here.
      naming: of the weights, as a table calls it ("timm").
      image_shape: height, width, channels.
      gain: the variance of a matrix's product over that of its inputs; see `weights`.
      floats: names and shapes of the network's weights and statistics.
      integers: names and shapes of its counters and indices, which are 0 in the record.
      logits: [2, classes], for `images(image_shape)`.
      command: that made the record.
      versions: of the packages it was made with.
    """

    model: str
    options: dict[str, Any]
    naming: str
    image_shape: Shape
    gain: float
    floats: dict[str, Shape]
    integers: dict[str, Shape]
    logits: list[list[float]]
    command: str
    versions: dict[str, str] = field(default_factory=dict)

    def arrays(self) -> dict[str, np.ndarray]:
        """The weights that gave the logits, and the counters, by their foreign names."""
        counters = {name: np.zeros(shape, np.int64) for name, shape in self.integers.items()}
        return {**weights(self.floats, self.gain), **counters}

    def write(self, path: Path) -> None:
        """Writes the record, one name a line."""
        tree = asdict(self)
        lines = [f'  "{key}": {_lines(value)}' for key, value in tree.items()]
        write_text(path, "{\n" + ",\n".join(lines) + "\n}\n")


def read(path: Path) -> Golden:
    """The record in a file that `Golden.write` wrote."""
    tree = json.loads(path.read_text())
    for key in ("floats", "integers"):
        tree[key] = {name: tuple(shape) for name, shape in tree[key].items()}
    return Golden(**{**tree, "image_shape": tuple(tree["image_shape"])})


def weights(shapes: Mapping[str, Shape], gain: float = 2.0) -> dict[str, np.ndarray]:
    """Arrays of these names and shapes in which a fault would show: none is 0, 1 or symmetric.

    Matrices and kernels are normal with variance gain / fan-in, variances are at least 1/2,
    scales lie about 1, shifts and means about 0. Each depends on its own name and shape only.
    """
    return {name: _drawn(name, shape, gain) for name, shape in shapes.items()}


def images(shape: Shape, count: int = 2) -> Float32[np.ndarray, "count height width channels"]:
    """Random normalised images: coarse patches, which tell them apart, under fine noise."""
    height, width, channels = shape
    rng = np.random.RandomState(0)
    coarse = 1.5 * rng.randn(count, -(-height // 16), -(-width // 16), channels)
    patches = coarse.repeat(16, axis=1).repeat(16, axis=2)[:, :height, :width]
    return (patches + 0.5 * rng.randn(count, *shape)).astype(np.float32)


def _drawn(name: str, shape: Shape, gain: float) -> np.ndarray:
    noise = np.asarray(np.random.RandomState(zlib.crc32(name.encode())).randn(*shape))
    if name.endswith("running_var"):
        value = 0.5 + np.abs(noise)
    elif _TOKENS.search(name) and not name.endswith((".weight", ".bias")):
        value = 0.5 * noise
    elif len(shape) > 1:
        value = noise * math.sqrt(gain / math.prod(shape[1:]))
    else:
        value = 0.2 * noise + name.endswith(("weight", "gamma", "lambda1"))
    return value.astype(np.float32)


def _lines(value: Any) -> str:
    if not isinstance(value, dict | list) or not value:
        return json.dumps(value)
    if isinstance(value, list):
        inner = ",\n".join(f"    {json.dumps(item)}" for item in value)
        return f"[\n{inner}\n  ]" if isinstance(value[0], list) else json.dumps(value)
    inner = ",\n".join(f"    {json.dumps(k)}: {json.dumps(v)}" for k, v in value.items())
    return f"{{\n{inner}\n  }}"
