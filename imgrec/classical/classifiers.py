"""Classifiers by name: checked options, what they need of memory, fits, and scores.

All but the nearest neighbours are scikit-learn's. Scores are such that the largest names the
class; what turns them into logits whose softmax is honest is a temperature, fitted to the
validation split where scores are margins (SVMs), and 1 where they are log probabilities.
"""

import itertools
import os
import warnings
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float32, Float64, Int32

from imgrec.classical import neighbours
from imgrec.classical.packages import require
from imgrec.config import ClassifierConfig
from imgrec.errors import UserError, unknown
from imgrec.options import keyword_options

Rows = Float32[np.ndarray, "n features"]
Labels = Int32[np.ndarray, " n"]
Scores = Float64[np.ndarray, "n classes"]

# What a class without any probability is given, so that the loss of a surprise is finite.
FLOOR = 1e-6
_BLOCK = 512  # rows that are scored at a time


def svm(seed: int, *, c: float = 10.0, gamma: float = 0.0, standardise: bool = False) -> Any:
    """A support vector machine with the kernel exp(-gamma |x - y|^2) (Cortes and Vapnik 1995).

    Args:
      seed: of nothing here.
      c: cost of an error.
      gamma: of the kernel; 0 is 1 / (features x their variance).
      standardise: whether features are brought to mean 0 and deviation 1 first.
    """
    del seed
    estimator = require("sklearn.svm").SVC(
        C=c, gamma=gamma or "scale", cache_size=_CACHE_MB, break_ties=True
    )
    return _standardised(estimator) if standardise else estimator


def linear_svm(
    seed: int, *, c: float = 1.0, standardise: bool = False, max_iterations: int = 2000
) -> Any:
    """Linear support vector machines, one class against the others, by LIBLINEAR.

    Args:
      seed: of the order that it takes examples in, where it draws one.
      c: cost of an error.
      standardise: whether features are brought to mean 0 and deviation 1 first.
      max_iterations: of the solver.
    """
    estimator = require("sklearn.svm").LinearSVC(C=c, max_iter=max_iterations, random_state=seed)
    return _standardised(estimator) if standardise else estimator


def logistic_regression(
    seed: int, *, c: float = 1.0, standardise: bool = False, max_iterations: int = 1000
) -> Any:
    """Multinomial logistic regression, by L-BFGS.

    Args:
      seed: of nothing here.
      c: inverse strength of the regularisation, as a sum over examples.
      standardise: whether features are brought to mean 0 and deviation 1 first.
      max_iterations: of the solver.
    """
    del seed
    estimator = require("sklearn.linear_model").LogisticRegression(C=c, max_iter=max_iterations)
    return _standardised(estimator) if standardise else estimator


def random_forest(seed: int, *, trees: int = 300, max_depth: int = 0, least_leaf: int = 1) -> Any:
    """A random forest (Breiman 2001); each split looks at the square root of the features.

    Args:
      seed: of the examples and features that are drawn.
      trees: in the forest.
      max_depth: of a tree; 0 is without limit.
      least_leaf: examples in a leaf.
    """
    return require("sklearn.ensemble").RandomForestClassifier(
        trees,
        max_depth=max_depth or None,
        min_samples_leaf=least_leaf,
        n_jobs=-1,
        random_state=seed,
    )


def gradient_boosting(
    seed: int,
    *,
    iterations: int = 100,
    learning_rate: float = 0.1,
    leaves: int = 31,
    l2: float = 0.0,
) -> Any:
    """Gradient-boosted trees on binned features (Friedman 2001; Ke et al. 2017).

    Args:
      seed: of the examples that bins are made of.
      iterations: each of which adds a tree a class.
      learning_rate: what a tree's answer is multiplied by.
      leaves: of a tree, at most.
      l2: regularisation.
    """
    return require("sklearn.ensemble").HistGradientBoostingClassifier(
        max_iter=iterations,
        learning_rate=learning_rate,
        max_leaf_nodes=leaves,
        l2_regularization=l2,
        early_stopping=False,
        random_state=seed,
    )


class Neighbours:
    """The vote of the k nearest training images; rows and labels are all that is fitted."""

    def __init__(self, *, k: int = 3, metric: str = "euclidean", weights: str = "uniform"):
        """Knows nobody yet.

        Args:
          k: how many vote.
          metric: "euclidean", or "cosine", which is that of rows of length 1.
          weights: "uniform", or "distance": a vote counts by one over its distance.
        """
        self.k, self.metric, self.weights = k, metric, weights
        self.rows = np.zeros((0, 0), np.float32)
        self.labels = np.zeros(0, np.int32)

    def fit(self, rows: Rows, labels: Labels) -> "Neighbours":
        """Remembers them."""
        self.rows, self.labels = self._seen(rows), labels
        return self

    def predict_proba(self, rows: Rows) -> Scores:
        """Shares of the vote, for classes 0 up to the largest label."""
        distances, found = neighbours.nearest(self.rows, self._seen(rows), self.k)
        weights = np.ones_like(distances)
        if self.weights == "distance":
            # One that is the same image decides alone, as far as float64 can tell.
            weights = 1 / np.maximum(distances, 1e-12)
        votes = np.zeros((len(rows), int(self.labels.max()) + 1))
        np.add.at(votes, (np.arange(len(rows))[:, None], self.labels[found]), weights)
        return votes / votes.sum(axis=1, keepdims=True)

    def _seen(self, rows: Rows) -> Rows:
        if self.metric == "euclidean":
            return rows
        length = np.linalg.norm(rows, axis=1, keepdims=True)
        return rows / np.maximum(length, np.finfo(np.float32).tiny)


