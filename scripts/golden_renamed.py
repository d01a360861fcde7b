"""Networks under the names of published files, where those in memory are others.

For scripts/golden_logits.py, which needs of a network `state_dict`, `load_state_dict`, `eval`
and a call.
"""

import importlib
import re
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

Respelled = tuple[tuple[str, str], ...]


@dataclass
class Filed:
    """A network of transformers under the names that it writes to its files.

    They go in and out by way of a file, so that transformers itself does the renaming.
    """

    network: Any
    package: str = "transformers"

    def eval(self) -> Self:
        """Out of training."""
        return self

    def __call__(self, images: Any) -> Any:
        """What the network makes of them."""
        return self.network.eval()(images)

    def state_dict(self) -> dict[str, Any]:
        """Tensors by their published names."""
        from safetensors.torch import load_file

        with tempfile.TemporaryDirectory() as folder:
            self.network.save_pretrained(folder)
            return load_file(Path(folder) / "model.safetensors")

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Takes tensors by their published names."""
        from safetensors.torch import save_file

        with tempfile.TemporaryDirectory() as folder:
            self.network.config.save_pretrained(folder)
            save_file(state, Path(folder) / "model.safetensors", metadata={"format": "pt"})
            self.network, said = type(self.network).from_pretrained(
                folder, output_loading_info=True
            )
        if any(said.values()):
            raise SystemExit(f"transformers does not know these names: {said}")


@dataclass
class Released:
    """A network of timm under the names that its authors gave it.

    Attributes:
      network: timm's.
      respelled: pairs (regex, replacement) that make the authors' names of timm's. On the way
        back it is timm's own code that turns them, and refuses a name that it does not know.
      package: whose version a record states.
    """

    network: Any
    respelled: Respelled
    package: str = "timm"

    def eval(self) -> Self:
        """Out of training."""
        self.network.eval()
        return self

    def __call__(self, images: Any) -> Any:
        """What the network makes of them."""
        return self.network(images)

    def state_dict(self) -> dict[str, Any]:
        """Tensors by their published names."""
        state = self.network.state_dict()
        for regex, replacement in self.respelled:
            state = {re.sub(regex, replacement, name): value for name, value in state.items()}
        return state

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Takes tensors by their published names."""
        source = importlib.import_module(type(self.network).__module__)
        self.network.load_state_dict(source.checkpoint_filter_fn(state, self.network))
