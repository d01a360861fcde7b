"""Whether explanations explain: by the network's parameters, the object's mask, and deletion.

A map that stays the same when the parameters are shuffled shows edges and no reasons (Adebayo
et al. 2018, "Sanity Checks for Saliency Maps", https://arxiv.org/abs/1810.03292). Where masks
are known, a map of the true class should have its maximum on the object: the pointing game of
Zhang et al. 2016, "Top-down Neural Attention by Excitation Backprop",
https://arxiv.org/abs/1608.00507, which forgives a miss by 15 pixels of 224. And where a map
says that it matters, it should: as such places are deleted, the class must go (Petsiuk et al.
2018, "RISE", section 4.3, https://arxiv.org/abs/1806.07421).
"""

import zlib
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool, Float, Float64, Integer, UInt8
from scipy import ndimage, stats

from imgrec.evaluation import bootstrap
from imgrec.evaluation.explanations.methods import Explainer, Explanations
from imgrec.evaluation.subject import Subject, Variables

MARGIN = 15 / 224
"""Of the pointing game, as a share of the longer side."""

CELLS = 8
"""Along each side of the grid whose places are deleted."""

Maps = Float[np.ndarray, "images height width"]


def randomisation(
    subject: Subject,
    images: UInt8[np.ndarray, "images height width channels"],
    classes: Integer[np.ndarray, "images"],
    methods: Sequence[str] | None = None,
    *,
    seed: int = 0,
) -> dict[str, Any]:
    """How alike the maps of a network and of the same with shuffled parameters are.

    Args:
      subject: the network.
      images: raw.
      classes: whose logits are explained.
      methods: as of `explain`.
      seed: of the shuffling.

    Returns:
      "n"; "methods": for each, "spearman", the mean over the images of the rank correlation of
      the two maps (near 0 for a map that depends on the network; None where no image has two
      maps that vary), "n" of such images and "intervals".
    """
    explainer = Explainer(subject, methods)
    own = explainer(images, classes).maps
    other = explainer(images, classes, shuffle(subject.variables, seed)).maps
    found = {}
    for name, maps in own.items():
        values = spearman(maps, other[name])
        values = values[np.isfinite(values)]
        found[name] = _mean("spearman", values)
    return {"n": len(images), "methods": found}


