"""Where in the image the cells of a feature map look, so that a map is laid where it belongs.

A map of 5x5 cells is not the image in fifths. LeNet's convolutions are not padded, and the
centres of its last cells lie 4 pixels apart in the middle of the digit; stretched over the
whole image, its maps would be wrong by 6 pixels of 28. The receptive fields are read off the
program that the network is traced to, layer by layer (Araujo et al. 2019, "Computing Receptive
Fields of Convolutional Neural Networks", equations 3 and 4, https://distill.pub/2019/computing-receptive-fields).
"""

import math
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.extend.core import Jaxpr, JaxprEqn, Literal, Var
from jaxtyping import Array, Float32


class Field(NamedTuple):
    """Along one axis, cell i sees the pixels from first + stride i to last + stride i."""

    stride: float
    first: float
    last: float

    def centre(self, cell: int) -> float:
        """Of what a cell sees, in pixels; the first pixel's own centre is at 0."""
        return (self.first + self.last) / 2 + self.stride * cell


Fields = tuple[Field, Field]
"""Of rows and of columns."""

PIXEL: Fields = (Field(1, 0, 0), Field(1, 0, 0))


def receptive_fields(
    function: Callable[[Array], Array], images: jax.ShapeDtypeStruct
) -> Fields | None:
    """The receptive fields of a function's output, from convolutions and pooling alone.

    What looks at the whole map (squeeze-and-excitation) is left out, as it looks nowhere in
    particular; so is the padding.

    Args:
      function: images [batch, height, width, channels] -> a map [batch, rows, columns, features].
      images: their shape and type.

    Returns:
      None where the output's cells do not follow from the pixels by such layers, as after
      attention.
    """
    program = jax.make_jaxpr(function)(images).jaxpr
    (output,) = program.outvars
    return fields_of(program, program.invars[0], output)


def fields_of(program: Jaxpr, images: Var, output: Var) -> Fields | None:
    """`receptive_fields` of one output of a program that is traced already, to one input."""
    known: dict[Any, Fields] = {images: PIXEL}
    _walk(program, known)
    return known.get(output)


def interpolation(
    field: Field | None, cells: int, pixels: int
) -> Float32[np.ndarray, "pixels cells"]:
    """Weights that interpolate an axis of a map linearly between the centres of its cells.

    The first and last cells' values go on for half a stride, as far as a cell is wide, and then
    fade away over one: what lies further is at no cell's centre, and not known as well.

    Args:
      field: of the axis; None shares the pixels out evenly.
      cells: along the axis.
      pixels: along the image's.
    """
    if field is None:
        share = pixels / cells
        field = Field(share, 0, share - 1)
    first, last, half = field.centre(0), field.centre(cells - 1), field.stride / 2
    beyond = [first - 3 * half, first - half, last + half, last + 3 * half]
    centres = [*beyond[:2], *(field.centre(cell) for cell in range(cells)), *beyond[2:]]
    places = np.arange(pixels)
    weights = []
    for own in np.eye(cells):
        weights.append(np.interp(places, centres, [0, own[0], *own, own[-1], 0]))
    return np.stack(weights, axis=1).astype(np.float32)


def _walk(jaxpr: Jaxpr, known: dict[Any, Fields]) -> None:
    """Adds the fields of everything that a program computes to those of its inputs."""
    for equation in jaxpr.eqns:
        for inner, inputs in _inner(equation):
            nested = {
                variable: known[outer]
                for variable, outer in zip(inner.invars, inputs, strict=True)
                if isinstance(outer, Var) and outer in known
            }
            _walk(inner, nested)
            for outer, variable in zip(equation.outvars, inner.outvars, strict=True):
                if isinstance(variable, Var) and variable in nested:
                    known[outer] = nested[variable]
        if equation.outvars[0] in known or len(_shape(equation.outvars[0])) != 4:
            continue
        found = _after(equation, known)
        if found is not None:
            known[equation.outvars[0]] = found


def _inner(equation: JaxprEqn) -> Iterator[tuple[Jaxpr, list[Any]]]:
    """The programs that an equation calls, each with what it is given."""
    if equation.primitive.name == "cond":  # as by the form of a convolution for the platform
        for branch in equation.params["branches"]:
            yield branch.jaxpr, equation.invars[1:]
        return
    for name in ("jaxpr", "call_jaxpr"):
        called = equation.params.get(name)
        if called is not None:
            inner = getattr(called, "jaxpr", called)
            if len(inner.invars) == len(equation.invars):
                yield inner, equation.invars


