"""The numbers of a model card: what was measured, with n and intervals, and what was not."""

from collections.abc import Callable, Sequence

from imgrec.reporting import markdown
from imgrec.reporting.markdown import escaped
from imgrec.reporting.parts import Numbers, of
from imgrec.reporting.units import number, p_value, percent

_MOST_CLASSES = 15  # that a table has
_MOST_GROUPS = 40
_ECE = "ece_equal_width_15"


def analyses(metrics: Numbers) -> list[str]:
    """Headings and what is below them, of what `metrics.json` of the test split holds."""
    sections: Sequence[tuple[str, str, Callable[[Numbers], str]]] = (
        ("calibration", "Calibration", _calibration),
        ("groups", "Groups", _groups),
        ("robustness", "Corrupted images", _robustness),
        ("sweeps", "Turned, covered and darkened images", _sweeps),
        ("adversarial", "Attacked images", _adversarial),
        ("label_errors", "Doubtful labels", _label_errors),
    )
    parts = ["### Overall", _overall(metrics), "### Classes", _classes(metrics)]
    for name, title, write in sections:
        found = metrics.get(name)
        parts += [f"### {title}", write(found) if found else not_measured(name, metrics)]
    return parts


def not_measured(section: str, metrics: Numbers) -> str:
    """Why a section of the metrics is not there, or what would bring it."""
    why = (metrics.get("missing") or {}).get(section)
    if why:
        return f"Not measured: {escaped(why)}."
    full = " --suite=full" if section in ("robustness", "sweeps", "adversarial") else ""
    with_ood = " --ood=DATASET" if section == "unseen" else ""
    return (
        f"Not measured. `python -m imgrec.evaluate --workdir=RUN{full}{with_ood}` would measure it."
    )


def _overall(metrics: Numbers) -> str:
    if "accuracy" not in metrics:
        return "Not measured: there are no metrics of the test split."
    rows = [
        ("accuracy", percent(metrics["accuracy"], of(metrics, "accuracy"))),
        (
            "among the five likeliest",
            percent(metrics.get("top_5_accuracy"), of(metrics, "top_5_accuracy")),
        ),
        (
            "balanced accuracy",
            percent(metrics.get("balanced_accuracy"), of(metrics, "balanced_accuracy")),
        ),
        ("negative log likelihood (nats)", number(metrics.get("loss"), of(metrics, "loss"), 4)),
        ("images", f"{metrics['n']:,}"),
    ]
    return markdown.table(("measure", "value [95 % interval]"), rows)


def _classes(metrics: Numbers) -> str:
    every = metrics.get("per_class") or ()
    if not every:
        return "Not measured: there are no metrics of the test split."
    shown = sorted(every, key=lambda c: c["recall"])[:_MOST_CLASSES]
    text = markdown.table(
        ("class", "images", "recall", "precision"),
        [
            (
                c["name"],
                f"{c['support']:,}",
                percent(c["recall"] if c["support"] else None, of(c, "recall"), 1),
                percent(c["precision"], of(c, "precision"), 1),
            )
            for c in shown
        ],
    )
    if len(shown) < len(every):
        text += f"\n\nThe {len(shown)} classes of least recall, of {len(every):,}."
    return text


def _calibration(found: Numbers) -> str:
    rows = []
    for name, title in (("before", "as trained"), ("after", "after temperature scaling")):
        if scores := found.get(name):
            rows.append(
                (
                    title,
                    percent(scores[_ECE], of(scores, _ECE)),
                    percent(scores["overconfidence"], of(scores, "overconfidence")),
                    number(scores["nll"], of(scores, "nll"), 4),
                    f"{scores['n']:,}",
                )
            )
    if not rows:
        return "Not measured: " + escaped(
            "; ".join(found.get("reasons", {}).values()) or "no reason given"
        )
    header = ("", "calibration error (15 bins of equal width)", "overconfidence", "nats", "images")
    text = markdown.table(header, rows)
    if temperature := found.get("temperature"):
        text += (
            f"\n\nThe temperature {temperature:.3f} was fitted on {found['n_validation']:,} "
            "validation images; it changes how sure the model is, never what it says."
        )
    return text