def localisation(
    explanations: Explanations, masks: Bool[np.ndarray, "images height width"]
) -> dict[str, Any]:
    """How often and how much maps point at the objects that the masks show.

    Args:
      explanations: of the true classes.
      masks: where each image's object is seen.

    Returns:
      "n"; "methods": for each "pointing" (share of maps with their maximum on the object or
      within the margin) and "energy" (mean share of a map's positive sum that lies on it), with
      "n" and "intervals"; "margin" in pixels; "centre": what pointing at the middle of the
      image would reach; "area": the objects' mean share of the image, which is the energy of a
      map that is the same everywhere.
    """
    n, height, width = masks.shape
    margin = round(MARGIN * max(height, width))
    near = widened(masks, margin)
    centre = np.zeros((1, height, width))
    centre[:, (height - 1) // 2 : height // 2 + 1, (width - 1) // 2 : width // 2 + 1] = 1
    methods = {}
    for name, maps in explanations.maps.items():
        pointing = _mean("pointing", hits(maps, near))
        energy = _mean("energy", inside(maps, masks))
        intervals = pointing.pop("intervals") | energy.pop("intervals")
        methods[name] = {**energy, **pointing, "intervals": intervals}
    return {
        "n": n,
        "methods": methods,
        "margin": margin,
        "centre": float(hits(np.repeat(centre, n, axis=0), near).mean()),
        "area": float(masks.mean()),
    }


def deletion(
    subject: Subject,
    images: UInt8[np.ndarray, "images height width channels"],
    classes: Integer[np.ndarray, "images"],
    explanations: Explanations,
    *,
    seed: int = 0,
) -> dict[str, Any]:
    """How fast a class goes as the places are hidden that its maps rank first.

    Places are the cells of an 8x8 grid, hidden by the mean colour of the training images;
    single pixels that are missing would make a texture of their own, which networks answer to.

    Args:
      subject: the network.
      images: raw.
      classes: whose maps these are.
      explanations: of the images.
      seed: of the order that the maps are compared with, and of equal cells.

    Returns:
      "n"; "shares" of the cells that are hidden; "methods": for each, and for "random",
      "probability", the mean softmax probability of the class at each share, and "area" under
      that curve, the lower the better, with "n" and "intervals".
    """
    n, height, width, _ = images.shape
    rng = np.random.default_rng(seed)
    rows, columns = (np.arange(side) * CELLS // side for side in (height, width))
    cell = rows[:, None] * CELLS + columns
    share_of_cell = np.eye(CELLS**2)[cell.ravel()]
    share_of_cell /= np.maximum(share_of_cell.sum(axis=0), 1)
    hidden_cells = np.arange(0, CELLS**2 + 1, CELLS // 2)
    grey = np.asarray(subject.mean, np.float32)

    @jax.jit
    def probability(variables: Variables, images: Any, hidden: Any) -> Any:
        seen = jnp.where(hidden[..., None], grey, jnp.asarray(images, jnp.float32) / 255)
        answers = jax.nn.softmax(subject.logits(variables, seen))
        return jnp.take_along_axis(answers, jnp.asarray(classes)[:, None], axis=1)[:, 0]

    def curve(values: Float[np.ndarray, "images cells"]) -> dict[str, Any]:
        order = np.lexsort((rng.random(values.shape), -values), axis=1)
        rank = np.argsort(order, axis=1)[:, cell]
        curves = np.stack(
            [probability(subject.variables, images, rank < k) for k in hidden_cells], axis=1
        ).astype(np.float64)
        areas = np.asarray(np.trapezoid(curves, dx=1 / (len(hidden_cells) - 1), axis=1))
        return {"probability": curves.mean(axis=0).tolist(), **_mean("area", areas)}

    found = {
        name: curve(maps.reshape(n, -1).astype(np.float64) @ share_of_cell)
        for name, maps in explanations.maps.items()
    }
    return {
        "n": n,
        "shares": (hidden_cells / CELLS**2).tolist(),
        "methods": {**found, "random": curve(np.zeros((n, CELLS**2)))},
    }


def widened(
    masks: Bool[np.ndarray, "images height width"], margin: int
) -> Bool[np.ndarray, "images height width"]:
    """The pixels at most so far from an object's."""
    if margin == 0:
        return masks
    y, x = np.mgrid[-margin : margin + 1, -margin : margin + 1]
    disc = (y**2 + x**2 <= margin**2)[None]
    return ndimage.binary_dilation(masks, disc)


def hits(
    maps: Maps, masks: Bool[np.ndarray, "images height width"]
) -> Float64[np.ndarray, "images"]:
    """1 where a map's largest value lies on the object, else 0; of several largest their share."""
    largest = maps == maps.max(axis=(1, 2), keepdims=True)
    return (largest & masks).sum(axis=(1, 2)) / largest.sum(axis=(1, 2))


def inside(
    maps: Maps, masks: Bool[np.ndarray, "images height width"]
) -> Float64[np.ndarray, "images"]:
    """The share of a map's sum over positive values that lies on the object; NaN without any."""
    positive = np.maximum(maps, 0).astype(np.float64)
    whole = positive.sum(axis=(1, 2))
    share = (positive * masks).sum(axis=(1, 2)) / np.where(whole > 0, whole, 1)
    return np.where(whole > 0, share, np.nan)


def spearman(one: Maps, other: Maps) -> Float64[np.ndarray, "images"]:
    """The rank correlation of two maps over the pixels; NaN where one of them is constant."""
    ranks = [stats.rankdata(maps.reshape(len(maps), -1), axis=1) for maps in (one, other)]
    first, second = (rank - rank.mean(axis=1, keepdims=True) for rank in ranks)
    norm = np.sqrt((first**2).sum(axis=1) * (second**2).sum(axis=1))
    return np.where(norm > 0, (first * second).sum(axis=1) / np.where(norm > 0, norm, 1), np.nan)


def shuffle(variables: Variables, seed: int = 0) -> Variables:
    """Variables with the entries of every array in another order.

    So their sizes stay those of the trained network, and what they have learned is gone.
    """

    def shuffled(path: Any, leaf: Any) -> np.ndarray:
        stream = zlib.crc32(jax.tree_util.keystr(path).encode())
        values = np.asarray(jax.device_get(leaf))
        order = np.random.default_rng((seed, stream)).permutation(values.size)
        return values.ravel()[order].reshape(values.shape)

    return jax.tree_util.tree_map_with_path(shuffled, variables)


def _mean(name: str, values: Float64[np.ndarray, "images"]) -> dict[str, Any]:
    """The mean of what is defined, with its interval."""
    values = values[np.isfinite(values)]
    if not len(values):
        return {"n": 0, name: None, "intervals": {name: None}}
    interval = bootstrap.mean_interval(values, bootstrap.resamples(len(values)))
    return {"n": len(values), name: float(values.mean()), "intervals": {name: interval}}
