"""What an evaluation found a model to be weak at, in sentences with the number behind each.

Only what resampling or a test can tell from chance is said; a weakness nobody looked for is not
here.
"""

from collections.abc import Iterator
from typing import Any

from imgrec.evaluation import bootstrap
from imgrec.reporting.markdown import escaped
from imgrec.reporting.parts import Numbers, of
from imgrec.reporting.units import percent

ALPHA = 0.05
_MOST_CLASSES = 3
_MOST_GROUPS = 3
_FEW = 100  # images of a class or a split, below which a number says little


def weaknesses(metrics: Numbers) -> list[str]:
    """Sentences in Markdown on the weakest points in `metrics.json`, the plainest first."""
    return [
        *_classes(metrics),
        *_confusion(metrics),
        *_groups(metrics.get("groups")),
        *_calibration((metrics.get("calibration") or {}).get("before")),
        *_corruptions(metrics.get("robustness")),
        *_unseen(metrics.get("unseen")),
        *_labels(metrics.get("label_errors")),
        *_size(metrics),
    ]


def _classes(metrics: Numbers) -> Iterator[str]:
    """Classes whose recall lies below the overall accuracy, chance allowed for in all of them."""
    every = [c for c in metrics.get("per_class") or () if c["support"]]
    level = 1 - ALPHA / max(1, len(every))
    for c in sorted(every, key=lambda c: c["recall"])[:_MOST_CLASSES]:
        interval = bootstrap.wilson(round(c["recall"] * c["support"]), c["support"], level)
        if interval and interval[1] < metrics["accuracy"]:
            yield (
                f"The class {escaped(c['name'])} is found less often than most: recall "
                f"{percent(c['recall'], of(c, 'recall'), 1)}, n {c['support']:,}."
            )


def _confusion(metrics: Numbers) -> Iterator[str]:
    for pair in (metrics.get("most_confused") or ())[:1]:
        if pair["count"] > 1:
            yield (
                f"{escaped(pair['true'])} is most often taken for {escaped(pair['predicted'])}: "
                f"{pair['count']:,} times, {percent(pair['share_of_true'], digits=1)} of the class."
            )


def _groups(found: Numbers | None) -> Iterator[str]:
    """Groups that chance would seldom set so far apart."""
    certain = [
        each for each in (found or {}).get("by_gap", ()) if each["p_permutation_holm"] < ALPHA
    ]
    for each in certain[:_MOST_GROUPS]:
        yield (
            f"By {escaped(each['column'])}, the group {escaped(each['worst'])} has an accuracy of "
            f"{percent(each['accuracy'], digits=1)} (n {each['n']:,}), "
            f"{100 * each['accuracy_gap']:.1f} points below the best group."
        )


def _calibration(before: Numbers | None) -> Iterator[str]:
    interval = of(before, "overconfidence") if before else None
    if before and interval and (interval[0] > 0 or interval[1] < 0):
        way = "surer than it is right" if before["overconfidence"] > 0 else "too modest"
        yield (
            f"As trained it is {way}: confidence and accuracy differ by "
            f"{percent(abs(before['overconfidence']))} (n {before['n']:,}), calibration error "
            f"{percent(before['ece_equal_width_15'], of(before, 'ece_equal_width_15'))}."
        )


def _corruptions(found: Numbers | None) -> Iterator[str]:
    for worst in ((found or {}).get("worst_conditions") or ())[:1]:
        yield (
            f"Of the corruptions tried, {escaped(worst['kind'])} at severity {worst['severity']} "
            f"leaves least: accuracy {percent(worst['accuracy'], digits=1)}, "
            f"{percent(found['clean_accuracy'], digits=1) if found else ''} without."
        )


def _unseen(found: Numbers | None) -> Iterator[str]:
    """Sets of unknown images that are accepted more often than not."""
    for name, each in ((found or {}).get("sets") or {}).items():
        score: Any = each["scores"].get(each.get("best_score"))
        rejected = score and score.get("rejected")
        if rejected is not None and rejected < 0.5:
            yield (
                f"Most images of {escaped(name)}, which are of none of its classes, pass for "
                f"known: {percent(rejected, of(score, 'rejected'), 1)} are rejected where 95 % of "
                "its own are kept."
            )


def _labels(found: Numbers | None) -> Iterator[str]:
    interval = of(found, "estimated_share") if found else None
    if found and interval and interval[0] > 0:
        yield (
            f"Some test labels are likely wrong (an estimated "
            f"{percent(found['estimated_share'], interval)}), so no model should agree with all."
        )


def _size(metrics: Numbers) -> Iterator[str]:
    few = [c["name"] for c in metrics.get("per_class") or () if c["support"] < _FEW]
    if few:
        some = ", ".join(map(escaped, few[:5])) + (
            f" and {len(few) - 5} more" if len(few) > 5 else ""
        )
        yield f"Little can be said of classes with fewer than {_FEW} test images: {some}."
