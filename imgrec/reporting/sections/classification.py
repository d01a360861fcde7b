"""What was right and what was taken for what: accuracy, confusion, classes, ranking, balance."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from imgrec.reporting import charts, parts, plots
from imgrec.reporting.charts import Line
from imgrec.reporting.parts import Details, Numbers, Part, Picture, Table, of
from imgrec.reporting.units import number, percent

_MOST_CLASSES = 60  # whose dots are drawn
_MOST_CURVES = 10


def classification(numbers: Numbers) -> Part:
    """Accuracy and its kin, the confusion matrix, and every class by itself."""
    names = [each["name"] for each in numbers["per_class"]]
    summary = Table(
        ("measure", "value [95 % interval]"),
        [
            ("accuracy", percent(numbers["accuracy"], of(numbers, "accuracy"))),
            (
                "among the five likeliest",
                percent(numbers["top_5_accuracy"], of(numbers, "top_5_accuracy")),
            ),
            (
                "balanced accuracy (mean recall)",
                percent(numbers["balanced_accuracy"], of(numbers, "balanced_accuracy")),
            ),
            (
                "macro precision",
                percent(numbers["macro"]["precision"], of(numbers["macro"], "precision")),
            ),
            ("macro F1", percent(numbers["macro"]["f1"], of(numbers["macro"], "f1"))),
            ("Cohen's kappa", number(numbers["cohen_kappa"], of(numbers, "cohen_kappa"))),
            ("Matthews correlation", number(numbers["matthews"], of(numbers, "matthews"))),
            ("negative log likelihood (nats)", number(numbers["loss"], of(numbers, "loss"))),
        ],
        caption=f"Over all {numbers['n']:,} images, each counted once.",
    )
    matrix = plots.confusion_matrix(np.asarray(numbers["confusion_matrix"]), names)
    confused = Table(
        ("true", "taken for", "images", "share of the class"),
        [
            (c["true"], c["predicted"], f"{c['count']:,}", percent(c["share_of_true"], digits=1))
            for c in numbers["most_confused"][:10]
        ],
        caption="The commonest confusions.",
    )
    items: list[Any] = [
        summary,
        Picture(
            "confusion_matrix.png",
            plots.png(matrix),
            "Rows are the true class, columns the prediction. Blue is right, red is wrong; "
            "depth is the share of the row, on a square root scale.",
            wide=True,
        ),
    ]
    if numbers["most_confused"]:
        items.append(confused)
    items += [_classes(numbers), Details("All classes as a table", [_class_table(numbers)])]
    return Part(
        "classification",
        "Classification",
        "How often the model is right, and what it takes for what. Intervals are what resampling "
        "the test images gives.",
        [*items, *parts.notes(numbers)],
    )


def _classes(numbers: Numbers) -> Picture:
    every: Sequence[Numbers] = numbers["per_class"]
    shown = sorted(every, key=lambda c: c["recall"])
    said = "Classes by recall, the hardest first."
    if len(shown) > _MOST_CLASSES:
        half = _MOST_CLASSES // 2
        shown = [*shown[:half], *shown[-half:]]
        said = f"The {half} classes of least and of most recall, of {len(every):,}."
    series = {score: [c[score] for c in shown] for score in ("recall", "precision")}
    return Picture(
        "classes.svg",
        charts.dots(
            [c["name"] for c in shown],
            series,
            {score: [of(c, score) for c in shown] for score in series},
            x_label="share",
            notes=[f"n {c['support']:,}" for c in shown],
        ),
        f"{said} Recall: share of the class that is found; precision: share of what is called the "
        "class that belongs to it. Lines are 95 % intervals.",
    )


def _class_table(numbers: Numbers) -> Table:
    return Table(
        ("class", "images", "precision", "recall", "F1"),
        [
            (
                c["name"],
                f"{c['support']:,}",
                *(percent(c[score], of(c, score), 1) for score in ("precision", "recall", "f1")),
            )
            for c in numbers["per_class"]
        ],
    )


def ranking(numbers: Numbers) -> Part:
    """ROC and precision-recall curves of each class against the rest."""
    macro, weighted = numbers["macro"], numbers["weighted"]
    rows = [
        (
            name,
            number(each["roc_auc"], of(each, "roc_auc"), 4),
            number(each["average_precision"], of(each, "average_precision"), 4),
        )
        for name, each in (("mean over classes", macro), ("weighted by images", weighted))
        if each
    ]
    items: list[Any] = [Table(("", "ROC-AUC", "average precision"), rows)]
    curves = numbers["curves"]
    if roc := curves["roc"][: _MOST_CURVES + 1]:
        items.append(
            Picture(
                "roc.svg",
                charts.lines(
                    [
                        Line(_named(c), c["false_positive_rate"], c["true_positive_rate"])
                        for c in roc
                    ],
                    x_label="false positive rate (log scale)",
                    y_label="true positive rate",
                    log_x=True,
                    x_limits=(1e-4, 1),
                ),
                "Each class against all others: how many of its images are found, for how many "
                "others that are taken for it. Further up and left is better.",
            )
        )
    if precision := curves["precision_recall"][: _MOST_CURVES + 1]:
        items.append(
            Picture(
                "precision_recall.svg",
                charts.lines(
                    [Line(_named(c), c["recall"], c["precision"]) for c in precision],
                    x_label="recall",
                    y_label="precision",
                ),
                "How clean the found images stay as more of a class are found.",
            )
        )
    return Part(
        "ranking",
        "Ranking",
        "How well the probability of a class ranks its own images before all others, at every "
        "threshold at once.",
        [*items, *parts.notes(numbers)],
    )


def _named(curve: Numbers) -> str:
    return {"micro": "all pairs", "macro": "mean"}.get(curve["kind"]) or curve["name"]
