"""Heads that are fitted to features and not trained by steps: by name, with checked options.

A head with several values of an option is as many candidates, of which the caller chooses by
validation.
"""

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float32, Int32

from imgrec.config import HeadConfig
from imgrec.errors import UserError, unknown
from imgrec.options import keyword_options
from imgrec.transfer import neighbours, prototypes
from imgrec.transfer import probe as probes
from imgrec.transfer.probe import Linear

Features = Float32[np.ndarray, "n features"]
Logits = Float32[np.ndarray, "n classes"]
Labels = Int32[np.ndarray, " n"]

TRAINED = "trained"


@dataclass(frozen=True)
class Candidates:
    """The same head with different settings.

    Attributes:
      settings: what each was made with, and how its fit went.
      logits: of features, for the candidates of these numbers.
      linear: each as kernel and bias, where it is that.
    """

    settings: tuple[dict[str, Any], ...]
    logits: Callable[[Features, Sequence[int]], list[Logits]]
    linear: tuple[Linear | None, ...]


def check(config: HeadConfig, *, has_validation: bool) -> dict[str, Any]:
    """The options of a head; refuses what cannot be, before any feature is computed.

    Raises:
      UserError: an unknown head or option, an impossible value, or several values and no
        validation split to choose by.
    """
    if config.name not in {*HEADS, TRAINED}:
        raise unknown("head", config.name, {*HEADS, TRAINED})
    if config.name == TRAINED:
        if config.options or config.cache:
            given = f"options.{min(config.options)}" if config.options else "cache"
            raise UserError(
                f"config.head.{given} is set, and a head that is trained with the rest does not "
                f"read it. Set --config.head.name to one of {', '.join(sorted(HEADS))}."
            )
        return {}
    options = keyword_options(HEADS[config.name], config.options, "head")
    defaults = inspect.signature(HEADS[config.name]).parameters
    for name, value in options.items():
        allowed = _LIMITS[name]
        for item in value if isinstance(value, tuple) else (value,):
            if not allowed(item):
                raise UserError(f"config.head.options.{name}={value!r} is impossible.")
    several = [name for name in ("l2", "k") if name in defaults]
    for name in several:
        values = options.get(name, defaults[name].default)
        if not values:
            raise UserError(f"config.head.options.{name} has no value; give one at least.")
        if len(values) > 1 and not has_validation:
            raise UserError(
                f"The head {config.name!r} chooses among {len(values)} values of {name} by the "
                "validation split, and there is none. Cut one with --config.data.validation=10%, "
                f"or give one value: --config.head.options.{name}='({values[0]!r},)'."
            )
    return options


def fit(
    config: HeadConfig, features: Features, labels: Labels, num_classes: int, *, validated: bool
) -> Candidates:
    """The candidates of the head that a configuration names.

    Args:
      config: of the head.
      features: of the training images.
      labels: of them.
      num_classes: that there are.
      validated: whether there is a validation split.
    """
    options = check(config, has_validation=validated)
    return HEADS[config.name](features, labels, num_classes, **options)


def probe(
    features: Features,
    labels: Labels,
    num_classes: int,
    *,
    l2: tuple[float, ...] = (10.0, 3.0, 1.0, 0.3, 0.1, 0.03, 0.01, 0.003, 0.001, 0.0003, 0.0001),
    max_iterations: int = 1000,
) -> Candidates:
    """Logistic regression; `l2` is the strength of its regularisation, per example."""
    fits = probes.fit(features, labels, num_classes, l2=l2, max_iterations=max_iterations)
    return Candidates(
        settings=tuple(
            {
                "l2": strength,
                "objective": fit.objective,
                "gradient": fit.gradient,
                "iterations": fit.iterations,
            }
            for strength, fit in zip(l2, fits, strict=True)
        ),
        logits=lambda queries, which: [fits[i].linear(queries) for i in which],
        linear=tuple(fit.linear for fit in fits),
    )


def knn(
    features: Features,
    labels: Labels,
    num_classes: int,
    *,
    k: tuple[int, ...] = (1, 5, 10, 20, 50, 100),
    temperature: float = 0.07,
) -> Candidates:
    """The vote of the `k` nearest; of several numbers those above the images' are left out."""
    numbers = tuple(number for number in k if number <= len(features))
    if not numbers:
        raise UserError(
            f"config.head.options.k={k!r} asks for more neighbours than there are training images "
            f"({len(features)})."
        )

    def logits(queries: Features, which: Sequence[int]) -> list[Logits]:
        most = max(numbers[i] for i in which)
        similarity, rows = neighbours.nearest(features, queries, most)
        return [
            neighbours.logits(
                similarity, labels[rows], num_classes, k=numbers[i], temperature=temperature
            )
            for i in which
        ]

    settings = tuple({"k": number} for number in numbers)
    return Candidates(settings, logits, (None,) * len(numbers))


def prototype(
    features: Features,
    labels: Labels,
    num_classes: int,
    *,
    metric: str = "cosine",
    temperature: float = 0.07,
) -> Candidates:
    """The nearest class mean, by "cosine" or "euclidean" distance."""
    if metric == "euclidean":
        linear = prototypes.euclidean(prototypes.class_means(features, labels, num_classes))
        return Candidates(({},), lambda queries, _: [linear(queries)], (linear,))
    means = prototypes.class_means(neighbours.normalised(features), labels, num_classes)
    return Candidates(
        ({},),
        lambda queries, _: [prototypes.cosine(means, queries, temperature=temperature)],
        (None,),
    )


HEADS: Mapping[str, Callable[..., Candidates]] = {
    "knn": knn,
    "probe": probe,
    "prototype": prototype,
}
_LIMITS: Mapping[str, Callable[[Any], bool]] = {
    "l2": lambda value: isinstance(value, int | float) and 0 <= value < float("inf"),
    "max_iterations": lambda value: value >= 1,
    "k": lambda value: isinstance(value, int) and value >= 1,
    "temperature": lambda value: 1e-3 <= value <= 1e3,
    "metric": lambda value: value in ("cosine", "euclidean"),
}
