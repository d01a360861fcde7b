"""The value that a network computes on its way and an explanation starts from.

Models sow their feature maps and never take them back, so a gradient with respect to one has
no variable to refer to. `split_at` finds it in the traced program and splits that in two: what
leads to the value, and what the value leads to. Models and checkpoints stay as they are.
"""

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from flax.traverse_util import flatten_dict
from jax.extend.core import ClosedJaxpr, Literal, Var, jaxpr_as_fun
from jaxtyping import Array, Float, Float32, Num

from imgrec import augment
from imgrec.evaluation.explanations import receptive
from imgrec.evaluation.subject import Subject, Variables

COARSEST = 4
"""Cells along a side, below which a map says hardly where."""

# Outputs of layers that no model sows: what transformers read after a layer normalisation. In
# front of one, gradients are at right angles to the tokens, and their products say nothing.
_NORMALISED = re.compile(r"norm|block\d+/norm1")


class UnsupportedError(ValueError):
    """A network cannot be explained in this way; the message is the reason, as a clause."""


@dataclass(frozen=True, eq=False)
class Shapes(Mapping[str, jax.ShapeDtypeStruct]):
    """Of a network's intermediates by name, and the program that they were found in.

    Attributes:
      of: the shapes.
      program: the leaves of the network's variables and normalised images -> the logits and all
        intermediates in the order of their names.
    """

    of: Mapping[str, jax.ShapeDtypeStruct]
    program: ClosedJaxpr

    def __getitem__(self, name: str) -> jax.ShapeDtypeStruct:
        return self.of[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self.of)

    def __len__(self) -> int:
        return len(self.of)

    @property
    def images(self) -> Var:
        """The program's images."""
        return self.program.jaxpr.invars[-1]

    @property
    def logits(self) -> Var:
        """Its logits."""
        return self.program.jaxpr.outvars[0]

    def value(self, name: str) -> Var:
        """One of its intermediates."""
        return self.program.jaxpr.outvars[1 + sorted(self.of).index(name)]


@dataclass(frozen=True, eq=False)
class Tap:
    """A feature map, or the tokens of a grid of patches.

    Attributes:
      name: among the intermediates.
      grid: rows and columns.
      extra: tokens before those of the grid (class token, registers).
      rows: weights that spread the grid's rows over the image's.
      columns: likewise.
      shapes: of the intermediates that it is one of.
    """

    name: str
    grid: tuple[int, int]
    extra: int
    rows: Float32[np.ndarray, "height rows"]
    columns: Float32[np.ndarray, "width columns"]
    shapes: Shapes

    def as_map(self, value: Num[Array, "batch *cells"]) -> Float[Array, "batch rows columns width"]:
        """The value in float32, one vector for each cell."""
        value = value.astype(jnp.float32)
        if value.ndim == 3:
            value = value[:, self.extra :]
        return value.reshape(value.shape[0], *self.grid, value.shape[-1])

    def spread(
        self, cells: Float[Array, "batch rows columns"]
    ) -> Float[Array, "batch height width"]:
        """One number for each cell, interpolated to one for each pixel."""
        return jnp.einsum("bij,yi,xj->byx", cells, self.rows, self.columns)


def intermediates(subject: Subject, batch: int = 1) -> Shapes:
    """The shapes of everything that an explanation can start from, computing nothing.

    Of as many images as `split_at` is given with them, it need not trace the network again.
    """
    images = jax.ShapeDtypeStruct((batch, *subject.image_shape), jnp.float32)
    trace = jax.make_jaxpr(partial(_computed, subject), return_shape=True)
    program, (_, shapes) = trace(subject.variables, images)
    return Shapes(shapes, program)


def last_map(subject: Subject, shapes: Shapes, layer: str | None = None) -> Tap:
    """The last feature map that still says where, or another by its name.

    Of a convolutional network that is the last stage of at least 4x4 cells. Of a network of
    tokens it is what they last exchange, since where a token is says less and less of where its
    evidence came from, and what a class token is told before it answers is told there.

    Args:
      subject: the network.
      shapes: of `intermediates`.
      layer: the name of an intermediate.

    Raises:
      UnsupportedError: the network has no such map.
    """
    name = layer or _last_name(subject, shapes)
    if name not in shapes:
        raise UnsupportedError(f"it has no intermediate {name!r} among {', '.join(sorted(shapes))}")
    shape = shapes[name].shape
    height, width, _ = subject.image_shape
    if len(shape) == 4:
        grid, extra = (shape[1], shape[2]), 0
        found = receptive.fields_of(shapes.program.jaxpr, shapes.images, shapes.value(name))
        fields = found or (None, None)
    elif len(shape) == 3:
        grid, extra = token_grid(subject, shape[1])
        fields = None, None
    else:
        raise UnsupportedError(f"{name!r} has no places, its shape is {shape}")
    return Tap(
        name,
        grid,
        extra,
        rows=receptive.interpolation(fields[0], grid[0], height),
        columns=receptive.interpolation(fields[1], grid[1], width),
        shapes=shapes,
    )


