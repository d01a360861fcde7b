"""Do shortcuts let networks grow deeper? Plain against residual networks (He et al. 2015).

    python -m imgrec.ablate --study=configs/studies/residual.py --plan    # the paper's recipe
    python -m imgrec.ablate --study=configs/studies/residual.py:cpu       # an hour on two cores

Each plain network is compared with the residual one of its depth, and the residual ones with
ResNet-20. "cpu" trains on 1,000 images a class at 16x16 pixels for four epochs: enough for the
degradation to show, and far too little for the paper's accuracies.
"""

from imgrec.ablation import Change, Published, Rate, Study

_CPU = {
    "data.per_class": 1000,
    "data.image_size": 16,
    "train.duration": "4ep",
    "eval.every": "4ep",
    "checkpoint.every": "1ep",
    "log.every": "20st",
    "log.tensorboard": False,
}


def get_study(scale: str = "") -> Study:
    """The paper's networks and recipe, or with "cpu" a short one."""
    if scale not in ("", "cpu"):
        raise ValueError(f"the scale is '' or 'cpu', not {scale!r}")
    cpu = scale == "cpu"
    changes = [Change("plain20", {"model.name": "plain20"})]
    for depth in (8, 32, 56) if cpu else (32, 44, 56):
        changes += [
            Change(f"resnet{depth}", {"model.name": f"resnet{depth}"}),
            Change(f"plain{depth}", {"model.name": f"plain{depth}"}, against=f"resnet{depth}"),
        ]
    published = {"resnet20": "8.75", "resnet32": "7.51", "resnet44": "7.17", "resnet56": "6.97"}
    names = {"resnet20", *(change.name for change in changes)}
    return Study(
        question="Do shortcuts let networks grow deeper? Plain and residual networks on CIFAR-10.",
        base="../cifar10_resnet.py" + (":cpu" if cpu else ""),
        base_name="resnet20",
        settings=_CPU if cpu else {},
        changes=changes,
        published=Published(
            source="He et al. 2015, table 6",
            metric="error on the CIFAR-10 test split, %",
            values={name: error for name, error in published.items() if name in names},
            note="The plain networks are in its figure 6, without numbers; of those for ImageNet "
            "table 2 has top-1 errors of 27.94 (plain-18), 28.54 (plain-34), 27.88 (ResNet-18) and "
            "25.03 % (ResNet-34)."
            + (
                " Theirs saw all images at 32x32 pixels, 64k steps long; only the order can be "
                "compared."
                if cpu
                else ""
            ),
        ),
        rate=Rate(4.5e10, "of residual networks on two cores of an AMD EPYC") if cpu else None,
    )
