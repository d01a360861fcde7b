"""ViT-S/16 on ImageNet: Beyer et al. 2022, "Better plain ViT baselines for ImageNet-1k".

    python -m imgrec.main --config=configs/imagenet_vit_s16.py --config.data.root=FOLDER
    python -m imgrec.prepare imagenet --from=FOLDER --to=PREPARED --short_side=256   # optional
    python -m imgrec.main --config=configs/imagenet_vit_s16.py \
      --config.data.dataset=prepared:PREPARED

The paper's ninety epochs: batch 1024, Inception crop, flips, mixup 0.2, fixed sine-cosine
positions, mean pooling, gradients clipped at 1, a warm-up of 10,000 steps and a cosine to zero.
Its weight decay of 1e-4 is not multiplied by the learning rate (1e-3) there; here it is, so that
0.1 is the same. The paper's RandAugment (2, 10) is not part of this recipe, so its accuracy (76.5 %
top-1) is not claimed. Ten thousand training images are held out to choose by.
"""

from ml_collections import ConfigDict

from imgrec.config import (
    AugmentConfig,
    DataConfig,
    EvalConfig,
    Experiment,
    ModelConfig,
    OptimizerConfig,
    ScheduleConfig,
    TrainConfig,
)


def get_config(arg: str = "") -> Experiment:
    """The experiment; it takes no argument."""
    if arg:
        raise ValueError(f"imagenet_vit_s16 takes no argument, got {arg!r}")
    return Experiment(
        data=DataConfig(
            dataset="imagenet",
            batch_size=1024,
            validation="10000",
            image_size=224,
            crop="inception",
            crop_area=(0.05, 1.0),  # the paper's code takes TensorFlow's default
            threads=16,
        ),
        augment=AugmentConfig(flip=True, mixup=0.2, mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5)),
        model=ModelConfig(
            name="vit_s16", options=ConfigDict({"pool": "mean", "positions": "sincos"})
        ),
        optimizer=OptimizerConfig(
            name="adamw", learning_rate=1e-3, weight_decay=0.1, clip_norm=1.0
        ),
        schedule=ScheduleConfig(name="cosine", warmup="10000st"),
        train=TrainConfig(duration="90ep"),
        eval=EvalConfig(every="5ep"),
    )
