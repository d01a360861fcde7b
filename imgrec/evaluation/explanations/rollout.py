"""Attention rollout: from which patches the tokens that the head reads have come.

Abnar and Zuidema 2020, "Quantifying Attention Flow in Transformers", section 3,
https://arxiv.org/abs/2005.00928. It is of the image and not of a class.
"""

import re
from collections.abc import Iterable

import jax.numpy as jnp
from jaxtyping import Array, Float, UInt8

from imgrec.evaluation.explanations import receptive
from imgrec.evaluation.explanations.taps import Shapes, Tap, UnsupportedError, token_grid
from imgrec.evaluation.subject import Subject, Variables


def attention_tap(subject: Subject, shapes: Shapes) -> Tap:
    """The grid that the attention of all blocks is over.

    Raises:
      UnsupportedError: the network has no attention among all of its places.
    """
    names = _names(shapes)
    if not names:
        if any(name.endswith("/attention") for name in shapes):
            raise UnsupportedError(
                "it attends within windows, and no attention is over the whole image"
            )
        raise UnsupportedError("it has no attention among places")
    (height, width, _), tokens = subject.image_shape, shapes[names[0]].shape[-1]
    grid, extra = token_grid(subject, tokens)
    return Tap(
        names[-1],
        grid,
        extra,
        rows=receptive.interpolation(None, grid[0], height),
        columns=receptive.interpolation(None, grid[1], width),
        shapes=shapes,
    )


def rollout(
    subject: Subject,
    tap: Tap,
    variables: Variables,
    images: UInt8[Array, "batch height width channels"],
) -> Float[Array, "batch height width"]:
    """The share of each patch in what the head reads, interpolated to the pixels.

    Heads are averaged, and half of every token is itself, by the connections around the
    attention. The head reads the class token (of distilled networks also the second), or else
    the mean of all patches.
    """
    found = subject.intermediates(variables, images)
    names = _names(found)
    tokens = found[names[0]].shape[-1]
    flow = jnp.eye(tokens)
    for name in names:
        flow = (found[name].mean(axis=1) + jnp.eye(tokens)) / 2 @ flow
    read = jnp.mean(jnp.stack([flow[:, tokens].mean(axis=1) for tokens in _read(subject, tap)]), 0)
    return tap.spread(read[:, tap.extra :].reshape(-1, *tap.grid))


def _names(found: Iterable[str]) -> list[str]:
    numbered = {int(m[1]): n for n in found if (m := re.fullmatch(r"block(\d+)/attention", n))}
    return [numbered[number] for number in sorted(numbered)]


def _read(subject: Subject, tap: Tap) -> list[list[int]]:
    """For each head the positions of the tokens whose mean it reads."""
    own_token = getattr(subject.module, "pool", "mean") == "cls"
    patches = list(range(tap.extra, tap.extra + tap.grid[0] * tap.grid[1]))
    heads = [[0] if own_token else patches]
    if getattr(subject.module, "distillation", False):
        heads.append([int(own_token)])
    return heads
