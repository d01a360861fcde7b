"""Is it better to scale depth, width and resolution together? EfficientNet's compound scaling.

    python -m imgrec.ablate --study=configs/studies/scaling.py --plan   # B0 on ImageNet
    python -m imgrec.ablate --study=configs/studies/scaling.py:cpu      # a smaller one on CIFAR-10

Each row has about four times the arithmetic of the base, spent in another way. The paper trains
with RMSProp; here it is SGD with momentum, so the order is to be compared and not the figures.
"""

from imgrec.ablation import Change, Published, Rate, Study

_IMAGENET = {
    "model.name": "efficientnet_w1_d1",
    "model.options": {},
    "augment.mixup": 0.0,
    "augment.policy": "autoaugment_imagenet",
    "optimizer.name": "sgd",
    "optimizer.learning_rate": 0.4,
    "optimizer.weight_decay": 1e-5,
    "optimizer.clip_norm": 0.0,
    "schedule.warmup": "5ep",
    "train.duration": "350ep",
    "train.ema": 0.9999,
    "train.label_smoothing": 0.1,
}
_CPU = {
    "model.name": "efficientnet_w0.5_d0.5",
    "model.options": {"dropout": 0.0, "stochastic_depth": 0.0},
    "data.per_class": 1000,
    "data.image_size": 32,
    "optimizer.learning_rate": 0.1,
    "train.duration": "6ep",
    "eval.every": "6ep",
    "log.every": "20st",
    "log.tensorboard": False,
}


def get_study(scale: str = "") -> Study:
    """B0 on ImageNet, or with "cpu" half its width and depth on CIFAR-10."""
    if scale not in ("", "cpu"):
        raise ValueError(f"the scale is '' or 'cpu', not {scale!r}")
    cpu = scale == "cpu"
    # Width, depth and side of the images.
    scaled = {
        "depth": ("0.5", "2", 32) if cpu else ("1", "4", 224),
        "width": ("1", "0.5", 32) if cpu else ("2", "1", 224),
        "resolution": ("0.5", "0.5", 64) if cpu else ("1", "1", 448),
        "compound": ("0.6", "0.7", 48) if cpu else ("1.2", "1.4", 291),
    }
    return Study(
        question="Is it better to scale depth, width and resolution together? EfficientNet.",
        base="../cifar10_resnet.py:cpu" if cpu else "../imagenet_vit_s16.py",
        base_name="unscaled",
        settings=_CPU if cpu else _IMAGENET,
        changes=[
            Change(
                name,
                {"model.name": f"efficientnet_w{width}_d{depth}", "data.image_size": side},
            )
            for name, (width, depth, side) in scaled.items()
        ],
        published=Published(
            source="Tan and Le 2019, table 7",
            metric="top-1 accuracy on ImageNet, %",
            values={
                "unscaled": "77.3",
                "depth": "79.0",
                "width": "78.9",
                "resolution": "79.1",
                "compound": "81.1",
            },
            note="Theirs scale B0 by d=4, w=2, r=2, and by d=1.4, w=1.2, r=1.3 together."
            + (" Ours scale half of B0, on small images enlarged." if cpu else ""),
        ),
        rate=Rate(1e10, "taken for depthwise convolutions on two cores") if cpu else None,
    )
