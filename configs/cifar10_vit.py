"""ViT-Ti with 4x4 patches on CIFAR-10: a small-image variant of Dosovitskiy et al. 2020.

    python -m imgrec.main --config=configs/cifar10_vit.py
    python -m imgrec.main --config=configs/cifar10_vit.py --config.model.name=vit_s4

Fixed sine-cosine positions and mean pooling (Beyer et al. 2022), mixup and cutmix, a hundred
epochs. A recipe for GPUs; how its loss falls beside a reference implementation in PyTorch is
measured by scripts/compare_vit.py, its final accuracy is not claimed.
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
        raise ValueError(f"cifar10_vit takes no argument, got {arg!r}")
    return Experiment(
        data=DataConfig(dataset="cifar10", batch_size=256, validation="5000"),
        augment=AugmentConfig(pad_crop=4, flip=True, mixup=0.2, cutmix=1.0),
        model=ModelConfig(
            name="vit_ti4",
            options=ConfigDict(
                {"pool": "mean", "positions": "sincos", "dropout": 0.1, "stochastic_depth": 0.1}
            ),
        ),
        optimizer=OptimizerConfig(
            name="adamw", learning_rate=1e-3, weight_decay=0.1, clip_norm=1.0
        ),
        schedule=ScheduleConfig(name="cosine", warmup="10ep"),
        train=TrainConfig(duration="100ep", label_smoothing=0.1, ema=0.999),
        eval=EvalConfig(every="5ep"),
    )
