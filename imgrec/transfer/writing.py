"""Weights out: a model's variables as a .safetensors file under another project's names."""

from pathlib import Path
from typing import Any

from flax import linen as nn

from imgrec.errors import UserError
from imgrec.models import ImageShape
from imgrec.transfer import mapping, safetensors, tables

Tree = Any


def write(
    path: Path, module: nn.Module, variables: Tree, image_shape: ImageShape, naming: str
) -> tuple[str, ...]:
    """Writes weights that networks of another project load; `sources.read` brings them back.

    What no project reads is left out: PyTorch's counters of batches, which a network does not
    compute with.

    Args:
      path: the file, ending in .safetensors; it appears when it is whole.
      module: the model.
      variables: its "params", and "batch_stats" where it has them; other collections are not
        weights.
      image_shape: that it is given.
      naming: whose names to use ("timm").

    Returns:
      What to say: what was written, each setting in which networks of that naming differ from
      this model, so that their logits would, and what else there is to know of them.

    Raises:
      UserError: the model is not known by that naming, or the file would be of another format.
    """
    if path.suffix != ".safetensors":
        raise UserError(
            f"Weights are written as safetensors, and not as {path.name}; give a name such as "
            f"{path.with_suffix('.safetensors')}."
        )
    table = tables.named(module, image_shape, naming)
    state = {name: tree for name, tree in variables.items() if name == "batch_stats"}
    arrays = mapping.export(variables["params"], state, table)
    # HuggingFace's loader refuses files that do not say which framework's layout they have.
    safetensors.write(path, arrays, {"format": "pt"})
    numbers = sum(array.size for array in arrays.values())
    return (
        f"{path}: {len(arrays)} arrays of {numbers:,} numbers, in the naming of {naming}",
        *(
            f"networks of this naming have {name}={value!r}, and this model has "
            f"{getattr(module, name)!r}; give theirs the same, or its logits differ"
            for name, value in table.made_with.items()
            if getattr(module, name) != value
        ),
        *table.remarks,
    )
