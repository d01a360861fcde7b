"""How much do more training images help? The same number of steps with ever more of them.

    python -m imgrec.ablate --study=configs/studies/data_amount.py --plan   # WRN-28-10, CIFAR-10
    python -m imgrec.ablate --study=configs/studies/data_amount.py:cpu      # Fashion-MNIST

The seeds share their images: the fewer are among the more. "cpu" trains the small CNN for 1,000
steps of 128 images.
"""

from imgrec.ablation import Change, Rate, Study

_CPU = {
    "train.duration": "1000st",
    "eval.every": "1000st",
    "checkpoint.every": "250st",
    "log.tensorboard": False,
}


def get_study(scale: str = "") -> Study:
    """A wide residual network for 70,000 steps, or with "cpu" a small one for 1,000."""
    if scale not in ("", "cpu"):
        raise ValueError(f"the scale is '' or 'cpu', not {scale!r}")
    cpu = scale == "cpu"
    most = 5500 if cpu else 4500
    settings = _CPU if cpu else {"train.duration": "70000st", "eval.every": "2000st"}
    settings |= {"checkpoint.every": "250st" if cpu else "2000st"}
    return Study(
        question="How much do more training images help? Images a class, at equal steps.",
        base="../fashion_mnist_cnn.py" if cpu else "../cifar10_wrn.py",
        base_name=f"images{most}",
        settings=settings | {"data.per_class": most},
        changes=[
            Change(f"images{count}", {"data.per_class": count})
            for count in (10, 30, 100, 300, 1000)
        ],
        axis="data.per_class",
        notes=("No published curve of this network and data is known to us.",),
        rate=Rate(5e10, "of the small CNN on two cores of an AMD EPYC") if cpu else None,
    )
