"""What the model has not learnt: images of other kinds, classes held out, classes to be added."""

from typing import Any

from imgrec.reporting import charts, parts
from imgrec.reporting.charts import Line
from imgrec.reporting.parts import Details, Item, Numbers, Part, Picture, Table, Text, of
from imgrec.reporting.units import percent

_SCORES = {
    "max_softmax": "largest probability",
    "max_logit": "largest logit",
    "energy": "energy",
    "odin": "ODIN",
    "mahalanobis": "Mahalanobis",
    "relative_mahalanobis": "relative Mahalanobis",
    "knn": "nearest neighbours",
    "vim": "ViM",
}


def unseen(numbers: Numbers) -> Part:
    """Every score against every set of unknown images."""
    items: list[Item] = []
    for name, found in numbers["sets"].items():
        best = found["best_score"]
        items.append(
            Table(
                (
                    f"against {name}",
                    "AUROC",
                    "AUPR, own",
                    "AUPR, unknown",
                    "unknown accepted at 95 % of own",
                    "own rejected at 95 % of unknown",
                    "rejected by the threshold",
                ),
                [_row(score, each, best) for score, each in found["scores"].items()],
                caption=f"{found['n']:,} of its own test images and {found['n_ood']:,} of {name}. "
                "Which score is best is known only by looking.",
            )
        )
        if best is not None:
            items += _charts(name, found["scores"][best], best, numbers["scores"][best])
    kept = [
        (_SCORES[score], percent(each["kept"], of(each, "kept")))
        for score, each in numbers["scores"].items()
    ]
    items.append(
        Details(
            "What the thresholds keep of the model's own images",
            [
                Table(
                    ("score", "own test images kept"),
                    kept,
                    caption="Each threshold keeps 95 % of the validation images.",
                )
            ],
        )
    )
    return Part(
        "unseen",
        "Unknown images",
        "Whether the model notices that an image is of a kind it was never shown. AUROC: how often "
        "an image of its own scores higher than an unknown one.",
        [*items, *parts.notes(numbers)],
    )


def _row(score: str, found: Numbers, best: str | None) -> tuple[str, ...]:
    mark = " (best)" if score == best else ""
    keys = ("auroc", "aupr_in", "aupr_out", "fpr95_id_positive", "fpr95_ood_positive", "rejected")
    return (
        _SCORES[score] + mark,
        percent(found["auroc"], of(found, "auroc")),
        *(percent(found[key]) for key in keys[1:]),
    )


def _charts(name: str, found: Numbers, score: str, detector: Numbers) -> list[Item]:
    items: list[Any] = []
    safe = "".join(c if c.isalnum() else "_" for c in name)[:40]
    if found.get("histogram"):
        histogram = found["histogram"]
        threshold = detector["threshold"]
        items.append(
            Picture(
                f"scores_{safe}.svg",
                charts.histograms(
                    histogram["edges"],
                    {"its own images": histogram["id"], name: histogram["ood"]},
                    x_label=f"score by {_SCORES[score]}",
                    line=None if threshold is None else (threshold, "keeps 95 % of validation"),
                ),
                f"The best score, by {_SCORES[score]}: the further apart, the better.",
            )
        )
    if found.get("roc"):
        roc = found["roc"]
        items.append(
            Picture(
                f"detection_{safe}.svg",
                charts.lines(
                    [Line("", roc["accepted_ood"], roc["accepted_id"])],
                    x_label=f"share of {name} accepted",
                    y_label="share of its own accepted",
                    diagonal=True,
                ),
                "What each threshold accepts of both.",
            )
        )
    return items


def open_set(numbers: Numbers) -> Part:
    """Known classes recognised and held-out classes refused."""
    best = numbers["best_score"]
    rows = [
        (
            _SCORES[score] + (" (best)" if score == best else ""),
            percent(each["oscr"], of(each, "oscr")),
            percent(each["auroc"], of(each, "auroc")),
            percent(each["ccr_at_fpr_10"], of(each, "ccr_at_fpr_10")),
            percent(each["correct_and_kept"], of(each, "correct_and_kept")),
            percent(each["rejected"], of(each, "rejected")),
        )
        for score, each in numbers["scores"].items()
    ]
    names = ", ".join(map(str, numbers["held_out_names"]))
    items: list[Item] = [
        Text(
            f"Held out of training: {names}. On the known classes alone the accuracy is "
            f"{percent(numbers['closed_set_accuracy'], of(numbers, 'closed_set_accuracy'))}."
        ),
        Table(
            (
                "score",
                "OSCR",
                "AUROC",
                "right at 10 % unknown accepted",
                "known: right and kept",
                "unknown: rejected",
            ),
            rows,
            caption=f"{numbers['n']:,} known and {numbers['n_unknown']:,} unknown images. OSCR is "
            "the area under the known classified rightly against the unknown accepted, at most "
            "the accuracy on known classes.",
        ),
    ]
    curves = [
        Line(_SCORES[score], each["oscr_curve"]["fpr"], each["oscr_curve"]["ccr"])
        for score, each in numbers["scores"].items()
        if each["oscr_curve"]
    ]
    if curves:
        items.append(
            Picture(
                "open_set.svg",
                charts.lines(
                    curves,
                    x_label="share of unknown accepted",
                    y_label="share of known right and accepted",
                ),
                "Open-set classification: further up and left is better.",
            )
        )
    return Part(
        "open_set",
        "Unknown classes",
        "Classes that training never saw: are they taken for known ones?",
        [*items, *parts.notes(numbers)],
    )


def new_classes(numbers: Numbers) -> Part:
    """Old and new accuracy by how many images a new class is added from."""
    alone, added = numbers["old_alone"], numbers["added"]
    kinds = ("old", "new", "overall")
    items: list[Item] = [
        Text(
            "On old classes alone the network's own head reaches "
            f"{percent(alone['network_accuracy'], of(alone, 'network_accuracy'))}, and the nearest "
            f"class mean {percent(alone['prototype_accuracy'], of(alone, 'prototype_accuracy'))}."
        ),
        Table(
            ("images a new class", "old classes", "new classes", "all"),
            [
                (
                    "all there are" if each["shots"] is None else str(each["shots"]),
                    *(
                        percent(each[f"{kind}_accuracy"], of(each, f"{kind}_accuracy"))
                        for kind in kinds
                    ),
                )
                for each in added
            ],
            caption=f"Means of {numbers['draws']} draws with their 95 % intervals.",
        ),
    ]
    drawn = [each for each in added if each["shots"] is not None]
    if len(drawn) > 1:
        shots = [each["shots"] for each in drawn]
        items.append(
            Picture(
                "new_classes.svg",
                charts.lines(
                    [
                        Line(
                            kind,
                            shots,
                            [each[f"{kind}_accuracy"] for each in drawn],
                            [_bounds(each, kind)[0] for each in drawn],
                            [_bounds(each, kind)[1] for each in drawn],
                        )
                        for kind in kinds
                    ],
                    x_label="images a new class",
                    y_label="accuracy",
                    markers=True,
                    log_x=True,
                ),
                "New classes added as class means of a few images' features; nothing is trained.",
            )
        )
    names = ", ".join(map(str, numbers["held_out_names"]))
    return Part(
        "new_classes",
        "Adding classes without training",
        f"The held-out classes ({names}) are added from a few images each.",
        [*items, *parts.notes(numbers)],
    )


def _bounds(added: Numbers, kind: str) -> tuple[float | None, float | None]:
    low, high = of(added, f"{kind}_accuracy") or (None, None)
    return low, high
