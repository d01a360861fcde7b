"""Images worth a look, and what the network's answers to them rest on."""

from collections.abc import Mapping
from typing import Any

from imgrec.reporting import overlays, parts, plots
from imgrec.reporting.overlays import Column
from imgrec.reporting.parts import Details, Item, Numbers, Part, Picture, Table, Text, of
from imgrec.reporting.units import number, percent

_COLUMNS = 8
_LISTS = {
    "confidently_wrong": "The surest mistakes: the true class, and what the model said.",
    "least_certain": "The least certain answers, right or wrong.",
    "prototypes": "Typical images of each class, nearest to the mean of its features.",
    "hardest": "The hardest images of each class: its probability is lowest.",
}


def galleries(numbers: Numbers, material: Mapping[str, Any]) -> Part:
    """Sheets of mistakes, doubts, typical and hard images."""
    items: list[Item] = []
    for name, said in _LISTS.items():
        if name not in material:
            continue
        found = material[name]
        columns = 4 * max(1, _COLUMNS // 4)
        sheet = plots.png(plots.image_grid(found["images"], found["captions"], columns))
        picture = Picture(f"{name}.png", sheet, said, wide=True)
        folded = name in ("prototypes", "hardest") and len(found["images"]) > 80
        items.append(Details(said, [picture]) if folded else picture)
    if not numbers["confidently_wrong"]:
        items.insert(0, Text("The model made no mistake on these images."))
    if numbers["n_classes_shown"] < numbers["n_classes"]:
        items.append(
            Text(
                f"Of {numbers['n_classes']:,} classes the {numbers['n_classes_shown']:,} that are "
                "found least often are shown.",
                faint=True,
            )
        )
    return Part(
        "galleries",
        "Pictures",
        "What the model is sure of, what it doubts, and what it takes for typical.",
        items,
    )


def explanations(numbers: Numbers, material: Mapping[str, Any]) -> Part:
    """Maps over images by every method that the network supports, and its first filters."""
    methods = numbers["methods"]
    items: list[Item] = []
    if methods:
        sheet = overlays.explanation_sheet(
            material["images"],
            material["captions"],
            [
                Column(found["title"], material["maps"][name], signed=found["signed"])
                for name, found in methods.items()
            ],
        )
        items.append(
            Picture(
                "explanations.png",
                plots.png(sheet),
                "Above the surest mistakes, below right answers: what spoke for the class that the "
                "model named.",
                wide=True,
            )
        )
        rows = []
        for found in methods.values():
            error = found.get("completeness_error_median")
            rows.append(
                (found["title"], found["about"], "" if error is None else percent(error, digits=2))
            )
        items.append(
            Details(
                "What each column shows",
                [Table(("method", "what it shows", "completeness error, median"), rows)],
            )
        )
    if "sanity" in numbers:
        items.append(_sanity(numbers["sanity"], methods))
    if "filters" in material:
        filters = material["filters"]
        items.append(
            Picture(
                "filters.png",
                plots.png(overlays.filter_sheet(filters.kernel)),
                f"The filters of the first layer ({filters.name}), the strongest first: small "
                "patterns that it looks for.",
            )
        )
    items += parts.notes(numbers)
    for name, why in numbers["left_out"].items():
        items.append(Text(f"No {name.replace('_', ' ')}: {why}.", faint=True))
    return Part(
        "explanations",
        "What answers rest on",
        "Maps of where in an image the evidence for the answer lies. They show what the network "
        "used, not whether it was right to.",
        items,
    )


def _sanity(found: Numbers, methods: Mapping[str, Any]) -> Table:
    """Which of the maps deserve belief, for this network."""
    deletion, shuffled = found["deletion"]["methods"], found["randomisation"]["methods"]
    rows = [
        (
            methods[name]["title"] if name in methods else "places at random",
            number(each["area"], of(each, "area")),
            number(shuffled[name]["spearman"], of(shuffled[name], "spearman"))
            if name in shuffled
            else "–",
        )
        for name, each in deletion.items()
    ]
    return Table(
        ("method", "confidence left while deleting", "likeness to maps of shuffled weights"),
        rows,
        caption=f"On {found['deletion']['n']} images. A map that points at what matters leaves "
        "less confidence than places at random; one that hardly changes when the weights are "
        "shuffled shows the image, not what the network learnt.",
    )
