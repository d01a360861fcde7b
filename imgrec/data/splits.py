"""The validation cut: which official training images are held out to choose by.

The cut is stratified by label and decided by `data.validation` and `data.split_seed` alone,
so that the runs of a study share it. The official test split is never part of it.
"""

import re

import numpy as np
from jaxtyping import Int32, Int64

from imgrec.data import order
from imgrec.data.dataset import Source
from imgrec.errors import UserError

_STREAM = 2**63  # the second word of the Philox key, which no epoch number reaches


def cut(
    source: Source, validation: str, seed: int
) -> tuple[Int64[np.ndarray, "train"], Int64[np.ndarray, "validation"] | None]:
    """Cuts the official training split in two.

    Args:
      source: the official training split.
      validation: `config.data.validation`, a share ("10%") or a count ("5000"); "0" for none.
      seed: `config.data.split_seed`.

    Returns:
      (train rows, validation rows), both ascending; None in place of no validation rows.

    Raises:
      UserError: the text is neither, or the cut would leave a class without training images.
    """
    count = parse(validation, len(source))
    if count == 0:
        return np.arange(len(source)), None
    labels = source.labels()
    held_out = stratified(labels, count, seed)
    kept = np.setdiff1d(np.arange(len(labels)), held_out)
    emptied = np.setdiff1d(labels[held_out], labels[kept])
    if len(emptied):
        raise UserError(
            f"config.data.validation={validation!r} takes {count:,} of {len(labels):,} training "
            f"images and leaves none of class {emptied[0]} to train on. Ask for fewer, for "
            "example --config.data.validation=10%, or for none with --config.data.validation=0."
        )
    return kept, held_out


def parse(validation: str, examples: int) -> int:
    """The number of images that "10%" or "5000" asks for, out of `examples`.

    Raises:
      UserError: the text is neither a share nor a count, or asks for as many as there are.
    """
    match = re.fullmatch(r"\s*(?:(?P<share>\d+(?:\.\d+)?)\s*%|(?P<count>\d+))\s*", validation)
    if match is None:
        raise UserError(
            f"config.data.validation={validation!r} is neither a share nor a count. Write a "
            "share of the training images as '10%', a count as '5000', or '0' for none."
        )
    share = float(match["share"] or 0)
    count = int(match["count"]) if match["count"] else int(share / 100 * examples + 0.5)
    if count >= examples:
        raise UserError(
            f"config.data.validation={validation!r} asks for {count:,} of {examples:,} training "
            "images and would leave none to train on. Ask for fewer, for example "
            "--config.data.validation=10%."
        )
    if share > 0 and count == 0:
        raise UserError(
            f"config.data.validation={validation!r} of {examples:,} training images is less than "
            "one image. Ask for more, or for none with --config.data.validation=0."
        )
    return count


def stratified(
    labels: Int32[np.ndarray, "examples"], count: int, seed: int
) -> Int64[np.ndarray, "{count}"]:
    """Draws `count` rows in which every class has its share, to within one image.

    Largest remainders get the images left over by rounding down; equal remainders go to the
    smaller label.

    Returns:
      The rows drawn, ascending.
    """
    classes, sizes = np.unique(labels, return_counts=True)
    quota, remainder = np.divmod(sizes * count, len(labels))
    leftover = count - quota.sum()
    quota[np.argsort(-remainder, kind="stable")[:leftover]] += 1
    shuffled = order.permutation(len(labels), (seed, _STREAM))
    drawn = [
        shuffled[labels[shuffled] == label][:size]
        for label, size in zip(classes, quota, strict=True)
    ]
    return np.sort(np.concatenate(drawn))
