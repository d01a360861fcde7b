"""A classifier where images of unknown classes come among the known: open-set recognition.

It is to name known images rightly and to say of the others that it does not know them. Images of
the held-out classes come from the data set that the network was trained on, so nothing tells them
apart but what they show (Neal et al. 2018; Vaze et al. 2022).
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Float64

from imgrec.evaluation import bootstrap
from imgrec.evaluation.unknown import ood_metrics, ood_scores
from imgrec.evaluation.unknown.ood_metrics import Counts, Ranked
from imgrec.evaluation.unknown.ood_scores import Outputs
from imgrec.evaluation.unknown.unseen import against, detector


def open_set(
    *,
    train: Outputs,
    validation: Outputs | None,
    test: Outputs,
    held_out: Outputs,
    held_out_names: Sequence[str],
    variables: Mapping[str, Any] | None = None,
    odin: Mapping[str, Any] | None = None,
    seed: int = 0,
    resamples: int = 1000,
) -> dict[str, Any]:
    """How well known classes are recognised and unknown ones refused, score by score.

    Args:
      train: outputs ("logits", "features", "label") for training images of the known classes.
      validation: for validation images of them, by which thresholds are set.
      test: for their test images.
      held_out: for test images of the classes that training never saw.
      held_out_names: of these classes.
      variables: of the network, whose head the score ViM looks at.
      odin: what `odin.measure` says of the sets "validation", "test" and "held_out"; None leaves
        ODIN out.
      seed: of the resamples.
      resamples: how many.

    Returns:
      n (known test images), n_unknown, n_validation, held_out_names;
      closed_set_accuracy on the known, and intervals of it;
      best_score: with the greatest OSCR;
      scores: by name of the score, {title, threshold, kept, and what `ood_metrics.separation`
        returns, with rejected, roc and histogram as in `unseen`;
        oscr: area under the curve of the known classified rightly and accepted (CCR) against
          the unknown accepted (FPR) (Dhamija et al. 2018, section 4), at most the closed-set
          accuracy;
        correct_and_kept: share of the known that is, at the threshold;
        ccr_at_fpr_10: CCR where at most 10 % of the unknown are accepted;
        oscr_curve: {"fpr": [...], "ccr": [...]}};
      odin, reasons, notes as of `unseen`.

    Raises:
      ValueError: there are no test images of the known classes, or none of the unknown.
    """
    n, n_unknown = len(test["label"]), len(held_out["label"])
    if not n or not n_unknown:
        raise ValueError(f"{n} known and {n_unknown} unknown images say nothing of an open set.")
    fitted = ood_scores.fit(train, variables)
    sets = {"validation": validation, "test": test, "held_out": held_out}
    scored = {
        name: fitted.of(outputs, None if odin is None else odin["scores"][name])
        for name, outputs in sets.items()
        if outputs is not None
    }
    right = test["logits"].argmax(axis=1) == test["label"]
    weights = ood_metrics.resampled(n, n_unknown, seed=seed, count=resamples)
    scores = {
        name: _score(name, {of: found[name] for of, found in scored.items()}, right, weights)
        for name in scored["test"]
    }
    defined = [name for name in scores if scores[name]["oscr"] is not None]
    reasons = {}
    if validation is None:
        reasons["threshold"] = "There is no validation split to set it by."
    if odin is None:
        reasons["odin"] = "It was not asked for: it takes two more passes over each set."
    return {
        "n": n,
        "n_unknown": n_unknown,
        "n_validation": 0 if validation is None else len(validation["label"]),
        "held_out_names": list(held_out_names),
        "closed_set_accuracy": float(right.mean()),
        "intervals": {"closed_set_accuracy": bootstrap.wilson(int(right.sum()), n)},
        "best_score": max(defined, key=lambda name: scores[name]["oscr"], default=None),
        "scores": scores,
        "odin": None if odin is None else dict(odin["chosen"]),
        "reasons": reasons,
        "notes": list(fitted.notes),
    }


def _score(
    name: str,
    scored: Mapping[str, Float64[np.ndarray, " _"]],
    right: Bool[np.ndarray, " n"],
    weights: ood_metrics.Weights,
) -> dict[str, Any]:
    test, unknown = scored["test"], scored["held_out"]
    here = detector(name, scored.get("validation"), test)
    found = {**here, **against(test, unknown, here["threshold"], weights)}
    found["intervals"] |= here["intervals"]
    nothing = dict.fromkeys(("oscr", "ccr_at_fpr_10", "correct_and_kept"))
    found |= {**nothing, "oscr_curve": None}
    found["intervals"] |= nothing
    if reason := ood_metrics.undefined(test, unknown):
        found["reasons"]["oscr"] = reason
        return found
    areas = classification_rates(test, unknown, right, weights)
    found["intervals"] |= areas.pop("intervals")
    found |= areas
    if here["threshold"] is not None:
        kept = int(np.sum(right & (test >= here["threshold"])))
        found["correct_and_kept"] = kept / len(test)
        found["intervals"]["correct_and_kept"] = bootstrap.wilson(kept, len(test))
    return found


def classification_rates(
    known: Float[np.ndarray, " n"],
    unknown: Float[np.ndarray, " m"],
    right: Bool[np.ndarray, " n"],
    weights: ood_metrics.Weights | None = None,
) -> dict[str, Any]:
    """Numbers of the curve of correct classifications against unknown images accepted.

    Args:
      known: scores of images of known classes.
      unknown: scores of others.
      right: which of the known are classified rightly.
      weights: resamples of both, for intervals.

    Returns:
      oscr: the area by trapezoids, which is the share of pairs of a known and an unknown image
        in which the known one is right and scores higher, ties being half; ccr_at_fpr_10;
        intervals of both; oscr_curve: {"fpr": [...], "ccr": [...]}.
    """
    n = len(known)
    # Those classified wrongly are right at no level; as resamples draw them too, n stays.
    drawn = None if weights is None else (weights[0][:, right], weights[1])
    ranked = Ranked.of(known[right], unknown)

    def oscr(correct: Counts, unknown: Counts) -> Float64[np.ndarray, " count"]:
        between = (unknown[:, 1:] + unknown[:, :-1]) / 2
        return np.einsum("ij,ij->i", np.diff(correct, axis=1), between) / (n * unknown[:, -1])

    def ccr_at_fpr_10(correct: Counts, unknown: Counts) -> Float64[np.ndarray, " count"]:
        few = unknown[:, -1:] - unknown <= 0.1 * unknown[:, -1:] + 1e-6
        level = np.argmax(few, axis=1)
        return (correct[:, -1] - correct[np.arange(len(correct)), level]) / n

    metrics = {"oscr": oscr, "ccr_at_fpr_10": ccr_at_fpr_10}
    correct, others = (counts[0] for counts in ranked.plain())
    ccr, fpr = (correct[-1] - correct) / n, 1 - others / others[-1]
    chosen = ood_metrics.thinned(-(ccr + fpr))[::-1]
    return {
        **ood_metrics.resampled_metrics(ranked, metrics, drawn),
        "oscr_curve": {"fpr": fpr[chosen].tolist(), "ccr": ccr[chosen].tolist()},
    }
