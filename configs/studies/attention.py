"""Do squeeze-excitation and CBAM help? Attention after every block of a CIFAR ResNet.

    python -m imgrec.ablate --study=configs/studies/attention.py --plan   # ResNet-110
    python -m imgrec.ablate --study=configs/studies/attention.py:cpu      # ResNet-20, half an hour

"cpu" trains on 1,000 images a class at 16x16 pixels for twelve epochs.
"""

from imgrec.ablation import Change, Published, Rate, Study

_CPU = {
    "data.per_class": 1000,
    "data.image_size": 16,
    "train.duration": "12ep",
    "eval.every": "12ep",
    "checkpoint.every": "2ep",
    "log.tensorboard": False,
}


def get_study(scale: str = "") -> Study:
    """ResNet-110 by the paper's recipe, or with "cpu" ResNet-20 by a short one."""
    if scale not in ("", "cpu"):
        raise ValueError(f"the scale is '' or 'cpu', not {scale!r}")
    cpu = scale == "cpu"
    return Study(
        question="Do squeeze-excitation and CBAM help a residual network on CIFAR-10?",
        base="../cifar10_resnet.py" + (":cpu" if cpu else ""),
        base_name="without",
        settings=_CPU if cpu else {"model.name": "resnet110"},
        changes=[
            Change("squeeze_excitation", {"model.options.attention": "se"}),
            Change("cbam", {"model.options.attention": "cbam"}),
        ],
        published=Published(
            source="Hu et al. 2017",
            metric="error of ResNet-110 on the CIFAR-10 test split, %",
            values={"without": "6.37", "squeeze_excitation": "5.21"},
            note="Read at second hand. The paper of CBAM (Woo et al. 2018) has no table of "
            "CIFAR-10 that we know of." + (" Ours is ResNet-20." if cpu else ""),
        ),
        rate=Rate(4.5e10, "of residual networks on two cores of an AMD EPYC") if cpu else None,
    )
