"""What the model's confidence is worth: calibration, rejection, prediction sets."""

from typing import Any

from imgrec.reporting import charts, parts
from imgrec.reporting.charts import Line
from imgrec.reporting.parts import Numbers, Part, Picture, Table, Text, of
from imgrec.reporting.units import number, percent

_SCORES = (
    ("nll", "negative log likelihood (nats)"),
    ("brier_sum_over_classes", "Brier score"),
    ("ece_equal_width_15", "calibration error, 15 bins of equal width"),
    ("ece_equal_mass_15", "calibration error, 15 bins of equal counts"),
    ("ece_class_wise_equal_width_15", "class-wise calibration error"),
    ("mce_equal_width_15", "largest error of a bin"),
)


def calibration(numbers: Numbers) -> Part:
    """Reliability before and after temperature scaling."""
    before, after = numbers["before"], numbers["after"]
    items: list[Any] = []
    if before:
        header = ("measure", "as trained", *(("after temperature scaling",) if after else ()))
        header = (*header, "if calibrated")
        every = [before] + ([after] if after else [])
        rows = [
            (
                name,
                *(number(each[key], of(each, key), 4) for each in every),
                number(before["if_calibrated"].get(key), digits=4),
            )
            for key, name in _SCORES
        ]
        lead = before["overconfidence"]
        surer = "surer than it is right" if lead > 0 else "more modest than it need be"
        items += [
            Text(
                f"On average the model is {100 * abs(lead):.2f} points {surer}: mean confidence "
                f"{percent(before['mean_confidence'])}, accuracy {percent(before['accuracy'])}."
            ),
            Table(
                header,
                rows,
                caption="If calibrated: what noise alone makes of a binned error.",
            ),
            Picture(
                "reliability.svg",
                charts.reliability(
                    before["reliability_equal_width_15"],
                    after and after["reliability_equal_width_15"],
                ),
                "Images are put into bins by the largest probability. A point below the dotted "
                "line is a bin in which the model is surer than it is right.",
            ),
        ]
        items.append(_histogram(before))
    if numbers["temperature"] is not None:
        items.append(
            Text(
                f"Temperature {number(numbers['temperature'], of(numbers, 'temperature'))}, fitted "
                f"on {numbers['n_validation']:,} validation images; dividing the logits by it "
                "changes how sure the model is, never what it says.",
                faint=True,
            )
        )
    return Part(
        "calibration",
        "Calibration",
        "Whether a confidence of 80 % means being right in 80 of 100 cases.",
        [*items, *parts.notes(numbers)],
    )


def _histogram(before: Numbers) -> Picture:
    found = before["histogram"]
    right, wrong = found["right"], found["wrong"]
    return Picture(
        "confidence.svg",
        charts.histograms(
            found["edges"],
            {
                f"right ({sum(right):,} images)": right,
                f"wrong ({sum(wrong):,} images)": wrong,
            },
            x_label="confidence (largest probability)",
            y_label="share of its kind",
        ),
        "The confidence of right and of wrong answers, each as shares of its own kind. The less "
        "they overlap, the better a threshold can reject.",
    )


