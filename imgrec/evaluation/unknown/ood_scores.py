"""Scores of how much an image looks like those a network was trained on, from its outputs.

All are higher for what looks known. Those that need statistics take them from training images
and nothing else; none has anything to choose, and so none has ever seen an unknown image.
ODIN, which asks the network again, is in `odin`.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from jaxtyping import Float, Float64, Int32
from scipy.linalg import LinAlgError, cho_factor, cho_solve
from scipy.special import logsumexp
from sklearn.covariance import ledoit_wolf

from imgrec.transfer import neighbours

Outputs = Mapping[str, np.ndarray]  # logits, features and label of some images
Scores = Float64[np.ndarray, " n"]
Score = Callable[[Outputs], Scores]
Features = Float64[np.ndarray, "n features"]
Head = tuple[Float64[np.ndarray, "_ _"], Float64[np.ndarray, " _"]]
"""Kernel [features, classes] and bias [classes]."""

NEIGHBOURS = 50

SOURCES = {
    "max_softmax": "largest softmax probability (Hendrycks & Gimpel 2017)",
    "max_logit": "largest logit (Hendrycks et al. 2022; Vaze et al. 2022)",
    "energy": "log of the summed exponentials of the logits (Liu et al. 2020)",
    "odin": "softmax after a step towards more confidence (Liang et al. 2018)",
    "mahalanobis": "distance from the nearest class mean, shared covariance (Lee et al. 2018)",
    "relative_mahalanobis": "that distance less the one from all training images (Ren et al. 2021)",
    "knn": "distance of the 50th nearest training image in direction (Sun et al. 2022)",
    "vim": "energy less the features' part outside their main subspace (Wang et al. 2022)",
}
"""What each score is, in words, in the order of reports."""


@dataclass(frozen=True)
class Fitted:
    """Scores by name, and sentences on what was done or could not be."""

    scores: Mapping[str, Score]
    notes: list[str] = field(default_factory=list)

    def of(self, outputs: Outputs, odin: Scores | None = None) -> dict[str, Scores]:
        """All scores of some images, those of ODIN among them where they are given."""
        nothing = np.zeros(0)
        found = {
            name: score(outputs) if len(outputs["label"]) else nothing
            for name, score in self.scores.items()
        }
        if odin is not None:
            found["odin"] = odin
        return {name: found[name] for name in SOURCES if name in found}


def fit(train: Outputs, variables: Mapping[str, Any] | None = None) -> Fitted:
    """Every score that can be had, its statistics those of training images.

    Args:
      train: "logits", "features" and "label" of training images; some thousands are enough.
      variables: of the network, whose head ViM looks at.
    """
    scores: dict[str, Score] = {
        "max_softmax": lambda outputs: max_softmax(outputs["logits"]),
        "max_logit": lambda outputs: max_logit(outputs["logits"]),
        "energy": lambda outputs: energy(outputs["logits"]),
    }
    if not (np.isfinite(train["features"]).all() and np.isfinite(train["logits"]).all()):
        note = "The features or logits of training images are not all finite numbers, so that "
        return Fitted(scores, [note + "scores that are measured against them are left out."])
    notes = []
    try:
        scores |= mahalanobis(train["features"], train["label"])
    except LinAlgError:
        notes.append("The features of training images do not vary: no Mahalanobis distance.")
    scores["knn"] = knn(train["features"])
    scores["vim"], note = vim(train["features"], train["logits"], linear_head(variables or {}))
    return Fitted(scores, [*notes, note])


def max_softmax(logits: Float[np.ndarray, "n classes"]) -> Scores:
    """The largest softmax probability."""
    exact = logits.astype(np.float64)
    with np.errstate(invalid="ignore"):  # inf - inf of a model that diverged: no score
        return np.exp(exact.max(axis=1) - logsumexp(exact, axis=1))


def max_logit(logits: Float[np.ndarray, "n classes"]) -> Scores:
    """The largest logit."""
    return logits.max(axis=1).astype(np.float64)


def energy(logits: Float[np.ndarray, "n classes"]) -> Scores:
    """Minus the free energy at temperature 1: the logarithm of the summed exponentials."""
    return logsumexp(logits.astype(np.float64), axis=1)


def mahalanobis(
    features: Float[np.ndarray, "n features"], labels: Int32[np.ndarray, " n"]
) -> dict[str, Score]:
    """Minus the squared distance from the nearest class, plain and relative.

    The classes share one covariance; what is relative to is one Gaussian of all images. Both
    covariances are shrunk towards a multiple of the identity as Ledoit and Wolf (2004) find
    best: rectified features are of deficient rank, and a direction in which training images
    hardly vary would otherwise decide everything.

    Raises:
      LinAlgError: the features do not vary at all.
    """
    x = features.astype(np.float64)
    classes, members = np.unique(labels, return_inverse=True)
    means = np.stack([x[members == c].mean(axis=0) for c in range(len(classes))])
    everything = x.mean(axis=0, keepdims=True)
    of_class = _squared_distances(means, x - means[members])
    of_all = _squared_distances(everything, x - everything)

    def plain(outputs: Outputs) -> Scores:
        return -of_class(outputs["features"]).min(axis=1)

    def relative(outputs: Outputs) -> Scores:
        return plain(outputs) + of_all(outputs["features"])[:, 0]

    return {"mahalanobis": plain, "relative_mahalanobis": relative}


def _squared_distances(
    means: Float64[np.ndarray, "classes features"], centred: Features
) -> Callable[[Float[np.ndarray, "n features"]], Float64[np.ndarray, "n classes"]]:
    covariance, _ = ledoit_wolf(centred, assume_centered=True)
    factor = cho_factor(covariance, lower=True)
    to_means = cho_solve(factor, means.T)
    of_means = np.einsum("cf,fc->c", means, to_means)

    def distances(features: Float[np.ndarray, "n features"]) -> Float64[np.ndarray, "n classes"]:
        x = features.astype(np.float64)
        of_x = np.einsum("nf,fn->n", x, cho_solve(factor, x.T))
        return of_x[:, None] - 2 * x @ to_means + of_means

    return distances


def knn(train: Float[np.ndarray, "n features"], k: int = NEIGHBOURS) -> Score:
    """Minus the distance of the k-th nearest training image, all features at length 1."""
    k = min(k, len(train))

    def score(outputs: Outputs) -> Scores:
        similarity, _ = neighbours.nearest(train, outputs["features"], k)
        return -np.sqrt(np.maximum(2 - 2 * similarity[:, -1].astype(np.float64), 0))

    return score


def linear_head(variables: Mapping[str, Any]) -> Head | None:
    """The kernel and the bias of a network's head; None where it is something else."""
    head = variables.get("params", {}).get("head", {})
    if not isinstance(head, Mapping) or getattr(head.get("kernel"), "ndim", 0) != 2:
        return None
    kernel = np.asarray(head["kernel"], np.float64)
    return kernel, np.asarray(head.get("bias", np.zeros(kernel.shape[1])), np.float64)


