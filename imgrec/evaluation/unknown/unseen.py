"""What a network makes of images unlike any it was trained on: out-of-distribution detection.

Every score is fitted on training images and its threshold set on validation images; the unknown
images are looked at once, at the end. Which score does best on a set of unknown images is known
only by looking at them, so the best of several is a little better than it would be elsewhere.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
from jaxtyping import Float64

from imgrec.evaluation import bootstrap
from imgrec.evaluation.unknown import ood_metrics, ood_scores
from imgrec.evaluation.unknown.ood_metrics import Ranked
from imgrec.evaluation.unknown.ood_scores import Outputs

Scored = Mapping[str, Float64[np.ndarray, " _"]]  # scores of one set, by the score's name


def unseen(
    *,
    train: Outputs,
    validation: Outputs | None,
    test: Outputs,
    ood: Mapping[str, Outputs],
    variables: Mapping[str, Any] | None = None,
    odin: Mapping[str, Any] | None = None,
    seed: int = 0,
    resamples: int = 1000,
) -> dict[str, Any]:
    """How well a network's own images are told from those of other data sets.

    Args:
      train: outputs ("logits", "features", "label") for a sample of training images.
      validation: for the validation split, by which thresholds are set.
      test: for the test split.
      ood: for each set of unknown images, by name.
      variables: of the network, whose head the score ViM looks at.
      odin: what `odin.measure` says of the sets "validation", "test" and those of `ood`; None
        leaves ODIN out.
      seed: of the resamples.
      resamples: how many.

    Returns:
      n (test), n_train, n_validation; accuracy on test, and intervals of it;
      scores: by name of the score, {title; threshold, the highest that keeps 95 % of validation
        (None without); kept, the share of test at or above it; n; intervals: of kept (Wilson)};
      sets: by name of the set, {n, n_ood; best_score, the one with the greatest AUROC (None
        where no score has one); scores: by name of the score, what `ood_metrics.separation`
        returns, with rejected, the share of the set below the threshold (Wilson interval), roc
        and histogram as of `ood_metrics.roc` and `ood_metrics.histograms` (None where the
        AUROC is)};
      odin: what was chosen and how, or None; reasons, which says in words why a value is None;
      notes, a list of sentences.

    Raises:
      ValueError: there are no test images, or a set of others has the name of one's own.
    """
    if not len(test["label"]):
        raise ValueError("There are no test images to tell unknown ones from.")
    if clash := ood.keys() & {"validation", "test"}:
        raise ValueError(f"A set of unknown images cannot be called {min(clash)!r}.")
    fitted = ood_scores.fit(train, variables)
    own = {"validation": validation, "test": test}
    scored = {
        name: fitted.of(outputs, None if odin is None else odin["scores"][name])
        for name, outputs in {**own, **ood}.items()
        if outputs is not None
    }
    right = test["logits"].argmax(axis=1) == test["label"]
    n = len(right)
    report: dict[str, Any] = {
        "n": n,
        "n_train": len(train["label"]),
        "n_validation": 0 if validation is None else len(validation["label"]),
        "accuracy": float(right.mean()),
        "intervals": {"accuracy": bootstrap.wilson(int(right.sum()), n)},
        "scores": {
            name: detector(name, scored.get("validation", {}).get(name), scored["test"][name])
            for name in scored["test"]
        },
        "sets": {},
        "odin": None if odin is None else dict(odin["chosen"]),
        "reasons": {},
        "notes": list(fitted.notes),
    }
    if validation is None:
        report["reasons"]["threshold"] = "There is no validation split to set it by."
    if odin is None:
        report["reasons"]["odin"] = "It was not asked for: it takes two more passes over each set."
    for name in ood:
        report["sets"][name] = _set(report["scores"], scored["test"], scored[name], seed, resamples)
    return report


def detector(
    score: str, validation: Float64[np.ndarray, " _"] | None, test: Float64[np.ndarray, " n"]
) -> dict[str, Any]:
    """A score with its threshold, and what that keeps of the test images.

    Returns:
      title, threshold, kept, n, intervals; the numbers None where there is no threshold.
    """
    threshold = None if validation is None else ood_metrics.threshold(validation)
    kept = None if threshold is None else int(np.sum(test >= threshold))
    return {
        "title": ood_scores.SOURCES[score],
        "threshold": threshold,
        "kept": None if kept is None else kept / len(test),
        "n": len(test),
        "intervals": {"kept": None if kept is None else bootstrap.wilson(kept, len(test))},
    }


def _set(
    detectors: Mapping[str, Any], test: Scored, others: Scored, seed: int, resamples: int
) -> dict[str, Any]:
    n, n_ood = (len(next(iter(some.values()))) for some in (test, others))
    weights = ood_metrics.resampled(n, n_ood, seed=seed, count=resamples) if n_ood else None
    found = {
        name: against(test[name], scores, detectors[name]["threshold"], weights)
        for name, scores in others.items()
    }
    defined = [name for name in found if found[name]["auroc"] is not None]
    best = max(defined, key=lambda name: found[name]["auroc"], default=None)
    return {"n": n, "n_ood": n_ood, "best_score": best, "scores": found}


def against(
    test: Float64[np.ndarray, " n"],
    others: Float64[np.ndarray, " m"],
    threshold: float | None,
    weights: ood_metrics.Weights | None,
) -> dict[str, Any]:
    """One score on the test images and on unknown ones: `separation`, rejected, roc, histogram."""
    found = ood_metrics.separation(test, others, weights)
    defined = found["auroc"] is not None
    found["rejected"] = found["intervals"]["rejected"] = None
    if threshold is None or not defined:
        found["reasons"]["rejected"] = found["reasons"].get("auroc", "There is no threshold.")
    else:
        rejected = int(np.sum(others < threshold))
        found["rejected"] = rejected / len(others)
        found["intervals"]["rejected"] = bootstrap.wilson(rejected, len(others))
    found["roc"] = ood_metrics.roc(Ranked.of(test, others)) if defined else None
    found["histogram"] = ood_metrics.histograms(test, others) if defined else None
    return found
