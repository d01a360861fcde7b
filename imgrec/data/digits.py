"""The 1,797 handwritten digits that ship inside scikit-learn: real data, nothing to download.

They come from the test part of the UCI set "Optical Recognition of Handwritten Digits"
(Alpaydin and Kaynak, 1998). Nobody published a split of them, and results differ by points
between the ones in use, because neighbouring images share a writer: name ours with a number.
"""

import numpy as np

from imgrec.data import splits
from imgrec.data.dataset import ArraySource, Info, Official, channel_statistics

_TEST_EXAMPLES = 359  # a fifth
_TEST_SEED = 0


def load() -> Official:
    """The digits as 8x8 grey images; the test split is a stratified, shuffled fifth."""
    # Here, because it takes a second that no other data set should wait for.
    from sklearn.datasets import load_digits

    digits = load_digits()
    images = np.rint(digits.images[..., None] * (255 / 16)).astype(np.uint8)
    labels = digits.target.astype(np.int32)
    held_out = splits.stratified(labels, _TEST_EXAMPLES, _TEST_SEED)
    kept = np.setdiff1d(np.arange(len(labels)), held_out)
    train = ArraySource(images[kept], labels[kept])
    mean, std = channel_statistics(train, sample=len(train))
    info = Info(
        name="digits",
        num_classes=10,
        class_names=tuple("0123456789"),
        image_shape=(8, 8, 1),
        mean=mean,
        std=std,
        source=(
            "scikit-learn's load_digits; no official split exists: test is a stratified, "
            f"shuffled fifth ({_TEST_EXAMPLES} images, fixed seed {_TEST_SEED}), train the rest"
        ),
    )
    return Official(train, ArraySource(images[held_out], labels[held_out]), info)
