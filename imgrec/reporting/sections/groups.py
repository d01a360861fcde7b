"""Whether all are served alike: frequent and rare classes, groups of images, doubtful labels."""

from collections.abc import Mapping, Sequence
from typing import Any

from imgrec.reporting import charts, parts, plots
from imgrec.reporting.parts import Details, Item, Numbers, Part, Picture, Table, Text, of
from imgrec.reporting.units import number, percent

_MOST_COLUMNS = 12  # that are drawn; the rest is in metrics.json
_MOST_SUSPECTS = 20
_DIFFERENCES = {
    "demographic_parity_difference": "how often a class is predicted",
    "equalised_odds_difference": "true and false positive rates",
}
_CORRECTIONS = {
    "uncorrected": "as trained",
    "tau_1": "corrected for class frequency",
    "tau_validation": "corrected, strength by validation",
}


def imbalance(numbers: Numbers) -> Part:
    """Head, medium and tail classes, before and after correcting for how frequent they are."""
    train = numbers["train"]
    ratio = "some classes have none" if train["ratio"] is None else f"ratio {train['ratio']:.3g}"
    even = "" if train["imbalanced"] else " The classes are about equally frequent, so there is "
    items: list[Item] = [
        Text(
            f"Training images a class: {train['smallest']:,} to {train['largest']:,} ({ratio})."
            + (even and even + "little to correct.")
        )
    ]
    corrections = numbers["corrections"]
    names = [group["name"] for group in numbers["groups"]]
    items.append(
        Table(
            ("", "accuracy", "balanced accuracy", *(f"recall, {name}" for name in names)),
            [
                (
                    _CORRECTIONS[c["name"]] + (f" (tau {c['tau']:g})" if c["tau"] else ""),
                    percent(c["accuracy"], of(c, "accuracy")),
                    percent(c["balanced_accuracy"], of(c, "balanced_accuracy")),
                    *(percent(g["mean_recall"], of(g, "mean_recall"), 1) for g in c["groups"]),
                )
                for c in corrections
            ],
            caption=f"Groups of classes: {numbers['grouping']['said']}. Corrected: tau times the "
            "log of the class's share of training is taken off its logit (Menon et al. 2021).",
        )
    )
    if len(names) > 1:
        items.append(
            Picture(
                "head_to_tail.svg",
                charts.bars(
                    names,
                    {
                        _CORRECTIONS[c["name"]]: [g["mean_recall"] for g in c["groups"]]
                        for c in corrections
                    },
                    y_label="mean recall",
                    x_label="classes by number of training images",
                ),
                "What frequent classes gain at the cost of rare ones, and what the correction "
                "gives back.",
            )
        )
    return Part(
        "imbalance",
        "Frequent and rare classes",
        "Whether rare classes pay for frequent ones.",
        [*items, *parts.notes(numbers)],
    )


def groups(numbers: Numbers) -> Part:
    """Accuracy of every group of every column, the worst first, and fairness gaps."""
    sections: Mapping[str, Any] = {**numbers["columns"], **numbers["intersections"]}
    ranked = [each["column"] for each in numbers["by_gap"]]
    rest = [name for name in sections if name not in ranked]
    items: list[Item] = []
    if numbers["by_gap"]:
        items.append(
            Table(
                (
                    "groups by",
                    "worst group",
                    "images",
                    "its accuracy",
                    "gap to the best",
                    "p (Holm)",
                ),
                [
                    (
                        each["column"],
                        str(each["worst"]),
                        f"{each['n']:,}",
                        percent(each["accuracy"]),
                        f"{100 * each['accuracy_gap']:.2f} points",
                        _p(each["p_permutation_holm"]),
                    )
                    for each in numbers["by_gap"]
                ],
                caption="The widest gaps first. p: how often groups of these sizes would differ as "
                "much by chance, corrected for how many columns were looked at.",
            )
        )
    shown = [*ranked, *rest][:_MOST_COLUMNS]
    for name in shown:
        if sections[name]["groups"]:
            items.append(_column(name, sections[name]))
    if len(sections) > len(shown):
        items.append(Text(f"{len(sections) - len(shown)} more are in metrics.json.", faint=True))
    if table := _fairness(sections):
        items.append(Details("Fairness by its usual names", [table]))
    small = [
        f"{name} = {each['value']} ({each['n']})"
        for name, section in sections.items()
        for each in section["too_small"]
    ]
    if small:
        items.append(
            Text(
                f"Too small to say (fewer than {numbers['smallest']} images): "
                + "; ".join(small[:30])
                + ("; and more" if len(small) > 30 else "")
                + ".",
                faint=True,
            )
        )
    items += [Text(f"{name}: {why}", faint=True) for name, why in numbers["refused"].items()]
    return Part(
        "groups",
        "Groups of images",
        "Accuracy of every group that the data set tells of, or that can be measured of the "
        "images. Lines are 95 % intervals.",
        [*items, *parts.notes(numbers)],
    )


