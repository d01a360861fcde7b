"""CIFAR ResNets as others name them."""

from imgrec.models import ImageShape
from imgrec.models.resnet import CifarResNet
from imgrec.transfer import layers
from imgrec.transfer.mapping import Table

_STAGE_FEATURES = (16, 32, 64)


def akamaster(module: CifarResNet, image_shape: ImageShape) -> Table | None:
    """The names of https://github.com/akamaster/pytorch_resnet_cifar10.

    Its parameter-free shortcut (option A) pads the channels that are gained half before and
    half behind the old ones, ours all behind. Each computes the other's function once the
    channels of the later stages are put into another order, which is what happens here.
    """
    if module.attention != "none":
        return None
    orders = _orders() if module.shortcut == "A" else [list(range(n)) for n in _STAGE_FEATURES]
    entries = [*layers.conv("conv1", "stem/conv"), *layers.batch_norm("bn1", "stem/norm")]
    inputs = orders[0]
    for stage, outputs in enumerate(orders, start=1):
        for block in range((module.depth - 2) // 6):
            theirs, ours = f"layer{stage}.{block}", f"stage{stage}_block{block}"
            # Only what meets a shortcut is in another order, so a block's inside is not.
            entries += [
                *layers.conv(f"{theirs}.conv1", f"{ours}/conv1", inputs=inputs),
                *layers.batch_norm(f"{theirs}.bn1", f"{ours}/norm1"),
                *layers.conv(f"{theirs}.conv2", f"{ours}/conv2", outputs=outputs),
                *layers.batch_norm(f"{theirs}.bn2", f"{ours}/norm2", order=outputs),
            ]
            if module.shortcut == "B" and stage > 1 and block == 0:
                entries += [
                    *layers.conv(f"{theirs}.shortcut.0", f"{ours}/projection/conv"),
                    *layers.batch_norm(f"{theirs}.shortcut.1", f"{ours}/projection/norm"),
                ]
            inputs = outputs
    entries += layers.head("linear", inputs=inputs)
    return Table("akamaster/pytorch_resnet_cifar10", tuple(entries))


def _orders() -> list[list[int]]:
    """For each stage, which of their channels each of ours is."""
    orders = [list(range(_STAGE_FEATURES[0]))]
    for features in _STAGE_FEATURES[1:]:
        before = features // 4
        kept = [before + channel for channel in orders[-1]]
        gained = sorted(set(range(features)) - set(kept))
        orders.append(kept + gained)
    return orders
