"""Classification by the nearest class mean (Mensink et al. 2013); nothing is fitted but means."""

import numpy as np
from jaxtyping import Float32, Int32

from imgrec.errors import UserError
from imgrec.transfer.neighbours import normalised
from imgrec.transfer.probe import Linear


def class_means(
    features: Float32[np.ndarray, "n features"], labels: Int32[np.ndarray, " n"], num_classes: int
) -> Float32[np.ndarray, "classes features"]:
    """The mean of each class's features.

    Raises:
      UserError: a class has no example.
    """
    counts = np.bincount(labels, minlength=num_classes)
    if missing := np.flatnonzero(counts == 0).tolist():
        raise UserError(
            f"{len(missing)} of {num_classes} classes have no training image, and so no prototype; "
            f"the first has the number {missing[0]}. Give more with --config.data.per_class=0."
        )
    sums = np.zeros((num_classes, features.shape[1]))
    np.add.at(sums, labels, features.astype(np.float64))
    return (sums / counts[:, None]).astype(np.float32)


def euclidean(means: Float32[np.ndarray, "classes features"]) -> Linear:
    """-|x - mean|^2 / 2 up to what all classes share: their log likelihoods under unit variance.

    It is linear in x: mean . x - |mean|^2 / 2.
    """
    squares = np.sum(means.astype(np.float64) ** 2, axis=1)
    return Linear(np.ascontiguousarray(means.T), (-squares / 2).astype(np.float32))


def cosine(
    means: Float32[np.ndarray, "classes features"],
    features: Float32[np.ndarray, "n features"],
    *,
    temperature: float,
) -> Float32[np.ndarray, "n classes"]:
    """The cosines between features and class means, over a temperature.

    The means are to be those of normalised features.
    """
    return normalised(features) @ normalised(means).T / np.float32(temperature)
