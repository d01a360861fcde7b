"""CIFAR-10 to 90 % in minutes on two CPU cores, in the spirit of airbench (Jordan 2024).

    python -m imgrec.main --config=configs/cifar10_fast.py --config.data.root=FOLDER
    python -m imgrec.bench --config=configs/cifar10_fast.py --what=to_accuracy --rounds=2

Four and a half epochs of airbench's network at half its width: a first layer that whitens 2x2
patches and is never trained, the partial identity, batch norms without scales, logits divided by
9; labels smoothed by 0.2, shifts of up to 2 pixels over mirrored borders, flips; the mean of an
image's and its mirror image's logits in the end. As in the recipe's later version the kernels
follow Muon (https://github.com/KellerJordan/cifar10-airbench), at a rate that falls in a straight
line. What differs is for the CPU's sake: a batch of 500, which costs it no more an image than one
of 2,000 and makes four times the steps; and the whitening's bias stays at 0, since its gradient
costs as much as another layer's. All 50,000 training images are trained on, and nothing is chosen
by validation; README's results say what it reaches.
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
        raise ValueError(f"cifar10_fast takes no argument, got {arg!r}")
    return Experiment(
        data=DataConfig(dataset="cifar10", batch_size=500, validation="0"),
        augment=AugmentConfig(pad_crop=2, pad_mode="reflect", flip=True),
        model=ModelConfig(name="airbench90", options=ConfigDict({"mirror": True})),
        optimizer=OptimizerConfig(
            name="muon",
            learning_rate=0.24,
            weight_decay=0.06,
            weight_decay_rules=(("(.*/)?bias|head/kernel", 0.0),),
            freeze=("whiten/bias",),
            options=ConfigDict({"beta": 0.6, "adam_scale": 0.05}),
        ),
        schedule=ScheduleConfig(name="linear"),
        train=TrainConfig(duration="4.5ep", label_smoothing=0.2),
        eval=EvalConfig(every="100%"),
        checkpoint=CheckpointConfig(every="100%", keep=1),
        log=LogConfig(every="50st", tensorboard=False),
    )