def _after(equation: JaxprEqn, known: dict[Any, Fields]) -> Fields | None:
    """The fields of an equation's result, or None."""
    maps = [v for v in equation.invars if not isinstance(v, Literal) and v in known]
    if not maps:
        return None
    rule = _RULES.get(equation.primitive.name)
    if rule is not None:
        return rule(known[maps[0]], equation)
    if equation.primitive.name == "concatenate" and equation.params["dimension"] in (1, 2):
        return _concatenated(equation, known)
    # Anything else that keeps the size takes pixel by pixel, as sums and rectifiers do.
    size = _shape(equation.outvars[0])[1:3]
    alike = [known[v] for v in maps if _shape(v)[1:3] == size]
    return _joined(alike) if alike else None


def _shape(variable: Any) -> tuple[int, ...]:
    return tuple(variable.aval.shape)


def _joined(parts: list[Fields]) -> Fields | None:
    """What sees all that several maps of one size see; their cells must keep step."""
    if any(len({fields[axis].stride for fields in parts}) > 1 for axis in (0, 1)):
        return None
    rows, columns = (
        Field(
            parts[0][axis].stride,
            min(fields[axis].first for fields in parts),
            max(fields[axis].last for fields in parts),
        )
        for axis in (0, 1)
    )
    return rows, columns


def _windowed(field: Field, window: int, stride: int, before: int) -> Field:
    """After a window that begins `before` cells ahead of the map and steps by `stride`."""
    first = field.first - field.stride * before
    last = field.last + field.stride * (window - 1 - before)
    return Field(field.stride * stride, first, last)


def _convolution(fields: Fields, equation: JaxprEqn) -> Fields | None:
    p = equation.params
    numbers = p["dimension_numbers"]
    if tuple(numbers.lhs_spec) != (0, 3, 1, 2) or any(d != 1 for d in p["lhs_dilation"]):
        return None
    kernel = [_shape(equation.invars[1])[axis] for axis in numbers.rhs_spec[2:]]
    rows, columns = (
        _windowed(
            fields[a],
            (kernel[a] - 1) * p["rhs_dilation"][a] + 1,
            p["window_strides"][a],
            p["padding"][a][0],
        )
        for a in (0, 1)
    )
    return rows, columns


def _pooling(fields: Fields, equation: JaxprEqn) -> Fields:
    p = equation.params
    rows, columns = (
        _windowed(
            fields[a],
            p["window_dimensions"][a + 1],
            p["window_strides"][a + 1],
            p["padding"][a + 1][0],
        )
        for a in (0, 1)
    )
    return rows, columns


def _padding(fields: Fields, equation: JaxprEqn) -> Fields | None:
    config = equation.params["padding_config"]
    if any(interior for _, _, interior in config):
        return None
    rows, columns = (_windowed(fields[a], 1, 1, int(config[a + 1][0])) for a in (0, 1))
    return rows, columns


def _slice(fields: Fields, equation: JaxprEqn) -> Fields:
    starts = equation.params["start_indices"]
    strides = equation.params["strides"] or (1, 1, 1, 1)
    rows, columns = (_windowed(fields[a], 1, strides[a + 1], -starts[a + 1]) for a in (0, 1))
    return rows, columns


def _concatenated(equation: JaxprEqn, known: dict[Any, Fields]) -> Fields | None:
    """Borders joined to a map, as by padding with its edge: the largest part says where it is."""
    axis = equation.params["dimension"]
    sizes = [_shape(variable)[axis] for variable in equation.invars]
    largest = int(np.argmax(sizes))
    fields = known.get(equation.invars[largest])
    if fields is None:
        return None
    before = math.fsum(sizes[:largest])
    moved = [_windowed(fields[a], 1, 1, int(before) if a == axis - 1 else 0) for a in (0, 1)]
    return moved[0], moved[1]


_RULES: dict[str, Callable[[Fields, JaxprEqn], Fields | None]] = {
    "conv_general_dilated": _convolution,
    "reduce_window_max": _pooling,
    "reduce_window_sum": _pooling,
    "pad": _padding,
    "slice": _slice,
}
