"""VGG with batch normalisation, as others name it.

Their first dense layer takes the last maps channel by channel, ours pixel by pixel.
"""

from collections.abc import Iterator

import numpy as np

from imgrec.models import ImageShape
from imgrec.models.vgg import POOLED, VGG
from imgrec.transfer import layers
from imgrec.transfer.mapping import Entry, Table
from imgrec.transfer.turns import CONV, shaped


def torchvision(module: VGG, image_shape: ImageShape) -> Table:
    """The names of torchvision."""
    by_channel = np.arange(_channels(module) * POOLED**2).reshape(-1, POOLED, POOLED)
    by_pixel = by_channel.transpose(1, 2, 0).ravel().tolist()
    entries = [
        *_features(module),
        *layers.linear("classifier.0", "fc1", inputs=by_pixel),
        *layers.linear("classifier.3", "fc2"),
        *layers.head("classifier.6"),
    ]
    return Table("torchvision", tuple(entries))


def timm(module: VGG, image_shape: ImageShape) -> Table:
    """The names of timm, whose first two dense layers are convolutions.

    Of images larger than 224x224 it averages what these make of every 7x7 pixels of the last
    maps, where torchvision and we average the maps; up to that size it is the same.
    """
    channels, hidden = _channels(module), module.hidden
    flat = shaped((POOLED, POOLED, channels, hidden), (POOLED**2 * channels, hidden))
    first = Entry(("pre_logits.fc1.weight",), ("params/fc1/kernel",), CONV.then(flat))
    entries = [
        *_features(module),
        first,
        Entry(("pre_logits.fc1.bias",), ("params/fc1/bias",)),
        *layers.pointwise("pre_logits.fc2", "fc2"),
        *layers.head("head.fc"),
    ]
    return Table("timm", tuple(entries))


def _channels(module: VGG) -> int:
    """Of the last maps."""
    return 8 * module.width


def _features(module: VGG) -> Iterator[Entry]:
    """Convolutions, norms, rectifiers and poolings are numbered through."""
    place = 0
    for stage, count in enumerate(module.layers, start=1):
        for layer in range(count):
            ours = f"stage{stage}_layer{layer}"
            yield from layers.conv(f"features.{place}", f"{ours}/conv", bias=True)
            yield from layers.batch_norm(f"features.{place + 1}", f"{ours}/norm")
            place += 3
        place += 1
