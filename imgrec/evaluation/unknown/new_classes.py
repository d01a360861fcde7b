"""New classes without training: the mean of a few images' features is all that a class needs.

The network stays as it is. Each class, old or new, is the mean of its training images' features
at length 1, and an image is of the class whose mean is nearest in direction (Mensink et al. 2013;
Snell et al. 2017, with the cosine). Old classes pay for the new ones that come between them.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float, Float32, Int32
from scipy import stats

from imgrec.evaluation import bootstrap
from imgrec.evaluation.unknown.ood_scores import Outputs
from imgrec.transfer import neighbours, prototypes

SHOTS = (1, 5, 25)
DRAWS = 20

_STREAM = 0x0AD0  # of the random numbers, beside the seed

Features = Float32[np.ndarray, "n features"]
Labels = Int32[np.ndarray, " n"]


def new_classes(
    *,
    train: Outputs,
    test: Outputs,
    held_out_train: Outputs,
    held_out: Outputs,
    held_out_names: Sequence[str],
    shots: Sequence[int] = SHOTS,
    draws: int = DRAWS,
    seed: int = 0,
) -> dict[str, Any]:
    """The accuracy on old and new classes when the new ones are added from a few images.

    Args:
      train: outputs ("features", "label") for training images of the old classes.
      test: for their test images, "logits" too.
      held_out_train: for images of the new classes to draw from, labels counted among them.
      held_out: for their test images.
      held_out_names: of the new classes.
      shots: images a new class.
      draws: how often they are drawn anew.
      seed: of the draws; more shots of one draw keep the fewer.

    Returns:
      n_old, n_new: test images; n: of both; held_out_names; draws;
      old_alone: {network_accuracy, of the network's own head on the old classes;
        prototype_accuracy, of the nearest mean among old classes; n; intervals (Wilson)};
      added: a list by rising shots, the last with all images there are: {shots (None for all);
        draws; n; old_accuracy, new_accuracy, overall_accuracy (of all test images together):
        means over the draws; std: {of each, with n - 1}; intervals: {of each mean, by Student's
        t over the draws, or Wilson's for the one draw of all}};
      reasons: why some shots are not there, by "shots_25".

    Raises:
      ValueError: there are no images of the old or of the new classes, a class has none to make
        a prototype of, or the features are not finite.
    """
    sets = (train, test, held_out_train, held_out)
    if not all(len(outputs["label"]) for outputs in sets):
        raise ValueError("Old and new classes both need training and test images.")
    if not all(np.isfinite(outputs["features"]).all() for outputs in sets):
        raise ValueError("The features are not all finite numbers, so no class has a mean.")
    old = test["logits"].shape[1]
    names = list(held_out_names)
    pool, pool_labels = neighbours.normalised(held_out_train["features"]), held_out_train["label"]
    sizes = np.bincount(pool_labels, minlength=len(names))
    if missing := [names[i] for i in np.flatnonzero(sizes == 0)]:
        raise ValueError(f"There is no image to add the class {missing[0]!r} from.")
    old_means = prototypes.class_means(
        neighbours.normalised(train["features"]), train["label"], old
    )
    queries = np.concatenate([test["features"], held_out["features"]])
    truth = np.concatenate([test["label"], old + held_out["label"]])

    def right(chosen: np.ndarray) -> dict[str, int]:
        """How many are named rightly, with the new classes made of these images of the pool."""
        means = prototypes.class_means(pool[chosen], pool_labels[chosen], len(names))
        said = _nearest(np.concatenate([old_means, means]), queries)
        return {
            "old": int(np.sum((said == truth)[: len(test["label"])])),
            "new": int(np.sum((said == truth)[len(test["label"]) :])),
        }

    counts = {"old": len(test["label"]), "new": len(held_out["label"])}
    reasons, added = {}, []
    orders = [_shuffled(pool_labels, (seed, _STREAM, draw)) for draw in range(draws)]
    for k in sorted(shots):
        if sizes.min() < k:
            few = names[int(sizes.argmin())]
            reasons[f"shots_{k}"] = f"The class {few!r} has {sizes.min()} training images."
            continue
        found = [right(np.concatenate([rows[:k] for rows in order])) for order in orders]
        added.append({"shots": k, **_over_draws(found, counts)})
    added.append({"shots": None, **_over_draws([right(np.arange(len(pool)))], counts)})
    return {
        "n_old": counts["old"],
        "n_new": counts["new"],
        "n": counts["old"] + counts["new"],
        "held_out_names": names,
        "draws": draws,
        "old_alone": _old_alone(test, old_means),
        "added": added,
        "reasons": reasons,
    }


def _nearest(means: Float32[np.ndarray, "classes features"], features: Features) -> Labels:
    said: Labels = prototypes.cosine(means, features, temperature=1.0).argmax(axis=1)
    return said.astype(np.int32)


def _shuffled(labels: Labels, seed: tuple[int, ...]) -> list[np.ndarray]:
    """The rows of each class in an order of this seed."""
    order = np.random.default_rng(seed).permutation(len(labels))
    return [order[labels[order] == label] for label in range(labels.max() + 1)]


def _old_alone(test: Outputs, means: Float32[np.ndarray, "classes features"]) -> dict[str, Any]:
    n = len(test["label"])
    said = {
        "network_accuracy": test["logits"].argmax(axis=1),
        "prototype_accuracy": _nearest(means, test["features"]),
    }
    right = {name: int(np.sum(labels == test["label"])) for name, labels in said.items()}
    return {
        **{name: right[name] / n for name in right},
        "n": n,
        "intervals": {name: bootstrap.wilson(right[name], n) for name in right},
    }


def _over_draws(right: list[dict[str, int]], counts: Mapping[str, int]) -> dict[str, Any]:
    n = sum(counts.values())
    hits = {name: np.array([each[name] for each in right]) for name in counts}
    accuracies = {f"{name}_accuracy": hits[name] / counts[name] for name in counts}
    accuracies["overall_accuracy"] = (hits["old"] + hits["new"]) / n
    if len(right) == 1:
        totals = {f"{name}_accuracy": (int(hits[name][0]), counts[name]) for name in counts}
        totals["overall_accuracy"] = (int(hits["old"][0] + hits["new"][0]), n)
        intervals = {name: bootstrap.wilson(*total) for name, total in totals.items()}
    else:
        intervals = {name: mean_over_draws(values) for name, values in accuracies.items()}
    return {
        "draws": len(right),
        "n": n,
        **{name: float(values.mean()) for name, values in accuracies.items()},
        "std": {
            name: float(values.std(ddof=1)) if len(right) > 1 else None
            for name, values in accuracies.items()
        },
        "intervals": intervals,
    }


def mean_over_draws(values: Float[np.ndarray, " draws"], level: float = 0.95) -> list[float] | None:
    """[low, high] for the mean over draws without end, by Student's t; None for one draw.

    The images tested stay the same, so it is about the luck of the draw and nothing else.
    """
    if len(values) < 2:
        return None
    half = stats.t.ppf((1 + level) / 2, len(values) - 1) * values.std(ddof=1) / len(values) ** 0.5
    return [float(values.mean() - half), float(values.mean() + half)]
