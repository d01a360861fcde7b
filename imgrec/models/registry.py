"""Every model by name: what exists, what a name means, and a module made from a config.

A family registers a pattern over names ("resnet20", "wrn28_10") together with its paper,
the parameter counts printed there, and the module whose fields are the family's options.
Names and options are refused here, before any work, with the nearest valid choice.
"""

import dataclasses
import fnmatch
import math
import re
import typing
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax.typing import DTypeLike

from imgrec.config import ModelConfig
from imgrec.errors import UserError, unknown

ImageShape = tuple[int, int, int]
"""Height, width and channels."""


def create(config: ModelConfig, num_classes: int, *, dtype: DTypeLike = jnp.float32) -> nn.Module:
    """The module that a config names.

    Its `apply(variables, images, train=...)` takes normalised images [batch, height, width,
    channels] and returns float32 logits [batch, num_classes].

    Args:
      config: a registered name, and values for fields of its module as options.
      num_classes: number of logits.
      dtype: of the arithmetic (float32 or bfloat16); parameters are always float32.

    Raises:
      UserError: no such model, a name with impossible numbers in it, no such option, or a
        value that the option cannot take.
    """
    if num_classes < 1:
        raise UserError(f"A classifier needs at least 1 class, and {num_classes} were asked for.")
    family, fixed = _resolve(config.name)
    options = _checked_options(config, family, fixed)
    fields = {**fixed, **_defaults(family, config.name), **options}
    return family.module(**fields, num_classes=num_classes, dtype=jnp.dtype(dtype))


def check(config: ModelConfig, num_classes: int, image_shape: ImageShape) -> None:
    """Refuses a model that cannot be made or cannot take such images; computes nothing.

    Raises:
      UserError: as `create` does, or the images are of a shape that the model cannot take.
    """
    module = create(config, num_classes)
    family, _ = _resolve(config.name)
    if min(image_shape) < 1:
        raise UserError(f"Images of shape {image_shape} (height, width, channels) hold no pixel.")
    family.check(module, image_shape)
    images = jnp.zeros((1, *image_shape), jnp.float32)
    logits, _ = jax.eval_shape(
        lambda: module.init_with_output(jax.random.key(0), images, train=False)
    )
    assert logits.shape == (1, num_classes), (config.name, logits.shape)


def list_models(pattern: str = "*") -> list[str]:
    """Names of the registered variants that match a shell pattern ("wrn*"), sorted naturally.

    Patterns of names admit more than is listed: every depth that the architecture can have.
    """
    names = [name for family in _FAMILIES.values() for name in family.variants]
    return sorted(fnmatch.filter(names, pattern), key=_natural)


@dataclass(frozen=True)
class Description:
    """What is known of a model before it is made; as a text, a paragraph for people."""

    name: str
    family: str
    summary: str
    paper: str
    image_shape: ImageShape  # usual for this model, for orientation
    parameters: str  # as the paper prints it ("0.27M"); "" where it prints none
    parameters_classes: int  # the number of classes that `parameters` is counted for
    dense_convolutions: bool  # whether they are most of the work, which decides compiler flags
    variants: tuple[str, ...]  # the family's listed names
    options: Mapping[str, Any]  # with their defaults
    matrix_products: bool = False  # whether these, over tokens, are most of the work
    init_images: int = 0  # training images that the initialisation is computed from

    def __str__(self) -> str:
        options = ", ".join(f"{name}={value!r}" for name, value in self.options.items())
        height, width, channels = self.image_shape
        lines = [
            f"{self.name}: {self.summary}",
            f"  paper       {self.paper}",
            f"  images      {height}x{width}x{channels} usually",
            f"  family      {self.family}: {', '.join(self.variants)}",
            f"  options     {options or 'none'}",
        ]
        if self.parameters:
            lines.insert(3, f"  parameters  {self.parameters}, {self.parameters_classes} classes")
        return "\n".join(lines)


def describe(name: str) -> Description:
    """Paper, family, variants and options of one model.

    Raises:
      UserError: no such model.
    """
    family, fixed = _resolve(name)
    defaults = _defaults(family, name)
    return Description(
        name=name,
        family=family.name,
        summary=family.summary,
        paper=family.paper,
        image_shape=family.image_shapes.get(name, family.image_shape),
        parameters=family.variants.get(name, ""),
        parameters_classes=family.num_classes,
        dense_convolutions=family.dense_convolutions,
        variants=tuple(family.variants),
        matrix_products=family.matrix_products,
        options={f.name: defaults.get(f.name, f.default) for f in _option_fields(family, fixed)},
        init_images=family.init_images,
    )


def _accept(module: Any, image_shape: ImageShape) -> None:
    """A check that refuses nothing."""


def _no_defaults(**groups: Any) -> dict[str, Any]:
    """Defaults of a family whose names all share the module's."""
    return {}


