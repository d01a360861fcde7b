"""Which choices matter for a plain ViT? Pooling, positions, patches, RandAugment and mixup.

    python -m imgrec.ablate --study=configs/studies/vit.py --plan   # ViT-S/16 on ImageNet
    python -m imgrec.ablate --study=configs/studies/vit.py:cpu      # a small one on Fashion-MNIST

The base has all that Beyer et al. 2022 chose, and each change takes one choice back. "cpu" trains
a ViT of six blocks on 1,000 images a class for five epochs: far from where augmentation pays.
"""

from imgrec.ablation import Change, Published, Rate, Study

_AUGMENTED = {"augment.policy": "randaugment", "augment.options": {"n": 2, "m": 10.0}}
_CPU = {
    "data.dataset": "fashion_mnist",
    "data.batch_size": 128,
    "data.validation": "5000",
    "data.per_class": 1000,
    "data.image_size": 0,
    "data.crop": "none",
    "data.threads": 4,
    "augment.pad_crop": 2,
    "augment.mean": (),
    "augment.std": (),
    "model.name": "vit_xs7",
    "schedule.warmup": "10%",
    "train.duration": "5ep",
    "eval.every": "5ep",
    "eval.select": "last",
    "log.every": "20st",
    "log.tensorboard": False,
}


def get_study(scale: str = "") -> Study:
    """ViT-S/16 by the paper's recipe of 90 epochs, or with "cpu" a small one by a short one."""
    if scale not in ("", "cpu"):
        raise ValueError(f"the scale is '' or 'cpu', not {scale!r}")
    cpu = scale == "cpu"
    patches = {4: "vit_xs4", 14: "vit_xs14"} if cpu else {14: "vit_s14", 32: "vit_s32"}
    return Study(
        question="Which choices matter for a plain vision transformer?",
        base="../imagenet_vit_s16.py",
        base_name="all_choices",
        settings=_AUGMENTED | (_CPU if cpu else {}),
        changes=[
            Change(
                "no_randaugment_no_mixup",
                {"augment.policy": "", "augment.options": {}, "augment.mixup": 0.0},
            ),
            Change("no_mixup", {"augment.mixup": 0.0}),
            Change("learned_positions", {"model.options.positions": "learned"}),
            Change("class_token", {"model.options.pool": "cls"}),
            *(Change(f"patch{size}", {"model.name": name}) for size, name in patches.items()),
        ],
        published=Published(
            source="Beyer et al. 2022, table 1",
            metric="top-1 accuracy of ViT-S/16 on ImageNet after 90 epochs, %",
            values={
                "all_choices": "76.5",
                "no_randaugment_no_mixup": "73.6",
                "learned_positions": "75.0",
                "class_token": "75.0",
            },
            note="Other patches, and mixup alone, are not in that table."
            + (" Only the order could be compared: ours is minutes long." if cpu else ""),
        ),
        rate=Rate(3e10, "taken for small transformers on two cores") if cpu else None,
    )