def token_grid(subject: Subject, tokens: int) -> tuple[tuple[int, int], int]:
    """((rows, columns), extra tokens before them) of a network that cuts images into patches.

    Raises:
      UnsupportedError: it does not say how large they are, or they are more than the tokens.
    """
    patch = getattr(subject.module, "patch_size", None)
    if patch is None:
        raise UnsupportedError("its tokens do not lie on a known grid of patches")
    grid = (subject.image_shape[0] // patch, subject.image_shape[1] // patch)
    extra = tokens - grid[0] * grid[1]
    if extra < 0:
        raise UnsupportedError(
            f"its {tokens} tokens are fewer than the {grid[0]}x{grid[1]} patches"
        )
    return grid, extra


def split_at(
    subject: Subject,
    name: str,
    variables: Variables,
    images: Num[Array, "batch height width channels"],
    shapes: Shapes | None = None,
) -> tuple[Array, Callable[[Array], Float32[Array, "batch classes"]]]:
    """An intermediate of these images, and the function from it to the logits.

    Args:
      subject: the network.
      name: of the intermediate.
      variables: of the network.
      images: uint8, or floats on the scale [0, 1].
      shapes: of `intermediates`; the network is traced anew without, or where they are of another
        number of images.

    Returns:
      (value, rest) with rest(value) the logits; rest is differentiable, and computes nothing
      that does not depend on the value.

    Raises:
      UnsupportedError: the logits do not depend on the value.
    """
    normalised = augment.normalise(images, subject.mean, subject.std)
    if shapes is None or shapes[name].shape[0] != len(images):
        shapes = intermediates(subject, len(images))
    program, logits, value = shapes.program.jaxpr, shapes.logits, shapes.value(name)
    after, reached = [], {value}
    for equation in program.eqns:
        if any(not isinstance(v, Literal) and v in reached for v in equation.invars):
            after.append(equation)
            reached.update(equation.outvars)
    if logits not in reached:
        raise UnsupportedError(f"its logits do not follow from {name!r}")
    used = (v for equation in after for v in equation.invars)
    beside = list(dict.fromkeys(v for v in used if not isinstance(v, Literal) and v not in reached))

    first = program.replace(outvars=[value, *beside])
    second = program.replace(constvars=[], invars=[value, *beside], outvars=[logits], eqns=after)
    given = *jax.tree.leaves(variables), normalised
    found, *known = jaxpr_as_fun(ClosedJaxpr(first, shapes.program.consts))(*given)

    def rest(planted: Array) -> Array:
        (answer,) = jaxpr_as_fun(ClosedJaxpr(second, []))(planted, *known)
        return answer

    return found, rest


def _computed(
    subject: Subject, variables: Variables, normalised: Array
) -> tuple[Array, dict[str, Array]]:
    """Logits, and everything on the way by name."""
    logits, collections = subject.module.apply(
        variables,
        normalised,
        train=False,
        mutable=["intermediates"],
        capture_intermediates=lambda layer, _: bool(_NORMALISED.fullmatch("/".join(layer.path))),
    )
    found = flatten_dict(collections["intermediates"], sep="/")
    return logits, {name.removesuffix("/__call__"): found[name][-1] for name in found}


def _last_name(subject: Subject, shapes: Shapes) -> str:
    stages = _numbered(shapes, r"stage(\d+)", 4)
    if stages:
        # Small images end as a single cell in networks made for large ones.
        fine = [name for name in stages if min(shapes[name].shape[1:3]) >= COARSEST]
        name = fine[-1] if fine else stages[0]
        batch_norm = "norm" in subject.variables.get("batch_stats", {})
        alike = "norm" in shapes and shapes["norm"].shape == shapes[name].shape
        return "norm" if name == stages[-1] and alike and not batch_norm else name
    blocks = _numbered(shapes, r"block(\d+)/output", 3)
    if not blocks:
        raise UnsupportedError("it sows no feature maps")
    last = f"block{len(blocks) - 1}/norm1"
    if last in shapes:
        return last
    if getattr(subject.module, "pool", "mean") == "cls":
        raise UnsupportedError("its head reads a class token that no attention tells of the image")
    return "encoded"


def _numbered(shapes: Shapes, pattern: str, dimensions: int) -> list[str]:
    """Names that match with so many dimensions, by their number."""
    found = {
        int(match[1]): name
        for name in shapes
        if (match := re.fullmatch(pattern, name)) and len(shapes[name].shape) == dimensions
    }
    return [found[number] for number in sorted(found)]
