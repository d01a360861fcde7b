"""ResNet-56 on CIFAR-100, by the recipe of He et al. 2015 for CIFAR-10.

python -m imgrec.main --config=configs/cifar100_resnet.py --config.data.root=FOLDER
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
        raise ValueError(f"cifar100_resnet takes no argument, got {arg!r}")
    return Experiment(
        data=DataConfig(dataset="cifar100", batch_size=128, validation="5000"),
        augment=AugmentConfig(pad_crop=4, flip=True),
        model=ModelConfig(name="resnet56"),
        optimizer=OptimizerConfig(
            name="sgd",
            learning_rate=0.1,
            weight_decay=5e-4,
            options=ConfigDict({"momentum": 0.9, "nesterov": True}),
        ),
        schedule=ScheduleConfig(name="cosine", warmup="1ep"),
        train=TrainConfig(duration="182ep"),
        eval=EvalConfig(every="5ep"),
    )
