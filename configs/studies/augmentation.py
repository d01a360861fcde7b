"""What is each augmentation worth by itself? Fashion-MNIST.

    python -m imgrec.ablate --study=configs/studies/augmentation.py --plan   # WRN-28-10
    python -m imgrec.ablate --study=configs/studies/augmentation.py:cpu      # the small CNN

"cpu" trains on 2,000 images a class for eight epochs; augmentation pays later than that, too.
"""

from imgrec.ablation import Change, Published, Rate, Study

_OFF = {"augment.pad_crop": 0, "augment.flip": False}
_CROP_FLIP = {"augment.pad_crop": 2, "augment.flip": True}
_CPU = {
    "data.per_class": 2000,
    "train.duration": "8ep",
    "eval.every": "8ep",
    "checkpoint.every": "2ep",
    "log.tensorboard": False,
}


def get_study(scale: str = "") -> Study:
    """A wide residual network for 200 epochs, or with "cpu" a small one for eight."""
    if scale not in ("", "cpu"):
        raise ValueError(f"the scale is '' or 'cpu', not {scale!r}")
    cpu = scale == "cpu"
    return Study(
        question="What is each augmentation worth by itself? Fashion-MNIST.",
        base="../fashion_mnist_cnn.py" if cpu else "../cifar10_wrn.py",
        base_name="none",
        settings=_OFF | (_CPU if cpu else {"data.dataset": "fashion_mnist"}),
        changes=[
            Change("crop", {"augment.pad_crop": 2}),
            Change("flip", {"augment.flip": True}),
            Change("crop_flip", _CROP_FLIP),
            Change("erasing", {**_CROP_FLIP, "augment.erasing": 0.5}, against="crop_flip"),
            Change("cutout", {"augment.cutout": 8}),
            Change("randaugment", {"augment.policy": "randaugment"}),
            Change("trivialaugment", {"augment.policy": "trivialaugment"}),
            Change("mixup", {"augment.mixup": 0.2}),
        ],
        published=Published(
            source="Zhong et al. 2017, Random Erasing",
            metric="error of WRN-28-10 on the Fashion-MNIST test split, %",
            values={"crop_flip": "4.01", "erasing": "3.65"},
            note="Read at second hand. The others are not in that paper."
            + (" Ours is a small network." if cpu else ""),
        ),
        rate=Rate(5e10, "of the small CNN on two cores of an AMD EPYC") if cpu else None,
    )
