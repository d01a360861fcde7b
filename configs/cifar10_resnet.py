"""ResNet-20 on CIFAR-10 (He et al. 2015, section 4.2): 8.75 % error in the paper.

    python -m imgrec.main --config=configs/cifar10_resnet.py       # 64k steps, as the paper
    python -m imgrec.main --config=configs/cifar10_resnet.py:cpu   # an hour or two on two cores
    python -m imgrec.main --config=configs/cifar10_resnet.py --config.model.name=resnet56

The default is the paper's recipe: SGD with momentum 0.9, batch 128, learning rate 0.1 divided
by 10 at 32k and 48k steps, weight decay 1e-4 on everything, 4 pixels padded and cropped, flips,
45k images to train on and 5k to validate. README's results table has what "cpu" reaches.
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
    """The paper's recipe, or with the argument "cpu" a short one."""
    if arg not in ("", "cpu"):
        raise ValueError(f"the argument is '' or 'cpu', not {arg!r}")
    experiment = Experiment(
        data=DataConfig(dataset="cifar10", batch_size=128, validation="5000"),
        augment=AugmentConfig(pad_crop=4, flip=True),
        model=ModelConfig(name="resnet20"),
        optimizer=OptimizerConfig(
            name="sgd",
            learning_rate=0.1,
            weight_decay=1e-4,
            weight_decay_rules=(),
            options=ConfigDict({"momentum": 0.9, "nesterov": False}),
        ),
        schedule=ScheduleConfig(name="step", options=ConfigDict({"at": ("50%", "75%")})),
        train=TrainConfig(duration="64000st"),
        eval=EvalConfig(every="5ep"),
        checkpoint=CheckpointConfig(every="1ep"),
        log=LogConfig(every="50st"),
    )
    if arg == "cpu":
        # One cycle with a strong peak gets most of the way in an eighth of the epochs.
        experiment.data.validation = "2000"
        experiment.optimizer.learning_rate = 0.2
        experiment.optimizer.weight_decay = 5e-4
        experiment.optimizer.weight_decay_rules = (("(.*/)?(bias|scale)", 0.0),)
        experiment.optimizer.options = ConfigDict({"momentum": 0.9, "nesterov": True})
        experiment.schedule = ScheduleConfig(
            name="one_cycle", options=ConfigDict({"peak_at": 0.25})
        )
        experiment.train.duration = "24ep"
        experiment.eval = EvalConfig(every="2ep", select="last")
    return experiment