def knn(
    seed: int, *, k: int = 3, metric: str = "euclidean", weights: str = "uniform"
) -> Neighbours:
    """The vote of the nearest neighbours, on the devices; options as of `Neighbours`."""
    del seed
    return Neighbours(k=k, metric=metric, weights=weights)


@dataclass(frozen=True)
class Kind:
    """What is known of a classifier beside its options.

    Attributes:
      create: seed and options -> one that is not fitted.
      margins: its scores are no log probabilities, and want a temperature.
      row_bytes: that it takes for each number among the training features, beside the 4 that
        these take themselves.
      fixed_bytes: that it takes beside.
      most: training images that it is meant for.
    """

    create: Callable[..., Any]
    margins: bool
    row_bytes: int
    fixed_bytes: int = 0
    most: int = 10**9


_CACHE_MB = 500  # of kernel values that an SVM keeps
KINDS: Mapping[str, Kind] = {
    # float64 for LIBSVM, and its support vectors, which may be all of them.
    "svm": Kind(svm, True, 16, _CACHE_MB * 2**20, most=100_000),
    "linear_svm": Kind(linear_svm, True, 24),
    "logistic_regression": Kind(logistic_regression, False, 8),
    "random_forest": Kind(random_forest, False, 4),
    "gradient_boosting": Kind(gradient_boosting, False, 10),
    # Rows on the device, and distances of a block of queries.
    "knn": Kind(knn, False, 4, 2**28),
}
_CHOICES: Mapping[str, tuple[str, ...]] = {
    "metric": ("euclidean", "cosine"),
    "weights": ("uniform", "distance"),
}
_LEAST: Mapping[str, float] = {
    "k": 1,
    "c": 1e-9,
    "gamma": 0,
    "max_iterations": 1,
    "trees": 1,
    "max_depth": 0,
    "least_leaf": 1,
    "iterations": 1,
    "learning_rate": 1e-6,
    "leaves": 2,
    "l2": 0,
}


def candidates(config: ClassifierConfig, *, has_validation: bool) -> list[dict[str, Any]]:
    """The options of each candidate: all combinations of the values that options are given.

    Raises:
      UserError: an unknown classifier or option, an impossible value, a package that lacks, or
        several candidates and no validation split to choose by.
    """
    if config.name not in KINDS:
        raise unknown("classifier", config.name, KINDS)
    values = {
        name: tuple(value) if isinstance(value, tuple | list) else (value,)
        for name, value in config.options.items()
    }
    for name, given in values.items():
        if not given:
            raise UserError(f"config.classifier.options.{name} has no value; give one at least.")
        for value in given:
            keyword_options(KINDS[config.name].create, {name: value}, "classifier")
            _check_value(name, value)
    found = [
        keyword_options(
            KINDS[config.name].create, dict(zip(values, chosen, strict=True)), "classifier"
        )
        for chosen in itertools.product(*values.values())
    ]
    if len(found) > 1 and not has_validation:
        several = ", ".join(name for name, given in values.items() if len(given) > 1)
        raise UserError(
            f"The classifier {config.name!r} is to be chosen among {len(found)} by the validation "
            f"split ({several}), and there is none. Cut one with --config.data.validation=10%, or "
            "give one value each."
        )
    KINDS[config.name].create(0)  # whose package may lack
    return found


def fit(
    name: str, options: Mapping[str, Any], rows: Rows, labels: Labels, *, seed: int
) -> tuple[Any, list[str]]:
    """A classifier fitted to rows among which every class has one, and what was to warn of."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        estimator = KINDS[name].create(seed, **options).fit(rows, labels)
    return estimator, sorted({str(each.message).splitlines()[0] for each in caught})


def scores(
    estimator: Any, rows: Rows, shown: Callable[[int, int], None] = lambda done, total: None
) -> Scores:
    """What a fitted classifier says of each class: margins, or log probabilities.

    Args:
      estimator: of `fit`.
      rows: to be classified.
      shown: is told how many are done, of how many.
    """
    blocks = [rows[i : i + _BLOCK] for i in range(0, len(rows), _BLOCK)]
    found: list[Scores] = []
    # LIBSVM lets go of the interpreter and takes one core; the others share theirs out themselves.
    threads = _cores() if hasattr(estimator, "decision_function") else 1
    with ThreadPoolExecutor(threads) as pool:
        # Few are asked for at a time: the interpreter's end waits for all that were.
        for i in range(0, len(blocks), threads):
            found += pool.map(lambda block: _scores(estimator, block), blocks[i : i + threads])
            shown(sum(map(len, found)), len(rows))
    return np.concatenate(found)


def _scores(estimator: Any, rows: Rows) -> Scores:
    if hasattr(estimator, "decision_function"):
        margins = np.asarray(estimator.decision_function(rows), np.float64)
        # Of two classes there is one margin: the log odds of the second, where it is a logit.
        return margins if margins.ndim == 2 else np.stack([-margins / 2, margins / 2], axis=1)
    return np.log(np.maximum(estimator.predict_proba(rows), FLOOR))


def _check_value(name: str, value: Any) -> None:
    if name in _CHOICES and value not in _CHOICES[name]:
        raise unknown(f"value of config.classifier.options.{name}", value, _CHOICES[name])
    if name in _LEAST and not _LEAST[name] <= value < float("inf"):
        raise UserError(
            f"config.classifier.options.{name}={value!r} is impossible; it must be at least "
            f"{_LEAST[name]:g}."
        )


def _standardised(estimator: Any) -> Any:
    scaler = require("sklearn.preprocessing").StandardScaler()
    return require("sklearn.pipeline").make_pipeline(scaler, estimator)


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
