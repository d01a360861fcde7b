"""A data sheet (Gebru et al. 2021, "Datasheets for Datasets"), filled from the data itself.

Counts and what an audit found are told; why and how the data was collected only people know, and
these questions are blanks.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Shaped

from imgrec.data import Dataset, Split
from imgrec.errors import UserError
from imgrec.evaluation.groups import partitions
from imgrec.reporting import markdown
from imgrec.reporting.markdown import escaped
from imgrec.reporting.parts import Numbers, of
from imgrec.reporting.units import percent

_MOST_CLASSES = 100
_MOST_VALUES = 12

Columns = Mapping[str, Mapping[str, int]]


def describe(dataset: Dataset) -> tuple[dict[str, list[int]], dict[str, dict[str, dict[str, int]]]]:
    """Of each split: images by class; and of each column, cut into groups over all splits at once,
    images by group.

    Columns that say something else of every image have no groups and are left out. Of
    `clean_label` it is told how often the label agrees with it.
    """
    splits = [dataset.train, dataset.validation, dataset.test]
    there = [split for split in splits if split is not None and len(split)]
    classes = dataset.info.num_classes
    counts = {
        split.name: np.bincount(split.labels(), minlength=classes).tolist() for split in there
    }
    known = {split.name: _told(split) for split in there}
    columns: dict[str, dict[str, dict[str, int]]] = {split.name: {} for split in there}
    for name in dict.fromkeys(name for found in known.values() for name in found):
        having = [split for split in known if name in known[split]]
        values = [known[split][name] for split in having]
        try:
            partition = partitions.cut(name, np.concatenate(values))
        except UserError:
            continue
        ends = np.cumsum([len(of_split) for of_split in values])[:-1]
        for split, member in zip(having, np.split(partition.member, ends), strict=True):
            sizes = np.bincount(member, minlength=len(partition.values)).tolist()
            columns[split][name] = dict(zip(partition.values, sizes, strict=True))
    return counts, columns


def data_sheet(
    info: Mapping[str, Any],
    counts: Mapping[str, Sequence[int]],
    *,
    columns: Mapping[str, Columns] | None = None,
    audit: Mapping[str, Any] | None = None,
    label_errors: Numbers | None = None,
    previous: str = "",
) -> str:
    """The sheet, as Markdown.

    Args:
      info: name, class_names, image_shape and source, as far as known.
      counts: images of each class, by split.
      columns: images of each group, by split and column.
      audit: what `python -m imgrec.prepare check --out` wrote as `audit.json`.
      label_errors: the section of that name in `metrics.json`.
      previous: the sheet that this one replaces, whose filled blanks are kept.
    """
    kept = markdown.filled(previous)

    def blank(key: str, question: str) -> str:
        return markdown.blank(key, question, kept)

    parts = [
        f"# Data sheet: {escaped(info.get('name') or 'data set')}",
        "Made from the data; what is counted is replaced when the run is evaluated again, and what "
        "the owner writes between the comments is kept.",
        "## Motivation",
        blank("motivation", "for what purpose the data was created, by whom, and who paid for it."),
        "## Composition",
        _composition(info, counts),
        "### Classes",
        _classes(info, counts),
        "### Groups",
        _representation(columns or {}),
        blank("people", "whether images show people or anything private, and with whose consent."),
        "### Errors, copies and leaks",
        _audit(audit),
        _doubts(label_errors),
        "## Collection process",
        f"Source: {escaped(info['source'])}." if info.get("source") else "The source is not known.",
        blank("collection", "how, when, where and by whom the images were taken and labelled."),
        "## Preprocessing, cleaning, labelling",
        blank("preprocessing", "what was done to images and labels before these files."),
        "## Uses",
        blank("uses", "what the data has been used for, and what it should not be used for."),
        "## Distribution",
        blank("distribution", "under which licence the data may be used and passed on."),
        "## Maintenance",
        blank("maintenance", "who keeps the data, and where errors are to be reported."),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _told(split: Split) -> dict[str, Shaped[np.ndarray, " examples"]]:
    columns = dict(split.columns())
    if (clean := columns.pop("clean_label", None)) is not None:
        columns["label agrees with clean_label"] = clean == split.labels()
    return columns


def _composition(info: Mapping[str, Any], counts: Mapping[str, Sequence[int]]) -> str:
    shape = info.get("image_shape") or ()
    size = " x ".join(map(str, shape)) + " (height, width, channels)" if shape else "–"
    if shape and not shape[0]:
        size = f"images of several sizes, {shape[2]} channels"
    rows = [
        (
            "an instance is",
            f"an image and its label, one of {len(info.get('class_names') or ()):,}",
        ),
        ("image", size),
        *((f"images of {name}", f"{sum(of_class):,}") for name, of_class in counts.items()),
        *((f"largest over smallest class of {name}", _ratio(c)) for name, c in counts.items()),
    ]
    return markdown.table(("", ""), rows)


def _ratio(counts: Sequence[int]) -> str:
    there = [count for count in counts if count]
    absent = len(counts) - len(there)
    text = f"{max(there) / min(there):.3g}" if there else "–"
    return text + (f", and {absent:,} classes have no image" if absent else "")


def _classes(info: Mapping[str, Any], counts: Mapping[str, Sequence[int]]) -> str:
    names = list(info.get("class_names") or ())
    if not counts or not names:
        return "Not counted."
    order = sorted(
        range(len(names)), key=lambda c: -sum(of_class[c] for of_class in counts.values())
    )
    shown = order[:_MOST_CLASSES]
    text = markdown.table(
        ("class", *(f"images of {name}" for name in counts)),
        [(names[c], *(f"{of_class[c]:,}" for of_class in counts.values())) for c in shown],
    )
    if len(shown) < len(names):
        text += f"\n\nThe {len(shown)} largest of {len(names):,} classes."
    return text


def _representation(columns: Mapping[str, Columns]) -> str:
    names = dict.fromkeys(name for found in columns.values() for name in found)
    if not names:
        return (
            "Nothing is known of the images beyond their labels, so who or what is represented "
            "how often cannot be told."
        )
    parts, constant = [], []
    for name in names:
        there = {split: found[name] for split, found in columns.items() if name in found}
        values = dict.fromkeys(value for groups in there.values() for value in groups)
        if len(values) == 1:
            constant.append(f"{escaped(name)} is {escaped(next(iter(values)))}")
            continue
        listed = list(values)[:_MOST_VALUES]
        parts.append(
            markdown.table(
                (name, *(f"images of {split}" for split in there)),
                [(v, *(f"{groups.get(v, 0):,}" for groups in there.values())) for v in listed],
            )
        )
        if len(listed) < len(values):
            parts.append(f"And {len(values) - len(listed)} more.")
    if constant:
        parts.append(f"Alike in all images: {', '.join(constant)}.")
    return "\n\n".join(parts)


def _audit(audit: Mapping[str, Any] | None) -> str:
    if audit is None:
        return (
            "Not checked. `python -m imgrec.prepare check DATASET --out=FOLDER` finds unreadable "
            "images, copies, and test images that are among the training images."
        )
    sentences = []
    for leak in audit.get("leaks", ()):
        count = leak["exact"] + leak["near"]
        sentences.append(
            f"{count:,} images of {escaped(leak['leaked'])} have a copy in "
            f"{escaped(leak['known'])} ({leak['exact']:,} of the same pixels, {leak['near']:,} "
            f"near-duplicates, {leak['conflicting']:,} labelled otherwise)."
            if count
            else f"No image of {escaped(leak['leaked'])} has a copy in {escaped(leak['known'])}."
        )
    for split in audit.get("splits", ()):
        unreadable, copies = (
            len(split["unreadable"]),
            split["same_pixels"] + split["near_duplicates"],
        )
        sentences.append(
            f"{escaped(split['name'])}: {unreadable:,} unreadable images, {copies:,} copies of an "
            "earlier image of the same split."
        )
    if conflicting := audit.get("conflicting_copies"):
        sentences.append(f"{conflicting:,} pairs of copies have different labels.")
    return markdown.listed(sentences)


def _doubts(found: Numbers | None) -> str:
    if not found or found.get("estimated_share") is None:
        return ""
    text = (
        f"Of the labels evaluated (n {found['n']:,}) about "
        f"{percent(found['estimated_share'], of(found, 'estimated_share'))} are estimated to be "
        "wrong, by confident learning with one model."
    )
    pairs = [
        (p["given"], p["suggested"], p["suspects"], f"{p['estimated']:.1f}")
        for p in found["pairs"][:5]
    ]
    if pairs:
        text += "\n\n" + markdown.table(("labelled", "perhaps", "suspects", "estimated"), pairs)
    return text
