"""The operations that policies choose from, of which each example applies another one.

Under vmap a `lax.switch` computes every branch for every example. Here every example goes
through the same few steps instead, which differ in their numbers alone: one warp by the chosen
matrix, one blend with the chosen picture, one pass over the levels. The numbers of what is not
chosen are neutral, and exactly so.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, UInt8

from imgrec.augment import colour, geometric

OPERATIONS = (
    "identity",
    "shear_x",
    "shear_y",
    "translate_x",
    "translate_y",
    "rotate",
    "brightness",
    "contrast",
    "saturation",
    "sharpness",
    "posterize",
    "solarize",
    "solarize_add",
    "autocontrast",
    "equalize",
    "invert",
)


def apply(
    image: UInt8[Array, "height width channels"],
    operation: int | Int[Array, ""],
    magnitude: float | Float[Array, ""],
    fill: int,
) -> UInt8[Array, "height width channels"]:
    """The image after one operation.

    Args:
      image: of 1 or 3 channels.
      operation: index in `OPERATIONS`.
      magnitude: of shears, pixels moved per pixel of distance from the centre line (right or
        down); of translations, pixels (right or down); of rotate, degrees (anticlockwise); of
        the enhancements (brightness to sharpness), Pillow's factor; of posterize, bits that
        stay; of solarize, the threshold; of solarize_add, the addition. Others take none.
      fill: level outside of the image.
    """
    operation = jnp.asarray(operation)
    return in_turn(image, jnp.asarray(operation)[None], jnp.asarray(magnitude)[None], fill)


def in_turn(
    image: UInt8[Array, "height width channels"],
    operations: Int[Array, " n"],
    magnitudes: Float[Array, " n"],
    fill: int,
) -> UInt8[Array, "height width channels"]:
    """The image after n operations, each as in `apply`.

    One loop over all steps of all operations: the program holds each step once, and none is
    fused with the next, which would compute a pixel again for every reader. The step is the
    same for all examples, so it is a true branch also under vmap.
    """

    def step(
        image: UInt8[Array, "height width channels"], one: tuple[Array, Array, Array]
    ) -> tuple[UInt8[Array, "height width channels"], None]:
        which, operation, magnitude = one
        chosen = {name: operation == i for i, name in enumerate(OPERATIONS)}
        return jax.lax.switch(
            which,
            [
                lambda image: _moved(image, chosen, magnitude, fill),
                lambda image: jnp.where(chosen["equalize"], colour.equalize(image), image),
                lambda image: _recoloured(image, chosen, magnitude),
            ],
            image,
        ), None

    n, steps = len(operations), 3
    turns = (
        jnp.tile(jnp.arange(steps), n),
        jnp.repeat(operations, steps),
        jnp.repeat(magnitudes.astype(jnp.float32), steps),
    )
    return jax.lax.scan(step, image, turns)[0]


def _moved(
    image: UInt8[Array, "height width channels"],
    chosen: dict[str, Bool[Array, ""]],
    magnitude: Float[Array, ""],
    fill: int,
) -> UInt8[Array, "height width channels"]:
    """The image warped by the matrix of the chosen operation, or by the identity."""

    def if_chosen(name: str) -> Float[Array, ""]:
        return jnp.where(chosen[name], magnitude, 0)

    height, width, _ = image.shape
    matrix = geometric.inverse_matrix(
        height,
        width,
        degrees=if_chosen("rotate"),
        shift=(if_chosen("translate_y"), if_chosen("translate_x")),
        shear=(if_chosen("shear_y"), if_chosen("shear_x")),
    )
    points = geometric.affine(geometric.centred(height, width), matrix)
    return geometric.to_uint8(geometric.warp(image, points, fill))


def _recoloured(
    image: UInt8[Array, "height width channels"],
    chosen: dict[str, Bool[Array, ""]],
    magnitude: Float[Array, ""],
) -> UInt8[Array, "height width channels"]:
    """The image after all other operations on colours, each neutral unless it is chosen."""

    def if_chosen(name: str, neutral: int) -> Int[Array, ""]:
        return jnp.where(chosen[name], magnitude.astype(jnp.int32), neutral)

    # The enhancements are blends with different pictures: none of them, and it is black.
    pictures = {
        "contrast": colour.mean_luma(image),
        "saturation": colour.luma(image),
        "sharpness": colour.smooth(image),
    }
    other = jnp.zeros((), jnp.uint8)
    factor = jnp.where(chosen["brightness"], magnitude, 1)
    for name, picture in pictures.items():
        other = jnp.where(chosen[name], picture, other)
        factor = jnp.where(chosen[name], magnitude, factor)
    darkest, brightest = colour.extremes(image)
    stretched = jnp.where(chosen["autocontrast"], darkest, 0)
    stretched_to = jnp.where(chosen["autocontrast"], brightest, 255)

    image = colour.blend(other, image, factor)
    image = colour.posterize(image, jnp.clip(if_chosen("posterize", 8), 0, 8))
    threshold = jnp.where(chosen["invert"], 0, if_chosen("solarize", 256))
    image = colour.solarize(image, threshold)
    image = colour.solarize_add(image, if_chosen("solarize_add", 0))
    return colour.stretch(image, stretched, stretched_to)
