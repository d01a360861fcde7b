"""Your own images, one folder a class or a manifest: ResNet-20 on 64x64, in one command.

    python -m imgrec.main --config=configs/folder.py --config.data.dataset=folder:PATH
    python -m imgrec.main --config=configs/folder.py --config.data.dataset=folder:images.csv \
        --config.data.group=person

PATH holds class/*.jpg, or train/class/*.jpg and test/class/*.jpg. Splits that are not given are
made by the files' content, 80 % to train on and 10 % each to choose by and to test; the run folder
keeps them in splits.csv. A run of a thousand photographs takes some minutes on a laptop; more
pixels (--config.data.image_size=128) and a longer run (--config.train.duration=100ep) usually
pay where there are more images.
"""

from ml_collections import ConfigDict

from imgrec.config import (
    AugmentConfig,
    CheckpointConfig,
    DataConfig,
    EvalConfig,
    Experiment,
    LogConfig,
    ModelConfig,
    OptimizerConfig,
    ScheduleConfig,
    TrainConfig,
)


def get_config(arg: str = "") -> Experiment:
    """The experiment; it takes no argument."""
    if arg:
        raise ValueError(
            f"folder takes no argument, got {arg!r}; write --config.data.dataset=folder:{arg}"
        )
    return Experiment(
        data=DataConfig(
            dataset="folder:images",
            batch_size=32,
            validation="10%",
            test="10%",
            image_size=64,
            crop="inception",
            # A net from scratch and few images: milder crops than ImageNet's 8 %.
            crop_area=(0.35, 1.0),
        ),
        augment=AugmentConfig(flip=True),
        model=ModelConfig(name="resnet20"),
        optimizer=OptimizerConfig(
            name="sgd",
            learning_rate=0.05,
            weight_decay=5e-4,
            clip_norm=5.0,
            options=ConfigDict({"momentum": 0.9, "nesterov": True}),
        ),
        schedule=ScheduleConfig(name="cosine", warmup="5%"),
        # Few images make few steps: the average over them is steadier than the last.
        train=TrainConfig(duration="30ep", label_smoothing=0.1, ema=0.99),
        eval=EvalConfig(every="1ep"),
        checkpoint=CheckpointConfig(every="5ep"),
        log=LogConfig(every="1ep"),
    )