def _column(name: str, section: Numbers) -> Picture:
    every: Sequence[Numbers] = section["groups"]
    total = sum(g["n"] * g["accuracy"] for g in every) / max(1, sum(g["n"] for g in every))
    return Picture(
        f"group_{_file(name)}.svg",
        charts.dots(
            [str(g["value"]) for g in every],
            {
                "accuracy": [g["accuracy"] for g in every],
                "expected from its classes alone": [g["accuracy_of_class_mix"] for g in every],
            },
            {"accuracy": [of(g, "accuracy") for g in every]},
            x_label="accuracy",
            title=name,
            level=(total, "all"),
            notes=[f"n {g['n']:,}" for g in every],
        ),
    )


def _fairness(sections: Mapping[str, Numbers]) -> Table | None:
    rows = []
    for name, section in sections.items():
        fairness = section.get("fairness") or {}
        two = fairness.get("positive_label_1")
        found = two or fairness.get("macro_over_classes")
        if not found:
            continue
        rows.append(
            (
                name,
                "second class is positive" if two else "mean over classes",
                *(
                    f"{number(found.get(key), of(found, key))} "
                    f"(by chance {number(found['if_alike'].get(key))})"
                    for key in _DIFFERENCES
                ),
            )
        )
    if not rows:
        return None
    return Table(
        ("groups by", "convention", "demographic parity difference", "equalised odds difference"),
        rows,
        caption="Differences of "
        + " and of ".join(_DIFFERENCES.values())
        + " between the two groups that differ most.",
    )


def label_errors(numbers: Numbers, material: Mapping[str, Any] | None = None) -> Part:
    """Suspected labels, with their images where these are at hand."""
    items: list[Item] = [
        Text(
            f"About {percent(numbers['estimated_share'], of(numbers, 'estimated_share'))} of the "
            f"labels are estimated to be wrong ({numbers['n_suspects']:,} suspects). The model's "
            "own mistakes are among them: a person should look before anything is changed."
        )
    ]
    if numbers.get("truth"):
        truth = numbers["truth"]
        items.append(
            Text(
                f"Here it is known which labels are wrong ({truth['wrong']:,}): precision "
                f"{percent(truth['precision'], of(truth, 'precision'))}, recall "
                f"{percent(truth['recall'], of(truth, 'recall'))}."
            )
        )
    if material:
        items.append(
            Picture(
                "label_errors.png",
                plots.png(plots.image_grid(material["images"], material["captions"], 8)),
                "The likeliest label errors: the label given, and what the model would say.",
                wide=True,
            )
        )
    if numbers["pairs"]:
        items.append(
            Table(
                ("labelled", "perhaps", "suspects", "estimated"),
                [
                    (p["given"], p["suggested"], str(p["suspects"]), f"{p['estimated']:.1f}")
                    for p in numbers["pairs"][:10]
                ],
            )
        )
    if numbers["suspects"]:
        table = Table(
            ("position in the split", "labelled", "perhaps", "probability of that"),
            [
                (str(s["index"]), s["given"], s["suggested"], percent(s["probability"], digits=1))
                for s in numbers["suspects"][:_MOST_SUSPECTS]
            ],
        )
        items.append(Details("The likeliest as a table", [table]))
    return Part(
        "label_errors",
        "Likely label errors",
        "Labels that the model contradicts more than its usual doubt explains (confident "
        "learning).",
        [*items, *parts.notes(numbers)],
    )


def _p(value: float | None) -> str:
    return "–" if value is None else "< 0.001" if value < 0.001 else f"{value:.3f}"


def _file(name: str) -> str:
    return "".join(c if c.isalnum() else "_" for c in name)[:60]
