"""The small CNN on synthetic scenes: drawn on the spot, no files, a run of seconds.

python -m imgrec.main --config=configs/scenes_cnn.py
"""

from imgrec.config import (
    AugmentConfig,
    DataConfig,
    Experiment,
    LogConfig,
    ModelConfig,
    OptimizerConfig,
    TrainConfig,
)


def get_config(arg: str = "") -> Experiment:
    """The experiment; it takes no argument."""
    if arg:
        raise ValueError(f"scenes_cnn takes no argument, got {arg!r}")
    return Experiment(
        data=DataConfig(dataset="scenes", batch_size=64),
        augment=AugmentConfig(pad_crop=2, flip=True, cutout=4),
        model=ModelConfig(name="small_cnn"),
        optimizer=OptimizerConfig(name="adamw", learning_rate=3e-3, weight_decay=0.02),
        train=TrainConfig(duration="5ep", ema=0.99),
        log=LogConfig(every="1ep"),
    )