def _groups(found: Numbers) -> str:
    rows = [
        (
            name,
            group["value"],
            f"{group['n']:,}",
            percent(group["accuracy"], of(group, "accuracy"), 1),
            percent(group["accuracy_of_class_mix"], digits=1),
        )
        for name, section in {**found["columns"], **found["intersections"]}.items()
        for group in section["groups"]
    ]
    if not rows:
        return "No group has enough images to be told about."
    parts = [
        markdown.table(
            ("groups by", "group", "images", "accuracy", "expected of its classes"),
            rows[:_MOST_GROUPS],
        )
    ]
    if len(rows) > _MOST_GROUPS:
        parts.append(f"The first {_MOST_GROUPS} of {len(rows):,} groups; metrics.json has all.")
    if found["by_gap"]:
        header = ("groups by", "worst group", "its accuracy", "gap to the best", "p (Holm)")
        gaps = [
            (
                each["column"],
                each["worst"],
                percent(each["accuracy"], digits=1),
                f"{100 * each['accuracy_gap']:.1f} points",
                p_value(each["p_permutation_holm"]),
            )
            for each in found["by_gap"]
        ]
        parts += [
            "The widest gaps first; p is how often chance alone would set groups as far apart:"
        ]
        parts.append(markdown.table(header, gaps))
    small = [
        f"{escaped(name)} = {escaped(each['value'])} ({each['n']})"
        for name, section in {**found["columns"], **found["intersections"]}.items()
        for each in section["too_small"]
    ]
    if small:
        few = "; ".join(small[:20]) + ("; and more" if len(small) > 20 else "")
        parts.append(f"Too small to say (fewer than {found['smallest']} images): {few}.")
    return "\n\n".join(parts)


def _robustness(found: Numbers) -> str:
    rows = [
        (kind["name"], kind.get("category", ""), percent(kind["accuracy"], of(kind, "accuracy"), 1))
        for kind in sorted(found["per_kind"], key=lambda kind: kind["accuracy"])
    ]
    return (
        f"Accuracy falls from {percent(found['clean_accuracy'], of(found, 'clean_accuracy'))} to "
        f"{percent(found['mean_corrupted_accuracy'], of(found, 'mean_corrupted_accuracy'))} on "
        f"average over the kinds and severities of the profile {escaped(found['profile'])} (n "
        f"{found['n']:,}).\n\n"
        + markdown.table(("corruption", "of", "accuracy, mean of severities"), rows)
    )


def _sweeps(found: Numbers) -> str:
    rows = [
        (
            name,
            "never, in the range tried"
            if curve.get("half_accuracy_dose") is None
            else f"{curve['half_accuracy_dose']:.3g} {curve.get('unit', '')}",
            percent(min(curve["accuracy"]), digits=1),
        )
        for name, curve in found["curves"].items()
    ]
    header = ("change", "accuracy is halfway to chance at", "lowest accuracy")
    return markdown.table(header, rows)


def _adversarial(found: Numbers) -> str:
    rows = [
        (
            f"{255 * epsilon:.3g}/255",
            percent(found["fgsm"]["accuracy"][i], digits=1),
            percent(found["pgd"]["accuracy"][i], digits=1),
        )
        for i, epsilon in enumerate(found["epsilons"])
    ]
    return markdown.table(("largest change of a pixel", "FGSM accuracy", "PGD accuracy"), rows)


def _label_errors(found: Numbers) -> str:
    share = percent(found["estimated_share"], of(found, "estimated_share"))
    return (
        f"About {share} of the test labels are estimated to be wrong ({found['n_suspects']:,} "
        "suspects, to be looked at by a person), by confident learning."
    )
