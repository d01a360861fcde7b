"""What is left of the accuracy when images change: corruptions, dials, attacks, rendered doses."""

from collections.abc import Mapping, Sequence
from typing import Any

from imgrec.reporting import charts, parts
from imgrec.reporting.charts import Line
from imgrec.reporting.parts import Item, Numbers, Part, Picture, Table, Text, of
from imgrec.reporting.units import number, percent

_SCALARS = (
    ("clean_accuracy", "accuracy, images as they are", True),
    ("mean_corrupted_accuracy", "mean accuracy, corrupted", True),
    ("accuracy_drop", "drop", True),
    ("mce_relative_to_reference", "mean corruption error over the reference's", False),
    ("relative_mce_relative_to_reference", "the same with clean errors taken off", False),
    ("cnll", "mean negative log likelihood (nats)", False),
    ("cece_equal_width_15", "mean calibration error", True),
)


def corruptions(numbers: Numbers) -> Part:
    """The table kinds x severities and its means."""
    return Part(
        "robustness",
        "Corrupted images",
        "The same images under noise, blur, weather and digital damage, made anew for each image "
        "as it is evaluated.",
        [*_table(numbers, "corruptions"), *parts.notes(numbers)],
    )


def published(numbers: Numbers) -> Part:
    """Published shifted sets, one after the other."""
    items: list[Item] = []
    for name, found in numbers["sets"].items():
        items.append(Text(f"{name}: {found['source']}. {' '.join(found['notes'])}"))
        if "kinds" in found:
            items += _table(found, "".join(c if c.isalnum() else "_" for c in name))
        else:
            rows = [
                ("accuracy there", percent(found["accuracy"], of(found, "accuracy"))),
                (
                    "accuracy on its own test",
                    percent(found["clean_accuracy"], of(found, "clean_accuracy")),
                ),
                ("drop", percent(found["accuracy_drop"], of(found, "accuracy_drop"))),
            ]
            items.append(Table(("", ""), rows, caption=f"{found['n']:,} images."))
    return Part(
        "published",
        "Published shifted sets",
        "Images that others collected or changed to see what a test split does not show.",
        [*items, *parts.notes(numbers)],
    )


def _table(numbers: Numbers, name: str) -> list[Item]:
    rows = [
        (said, (percent if share else number)(numbers[key], of(numbers, key)))
        for key, said, share in _SCALARS
        if numbers.get(key) is not None
    ]
    reference = numbers.get("reference")
    compared = f" Reference: {reference['name']}." if reference else ""
    kinds, severities = numbers["kinds"], [str(s) for s in numbers["severities"]]
    items: list[Item] = [
        Table(
            ("over all kinds and severities", ""),
            rows,
            caption=f"{numbers['n']:,} images, constants of the profile {numbers['profile']}."
            + compared,
        ),
        Picture(
            f"{name}.svg",
            charts.heat_map(
                [
                    [*row, mean["accuracy"]]
                    for row, mean in zip(numbers["accuracy"], numbers["per_kind"], strict=True)
                ],
                [kind.replace("_", " ") for kind in kinds],
                [*severities, "mean"],
                x_label="severity",
                title="accuracy (%)",
            ),
            "Accuracy by kind and severity; red cells are what the model cannot bear.",
        ),
        Picture(
            f"{name}_severity.svg",
            charts.lines(
                _by_category(numbers),
                x_label="severity",
                y_label="accuracy",
                markers=True,
                y_limits=(0, 1),
            ),
            "Means over the kinds of each category.",
        ),
    ]
    worst = numbers["worst_conditions"]
    items.append(
        Table(
            ("worst conditions", "severity", "accuracy"),
            [
                (w["kind"].replace("_", " "), str(w["severity"]), percent(w["accuracy"], digits=1))
                for w in worst
            ],
        )
    )
    return items


def _by_category(numbers: Numbers) -> list[Line]:
    categories: dict[str, list[int]] = {}
    for i, kind in enumerate(numbers["kinds"]):
        categories.setdefault(numbers["categories"][kind], []).append(i)
    severities = numbers["severities"]
    return [
        Line(
            name,
            severities,
            [
                sum(numbers["accuracy"][i][j] for i in rows) / len(rows)
                for j in range(len(severities))
            ],
        )
        for name, rows in categories.items()
    ]