def vim(
    features: Float[np.ndarray, "n features"],
    logits: Float[np.ndarray, "n classes"],
    head: Head | None,
) -> tuple[Score, str]:
    """The virtual-logit score, and how it was made.

    Features are seen from the origin at which the head gives every class 0. What of them lies
    outside the subspace of their largest variation becomes one more logit, scaled so that on
    training images it is as large as the largest. The score is energy less that logit, which
    orders as the probability of the virtual class does.

    Args:
      features: of the training images.
      logits: of them.
      head: kernel and bias; where there is none, or it does not give these logits, the linear
        map from features to logits with the least squared error stands in.
    """
    x, z = features.astype(np.float64), logits.astype(np.float64)
    note = "ViM takes its origin from the network's head."
    if head is None or not _gives(head, x, z):
        with_one = np.concatenate([x, np.ones((len(x), 1))], axis=1)
        solved = np.linalg.lstsq(with_one, z, rcond=None)[0]
        head = (solved[:-1], solved[-1])
        note = (
            "ViM takes its origin from the linear map of features to logits with the least "
            "squared error, since the network's head is no linear layer on its features."
        )
    kernel, bias = head
    origin = -np.linalg.pinv(kernel.T) @ bias
    variance, directions = np.linalg.eigh((x - origin).T @ (x - origin) / len(x))
    rest = directions[:, : len(variance) - _main_dimensions(variance)]
    norms = np.linalg.norm((x - origin) @ rest, axis=1)
    # A head that measures distances has negative logits; the virtual one stays against them.
    scale = abs(z.max(axis=1).mean()) / max(norms.mean(), np.finfo(np.float64).tiny)

    def score(outputs: Outputs) -> Scores:
        outside = (outputs["features"].astype(np.float64) - origin) @ rest
        return energy(outputs["logits"]) - scale * np.linalg.norm(outside, axis=1)

    return score, note


def _gives(
    head: Head,
    features: Features,
    logits: Float64[np.ndarray, "n classes"],
) -> bool:
    """Whether a head gives these logits, to the precision of bfloat16."""
    kernel, bias = head
    if kernel.shape != (features.shape[1], logits.shape[1]):
        return False
    return bool(np.abs(features @ kernel + bias - logits).max() <= 0.02 * np.abs(logits).max())


def _main_dimensions(variance: Float64[np.ndarray, " features"]) -> int:
    """Of the main subspace: the paper's 1000 or 512, or half of what is narrower.

    Half of the rank at most, so that outside of it something varies on training images too.
    """
    features = len(variance)
    usual = 1000 if features > 1500 else 512 if features >= 768 else features // 2
    rank = int(np.sum(variance > 1e-10 * max(variance.max(), np.finfo(np.float64).tiny)))
    return usual if usual < rank else rank // 2
