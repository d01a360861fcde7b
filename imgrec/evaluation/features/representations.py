"""What a network's features are worth apart from its head: neighbours, few shots, retrieval."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Float32, Float64, Int32

from imgrec.evaluation import bootstrap
from imgrec.evaluation.features import few_shot, retrieval
from imgrec.evaluation.unknown.ood_scores import Outputs
from imgrec.transfer import neighbours

NEIGHBOURS = (5, 20)
TEMPERATURE = 0.07
"""Of the vote; as in Wu et al. 2018 and DINO (Caron et al. 2021)."""

POINTS = 2_000
"""Images on a map, at most."""

_STREAM = 0x3A9  # of the random numbers, beside the seed

Features = Float32[np.ndarray, "n features"]


def representations(
    *,
    train: Outputs,
    validation: Outputs | None,
    test: Outputs,
    class_names: Sequence[str],
    seed: int = 0,
) -> dict[str, Any]:
    """What features are worth with training images beside them.

    Args:
      train: outputs ("features", "label") for training images, all or a sample of them.
      validation: for the validation split, by which the few-shot probe is chosen.
      test: for the test split.
      class_names: one for each label.
      seed: of draws and resamples.

    Returns:
      n, n_train, features (their number);
      knn: a list of {k, accuracy, n, intervals (Wilson)} of the weighted vote;
      few_shot: as of `few_shot.few_shot`.

    Raises:
      ValueError: there are no training or test images, or a feature is not a finite number.
    """
    _check(train, test)
    return {
        "n": len(test["label"]),
        "n_train": len(train["label"]),
        "features": test["features"].shape[1],
        "knn": knn(train, test, len(class_names)),
        "few_shot": few_shot.few_shot(
            train=train,
            validation=validation,
            test=test,
            num_classes=len(class_names),
            seed=seed,
        ),
    }


def likeness(
    test: Outputs,
    class_names: Sequence[str],
    *,
    tsne: bool = False,
    queries: int = 0,
    seed: int = 0,
) -> dict[str, Any]:
    """How near like lies to like among the features of one split.

    Args:
      test: outputs ("features", "label") for it.
      class_names: one for each label.
      tsne: also a map by t-SNE, which takes some ten seconds.
      queries: of retrieval, at most; 0 for all images.
      seed: of draws and resamples.

    Returns:
      n; retrieval: as of `retrieval.retrieval`;
      maps: {"pca": as of `pca`, "tsne": as of `tsne`, or None};
      class_names; reasons, which says in words why something is None.

    Raises:
      ValueError: there are no images, or a feature is not a finite number.
    """
    _check(test)
    chosen = sampled(len(test["label"]), seed)
    points, labels = test["features"][chosen], test["label"][chosen]
    report: dict[str, Any] = {
        "n": len(test["label"]),
        "retrieval": retrieval.retrieval(
            test["features"], test["label"], queries=queries, seed=seed
        ),
        "maps": {"pca": pca(points, labels), "tsne": None},
        "class_names": list(class_names),
        "reasons": {},
    }
    if not tsne:
        report["reasons"]["tsne"] = "It was not asked for, as it takes a while."
    elif len(points) < 4:
        report["reasons"]["tsne"] = f"{len(points)} images make no map."
    else:
        report["maps"]["tsne"] = t_sne(points, labels, seed)
    return report


def _check(*outputs: Outputs) -> None:
    if not all(len(some["label"]) for some in outputs):
        raise ValueError("Features are compared between images; some are needed.")
    if not all(np.isfinite(some["features"]).all() for some in outputs):
        raise ValueError("The features are not all finite numbers, so they cannot be compared.")


def knn(train: Outputs, test: Outputs, num_classes: int) -> list[dict[str, Any]]:
    """Accuracy of the weighted vote of the k nearest training images, for each k."""
    most = min(max(NEIGHBOURS), len(train["label"]))
    similarity, rows = neighbours.nearest(train["features"], test["features"], most)
    n = len(test["label"])
    found = []
    for k in NEIGHBOURS:
        logits = neighbours.logits(
            similarity, train["label"][rows], num_classes, k=k, temperature=TEMPERATURE
        )
        right = int(np.sum(logits.argmax(axis=1) == test["label"]))
        intervals = {"accuracy": bootstrap.wilson(right, n)}
        found.append({"k": k, "accuracy": right / n, "n": n, "intervals": intervals})
    return found


def sampled(n: int, seed: int) -> np.ndarray:
    """At most `POINTS` of n positions, ascending."""
    order = np.random.default_rng((seed, _STREAM)).permutation(n)
    return np.sort(order[:POINTS])


def pca(features: Features, labels: Int32[np.ndarray, " n"]) -> dict[str, Any]:
    """The features along the two directions in which they vary most.

    Returns:
      x, y, label (one each an image), n, explained (share of the variance, of each direction).
    """
    centred = features.astype(np.float64) - features.mean(axis=0, dtype=np.float64)
    # Of the smaller of the two matrices of products, which takes a fraction of an SVD.
    tall = len(centred) >= centred.shape[1]
    variances, vectors = np.linalg.eigh(centred.T @ centred if tall else centred @ centred.T)
    kept = min(2, len(variances))
    variances, vectors = np.maximum(variances[::-1], 0), vectors[:, ::-1][:, :kept]
    if not tall:
        lengths = np.sqrt(variances[:kept])
        vectors = centred.T @ vectors / np.where(lengths > 0, lengths, 1)
    # A direction may as well be its opposite; its largest part is made positive.
    largest = np.take_along_axis(vectors, np.abs(vectors).argmax(axis=0)[None], axis=0)
    projected, explained = np.zeros((len(centred), 2)), np.zeros(2)
    projected[:, :kept] = centred @ (vectors * np.sign(largest))
    if total := variances.sum():
        explained[:kept] = variances[:kept] / total
    return {**_map(projected, labels), "explained": explained.tolist()}


def t_sne(features: Features, labels: Int32[np.ndarray, " n"], seed: int) -> dict[str, Any]:
    """A map by t-SNE (van der Maaten & Hinton 2008), on which neighbours stay neighbours.

    Of features at length 1, so that near means what it does to the vote of neighbours. Distances
    between groups, and their sizes, say nothing.

    Returns:
      x, y, label, n, perplexity.
    """
    # Here, because it takes a second that most reports should not wait for.
    from sklearn.manifold import TSNE
    from threadpoolctl import threadpool_limits

    perplexity = min(30.0, (len(features) - 1) / 3)
    method = TSNE(n_components=2, init="pca", perplexity=perplexity, random_state=seed)
    # Its threads wait for each other at every step, which takes ten times as long where other
    # work keeps a core from them.
    with threadpool_limits(1):
        projected = method.fit_transform(neighbours.normalised(features))
    return {**_map(projected.astype(np.float64), labels), "perplexity": perplexity}


def _map(points: Float64[np.ndarray, "n 2"], labels: Int32[np.ndarray, " n"]) -> dict[str, Any]:
    return {
        "x": points[:, 0].tolist(),
        "y": points[:, 1].tolist(),
        "label": labels.tolist(),
        "n": len(points),
    }
