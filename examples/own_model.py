"""A model of one's own: a bag of patches, which looks at each 4x4 patch alone and averages.

    python -m imgrec.main --config=configs/digits_lenet.py --config.name=patches \
        --config.imports="('examples.own_model',)" --config.model.name=patches64 \
        --config.model.options="{'dropout': 0.1}"

A family is a Flax module and the names it answers to. What a name fixes (here the width) comes
from the groups of its pattern; every other field of the module is an option, whose annotation
says what it may be. A module returns logits, and sows what others may want to look at, of which
"pre_logits" is what it hands to its head.
"""

from typing import Any

import jax.numpy as jnp
from flax import linen as nn
from jax.typing import DTypeLike
from jaxtyping import Array, Float, Float32

from imgrec import models
from imgrec.errors import UserError
from imgrec.models import Family, ImageShape
from imgrec.models.registry import Count, Rate


class BagOfPatches(nn.Module):
    """Two layers on each patch, averaged over the image.

    Attributes:
      num_classes: number of logits.
      width: features of a patch.
      patch_size: its side in pixels.
      dropout: rate before the head.
      dtype: of the arithmetic.
    """

    num_classes: int
    width: int
    patch_size: Count = 4
    dropout: Rate = 0.0
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(
        self, images: Float[Array, "batch height width channels"], *, train: bool = False
    ) -> Float32[Array, "batch classes"]:
        """Logits."""
        size = (self.patch_size, self.patch_size)
        x = nn.Conv(self.width, size, strides=size, dtype=self.dtype, name="patches")(images)
        x = nn.relu(nn.Dense(self.width, dtype=self.dtype, name="hidden")(nn.relu(x)))
        x = jnp.mean(x, axis=(1, 2))
        self.sow("intermediates", "pre_logits", x)
        x = nn.Dropout(self.dropout, deterministic=not train, name="dropout")(x)
        return nn.Dense(self.num_classes, name="head")(x).astype(jnp.float32)


def fields(width: str) -> dict[str, Any]:
    """What a name fixes: "patches64" is 64 wide."""
    return {"width": int(width)}


def check(module: BagOfPatches, image_shape: ImageShape) -> None:
    """Refuses images that hold no whole number of patches."""
    height, width, _ = image_shape
    if height % module.patch_size or width % module.patch_size:
        raise UserError(
            f"Images of {height}x{width} pixels cannot be cut into patches of "
            f"{module.patch_size}x{module.patch_size}. Set --config.data.image_size=32, or "
            "--config.model.options.patch_size=2."
        )


models.register(
    Family(
        name="bag_of_patches",
        summary="patches seen one by one and averaged",
        paper="after Brendel and Bethge 2019, https://arxiv.org/abs/1904.00760",
        pattern=r"patches(?P<width>[1-9]\d*)",
        module=BagOfPatches,
        variants={"patches32": "", "patches64": ""},
        image_shape=(32, 32, 3),
        num_classes=10,
        dense_convolutions=False,
        fields=fields,
        check=check,
    )
)
