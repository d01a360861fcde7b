"""How much do wrong labels hurt, and does mixup help against them?

    python -m imgrec.ablate --study=configs/studies/label_noise.py --plan   # ResNet-18, CIFAR-10
    python -m imgrec.ablate --study=configs/studies/label_noise.py:cpu      # Fashion-MNIST

A share of the training labels is made wrong; validation and test stay right, and the last
parameters are tested. Each row with mixup is compared with the one without. "cpu" trains the
small CNN on 2,000 images a class for eight epochs.
"""

from imgrec.ablation import Change, Published, Rate, Study

_CPU = {
    "data.per_class": 2000,
    "train.duration": "8ep",
    "eval.every": "8ep",
    "checkpoint.every": "2ep",
    "log.tensorboard": False,
}
_PAPER = {
    "model.name": "preact_resnet18",
    "model.options": {"stem": "small_images"},
    "augment.pad_mode": "constant",
    "optimizer.weight_decay": 1e-4,
    "schedule.options": {"at": ("50%", "75%"), "factor": 0.1},
    "eval.select": "last",
}


def get_study(scale: str = "") -> Study:
    """A pre-activation ResNet-18 for 200 epochs, or with "cpu" a small network for eight."""
    if scale not in ("", "cpu"):
        raise ValueError(f"the scale is '' or 'cpu', not {scale!r}")
    cpu = scale == "cpu"
    changes = [Change("mixup", {"augment.mixup": 1.0})]
    for percent, alpha in ((20, 8.0), (50, 32.0), (80, 32.0)):
        wrong = {"data.label_noise": percent / 100}
        name = f"wrong{percent}"
        changes += [
            Change(name, wrong),
            Change(f"{name}_mixup", wrong | {"augment.mixup": 1.0 if cpu else alpha}, against=name),
        ]
    return Study(
        question="How much do wrong labels hurt, and does mixup help against them?",
        base="../fashion_mnist_cnn.py" if cpu else "../cifar10_wrn.py",
        base_name="right",
        settings=_CPU if cpu else _PAPER,
        changes=changes,
        axis="data.label_noise",
        published=Published(
            source="Zhang et al. 2017, mixup, corrupted labels",
            metric="error on the CIFAR-10 test split after the last epoch, %",
            values={
                "wrong20": "16.6",
                "wrong20_mixup": "6.4",
                "wrong50": "44.6",
                "wrong50_mixup": "12.7",
                "wrong80": "73.9",
            },
            note="Read at second hand. Their mixup has alpha 8 at 20 % and 32 at 50 %; a random "
            "label there may be the right one by chance, and here it never is."
            + (" Ours is a small network on Fashion-MNIST, and alpha is 1." if cpu else ""),
        ),
        rate=Rate(5e10, "of the small CNN on two cores of an AMD EPYC") if cpu else None,
    )
