"""The small CNN on Fashion-MNIST (Xiao et al. 2017), with the flips that clothes allow.

python -m imgrec.main --config=configs/fashion_mnist_cnn.py --config.data.root=FOLDER
"""

from imgrec.config import (
    AugmentConfig,
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
        raise ValueError(f"fashion_mnist_cnn takes no argument, got {arg!r}")
    return Experiment(
        data=DataConfig(dataset="fashion_mnist", batch_size=128, validation="5000"),
        augment=AugmentConfig(pad_crop=2, flip=True),
        model=ModelConfig(name="small_cnn"),
        optimizer=OptimizerConfig(name="adamw", learning_rate=3e-3, weight_decay=0.02),
        schedule=ScheduleConfig(name="one_cycle"),
        train=TrainConfig(duration="20ep"),
        eval=EvalConfig(every="1ep", select="last"),
        log=LogConfig(every="100st"),
    )