def sweeps(numbers: Numbers) -> Part:
    """Accuracy against rotation, occlusion, brightness and so on."""
    return Part(
        "sweeps",
        "Turned dials",
        "One thing about every image is changed little by little. The half-accuracy dose is where "
        "half of what the model knows beyond chance is lost.",
        [*_curves(numbers, "sweep"), *parts.notes(numbers)],
    )


def dose_response(numbers: Numbers) -> Part:
    """Accuracy against the true amount of a factor in rendered scenes."""
    items = _curves(numbers, "dose")
    background = numbers.get("background")
    if background:
        items.append(
            Picture(
                "dose_background.svg",
                charts.dots(
                    background["kinds"],
                    {"accuracy": background["accuracy"]},
                    {"accuracy": background["accuracy_interval"]},
                    x_label="accuracy",
                    notes=[
                        "trained on" if k in background["trained"] else "new"
                        for k in background["kinds"]
                    ],
                ),
                "The same scenes on each kind of background.",
            )
        )
    return Part(
        "dose_response",
        "Exact doses",
        "The same scenes are rendered again with one factor set exactly.",
        [*items, *parts.notes(numbers)],
    )


def _curves(numbers: Numbers, name: str) -> list[Item]:
    curves: Mapping[str, Any] = numbers["curves"]
    rows = []
    for factor, found in curves.items():
        dose = number(found["half_accuracy_dose"], of(found, "half_accuracy_dose"))
        low = min(found["accuracy"])
        rows.append(
            (
                factor.replace("_", " "),
                found["unit"],
                f"{found['doses'][0]:g} to {found['doses'][-1]:g}",
                dose if found["half_accuracy_dose"] is not None else "never",
                percent(low, digits=1),
            )
        )
    items: list[Item] = [
        Table(
            ("factor", "unit", "from, to", "half-accuracy dose", "lowest accuracy"),
            rows,
            caption=f"{numbers['n']:,} images.",
        )
    ]
    for factor, found in curves.items():
        items.append(_curve(f"{name}_{factor}.svg", factor, found, numbers["chance"]))
    return items


def _curve(file: str, factor: str, found: Numbers, chance: float) -> Picture:
    intervals: Sequence[Sequence[Any]] = found["accuracy_interval"]
    return Picture(
        file,
        charts.lines(
            [
                Line(
                    "",
                    found["doses"],
                    found["accuracy"],
                    [low for low, _ in intervals],
                    [high for _, high in intervals],
                )
            ],
            x_label=f"{factor.replace('_', ' ')} ({found['unit']})",
            y_label="accuracy",
            markers=True,
            y_limits=(0, 1),
            level=(chance, "chance"),
            size=(4.0, 2.7),
        ),
    )


def adversarial(numbers: Numbers) -> Part:
    """Accuracy under attack, by the largest change allowed."""
    epsilons = numbers["epsilons"]
    grey = max(epsilons) > 0.05
    names = [f"{e:g}" if grey else f"{255 * e:g}/255" for e in epsilons]
    clean = percent(numbers["clean_accuracy"], of(numbers, "clean_accuracy"), 1)
    rows: list[tuple[str, ...]] = [("none", clean, clean)]
    rows += [
        (
            name,
            *(
                percent(numbers[a]["accuracy"][i], numbers[a]["accuracy_interval"][i], 1)
                for a in ("fgsm", "pgd")
            ),
        )
        for i, name in enumerate(names)
    ]
    return Part(
        "adversarial",
        "Attacks",
        "Every pixel is changed by at most so much, in the direction that hurts most. A network "
        "that was not trained against this is expected to fail.",
        [
            Table(
                ("largest change", "one step (FGSM)", f"{numbers['pgd']['steps']} steps (PGD)"),
                rows,
                caption=f"Accuracy on {numbers['n']:,} images; the scale of pixels is 0 to 1.",
            ),
            Picture(
                "adversarial.svg",
                charts.lines(
                    [
                        Line(
                            title,
                            [0, *epsilons],
                            [numbers["clean_accuracy"], *numbers[name]["accuracy"]],
                        )
                        for name, title in (("fgsm", "one step"), ("pgd", "many steps"))
                    ],
                    x_label="largest change of a pixel",
                    y_label="accuracy",
                    markers=True,
                    y_limits=(0, 1),
                ),
                "What is left under attack.",
            ),
            *parts.notes(numbers),
        ],
    )
