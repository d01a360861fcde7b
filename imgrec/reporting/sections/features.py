"""What the features of the network are worth by themselves."""

from imgrec.reporting import charts, parts
from imgrec.reporting.charts import Line
from imgrec.reporting.parts import Item, Numbers, Part, Picture, Table, of
from imgrec.reporting.units import number, percent


def representations(numbers: Numbers) -> Part:
    """Neighbours and few-shot probes."""
    rows = [
        (
            f"vote of the {each['k']} nearest training images",
            percent(each["accuracy"], of(each, "accuracy")),
        )
        for each in numbers["knn"]
    ]
    few = numbers["few_shot"]
    rows += [
        (
            f"linear probe, {each['shots']} images a class",
            percent(each["accuracy"], of(each, "accuracy")),
        )
        for each in few["shots"]
    ]
    items: list[Item] = [
        Table(
            ("", "accuracy"),
            rows,
            caption=f"{numbers['features']:,} numbers an image, of {numbers['n_train']:,} training "
            f"images; tested on {numbers['n']:,}.",
        )
    ]
    if len(few["shots"]) > 1:
        shots = [each["shots"] for each in few["shots"]]
        bounds = [of(each, "accuracy") or [each["accuracy"]] * 2 for each in few["shots"]]
        items.append(
            Picture(
                "few_shot.svg",
                charts.lines(
                    [
                        Line(
                            "",
                            shots,
                            [each["accuracy"] for each in few["shots"]],
                            [low for low, _ in bounds],
                            [high for _, high in bounds],
                        )
                    ],
                    x_label="images a class",
                    y_label="accuracy of the probe",
                    markers=True,
                    log_x=True,
                ),
                f"A linear probe fitted in closed form; means of {few['seeds']} draws.",
            )
        )
    return Part(
        "representations",
        "Features",
        "What the network hands to its head, used without the head.",
        [*items, *parts.notes(few), *parts.notes(numbers)],
    )


def likeness(numbers: Numbers) -> Part:
    """Retrieval, and maps of the features."""
    items: list[Item] = []
    retrieval = numbers["retrieval"]
    keys = {
        "map_at_all": "mean average precision, over the whole split",
        "recall_at_1": "the nearest image is of the class",
        "recall_at_5": "one of the 5 nearest is",
        "recall_at_10": "one of the 10 nearest is",
        "precision_at_10": "share of the 10 nearest that are",
    }
    if retrieval.get("map_at_all") is not None:
        items.append(
            Table(
                ("retrieval", ""),
                [(said, percent(retrieval[key], of(retrieval, key))) for key, said in keys.items()],
                caption=f"{retrieval['n']:,} test images ask for others of their class, by cosine.",
            )
        )
    maps = numbers["maps"]
    for name, title in (("pca", "PCA"), ("tsne", "t-SNE")):
        if maps.get(name):
            items.append(_map(name, title, maps[name], numbers["class_names"]))
    return Part(
        "likeness",
        "Likeness",
        "How near like lies to like in the network's features.",
        [*items, *parts.notes(retrieval), *parts.notes(numbers)],
    )


def _map(name: str, title: str, found: Numbers, class_names: list[str]) -> Picture:
    said = f"{found['n']:,} test images by {title} of their features, coloured by true class."
    if name == "pca":
        first, second = found["explained"]
        said += f" The two directions have {100 * (first + second):.0f} % of the variance."
    else:
        said += (
            f" Perplexity {number(found['perplexity'], digits=0)}; distances between groups and "
            "their sizes say nothing."
        )
    points = list(zip(found["x"], found["y"], strict=True))
    return Picture(f"map_{name}.svg", charts.scatter(points, found["label"], class_names), said)