def selective(numbers: Numbers) -> Part:
    """Risk against coverage, and thresholds to reject by."""
    items: list[Any] = []
    scores = [s for s in ("max_softmax", "max_logit") if numbers.get(s)]
    names = {"max_softmax": "largest probability", "max_logit": "largest logit"}
    if scores:
        best = numbers[scores[0]]
        items.append(
            Picture(
                "risk_coverage.svg",
                charts.lines(
                    [
                        Line(
                            names[s],
                            numbers[s]["curve"]["coverage"],
                            numbers[s]["curve"]["risk"],
                        )
                        for s in scores
                    ],
                    x_label="coverage (share of images answered)",
                    y_label="risk (share of answers that are wrong)",
                    x_limits=(0, 1),
                ),
                "If the model answers only its most confident images, how many of those answers "
                "are wrong. Lower is better.",
            )
        )
        items.append(
            Table(
                ("share answered, at least", "accuracy of the answers"),
                [
                    (
                        f"{c} %",
                        percent(
                            best[f"accuracy_at_coverage_{c}"],
                            of(best, f"accuracy_at_coverage_{c}"),
                        ),
                    )
                    for c in (100, 99, 95, 90, 80, 70, 50)
                ],
                caption=f"By {names[scores[0]]}. Area under the curve "
                f"{number(best['aurc'], of(best, 'aurc'), 5)}; with the errors all ranked last it "
                f"would be {number(best['aurc_optimal'], digits=5)}.",
            )
        )
        if best["thresholds"]:
            items.append(
                Table(
                    ("risk wanted", "how chosen", "threshold", "coverage", "risk here"),
                    [
                        (
                            percent(t["target_risk"], digits=0),
                            t["chosen"],
                            number(t["threshold"], digits=4)
                            if t["threshold"] is not None
                            else "none",
                            percent(t["coverage"], of(t, "coverage")),
                            percent(t["risk"], of(t, "risk")),
                        )
                        for t in best["thresholds"]
                    ],
                    caption="Thresholds chosen on validation images: empirical meets the target "
                    "there; guaranteed keeps it with a probability of 95 %.",
                )
            )
    return Part(
        "selective",
        "Rejecting the unsure",
        "What is won by not answering when the model is unsure.",
        [*items, *parts.notes(numbers)],
    )


_METHODS = {
    "lac": "LAC",
    "lac_class_conditional": "LAC, each class by itself",
    "aps": "APS",
    "aps_deterministic": "APS, not randomised",
    "raps": "RAPS",
}


def conformal(numbers: Numbers) -> Part:
    """Prediction sets with a promised coverage, and what they kept."""
    items: list[Any] = []
    for alpha, methods in (numbers["levels"] or {}).items():
        promised = 1 - float(alpha)
        rows = [
            (
                _METHODS[name],
                percent(m["coverage"], of(m, "coverage")),
                number(m["mean_set_size"], of(m, "mean_set_size"), 2),
                f"{percent(m['worst_class_coverage'], of(m, 'worst_class_coverage'), 1)}"
                f" ({m['worst_class']})"
                if m["worst_class_coverage"] is not None
                else "–",
                percent(m["worst_size_coverage"], of(m, "worst_size_coverage"), 1),
            )
            for name, m in methods.items()
        ]
        items.append(
            Table(
                ("method", "coverage", "classes a set", "least covered class", "worst size of set"),
                rows,
                caption=f"Sets promised to hold the truth in {100 * promised:.0f} % of cases.",
            )
        )
    if items:
        levels = numbers["levels"]
        alpha = min(levels, key=float)
        sizes = {name: m["size_histogram"] for name, m in levels[alpha].items() if name != "aps"}
        most = max((s["size"][-1] for s in sizes.values() if s["size"]), default=1)
        shown = list(range(1, min(most, 10) + 1))
        items.append(
            Picture(
                "set_sizes.svg",
                charts.bars(
                    [str(size) for size in shown],
                    {
                        _METHODS[name]: [_share(s, size) for size in shown]
                        for name, s in sizes.items()
                    },
                    x_label="classes in a set",
                    y_label="share of images",
                ),
                f"How many classes the sets of {100 * (1 - float(alpha)):.0f} % name.",
            )
        )
        items.append(
            Text(
                f"Calibrated on {numbers['n_calibration']:,} validation images, measured on "
                f"{numbers['n']:,}. The promise is for the average over all images; the columns on "
                "classes and sizes show where it is not kept for a part of them.",
                faint=True,
            )
        )
    return Part(
        "conformal",
        "Prediction sets",
        "Instead of one class, a set of classes that holds the truth as often as was promised; "
        "the smaller the better.",
        [*items, *parts.notes(numbers)],
    )


def _share(histogram: Numbers, size: int) -> float:
    total = sum(histogram["count"]) + histogram["larger"]
    counts = dict(zip(histogram["size"], histogram["count"], strict=True))
    return counts.get(size, 0) / max(1, total)