@dataclass(frozen=True)
class Family:
    """An architecture and all the names it answers to.

    `fields` turns the groups of `pattern` into the module's fields that a name fixes, and
    raises UserError where the numbers are impossible. Every other field of the module is an
    option; its annotation (bool, int, float, str, `Literal`, `Rate`, `Count`) says what it may be.
    `defaults` turns the same groups into values of options where a name has its own, as a
    bigger variant has a higher drop rate.
    """

    name: str
    summary: str  # one line
    paper: str  # authors, year and link
    pattern: str  # regex over a whole model name, with named groups
    module: Callable[..., nn.Module]
    variants: Mapping[str, str]  # listed name -> published parameter count, "" for none
    image_shape: ImageShape  # of all variants but those in `image_shapes`
    num_classes: int  # that the published counts are for
    dense_convolutions: bool
    fields: Callable[..., dict[str, Any]] = dict  # by default the groups as they are
    check: Callable[[Any, ImageShape], None] = _accept  # (module, image_shape), may refuse
    matrix_products: bool = False
    init_images: int = 0  # normalised training images that `module.init` should be given
    image_shapes: Mapping[str, ImageShape] = dataclasses.field(default_factory=dict)  # by variant
    defaults: Callable[..., dict[str, Any]] = _no_defaults


@dataclass(frozen=True)
class Interval:
    """Bounds of a number: low <= number < high."""

    low: float
    high: float


Rate = Annotated[float, Interval(0.0, 1.0)]
"""A probability of dropping something, hence below 1."""

Count = Annotated[int, Interval(1.0, math.inf)]
"""How many of something that a network cannot do without."""

Extra = Annotated[int, Interval(0.0, math.inf)]
"""How many of something that a network can do without."""

Scale = Annotated[float, Interval(0.0, math.inf)]
"""A factor, a standard deviation, an epsilon: a number that is not negative."""

_FAMILIES: dict[str, Family] = {}


def register(family: Family) -> None:
    """Adds a family; call it once, at the end of the file that defines the module."""
    if family.name in _FAMILIES:
        raise ValueError(f"The model family {family.name!r} is registered twice.")
    taken = set(family.variants) & set(list_models())
    if taken:
        raise ValueError(f"Model names registered twice: {sorted(taken)}.")
    _FAMILIES[family.name] = family


def _resolve(name: str) -> tuple[Family, dict[str, Any]]:
    """The family that answers to a name, and the module's fields that the name fixes."""
    # A listed name goes before any pattern, so that a family can own single names (an
    # ImageNet ResNet-50) inside another's pattern.
    families = sorted(_FAMILIES.values(), key=lambda family: name not in family.variants)
    for family in families:
        if match := re.fullmatch(family.pattern, name):
            return family, family.fields(**match.groupdict())
    raise unknown("model", name, list_models())


def _defaults(family: Family, name: str) -> dict[str, Any]:
    """Values of the options where this name has its own."""
    match = re.fullmatch(family.pattern, name)
    return family.defaults(**match.groupdict()) if match else {}


def _option_fields(family: Family, fixed: Mapping[str, Any]) -> list[dataclasses.Field[Any]]:
    """The module's fields that are neither its name's, nor the caller's, nor Flax's."""
    others = {"num_classes", "dtype", "parent", "name", *fixed}
    module: Any = family.module
    return [f for f in dataclasses.fields(module) if f.name not in others]


def _checked_options(
    config: ModelConfig, family: Family, fixed: Mapping[str, Any]
) -> dict[str, Any]:
    expected = {f.name: f.type for f in _option_fields(family, fixed)}
    options = {}
    for option, value in config.options.items():
        if option in fixed:
            raise UserError(
                f"config.model.options.{option} is fixed by the name {config.name!r} "
                f"({option}={fixed[option]!r}); choose another model name instead."
            )
        if option not in expected:
            raise unknown(f"option of model {config.name!r}:", option, expected)
        options[option] = _checked(f"config.model.options.{option}", value, expected[option])
    return options


def _checked(name: str, value: Any, expected: Any) -> Any:
    """The value as the type that an annotation asks for, or a refusal."""
    if typing.get_origin(expected) is Annotated:
        expected, interval = typing.get_args(expected)
        value = _checked(name, value, expected)
        if not interval.low <= value < interval.high:
            limits = f"at least {interval.low:g}"
            if interval.high < math.inf:
                limits += f" and below {interval.high:g}"
            raise UserError(f"{name}={value!r} is impossible; it must be {limits}.")
        return value
    if typing.get_origin(expected) is Literal:
        choices = typing.get_args(expected)
        if value not in choices:
            raise unknown(f"value of {name}:", str(value), choices)
        return value
    if expected is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    # bool is an int to Python, and never to the person who typed it.
    if not isinstance(value, expected) or (expected is int and isinstance(value, bool)):
        raise UserError(
            f"{name}={value!r} has the type {type(value).__name__}; expected {expected.__name__}."
        )
    return value


def _natural(name: str) -> list[tuple[bool, int, str]]:
    """A sort key that puts resnet20 before resnet110."""
    parts = re.findall(r"\d+|\D+", name)
    return [(p.isdigit(), int(p) if p.isdigit() else 0, p) for p in parts]
