"""Accuracy against the amount of one change, and the amount at which half of it is gone.

A dose-response curve as pharmacology draws it: the half-accuracy dose is where accuracy has
fallen halfway from what it was without the change to chance, between two doses by a straight
line.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Float32, Float64

from imgrec.evaluation import bootstrap


def curve(
    correct: Bool[np.ndarray, "n doses"],
    doses: Sequence[int | float],
    chance: float,
    weights: Float32[np.ndarray, "count n"],
) -> dict[str, Any]:
    """The curve of answers to the same images at every dose.

    Args:
      correct: whether each image was recognised at each dose.
      doses: in order, the first being the one without the change.
      chance: the accuracy of guessing.
      weights: `bootstrap.resamples` of the images.

    Returns:
      doses, accuracy, accuracy_interval (Wilson), lists of the same length; half_accuracy, the
      level halfway between the first accuracy and chance; half_accuracy_dose, None where the
      accuracy never falls so far, with the reason; intervals: {half_accuracy_dose}, resampling
      the images, over the resamples in which there is one.
    """
    n = len(correct)
    hits = correct.sum(axis=0)
    accuracy = hits / n
    dose = float(half_dose(accuracy[None], doses, chance)[0])
    resampled = half_dose(bootstrap.resampled_sums(correct, weights) / n, doses, chance)
    found = np.isfinite(dose)
    report = {
        "doses": [float(dose) for dose in doses],
        "accuracy": accuracy.tolist(),
        "accuracy_interval": [bootstrap.wilson(int(k), n) for k in hits],
        "half_accuracy": float((accuracy[0] + chance) / 2),
        "half_accuracy_dose": dose if found else None,
        "intervals": {"half_accuracy_dose": bootstrap.interval(resampled) if found else None},
        "reason": "",
    }
    if accuracy[0] <= chance:
        report["reason"] = "The accuracy is no better than chance before anything is changed."
    elif not found:
        report["reason"] = (
            f"The accuracy stays above {report['half_accuracy']:.3f} up to the last dose."
        )
    return report


def half_dose(
    accuracy: Float[np.ndarray, "curves doses"], doses: Sequence[int | float], chance: float
) -> Float64[np.ndarray, " curves"]:
    """Where each curve first falls to halfway between its first value and chance.

    nan for a curve that never does, or that is no better than chance to begin with.
    """
    at = np.array(doses, np.float64)
    half = (accuracy[:, :1] + chance) / 2
    below = accuracy <= half
    below[:, 0] = False
    falls = below.any(axis=1) & (accuracy[:, 0] > chance)
    after = np.where(falls, below.argmax(axis=1), 0)
    rows, before = np.arange(len(accuracy)), np.maximum(after - 1, 0)
    high, low = accuracy[rows, before], accuracy[rows, after]
    share = (high - half[:, 0]) / np.where(falls, high - low, 1)
    return np.where(falls, at[before] + share * (at[after] - at[before]), np.nan)
