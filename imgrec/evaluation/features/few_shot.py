"""What a linear classifier makes of features when it has seen a few images of each class.

Ridge regression onto one-hot labels, in closed form, as big_vision's few-shot evaluator has it
(Zhai et al. 2019; Steiner et al. 2022); but its strength is chosen on validation images, for each
draw anew, and not fixed by looking at the test images.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Float, Float32, Float64, Int32

from imgrec.evaluation.unknown.new_classes import mean_over_draws
from imgrec.evaluation.unknown.ood_scores import Outputs

SHOTS = (1, 5, 10, 25)
SEEDS = 5
STRENGTHS = tuple(2.0**i for i in range(-10, 21, 2))

_STREAM = 0xFE35  # of the random numbers, beside the seed

Features = Float64[np.ndarray, "n features"]
Labels = Int32[np.ndarray, " n"]


def few_shot(
    *,
    train: Outputs,
    validation: Outputs | None,
    test: Outputs,
    num_classes: int,
    shots: Sequence[int] = SHOTS,
    seeds: int = SEEDS,
    seed: int = 0,
) -> dict[str, Any]:
    """Accuracy on the test split of a linear probe from a few images a class.

    Args:
      train: outputs ("features", "label") for training images to draw from.
      validation: for the validation split, by which the strength of the ridge is chosen.
      test: for the test split.
      num_classes: that there are.
      shots: images a class.
      seeds: draws of them; more shots of a draw keep the fewer.
      seed: of all draws.

    Returns:
      n; n_validation; seeds; shots: a list by rising shots of {shots, n, accuracy (mean over
      draws), std (n - 1), accuracies, strengths (chosen, one a draw), intervals: {accuracy: of
      the mean, by Student's t over the draws}}; reasons: why some are not there, by "shots_25",
      or why all are not, by "shots".
    """
    report: dict[str, Any] = {
        "n": len(test["label"]),
        "n_validation": 0 if validation is None else len(validation["label"]),
        "seeds": seeds,
        "shots": [],
        "reasons": {},
    }
    if validation is None or not report["n_validation"]:
        report["reasons"]["shots"] = "There are no validation images to choose the strength by."
        return report
    if not report["n"]:
        report["reasons"]["shots"] = "There are no test images."
        return report
    if not all(np.isfinite(o["features"]).all() for o in (train, validation, test)):
        report["reasons"]["shots"] = "The features are not all finite numbers."
        return report
    # Widened once, as every draw takes the same images.
    validation, test = (
        {"features": of["features"].astype(np.float64), "label": of["label"]}
        for of in (validation, test)
    )
    sizes = np.bincount(train["label"], minlength=num_classes)
    for k in sorted(shots):
        if sizes.min() < k:
            report["reasons"][f"shots_{k}"] = (
                f"Class number {sizes.argmin()} has {sizes.min()} images to draw from."
            )
            continue
        drawn = [
            _probe(train, validation, test, _draw(train["label"], k, (seed, _STREAM, i)))
            for i in range(seeds)
        ]
        accuracies = np.array([accuracy for accuracy, _ in drawn])
        report["shots"].append(
            {
                "shots": k,
                "n": report["n"],
                "accuracy": float(accuracies.mean()),
                "std": float(accuracies.std(ddof=1)) if seeds > 1 else None,
                "accuracies": accuracies.tolist(),
                "strengths": [strength for _, strength in drawn],
                "intervals": {"accuracy": mean_over_draws(accuracies)},
            }
        )
    return report


def _draw(labels: Labels, k: int, seed: tuple[int, ...]) -> np.ndarray:
    """So many rows of each class."""
    order = np.random.default_rng(seed).permutation(len(labels))
    # Sorted by class, the shuffled order kept within each; then the first k of each.
    order = order[np.argsort(labels[order], kind="stable")]
    starts = np.searchsorted(labels[order], np.unique(labels))
    return np.concatenate([order[start : start + k] for start in starts])


def _probe(
    train: Outputs, validation: Outputs, test: Outputs, rows: np.ndarray
) -> tuple[float, float]:
    """Accuracy on test, and the strength that is best on validation (of equals the greater)."""
    fitted = Ridge(train["features"][rows], train["label"][rows])
    right = np.mean(
        fitted.classes(validation["features"], STRENGTHS) == validation["label"], axis=1
    )
    best = max(range(len(STRENGTHS)), key=lambda i: (right[i], i))
    (said,) = fitted.classes(test["features"], STRENGTHS[best : best + 1])
    return float(np.mean(said == test["label"])), STRENGTHS[best]


class Ridge:
    """Ridge regression of one-hot labels on standardised features, for any strength at once.

    With X the standardised features and Y the one-hot labels less their mean, the weights are
    (X'X + strength I)^-1 X'Y, the bias the mean of the labels, which is not shrunk.
    """

    def __init__(
        self, features: Float32[np.ndarray, "n features"], labels: Int32[np.ndarray, " n"]
    ):
        """Decomposes the smaller of X'X and XX', so that a strength costs one product."""
        exact = features.astype(np.float64)
        self._mean, std = exact.mean(axis=0), exact.std(axis=0)
        # A feature that does not vary among so few says nothing, whatever it is elsewhere.
        self._inverse = np.where(
            std > 1e-6 * np.maximum(1, np.abs(self._mean)), 1 / (std + 1e-30), 0
        )
        x = (exact - self._mean) * self._inverse
        self._classes, places = np.unique(labels, return_inverse=True)
        y = np.eye(len(self._classes))[places]
        self._bias = y.mean(axis=0)
        y -= self._bias
        n, width = x.shape
        if n <= width:
            values, vectors = np.linalg.eigh(x @ x.T)
            self._basis, right = x.T @ vectors, vectors.T @ y
        else:
            values, vectors = np.linalg.eigh(x.T @ x)
            self._basis, right = vectors, vectors.T @ (x.T @ y)
        self._values, self._right = np.maximum(values, 0), right

    def weights(
        self, strengths: Sequence[float]
    ) -> tuple[Float64[np.ndarray, "strengths features classes"], Float64[np.ndarray, "s classes"]]:
        """By each strength, what takes features as they are to the outputs, and what is added."""
        shrunk = self._right / (self._values + np.array(strengths)[:, None])[:, :, None]
        kernel = self._inverse[:, None] * (self._basis @ shrunk)
        return kernel, self._bias - self._mean @ kernel

    def outputs(
        self, features: Float[np.ndarray, "m features"], strengths: Sequence[float]
    ) -> Float64[np.ndarray, "m strengths classes"]:
        """The regression's values, which come near 1 for the right class."""
        kernel, bias = self.weights(strengths)
        together = np.moveaxis(kernel, 0, 1).reshape(features.shape[1], -1)
        return (features.astype(np.float64, copy=False) @ together).reshape(-1, *bias.shape) + bias

    def classes(
        self, features: Float[np.ndarray, "m features"], strengths: Sequence[float]
    ) -> Int32[np.ndarray, "strengths m"]:
        """The classes with the largest value."""
        said: Int32[np.ndarray, "strengths m"] = self._classes[
            self.outputs(features, strengths).argmax(axis=2).T
        ]
        return said
