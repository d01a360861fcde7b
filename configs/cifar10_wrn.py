"""WRN-28-10 on CIFAR-10 (Zagoruyko & Komodakis 2016): 4.00 % error in the paper.

    python -m imgrec.main --config=configs/cifar10_wrn.py
    python -m imgrec.main --config=configs/cifar10_wrn.py --config.model.name=wrn16_4

The paper's recipe: 200 epochs, batch 128, Nesterov, learning rate 0.1 times 0.2 at epochs 60,
120 and 160, weight decay 5e-4, reflected padding. A recipe for GPUs; not run to its end here.
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
        raise ValueError(f"cifar10_wrn takes no argument, got {arg!r}")
    return Experiment(
        data=DataConfig(dataset="cifar10", batch_size=128, validation="5000"),
        augment=AugmentConfig(pad_crop=4, pad_mode="reflect", flip=True),
        model=ModelConfig(name="wrn28_10"),
        optimizer=OptimizerConfig(
            name="sgd",
            learning_rate=0.1,
            weight_decay=5e-4,
            weight_decay_rules=(),
            options=ConfigDict({"momentum": 0.9, "nesterov": True}),
        ),
        schedule=ScheduleConfig(
            name="step", options=ConfigDict({"at": ("30%", "60%", "80%"), "factor": 0.2})
        ),
        train=TrainConfig(duration="200ep"),
        eval=EvalConfig(every="5ep"),
    )
